//! Where the pretrained weights are.

use crate::config::SegmenterConfig;
use anyhow::{Context, Result, ensure};
use std::path::PathBuf;

/// Where `cargo xtask setup` puts the pretrained weights, from the workspace's root.
pub(crate) const INSTALLED_WEIGHTS: &str = ".deps/weights/lite_medsam.pth";

/// The configured file, or the installed one, looked for from the working directory upward.
pub fn weights_path(config: &SegmenterConfig) -> Result<PathBuf> {
    if let Some(path) = config.weights.clone().or_else(|| std::env::var_os("SAM_MIX_WEIGHTS").map(PathBuf::from)) {
        ensure!(
            path.is_file(),
            "the pretrained weights '{}' are not there: fetch them, or name another file with --weights FILE \
             (docs/how-to/other-checkpoints.md says which load)",
            path.display()
        );
        return Ok(path);
    }
    let start = std::env::current_dir().context("the working directory can't be read")?;
    start.ancestors().map(|d| d.join(INSTALLED_WEIGHTS)).find(|p| p.is_file()).with_context(|| {
        format!(
            "the pretrained weights '{INSTALLED_WEIGHTS}' are not there: `cargo xtask setup` installs them; \
             --weights FILE (or segmenter.weights in the configuration) takes others"
        )
    })
}
