//! The programs that a study starts. On Ctrl-C the running one ends in its own way (training saves a checkpoint) and no further
//! one is started.

use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

pub const DATA: &str = "sam-mix-data";
pub const SAM_MIX: &str = "sam-mix";

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// The programs that lie beside this one.
pub struct Programs {
    folder: PathBuf,
    /// The command that goes on where an interrupted one ended.
    resumed_by: String,
}

impl Programs {
    pub fn begin(resumed_by: &str) -> Result<Self> {
        // A terminal sends Ctrl-C to the program that runs as well: it decides, we wait for it.
        ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::SeqCst)).context("cannot listen for Ctrl-C")?;
        let own = std::env::current_exe().context("cannot find this program's own file")?;
        let folder = own.parent().context("this program is in no folder")?.to_path_buf();
        Ok(Self { folder, resumed_by: resumed_by.into() })
    }

    pub fn command(&self, name: &str) -> Command {
        Command::new(self.folder.join(format!("{name}{}", std::env::consts::EXE_SUFFIX)))
    }

    /// Runs a program to its end. What it prints goes to standard error: standard output is for our results.
    pub fn run<S: AsRef<OsStr>>(&self, what: &str, name: &str, arguments: &[S]) -> Result<()> {
        let shown: Vec<_> = arguments.iter().map(|argument| argument.as_ref().to_string_lossy()).collect();
        eprintln!("\n> {name} {}", shown.join(" "));
        let status = self.command(name).stdout(std::io::stderr()).args(arguments).status();
        let status = status.with_context(|| format!("cannot start {name}"));
        if matches!(&status, Ok(status) if status.code() == Some(130)) {
            // It was told of Ctrl-C, of which the thread that listens for us may not know yet.
            INTERRUPTED.store(true, Ordering::SeqCst);
        }
        if interrupted() {
            bail!("interrupted during {what}; `{}` goes on from there", self.resumed_by);
        }
        let status = status?;
        match status.code() {
            Some(0) => Ok(()),
            Some(_) => bail!("{name} failed ({status}): its message is above"),
            None => bail!("{name} was killed ({status}); `{}` goes on from there", self.resumed_by),
        }
    }
}
