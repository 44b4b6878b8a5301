//! Whether what a page shows can be typed: without the data that it is about.
//!
//! A program is started where there are no data: it must complain of that, and not of how it was called. A training has a store, and
//! must get as far as writing its run, for which there is no place. So the programs' own definitions of verbs, flags and keys
//! decide, and nothing is repeated here.

use crate::checkout::{Checkout, Patients, program_of, repository};
use crate::page::{self, Command, Fault, Kind, Page};
use crate::shell;
use std::fs;
use std::path::{Path, PathBuf};

/// Stands for a configuration that the reader has made: what the pages say to copy.
const CONFIGURATION: &str = "configs/lits-mini.toml";

/// A store of patients that `CONFIGURATION` names.
const STORE: &str = "checked-store";

/// A run that can't be: in a file.
const NO_RUN: &str = "configs/quickstart.toml/run";

/// Verbs of xtask that are no other program's.
const OWN_VERBS: [&str; 5] = ["setup", "doctor", "test", "parity", "fuzz"];

/// A path that begins so is one of the repository's.
const FOLDERS: [&str; 5] = ["configs/", "crates/", "data-manifests/", "docs/", "xtask/"];

/// A checkout that lacks what the pages' commands read.
pub struct Checker(Checkout);

impl Checker {
    pub fn new() -> Self {
        let checkout = Checkout::new();
        checkout.patients("checked-data", Patients::Eleven);
        let line = format!("sam-mix-data prepare --manifest phantom --data checked-data --store {STORE}");
        assert!(checkout.shell(&line).status.success(), "{line}");
        Self(checkout)
    }

    /// What is wrong with a page.
    pub fn faults(&self, text: &str) -> Vec<Fault> {
        let Page { commands, configurations, mut faults } = page::read(text);
        let mut folder = PathBuf::new();
        let mut block = None;
        for Command { line, text, block: of, kind } in commands {
            if block != Some(of) {
                (block, folder) = (Some(of), PathBuf::new());
            }
            let parts = shell::commands(&text);
            let mut check = |words: &Vec<String>| self.command(words, &mut folder, kind);
            let outcome = parts.and_then(|parts| parts.iter().try_for_each(&mut check));
            faults.extend(outcome.err().map(|what| Fault::new(line, what)));
        }
        for (line, keys) in configurations {
            faults.extend(self.configuration(&keys).err().map(|what| Fault::new(line, what)));
        }
        faults
    }

    /// A simple command, given in `folder` of the repository.
    fn command(&self, words: &[String], folder: &mut PathBuf, kind: Kind) -> Result<(), String> {
        let Some(([program], arguments)) = words.split_at_checked(1) else { return Ok(()) };
        for path in words.iter().filter(|word| FOLDERS.iter().any(|folder| word.starts_with(folder))) {
            exists(path)?;
        }
        match program.strip_prefix("target/release/").unwrap_or(program) {
            "cd" => {
                *folder = folder.join(arguments.first().ok_or("cd without a folder")?);
                exists(folder)
            }
            // Of the reader's own files.
            "cp" | "export" => Ok(()),
            "cargo" => self.cargo(arguments, kind),
            "python" => script(folder, arguments),
            "pip" => match arguments {
                [install, r, file] if (install.as_str(), r.as_str()) == ("install", "-r") => exists(folder.join(file)),
                _ => Err("pip without `install -r FILE`".into()),
            },
            // What they start is checked, but for the flag that only a build with MPI takes.
            "mpirun" | "srun" => {
                let place = arguments.iter().position(|word| word.contains("sam-mix")).ok_or("no program of ours")?;
                let own: Vec<String> = arguments[place + 1..].iter().filter(|word| *word != "--mpi").cloned().collect();
                self.program("sam-mix", &[], &own, kind)
            }
            program if program.starts_with("sam-mix") => self.program(program, &[], arguments, kind),
            _ => Err(format!("'{program}' is no command that this test knows")),
        }
    }

    fn cargo(&self, arguments: &[String], kind: Kind) -> Result<(), String> {
        let (own, forwarded) = match arguments.iter().position(|argument| argument == "--") {
            Some(place) => (&arguments[..place], &arguments[place + 1..]),
            None => (arguments, &[][..]),
        };
        match arguments.first().map(String::as_str) {
            Some("xtask") => match arguments.get(1).map(String::as_str) {
                // What follows a benchmark's name is its own.
                Some("bench") => self.help("xtask", &arguments[1..2]),
                Some(verb) if OWN_VERBS.contains(&verb) => self.help("xtask", &arguments[1..]),
                Some(verb) => self.program("xtask", &[verb], &arguments[2..], kind),
                None => Ok(()),
            },
            Some("build" | "test") if value(own, "-p").is_none() => Ok(()),
            // A program of the reader's own, which takes what ours takes.
            Some("run") if value(own, "-p").is_none() => self.program("sam-mix", &[], forwarded, kind),
            Some("run" | "build" | "test") => {
                let package = value(own, "-p").unwrap_or_default();
                let place = Path::new("crates").join(package);
                exists(&place)?;
                match value(own, "--example") {
                    Some(example) => exists(place.join("examples").join(format!("{example}.rs"))),
                    None if arguments[0] == "run" => {
                        let program = program_of(package).ok_or_else(|| format!("'{package}' has no program"))?;
                        self.program(&program, &[], forwarded, kind)
                    }
                    None => Ok(()),
                }
            }
            _ => Err(format!("'cargo {}' is no command that this test knows", arguments.join(" "))),
        }
    }

