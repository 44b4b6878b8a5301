//! Several programs one after another, each timed. On Ctrl-C the running program ends in its own way (training saves
//! a checkpoint) and no further one is started.

use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::binary::Binary;
use crate::workspace::Workspace;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// The parts done so far, with their wall times.
pub struct Chain<'a> {
    workspace: &'a Workspace,
    /// The command that goes on where an interrupted chain ended.
    resumed_by: String,
    parts: Vec<(&'static str, Duration)>,
}

impl<'a> Chain<'a> {
    pub fn begin(workspace: &'a Workspace, resumed_by: impl Into<String>) -> Result<Self> {
        // A terminal sends Ctrl-C to the program that runs as well: it decides, we wait for it.
        ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::SeqCst)).context("cannot listen for Ctrl-C")?;
        Ok(Self { workspace, resumed_by: resumed_by.into(), parts: Vec::new() })
    }

    /// Runs one part; what it takes counts towards the last part of the same name.
    pub fn part<T>(&mut self, name: &'static str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let start = Instant::now();
        let outcome = work();
        if interrupted() {
            bail!("interrupted during {name}; `{}` goes on from there", self.resumed_by);
        }
        match self.parts.last_mut() {
            Some((last, time)) if *last == name => *time += start.elapsed(),
            _ => self.parts.push((name, start.elapsed())),
        }
        outcome
    }

    /// Runs a built program at the root of the checkout.
    pub fn program<S: AsRef<OsStr>>(&mut self, name: &'static str, binary: &Binary, arguments: &[S]) -> Result<()> {
        let resumed_by = self.resumed_by.clone();
        let mut command = Command::new(self.workspace.program(binary.name));
        // It leaves to us to say how to go on.
        command.current_dir(self.workspace.root()).args(arguments).env("SAM_MIX_IN_CHAIN", "1");
        self.part(name, || {
            let shown: Vec<_> = arguments.iter().map(|argument| argument.as_ref().to_string_lossy()).collect();
            eprintln!("\n> {} {}", binary.name, shown.join(" "));
            let status = command.status().with_context(|| format!("cannot start {}", binary.name))?;
            if status.code() == Some(130) {
                // It was told of Ctrl-C, of which the thread that listens for us may not know yet.
                INTERRUPTED.store(true, Ordering::SeqCst);
            }
            match status.code() {
                Some(0) => Ok(()),
                Some(_) => bail!("{} failed ({status}): its message is above", binary.name),
                None => bail!("{} was killed ({status}); `{resumed_by}` goes on from there", binary.name),
            }
        })
    }

    /// One line per part.
    pub fn summary(&self) -> String {
        let together = ("together", self.parts.iter().map(|(_, time)| *time).sum());
        let line = |(name, time): &(&str, Duration)| format!("  {name:<11}{:>12}\n", readable(*time));
        self.parts.iter().chain([&together]).map(line).collect::<Vec<_>>().concat()
    }
}

fn readable(time: Duration) -> String {
    match time.as_secs() {
        0..60 => format!("{:.1} s", time.as_secs_f64()),
        seconds @ 60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        seconds => format!("{} h {:02} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_a_person_says_them() {
        let shown = [0.04, 59.94, 60.0, 3599.0, 3660.0].map(|seconds| readable(Duration::from_secs_f64(seconds)));
        assert_eq!(shown, ["0.0 s", "59.9 s", "1 min 00 s", "59 min 59 s", "1 h 01 min"]);
    }
}
