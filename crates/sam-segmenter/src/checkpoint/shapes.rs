//! Names and shapes of a state dictionary: all that is needed to tell which model it is of.

use std::collections::BTreeMap;

/// PyTorch's data parallel wrapper puts it before every name.
const MODULE: &str = "module.";

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

    /// The names as the model has them, and what was taken off.
    pub(super) fn without_module_prefix(self) -> (Self, &'static str) {
        if self.0.is_empty() || !self.0.keys().all(|name| name.starts_with(MODULE)) {
            return (self, "");
        }
        let stripped = self.0.into_iter().map(|(name, shape)| (name[MODULE.len()..].to_owned(), shape));
        (stripped.collect(), MODULE)
    }
}
