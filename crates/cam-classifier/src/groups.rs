//! The names under which configurations know the classifiers' parameters.

use stage_api::Group;

pub(crate) const PARAMETERS: Group = Group::trainable("classifier");
pub(crate) const STATISTICS: Group = Group::statistics("classifier");
