//! The verbs that only start a program, as a table.

use anyhow::Result;
use std::process::ExitCode;

use crate::binary::{self, Binary, DATA, Forwarded, LABELS, REPORT, SAM_MIX, STUDY};
use crate::workspace::Workspace;

/// A verb and what it becomes.
pub struct Pass {
    verb: &'static str,
    pub about: &'static str,
    pub examples: &'static str,
    binary: &'static Binary,
    /// The program's own verb, where it has several.
    subcommand: &'static [&'static str],
    /// What the program starts in its turn.
    starts: &'static [&'static Binary],
}

pub const INSPECT: Pass = Pass {
    verb: "inspect",
    about: "Show what is in a slice store, as numbers and as a picture",
    examples: "\
Starts `sam-mix-data inspect` with the given arguments.

Examples:
  cargo xtask inspect stores/phantom
  cargo xtask inspect stores/phantom --montage phantom.png",
    binary: &DATA,
    subcommand: &["inspect"],
    starts: &[],
};

pub const EVALUATE: Pass = Pass {
    verb: "evaluate",
    about: "Measure a trained run on the patients of a split",
    examples: "\
Starts `sam-mix evaluate` with the given arguments.

Examples:
  cargo xtask evaluate --run runs/quickstart --store stores/phantom --split test",
    binary: &SAM_MIX,
    subcommand: &["evaluate"],
    starts: &[],
};

pub const CHOOSE: Pass = Pass {
    verb: "choose",
    about: "Choose the slices that are to be drawn next",
    examples: "\
Starts `sam-mix choose` with the given arguments.

Examples:
  cargo xtask choose --store stores/ours --config configs/lits-mini.toml --budget 50 --output worklist \\
    --set 'sampling.split={fractions={train=0.7,validation=0.1,test=0.2}}'",
    binary: &SAM_MIX,
    subcommand: &["choose"],
    starts: &[],
};

pub const IMPORT_LABELS: Pass = Pass {
    verb: "import-labels",
    about: "Import masks that annotators drew into a slice store",
    examples: "\
Starts `sam-mix-labels import` with the given arguments.

Examples:
  cargo xtask import-labels --store stores/ours --from drawn/ --worklist worklist/worklist.csv
  cargo xtask import-labels --store stores/ours --from liver.seg.nrrd --case volume-3
  cargo xtask import-labels --store stores/ours --undo volume-3",
    binary: &LABELS,
    subcommand: &["import"],
    starts: &[],
};

pub const PREDICT: Pass = Pass {
    verb: "predict",
    about: "Write masks for CT volumes, in the volumes' own geometry",
    examples: "\
Starts `sam-mix predict` with the given arguments.

Examples:
  cargo xtask predict --run runs/quickstart --input ct.nii.gz --output mask.nii.gz",
    binary: &SAM_MIX,
    subcommand: &["predict"],
    starts: &[],
};

pub const EXPORT: Pass = Pass {
    verb: "export",
    about: "Write a run's segmenter as plain SAM weights, TorchScript or adapters",
    examples: "\
Starts `sam-mix export` with the given arguments.

Examples:
  cargo xtask export --run runs/quickstart --to safetensors
  cargo xtask export --run runs/quickstart --to torchscript --output exported/
  cargo xtask export --weights sam_vit_b_01ec64.pth --to torchscript --output sam-vit-b/",
    binary: &SAM_MIX,
    subcommand: &["export"],
    starts: &[],
};

pub const REPORT_OF_RUN: Pass = Pass {
    verb: "report",
    about: "Write a run's report: one self-contained HTML page",
    examples: "\
Starts `sam-mix-report` with the given arguments.

Examples:
  cargo xtask report runs/quickstart
  cargo xtask report runs/quickstart --output quickstart.html",
    binary: &REPORT,
    subcommand: &[],
    starts: &[],
};

pub const RUNS: Pass = Pass {
    verb: "runs",
    about: "List runs with their best metrics",
    examples: "\
Starts `sam-mix-study runs` with the given arguments.

Examples:
  cargo xtask runs
  cargo xtask runs ~/experiments --json",
    binary: &STUDY,
    subcommand: &["runs"],
    starts: &[],
};

pub const STUDY_OF_MODELS: Pass = Pass {
    verb: "study",
    about: "Train and evaluate a grid of models, budgets and seeds, and write tables and plots",
    examples: "\
Starts `sam-mix-study study` with the given arguments.

Examples:
  cargo xtask study configs/studies/lits-mini.toml --plan
  cargo xtask study configs/studies/lits-mini.toml --backend slurm
  cargo xtask study status configs/studies/lits-mini.toml
  cargo xtask study configs/studies/lits-mini.toml --output results",
    binary: &STUDY,
    subcommand: &["study"],
    starts: &[&DATA, &SAM_MIX],
};

impl Pass {
    pub fn run(&self, workspace: &Workspace, forwarded: &Forwarded) -> Result<ExitCode> {
        if forwarded.asks_for_help() {
            return binary::help(workspace, self.verb, self.binary, self.subcommand);
        }
        let verb = forwarded.arguments.first().and_then(|first| first.to_str());
        let only_looks = forwarded.asks_for("--plan") || matches!(verb, Some("status" | "cancel"));
        if !only_looks {
            binary::provide(workspace, self.starts)?;
        }
        binary::start(workspace, self.binary, self.subcommand, &forwarded.arguments)
    }
}