    /// Starts a program where there are no data.
    fn program(&self, name: &str, verb: &[&str], arguments: &[String], kind: Kind) -> Result<(), String> {
        let all: Vec<String> = verb.iter().map(ToString::to_string).chain(arguments.iter().cloned()).collect();
        if let Some(manifest) = value(arguments, "--manifest").filter(|name| Path::new(name).extension().is_none()) {
            exists(Path::new("data-manifests").join(format!("{manifest}.json")))?;
        }
        // The generator of phantoms would be content; xtask's verbs without arguments go the whole way.
        let is_name = arguments.is_empty() || kind == Kind::Inline && all.len() == 1;
        if is_name || name == "sam-mix-phantom" {
            return self.help(name, &all);
        }
        let is_training = all[0] == "train" && !all.iter().any(|argument| argument == "--resume");
        let keys = values(arguments, "--set");
        if is_training {
            return self.trains(name, &all, value(arguments, "--config").filter(|path| path.starts_with("configs/")));
        }
        if !keys.is_empty() {
            let training = ["train", "--config", "", "--store", "", "--run", ""].into_iter();
            let training = training.chain(keys.iter().flat_map(|key| ["--set", key])).map(str::to_owned);
            self.trains("sam-mix", &training.collect::<Vec<_>>(), None)?;
        }
        let output = self.0.program(name, &all);
        if output.status.code() == Some(2) { Err(complaint(&output)) } else { Ok(()) }
    }

    /// Whether a training that is asked for so would begin, if its store were there.
    fn trains(&self, program: &str, arguments: &[String], configuration: Option<&str>) -> Result<(), String> {
        let mut arguments = arguments.to_vec();
        let given = [("--config", configuration.unwrap_or(CONFIGURATION)), ("--store", STORE), ("--run", NO_RUN)];
        for (flag, value) in given {
            // As it is, where it lacks the flag.
            if let Some(place) = arguments.iter().position(|argument| argument == flag)
                && let Some(own) = arguments.get_mut(place + 1)
            {
                value.clone_into(own);
            }
        }
        let output = self.0.program(program, &arguments);
        let said = complaint(&output);
        let is_of_the_place = said.contains(NO_RUN) || said.contains("weights");
        if output.status.code() == Some(1) && is_of_the_place { Ok(()) } else { Err(said) }
    }

    fn help(&self, program: &str, arguments: &[String]) -> Result<(), String> {
        let arguments: Vec<String> = arguments.iter().cloned().chain(["--help".into()]).collect();
        let output = self.0.program(program, &arguments);
        if output.status.success() { Ok(()) } else { Err(complaint(&output)) }
    }

    /// Keys that a page shows, in the place of a configuration's own.
    fn configuration(&self, keys: &str) -> Result<(), String> {
        if keys.contains("[package]") {
            // A manifest of cargo's.
            return Ok(());
        }
        if keys.contains("[[model]]") {
            let shown = "configs/studies/shown.toml";
            fs::write(self.0.root().join(shown), keys).map_err(|error| error.to_string())?;
            let output = self.0.program("xtask", &["study", shown, "--plan", "--commands"].map(str::to_owned));
            return if output.status.success() { Ok(()) } else { Err(complaint(&output)) };
        }
        let shown = "configs/shown.toml";
        fs::write(self.0.root().join(shown), with_keys(CONFIGURATION, keys)?).map_err(|error| error.to_string())?;
        let training = ["train", "--config", "", "--store", "", "--run", ""];
        self.trains("sam-mix", &training.map(str::to_owned), Some(shown))
    }
}

/// A configuration of the repository with these keys in the place of its own; a table in a table is replaced whole.
pub fn with_keys(configuration: &str, keys: &str) -> Result<String, String> {
    let text = fs::read_to_string(repository().join(configuration)).map_err(|error| error.to_string())?;
    let mut table: toml::Table = text.parse().expect("a configuration is TOML");
    let keys: toml::Table = keys.parse().map_err(|error: toml::de::Error| error.to_string())?;
    for (key, value) in keys {
        match (table.get_mut(&key), value) {
            (Some(toml::Value::Table(own)), toml::Value::Table(inner)) => own.extend(inner),
            (_, value) => drop(table.insert(key, value)),
        }
    }
    Ok(table.to_string())
}

/// The first lines of what a program says of a mistake.
fn complaint(output: &std::process::Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<_> = said.lines().map(str::trim).filter(|line| !line.is_empty()).take(6).collect();
    format!("{}: {}", output.status, lines.join(" / "))
}

/// Of a path in the repository.
fn exists(path: impl AsRef<Path>) -> Result<(), String> {
    let path = path.as_ref();
    if repository().join(path).exists() { Ok(()) } else { Err(format!("there is no '{}'", path.display())) }
}

/// A script of the repository, and the flags that it is given.
fn script(folder: &Path, arguments: &[String]) -> Result<(), String> {
    let path = folder.join(arguments.first().ok_or("python without a script")?);
    exists(&path)?;
    let text = fs::read_to_string(repository().join(&path)).map_err(|error| error.to_string())?;
    let unknown = arguments.iter().find(|word| word.starts_with("--") && !text.contains(&format!("\"{word}\"")));
    unknown.map_or(Ok(()), |flag| Err(format!("'{}' knows no {flag}", path.display())))
}

/// What follows a flag, or stands in it behind an equals sign.
fn values<'a>(arguments: &'a [String], flag: &str) -> Vec<&'a str> {
    let next = arguments.windows(2).filter(|pair| pair[0] == flag).map(|pair| pair[1].as_str());
    let inner = arguments.iter().filter_map(|argument| argument.strip_prefix(flag)?.strip_prefix('='));
    next.chain(inner).collect()
}

fn value<'a>(arguments: &'a [String], flag: &str) -> Option<&'a str> {
    values(arguments, flag).first().copied()
}
