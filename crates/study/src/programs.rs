//! The programs that a study starts. On Ctrl-C the running one ends in its own way (training saves a checkpoint) and no further
//! one is started.

use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub const DATA: &str = "sam-mix-data";
pub const SAM_MIX: &str = "sam-mix";

/// Somebody wants this program to end: Ctrl-C, SIGTERM.
static TOLD_TO_END: AtomicBool = AtomicBool::new(false);
/// A program that it started was interrupted.
static CHILD_INTERRUPTED: AtomicBool = AtomicBool::new(false);

pub fn interrupted() -> bool {
    told_to_end() || CHILD_INTERRUPTED.load(Ordering::SeqCst)
}

/// Whether this program itself was told to end, and not a program that it started alone.
pub fn told_to_end() -> bool {
    TOLD_TO_END.load(Ordering::SeqCst)
}

/// The programs that lie beside this one.
pub struct Programs {
    folder: PathBuf,
    /// The command that goes on where an interrupted one ended.
    resumed_by: String,
    /// Whether the time that a cluster gives is nearly over.
    time_is_up: Arc<AtomicBool>,
}

impl Programs {
    pub fn begin(resumed_by: &str) -> Result<Self> {
        // A terminal sends Ctrl-C to the program that runs as well, and SLURM its SIGTERM: it decides, we wait for it.
        ctrlc::set_handler(|| TOLD_TO_END.store(true, Ordering::SeqCst)).context("cannot listen for Ctrl-C")?;
        let own = std::env::current_exe().context("cannot find this program's own file")?;
        let folder = own.parent().context("this program is in no folder")?.to_path_buf();
        Ok(Self { folder, resumed_by: resumed_by.into(), time_is_up: Arc::default() })
    }

    /// The same in a job, to which `--signal=B:USR1@SECONDS` says that its time is nearly over: to this program alone, which
    /// tells the one that runs.
    pub fn begin_in_job(resumed_by: &str) -> Result<Self> {
        let programs = Self::begin(resumed_by)?;
        #[cfg(unix)]
        signal_hook::flag::register(signal_hook::consts::SIGUSR1, programs.time_is_up.clone())
            .context("cannot listen for SIGUSR1")?;
        Ok(programs)
    }

    pub fn time_is_up(&self) -> bool {
        self.time_is_up.load(Ordering::SeqCst)
    }

    pub fn command(&self, name: &str) -> Command {
        Command::new(self.folder.join(format!("{name}{}", std::env::consts::EXE_SUFFIX)))
    }

    /// Runs a program to its end. What it prints goes to standard error: standard output is for our results.
    pub fn run<S: AsRef<OsStr>>(&self, what: &str, name: &str, arguments: &[S]) -> Result<()> {
        let shown: Vec<_> = arguments.iter().map(|argument| argument.as_ref().to_string_lossy()).collect();
        eprintln!("\n> {name} {}", shown.join(" "));
        let mut command = self.command(name);
        // It leaves to us to say how to go on.
        command.stdout(std::io::stderr()).args(arguments).env("SAM_MIX_IN_CHAIN", "1");
        let child = command.spawn();
        let status = child.and_then(|child| self.wait(child)).with_context(|| format!("cannot start {name}"));
        // It was told of Ctrl-C, of which the thread that listens for us may not know yet; or killed by our signal before it
        // listened for any.
        if matches!(&status, Ok(status) if status.code() == Some(130) || self.time_is_up() && status.code().is_none()) {
            CHILD_INTERRUPTED.store(true, Ordering::SeqCst);
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

    fn wait(&self, mut child: Child) -> std::io::Result<ExitStatus> {
        while !self.time_is_up() {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        // Once: a second one would end it without a checkpoint.
        terminate(&child);
        child.wait()
    }
}

/// Tells a program to save and to end. It has not been waited for, so that the number is still its own.
#[cfg(unix)]
fn terminate(child: &Child) {
    use nix::sys::signal::{Signal, kill};
    // It fails only where the program has ended.
    let _ = kill(nix::unistd::Pid::from_raw(child.id() as i32), Signal::SIGTERM);
}

#[cfg(not(unix))]
fn terminate(_: &Child) {}
