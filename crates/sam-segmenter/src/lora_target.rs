//! Which maps of an attention block have adapters.

use serde::{Deserialize, Serialize};

/// A linear map of an attention block that can have an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoraTarget {
    /// Queries.
    Q,
    /// Keys.
    K,
    /// Values.
    V,
    /// The map behind attention.
    Proj,
    /// Both maps of the perceptron.
    Mlp,
}

impl LoraTarget {
    /// All of them, in the order in which they are listed.
    pub(crate) const ALL: [Self; 5] = [Self::Q, Self::K, Self::V, Self::Proj, Self::Mlp];

    /// The name in configurations and files.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Q => "q",
            Self::K => "k",
            Self::V => "v",
            Self::Proj => "proj",
            Self::Mlp => "mlp",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|target| target.name() == name)
    }

    /// `q,v`.
    pub(crate) fn list(targets: &[Self]) -> String {
        let names: Vec<&str> = targets.iter().map(|target| target.name()).collect();
        names.join(",")
    }
}
