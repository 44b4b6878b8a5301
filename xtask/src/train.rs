//! `cargo xtask train`: one training run. Without arguments: the quickstart, from set-up to report.

use anyhow::Result;
use std::process::ExitCode;

use crate::binary::{self, DATA, Forwarded, PHANTOM, REPORT, SAM_MIX};
use crate::chain::Chain;
use crate::prepare::{self, PHANTOM_STORE};
use crate::setup;
use crate::workspace::Workspace;

pub const ABOUT: &str = "Train; without arguments, the whole way on synthetic data";

pub const EXAMPLES: &str = "\
Without arguments: sets up what is missing, makes synthetic data, trains configs/quickstart.toml, evaluates on the \
test patients and writes a report. Interrupted, the same command goes on; finished, it starts runs/quickstart-2.

With arguments: starts `sam-mix train` with them.

Examples:
  cargo xtask train
  cargo xtask train --config configs/lits-mini.toml --store stores/lits --run runs/lits
  cargo xtask train --config configs/lits-mini.toml --store stores/lits --run runs/lits --resume";

const CONFIGURATION: &str = "configs/quickstart.toml";

pub fn run(workspace: &Workspace, forwarded: &Forwarded) -> Result<ExitCode> {
    if forwarded.asks_for_help() {
        return binary::help(workspace, "train", &SAM_MIX, &["train"]);
    }
    if !forwarded.arguments.is_empty() {
        return binary::start(workspace, &SAM_MIX, &["train"], &forwarded.arguments);
    }
    quickstart(workspace)
}

fn quickstart(workspace: &Workspace) -> Result<ExitCode> {
    let mut chain = Chain::begin(workspace, "cargo xtask train")?;
    chain.part("set-up", || setup::ensure(workspace))?;
    chain.part("building", || binary::build(workspace, &[&PHANTOM, &DATA, &SAM_MIX, &REPORT]))?;
    prepare::phantom(workspace, &mut chain)?;

    let Run { directory, begun } = next_run(workspace);
    // A begun run has its own configuration.
    let how: &[&str] = if begun { &["--resume"] } else { &["--config", CONFIGURATION] };
    let train = [&["train", "--store", PHANTOM_STORE, "--run", &directory], how].concat();
    chain.program("training", &SAM_MIX, &train)?;
    let evaluate = ["evaluate", "--run", &directory, "--store", PHANTOM_STORE, "--split", "test"];
    chain.program("evaluation", &SAM_MIX, &evaluate)?;
    chain.program("report", &REPORT, &[directory.as_str()])?;

    let report = workspace.root().join(&directory).join("report.html");
    println!("\n{}report: {}", chain.summary(), report.display());
    Ok(ExitCode::SUCCESS)
}

struct Run {
    directory: String,
    /// Training has something to resume; resuming a finished training does nothing.
    begun: bool,
}

/// The first quickstart run without a report, which is what a run ends with.
fn next_run(workspace: &Workspace) -> Run {
    let names =
        (1..).map(|number| if number == 1 { "runs/quickstart".into() } else { format!("runs/quickstart-{number}") });
    let unfinished = |directory: &String| !workspace.root().join(directory).join("report.html").exists();
    let directory = { names }.find(unfinished).unwrap_or_default();
    Run { begun: workspace.root().join(&directory).join("run.json").exists(), directory }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn an_interrupted_quickstart_is_resumed_and_a_finished_one_is_kept() {
        let root = tempfile::tempdir().unwrap();
        let workspace = Workspace::at(root.path());
        let next = || {
            let Run { directory, begun } = next_run(&workspace);
            (directory, begun)
        };
        assert_eq!(next(), ("runs/quickstart".into(), false));
        fs::create_dir_all(root.path().join("runs/quickstart")).unwrap();
        assert_eq!(next(), ("runs/quickstart".into(), false));
        fs::write(root.path().join("runs/quickstart/run.json"), "").unwrap();
        assert_eq!(next(), ("runs/quickstart".into(), true));
        fs::write(root.path().join("runs/quickstart/report.html"), "").unwrap();
        assert_eq!(next(), ("runs/quickstart-2".into(), false));
    }
}
