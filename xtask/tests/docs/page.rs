//! A page of documentation as the commands that it shows.

use crate::shell;

/// What can stand in `<!-- needs: … -->` above a block that no test runs.
pub const NEEDS: [&str; 9] = [
    // Of hundreds of MB, or of the reader's own.
    "a checkpoint",
    // It lies beside the clone.
    "a crate of your own",
    // It installs or builds what the tests run on.
    "a fresh machine",
    "a GPU",
    // A build of its own.
    "an MPI",
    // Real CT.
    "data",
    // It starts this very test.
    "every test",
    "Python packages",
    // A cluster.
    "SLURM",
];

/// Where a command stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// In a block: to be run.
    Run,
    /// In a block that says what it needs.
    Marked,
    /// In a sentence, where a verb alone is its name.
    Inline,
}

/// What a reader is told to type, with the line of the page where it begins.
#[derive(Debug)]
pub struct Command {
    pub line: usize,
    /// The line that its block begins in.
    pub block: usize,
    /// Of one line: continued lines are joined.
    pub text: String,
    pub kind: Kind,
}

/// A fault, with the line of the page.
#[derive(Debug)]
pub struct Fault {
    pub line: usize,
    pub what: String,
}

impl Fault {
    pub fn new(line: usize, what: impl Into<String>) -> Self {
        Self { line, what: what.into() }
    }
}

/// Everything that a page shows as code.
#[derive(Debug, Default)]
pub struct Page {
    pub commands: Vec<Command>,
    /// Blocks of a configuration's keys, with the line of their fence.
    pub configurations: Vec<(usize, String)>,
    /// What is wrong with the page itself.
    pub faults: Vec<Fault>,
}

struct Fence {
    line: usize,
    language: String,
    is_marked: bool,
    text: Vec<String>,
}

/// Reads a page of Markdown.
pub fn read(text: &str) -> Page {
    let mut page = Page::default();
    let mut fence: Option<Fence> = None;
    // The marker of the line before.
    let mut marker: Option<usize> = None;
    for (line, content) in text.lines().enumerate().map(|(index, content)| (index + 1, content.trim_end())) {
        let opens_or_closes = content.trim_start().starts_with("```");
        match &mut fence {
            Some(open) if !opens_or_closes => open.text.push(content.into()),
            Some(_) => page.take(fence.take().expect("open")),
            None if opens_or_closes => {
                let language = content.trim_start().trim_start_matches('`').to_owned();
                fence = Some(Fence { line, language, is_marked: marker.take().is_some(), text: Vec::new() });
            }
            None => {
                if let Some(line) = marker.take() {
                    page.faults.push(Fault::new(line, "a marker that is not above a block"));
                }
                if let Some(needs) =
                    content.trim_start().strip_prefix("<!-- needs: ").and_then(|rest| rest.strip_suffix(" -->"))
                {
                    marker = Some(line);
                    if !NEEDS.contains(&needs) {
                        page.faults.push(Fault::new(line, format!("needs '{needs}', which is none of {NEEDS:?}")));
                    }
                }
                page.take_inline(line, content);
            }
        }
    }
    if let Some(open) = fence {
        page.faults.push(Fault::new(open.line, "a block that doesn't end"));
    }
    page
}

impl Page {
    fn take(&mut self, Fence { line, language, is_marked, text }: Fence) {
        match language.as_str() {
            "sh" | "bash" | "console" => self.take_commands(line + 1, &language, is_marked, &text),
            "toml" if is_marked => self.faults.push(Fault::new(line, "a marker above a block that is no command")),
            "toml" => self.configurations.push((line, text.join("\n"))),
            "" if text.first().is_some_and(|first| is_command(first.trim_start_matches("$ "))) => {
                self.faults.push(Fault::new(line, "commands in a block without a language: make it ```sh"));
            }
            "shell" | "zsh" | "shell-session" => {
                self.faults.push(Fault::new(line, format!("a block of '{language}': make it ```sh")));
            }
            _ => {}
        }
    }

    fn take_commands(&mut self, first: usize, language: &str, is_marked: bool, text: &[String]) {
        let kind = if is_marked { Kind::Marked } else { Kind::Run };
        let mut joined: Option<(usize, String)> = None;
        for (line, content) in text.iter().enumerate().map(|(index, content)| (first + index, content.as_str())) {
            // The answers of the program stand between the commands of a console.
            let typed =
                if language == "console" && joined.is_none() { content.strip_prefix("$ ") } else { Some(content) };
            let Some(typed) = typed.map(str::trim).filter(|typed| !typed.is_empty() && !typed.starts_with('#')) else {
                continue;
            };
            let (line, mut whole) = joined.take().unwrap_or((line, String::new()));
            whole.push_str(typed.strip_suffix('\\').unwrap_or(typed));
            if typed.ends_with('\\') {
                joined = Some((line, whole));
            } else {
                self.commands.push(Command { line, block: first, text: whole, kind });
            }
        }
        if let Some((line, _)) = joined {
            self.faults.push(Fault::new(line, "a command that doesn't end"));
        }
    }

    /// Commands in a sentence; a synopsis is none.
    fn take_inline(&mut self, line: usize, content: &str) {
        let is_synopsis = |code: &str| ["[", "…", "VERB"].iter().any(|sign| code.contains(sign));
        for code in content.split('`').skip(1).step_by(2).filter(|code| is_command(code) && !is_synopsis(code)) {
            self.commands.push(Command { line, block: line, text: code.into(), kind: Kind::Inline });
        }
    }
}

/// Whether it begins as the commands of this project do.
fn is_command(text: &str) -> bool {
    let words = shell::commands(text).unwrap_or_default();
    let first = words.first().and_then(|words| words.first());
    // With something behind it: a program's name alone is a name.
    text.contains(' ') && first.is_some_and(|first| first == "cargo" || first.starts_with("sam-mix"))
}
