//! A study's runs as jobs of SLURM: an array whose tasks train a run each, an array whose tasks evaluate them as soon as they are
//! trained, and a job that writes the results of what is done.
//!
//! Invariant: a run that waits or runs in SLURM's queue is not given to it again.

mod jobs;
mod queue;
mod status;
mod task;

use anyhow::{Context, Result, bail, ensure};
use run_record::write_whole;
use std::ffi::OsString;
use std::fmt::Write;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::experiment::{Experiment, Job as Run, Progress};
use super::plan::shown;
use super::slurm_settings::Settings;
use super::{Args, command, output};
use crate::programs::Programs;
use jobs::{Job, JobFile, What, comment, folder, log};
use queue::Entry;

pub use status::{
    CANCEL_ABOUT, CANCEL_EXAMPLES, CancelArgs, STATUS_ABOUT, STATUS_EXAMPLES, StatusArgs, cancel, status,
};
pub use task::{TASK_ABOUT, TaskArgs, task};

/// What a submission comes to.
struct Submission<'a> {
    args: &'a Args,
    settings: Settings,
    study: String,
    runs: PathBuf,
    file: JobFile,
    queue: Vec<Entry>,
    /// Numbers of runs to be trained, and evaluated then.
    train: Vec<usize>,
    /// Of runs that are trained and lack an evaluation.
    evaluate: Vec<usize>,
}

/// Submits what is neither done nor in the queue.
pub fn submit(args: &Args, experiment: &mut Experiment) -> Result<ExitCode> {
    let settings = experiment.slurm.with(&args.slurm)?;
    let runs = args.grid.runs_folder(&experiment.file);
    if args.plan {
        let (queue, note) = match queue::of_study(&comment(&runs)?) {
            Ok(queue) => (queue, String::new()),
            Err(error) => (Vec::new(), format!("# what is in the queue is not known: {error:#}\n")),
        };
        let submission = Submission::new(args, settings, experiment, runs, queue)?;
        print!("{note}{}", submission.plan()?);
        return Ok(ExitCode::SUCCESS);
    }
    let missing = experiment.missing();
    ensure!(missing.is_empty(), "the study can't begin:\n- {}", missing.join("\n- "));
    let results = args.results(&runs);
    output::check_place(&results, &experiment.title, args.overwrite)?;
    fs::create_dir_all(folder(&runs)).with_context(|| format!("cannot make '{}'", folder(&runs).display()))?;
    let _lock = lock(&folder(&runs))?;
    experiment.read_checksums(&Programs::begin(&command())?)?;
    let queue = queue::of_study(&comment(&runs)?)?;
    let mut submission = Submission::new(args, settings, experiment, runs, queue)?;
    submission.check_known()?;
    submission.submit()?;
    Ok(ExitCode::SUCCESS)
}

/// Whether jobs of the study are in the queue, before its runs are made here.
pub fn check_none(runs: &Path) -> Result<()> {
    if !JobFile::path(&folder(runs)).exists() {
        return Ok(());
    }
    match queue::of_study(&comment(runs)?) {
        Ok(queue) if queue.is_empty() => Ok(()),
        Ok(queue) => bail!(
            "{} of the study in SLURM's queue ({}, …): `study status` says how far they are, `study cancel` ends them",
            slice_store::counted(queue.len(), "job"),
            queue[0].name()
        ),
        Err(error) => {
            eprintln!("warning: whether SLURM works on these runs is not known: {error:#}");
            Ok(())
        }
    }
}

/// What a run lacks in the results, and why.
pub fn not_done(experiment: &Experiment, run: &Run, runs: &Path) -> Vec<String> {
    let log = log(runs, &run.name());
    let words = |what| status::reason(&log, what).unwrap_or_else(|| "it has no log: it was never submitted".into());
    let folder = run.run.display();
    if run.progress() != Progress::Finished {
        return vec![format!("training of '{folder}': {}", words(What::Train))];
    }
    let stores = experiment.evaluations(run).into_iter();
    stores
        .map(|of| format!("evaluation of '{folder}' on '{}': {}", Path::new(&of[4]).display(), words(What::Evaluate)))
        .collect()
}

/// Held by whoever submits.
fn lock(folder: &Path) -> Result<File> {
    let path = folder.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot write '{}'", path.display()))?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => bail!("the study is being submitted by another command: wait for its end"),
        // Without a lock, on a file system that has none: the queue is asked in any case.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(file),
    }
}

