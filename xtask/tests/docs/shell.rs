//! As much of a shell as the pages use.

/// The simple commands of a line, each as its words: quotes, comments, `&&`, `;`, and assignments before a command, which are
/// left out.
pub fn commands(line: &str) -> Result<Vec<Vec<String>>, String> {
    let mut all = vec![Vec::new()];
    // `None` between two words.
    let mut word: Option<String> = None;
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        let last = all.last_mut().expect("never empty");
        match character {
            '\'' | '"' => {
                let text = word.get_or_insert_default();
                loop {
                    match characters.next() {
                        Some(quote) if quote == character => break,
                        Some(other) => text.push(other),
                        None => return Err(format!("a quote that doesn't end: {line}")),
                    }
                }
            }
            '#' if word.is_none() => break,
            ' ' | '\t' => last.extend(word.take()),
            ';' | '&' => {
                if character == '&' && characters.next() != Some('&') {
                    return Err(format!("a command in the background: {line}"));
                }
                last.extend(word.take());
                all.push(Vec::new());
            }
            '|' | '<' | '>' | '(' | '\\' | '{' => {
                return Err(format!("'{character}' outside of quotes, which this test doesn't know: {line}"));
            }
            _ => word.get_or_insert_default().push(character),
        }
    }
    all.last_mut().expect("never empty").extend(word);
    for words in &mut all {
        let assignments = words.iter().take_while(|word| is_assignment(word)).count();
        words.drain(..assignments);
    }
    Ok(all.into_iter().filter(|words| !words.is_empty()).collect())
}

fn is_assignment(word: &str) -> bool {
    let upper = |name: &str| name.chars().all(|c| c.is_ascii_uppercase() || c == '_');
    word.split_once('=').is_some_and(|(name, _)| !name.is_empty() && upper(name))
}

#[test]
fn a_line_is_split_as_a_shell_does() {
    let split = |line| commands(line).unwrap();
    assert_eq!(split("a --set 'b={c=1, d=2}' \"e f\"  # g"), [vec!["a", "--set", "b={c=1, d=2}", "e f"]]);
    assert_eq!(split("X=1 a b#c && d"), [vec!["a", "b#c"], vec!["d"]]);
    assert!(split("# nothing").is_empty());
    assert!(commands("a 'b").is_err() && commands("a > b").is_err());
}
