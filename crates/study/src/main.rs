//! `sam-mix-study`: many runs at once. It starts the programs that train and evaluate and reads what they wrote; it links no
//! libtorch.

mod programs;
mod runs;
mod study;

use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Train and evaluate grids of models, and list runs
#[derive(Parser)]
#[command(name = "sam-mix-study", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    #[command(about = study::ABOUT, after_help = study::EXAMPLES)]
    Study(Box<study::Line>),
    #[command(about = runs::ABOUT, after_help = runs::EXAMPLES)]
    Runs(runs::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().verb {
        Verb::Study(args) => study::run(&args),
        Verb::Runs(args) => runs::run(&args),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        // 130: ended by Ctrl-C, as shells have it.
        if programs::interrupted() { ExitCode::from(130) } else { ExitCode::FAILURE }
    })
}

/// As named from here, or else from `folder` or the nearest folder above it that has such a thing.
fn located(path: &Path, folder: &Path) -> PathBuf {
    if path.exists() {
        return path.into();
    }
    let folder = std::env::current_dir().unwrap_or_default().join(folder);
    folder.ancestors().map(|above| above.join(path)).find(|place| place.exists()).unwrap_or_else(|| path.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn help_texts_are_as_reviewed() {
        let mut command = Cli::command().term_width(100);
        command.clone().debug_assert();
        command.build();
        let mut text = command.render_help().to_string();
        add_verbs(&mut command, "", &mut text);
        insta::assert_snapshot!(text);
    }

    /// The help of each verb, and of the verbs that it has in its turn.
    fn add_verbs(command: &mut clap::Command, above: &str, text: &mut String) {
        let is_shown = |verb: &&mut clap::Command| verb.get_name() != "help" && !verb.is_hide_set();
        for verb in command.get_subcommands_mut().filter(is_shown) {
            let name = format!("{above}{}", verb.get_name());
            text.extend(["\n=== ", &name, "\n", &verb.clone().term_width(100).render_help().to_string()]);
            add_verbs(verb, &(name + " "), text);
        }
    }

    #[test]
    fn a_path_is_looked_for_from_here_and_from_the_folder_upward() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("configs/studies")).unwrap();
        std::fs::write(folder.path().join("configs/a.toml"), "").unwrap();
        let from = folder.path().join("configs/studies");
        assert_eq!(located("configs/a.toml".as_ref(), &from), folder.path().join("configs/a.toml"));
        assert_eq!(located("src/main.rs".as_ref(), &from), Path::new("src/main.rs"), "from here first");
        assert_eq!(located("no/such.toml".as_ref(), &from), Path::new("no/such.toml"));
    }
}