impl<'a> Submission<'a> {
    fn new(
        args: &'a Args,
        settings: Settings,
        experiment: &Experiment,
        runs: PathBuf,
        queue: Vec<Entry>,
    ) -> Result<Self> {
        let mut file = JobFile::load(&folder(&runs))?;
        let (mut train, mut evaluate) = (Vec::new(), Vec::new());
        for job in &experiment.jobs {
            let number = file.number(&job.name());
            let is_queued = queue.iter().any(|entry| entry.task == Some(number));
            if is_queued {
                continue;
            }
            if job.progress() != Progress::Finished {
                train.push(number);
            } else if !experiment.evaluations(job).is_empty() {
                evaluate.push(number);
            }
        }
        train.sort_unstable();
        evaluate.sort_unstable();
        let study = experiment.file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { args, settings, study, runs, file, queue, train, evaluate })
    }

    /// A job that is not in the job file, because the command that submitted it was killed, may be of any run.
    fn check_known(&self) -> Result<()> {
        let unknown: Vec<&str> =
            self.queue.iter().map(|entry| entry.job.as_str()).filter(|id| self.file.what(id).is_none()).collect();
        ensure!(
            unknown.is_empty(),
            "SLURM's queue has a job of this study that '{}' doesn't know: wait for its end, or `scancel {}`",
            JobFile::path(&folder(&self.runs)).display(),
            unknown[0]
        );
        Ok(())
    }

    /// What is to be submitted, in this order.
    fn jobs(&self) -> Vec<(What, &[usize])> {
        let arrays = [(What::Train, &self.train[..]), (What::Evaluate, &self.train), (What::Evaluate, &self.evaluate)];
        let mut jobs: Vec<_> = arrays.into_iter().filter(|(_, tasks)| !tasks.is_empty()).collect();
        let has_table = self.queue.iter().any(|entry| self.file.what(&entry.job) == Some(What::Table));
        if !jobs.is_empty() || !has_table {
            jobs.push((What::Table, &[]));
        }
        jobs
    }

    fn submit(&mut self) -> Result<()> {
        let jobs: Vec<(What, Vec<usize>)> =
            self.jobs().into_iter().map(|(what, tasks)| (what, tasks.to_vec())).collect();
        let waiting = self.queue.len();
        if waiting > 0 {
            println!("{} of the study in the queue already", slice_store::counted(waiting, "job"));
        }
        if jobs.is_empty() {
            println!("nothing to submit: `study status` says how far the runs are");
        }
        self.file.command = command();
        let mut submitted: Vec<String> = Vec::new();
        for (what, tasks) in jobs {
            let path = folder(&self.runs).join(format!("{}.sh", what.name()));
            write_whole(&path, self.script(what, &tasks)?.as_bytes())?;
            for &number in &tasks {
                self.link_log(number)?;
            }
            let id = queue::submit(&self.arguments(what, &tasks, &submitted)?).with_context(|| {
                let before = submitted.join(", ");
                if before.is_empty() {
                    String::from("nothing was submitted")
                } else {
                    format!("only {before} was submitted")
                }
            })?;
            let count = if tasks.is_empty() {
                String::new()
            } else {
                format!(", {}", slice_store::counted(tasks.len(), "run"))
            };
            println!("{}: job {id}{count}", what.name());
            self.file.jobs.push(Job { id: id.clone(), what, tasks });
            self.file.save(&folder(&self.runs))?;
            submitted.push(id);
        }
        Ok(())
    }

    /// SLURM names logs by numbers, people by runs.
    fn link_log(&self, number: usize) -> Result<()> {
        let log = log(&self.runs, &self.file.runs[number]);
        let link = folder(&self.runs).join(format!("{number}.log"));
        let make = || -> std::io::Result<()> {
            File::options().append(true).create(true).open(&log)?;
            if link.symlink_metadata().is_err() {
                #[cfg(unix)]
                std::os::unix::fs::symlink(log.file_name().unwrap_or_default(), &link)?;
            }
            Ok(())
        };
        make().with_context(|| format!("cannot write '{}'", log.display()))
    }

    /// The arguments of `sbatch`; `before` are the jobs of this submission so far.
    fn arguments(&self, what: What, tasks: &[usize], before: &[String]) -> Result<Vec<OsString>> {
        let Settings { partition, account, time, evaluation_time, mem, cpus, gres, signal_seconds, at_once, options } =
            &self.settings;
        let folder = comment(&self.runs)? + "/slurm";
        let mut all: Vec<String> = vec![
            "--parsable".into(),
            format!("--job-name={}-{}", self.study, what.name()),
            format!("--comment={}", comment(&self.runs)?),
            "--nodes=1".into(),
            "--ntasks=1".into(),
            "--requeue".into(),
            // A task that is requeued goes on in its log.
            "--open-mode=append".into(),
        ];
        let mut add = |name: &str, value: Option<&String>| all.extend(value.map(|value| format!("--{name}={value}")));
        add("partition", partition.as_ref());
        add("account", account.as_ref());
        add("mem", mem.as_ref());
        add("time", if what == What::Train { time.as_ref() } else { evaluation_time.as_ref().or(time.as_ref()) });
        if what == What::Table {
            all.push(format!("--output={folder}/table.log"));
        } else {
            add("gres", gres.as_ref());
            let numbers: Vec<String> = tasks.iter().map(ToString::to_string).collect();
            let at_once = at_once.map_or_else(String::new, |number| format!("%{number}"));
            all.push(format!("--cpus-per-task={cpus}"));
            all.push(format!("--array={}{at_once}", numbers.join(",")));
            all.push(format!("--output={folder}/%a.log"));
        }
        if what == What::Train {
            // To the batch script's process alone, which is ours by then.
            all.push(format!("--signal=B:USR1@{signal_seconds}"));
        }
        let dependency = match what {
            // Task by task, and only after a training that ended well.
            What::Evaluate if tasks == self.train => before.first().map(|id| format!("aftercorr:{id}")),
            What::Train | What::Evaluate => None,
            What::Table => {
                let mut ids: Vec<&str> = self.queue.iter().map(|entry| entry.job.as_str()).collect();
                ids.extend(before.iter().map(String::as_str));
                ids.sort_unstable();
                ids.dedup();
                (!ids.is_empty()).then(|| format!("afterany:{}", ids.join(":")))
            }
        };
        if let Some(dependency) = dependency {
            // Or it would wait for ever, where what it waits for has failed.
            all.extend([format!("--dependency={dependency}"), "--kill-on-invalid-dep=yes".into()]);
        }
        all.extend(options.iter().cloned());
        let script = folder + "/" + what.name() + ".sh";
        all.push(script);
        Ok(all.into_iter().map(OsString::from).collect())
    }

    /// What SLURM starts: the shell becomes our program, so that signals reach it.
    fn script(&self, what: What, tasks: &[usize]) -> Result<String> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let mut line: Vec<OsString> = vec![program.into(), "study".into(), "task".into(), what.name().into()];
        line.extend(self.args.grid.arguments());
        line.extend(self.args.means.arguments());
        if what == What::Table {
            line.extend(self.args.output.iter().flat_map(|output| ["--output".into(), output.into()]));
            line.extend(self.args.overwrite.then(|| "--overwrite".into()));
            return Ok(format!("#!/bin/sh\n{}\n", shown("exec", line)));
        }
        let mut text = String::from("#!/bin/sh\ncase $SLURM_ARRAY_TASK_ID in\n");
        for &number in tasks {
            // Writing to a text can't fail.
            let _ = writeln!(text, "{number}) run={} ;;", self.file.runs[number]);
        }
        let _ = writeln!(text, "*) echo \"error: no run has the number $SLURM_ARRAY_TASK_ID\" >&2; exit 1 ;;\nesac");
        let _ = writeln!(text, "{} --only \"$run\"", shown("exec", line));
        Ok(text)
    }

    /// What would be submitted, as it would be by hand.
    fn plan(&self) -> Result<String> {
        let (mut text, mut before) = (String::new(), Vec::new());
        if !self.queue.is_empty() {
            let names: Vec<String> = self.queue.iter().map(Entry::name).collect();
            let _ = writeln!(text, "# in the queue: {}", names.join(", "));
        }
        for (what, tasks) in self.jobs() {
            let script = self.script(what, tasks)?;
            let commented = format!("#     {}", script.trim_end().replace('\n', "\n#     "));
            let _ = writeln!(text, "{}\n{commented}\n", shown("sbatch", self.arguments(what, tasks, &before)?));
            before.push(format!("JOB-{}", before.len() + 1));
        }
        Ok(text)
    }
}
