//! Parameters by the pattern of their names: `*` stands for any characters, `?` for one.

use anyhow::{Result, bail};

/// Whether the whole of `name` fits `pattern`.
pub fn matches(pattern: &str, name: &str) -> bool {
    fn fits(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern, name) {
            ([], []) => true,
            ([b'*', rest @ ..], _) => (0..=name.len()).any(|i| fits(rest, &name[i..])),
            ([p, pattern @ ..], [n, name @ ..]) if *p == b'?' || p == n => fits(pattern, name),
            _ => false,
        }
    }
    fits(pattern.as_bytes(), name.as_bytes())
}

/// The names that fit; an error with the nearest names if there is none. `key` is where the pattern was given.
pub fn matching<'a>(key: &str, pattern: &str, names: impl Iterator<Item = &'a str> + Clone) -> Result<Vec<&'a str>> {
    let found: Vec<&str> = names.clone().filter(|name| matches(pattern, name)).collect();
    if found.is_empty() {
        let plain = pattern.replace(['*', '?'], "");
        let mut near: Vec<&str> = names.collect();
        near.sort_by(|a, b| strsim::jaro_winkler(b, &plain).total_cmp(&strsim::jaro_winkler(a, &plain)));
        let near: Vec<String> = near.iter().take(3).map(|name| format!("`{name}`")).collect();
        bail!(
            "`{key}` has the pattern \"{pattern}\", which fits no parameter; the nearest are {} (`*` stands for any \
             characters)",
            near.join(", ")
        );
    }
    Ok(found)
}
