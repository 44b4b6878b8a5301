//! Names and shapes of a state dictionary: all that is needed to tell which model it is of.

use std::collections::BTreeMap;

/// The parts of a SAM, by which the names of its tensors begin.
pub(crate) const PARTS: [&str; 3] = ["image_encoder", "prompt_encoder", "mask_decoder"];

/// Shapes by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shapes(BTreeMap<String, Vec<i64>>);

impl FromIterator<(String, Vec<i64>)> for Shapes {
    fn from_iter<I: IntoIterator<Item = (String, Vec<i64>)>>(all: I) -> Self {
        Self(all.into_iter().collect())
    }
}

impl Shapes {
    pub(crate) fn get(&self, name: &str) -> Option<&[i64]> {
        self.0.get(name).map(Vec::as_slice)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &[i64])> {
        self.0.iter().map(|(name, shape)| (name.as_str(), shape.as_slice()))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<Vec<i64>> {
        self.0.remove(name)
    }

    /// How many parts there are under `prefix` by their numbers: one more than the highest, but not more than there are
    /// tensors in all, lest a number in a name decides how long the reader works.
    pub(crate) fn count(&self, prefix: &str) -> usize {
        let parts = self.0.keys().filter_map(|name| name.strip_prefix(prefix)?.split('.').next()?.parse().ok());
        parts.max().map_or(0, |highest: usize| highest.saturating_add(1).min(self.len()))
    }

    /// The names as the model has them, and what was taken off: what all names share, up to a dot, as wrappers put it before
    /// them (`module.`, `_orig_mod.`, `model.`, several of them). A part of the model is none.
    pub(super) fn without_shared_prefix(self) -> (Self, String) {
        let shared = match (self.0.first_key_value(), self.0.last_key_value()) {
            (Some((first, _)), Some((last, _))) => shared_prefix(first, last),
            _ => "",
        };
        let shared = shared.to_owned();
        if shared.is_empty() {
            return (self, shared);
        }
        let stripped = self.0.into_iter().map(|(name, shape)| (name[shared.len()..].to_owned(), shape));
        (stripped.collect(), shared)
    }
}

/// Of the first and the last name in their order, and so of all between them.
fn shared_prefix<'a>(first: &'a str, last: &str) -> &'a str {
    let segments = first.split_inclusive('.').zip(last.split_inclusive('.'));
    let shared = segments
        .take_while(|(a, b)| a == b && a.strip_suffix('.').is_some_and(|part| !PARTS.contains(&part)))
        .map(|(segment, _)| segment.len())
        .sum();
    &first[..shared]
}
