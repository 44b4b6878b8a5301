//! Refusals of settings that a network can't be built with.

use std::fmt::{Debug, Display};
use std::ops::RangeBounds;

use anyhow::{Result, ensure};

/// Refuses a value out of its range; `expected` says the range with its unit.
pub(crate) fn within<T: PartialOrd + Display>(
    key: &str,
    value: &T,
    range: &impl RangeBounds<T>,
    expected: &str,
) -> Result<()> {
    demand(range.contains(value), key, format_args!("{value}"), expected)
}

/// Refuses a value that doesn't hold what is `expected` of it.
pub(crate) fn demand(holds: bool, key: &str, found: impl Display, expected: &str) -> Result<()> {
    ensure!(holds, "segmenter.settings.{key} is {found}, expected {expected}");
    Ok(())
}

/// Refuses a list of which a value is out of its range.
pub(crate) fn each_within<T: PartialOrd + Debug>(
    key: &str,
    values: &[T],
    range: &impl RangeBounds<T>,
    expected: &str,
) -> Result<()> {
    demand(values.iter().all(|value| range.contains(value)), key, format_args!("{values:?}"), expected)
}
