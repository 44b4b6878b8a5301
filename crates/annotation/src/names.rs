//! Which of a file's segments is meant: by its name, never by its number, since the same organ has another number in another file.

use crate::AnnotationError;
use std::path::Path;

/// A segment as a file calls it.
pub(crate) struct Named {
    /// Its label.
    pub name: String,
    /// The meaning of its code, where the format has one: what it is, whatever its label says.
    pub meaning: Option<String>,
}

/// The segment that is called so, letter case and spaces around apart: the one with that label, or, if there is none, the one whose
/// code means that.
pub(crate) fn choose(path: &Path, name: &str, all: &[Named]) -> Result<usize, AnnotationError> {
    let is = |text: &str| text.trim().to_lowercase() == name.trim().to_lowercase();
    let places = |found: &dyn Fn(&Named) -> bool| -> Vec<usize> {
        all.iter().enumerate().filter(|(_, named)| found(named)).map(|(place, _)| place).collect()
    };
    let mut meant = places(&|named| is(&named.name));
    if meant.is_empty() {
        meant = places(&|named| named.meaning.as_deref().is_some_and(is));
    }
    let (path, name) = (path.to_path_buf(), name.escape_debug().to_string());
    match meant[..] {
        [one] => Ok(one),
        [] => Err(AnnotationError::NoSegment { path, name, list: list(all) }),
        _ => Err(AnnotationError::SeveralSegments { path, name, number: meant.len(), list: list(all) }),
    }
}

/// `'Liver', 'Segment_2' (Spleen)`.
fn list(all: &[Named]) -> String {
    let line = |named: &Named| {
        let meaning = named.meaning.as_ref().filter(|meaning| !meaning.eq_ignore_ascii_case(&named.name));
        let meaning = meaning.map_or_else(String::new, |meaning| format!(" ({})", meaning.escape_debug()));
        format!("'{}'{meaning}", named.name.escape_debug())
    };
    if all.is_empty() { "none".to_owned() } else { all.iter().map(line).collect::<Vec<_>>().join(", ") }
}

/// The places of the named ones among all.
pub(crate) fn chosen(path: &Path, names: &[&str], all: &[Named]) -> Result<Vec<usize>, AnnotationError> {
    names.iter().map(|name| choose(path, name, all)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(pairs: &[(&str, &str)]) -> Vec<Named> {
        let named = |(name, meaning): &(&str, &str)| Named {
            name: (*name).to_owned(),
            meaning: (!meaning.is_empty()).then(|| (*meaning).to_owned()),
        };
        pairs.iter().map(named).collect()
    }

    #[test]
    fn a_label_counts_before_a_meaning_and_one_of_several_is_never_guessed() {
        let path = Path::new("a.dcm");
        let all = named(&[("Tumour", "Liver"), (" LIVER ", "Organ"), ("Segment 3", "Spleen")]);
        assert_eq!(choose(path, "liver", &all).unwrap(), 1);
        assert_eq!(choose(path, "spleen", &all).unwrap(), 2);
        let error = choose(path, "Kidney", &all).unwrap_err().to_string();
        assert!(
            error.contains("no segment with the name 'Kidney'; its segments: 'Tumour' (Liver), ' LIVER ' (Organ)"),
            "{error}"
        );
        let all = named(&[("liver", ""), ("Liver", "")]);
        let error = choose(path, "liver", &all).unwrap_err().to_string();
        assert!(
            error.contains("2 segments with the name 'liver', expected one (its segments: 'liver', 'Liver')"),
            "{error}"
        );
        let error = choose(path, "Liver", &[]).unwrap_err().to_string();
        assert!(error.contains("its segments: none"), "{error}");
    }
}
