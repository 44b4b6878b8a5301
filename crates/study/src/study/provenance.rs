//! Where results come from: commit, machine, day.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

const NO_CHECKOUT: &str = "unknown (no git checkout)";

/// The commit of the checkout that we are in, and whether files that it tracks were changed, but for the one that is being written.
pub fn commit(output: Option<&Path>) -> String {
    let root = git(Path::new("."), &["rev-parse", "--show-toplevel"]).map(PathBuf::from);
    root.map_or_else(|| NO_CHECKOUT.into(), |root| commit_of(&root, output))
}

fn git(folder: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(folder).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn commit_of(root: &Path, output: Option<&Path>) -> String {
    let git = |arguments: &[&str]| git(root, arguments);
    let Some(head) = git(&["rev-parse", "--short=12", "HEAD"]) else { return NO_CHECKOUT.into() };
    let but = output.and_then(|path| std::path::absolute(path).ok()).filter(|path| path.starts_with(root));
    let but = but.map(|path| format!(":(exclude,top){}", path.strip_prefix(root).unwrap_or(&path).display()));
    let mut status = vec!["status", "--porcelain", "--untracked-files=no", "--", "."];
    status.extend(but.as_deref());
    match git(&status) {
        Some(changes) if changes.is_empty() => head,
        _ => format!("{head} with local changes"),
    }
}

/// Processor and number of cores.
pub fn machine() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(':'));
    let processor = line.map_or("unknown processor", |(_, name)| name.trim());
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    format!("{processor}, {cores} cores")
}

/// Today (UTC) as `2026-01-31`.
pub fn today() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    run_record::utc(seconds).split(' ').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_of_the_output_alone_leave_the_tree_clean() {
        let folder = tempfile::tempdir().unwrap();
        let git = |arguments: &[&str]| {
            let set = ["-c", "user.name=a", "-c", "user.email=a@b"];
            assert!(
                Command::new("git").arg("-C").arg(folder.path()).args(set).args(arguments).status().unwrap().success()
            );
        };
        let (output, other) = (folder.path().join("o.md"), folder.path().join("other"));
        fs::write(&output, "1").unwrap();
        fs::write(&other, "1").unwrap();
        git(&["init", "-q"]);
        git(&["add", "."]);
        git(&["commit", "-qm", "a"]);
        fs::write(&output, "2").unwrap();
        assert_eq!(commit_of(folder.path(), Some(&output)).len(), 12);
        assert!(commit_of(folder.path(), None).ends_with("with local changes"));
        fs::write(&other, "2").unwrap();
        assert!(commit_of(folder.path(), Some(&output)).ends_with("with local changes"));
    }
}
