//! The page of log lines names each that the source has.

use std::collections::BTreeSet;
use std::path::Path;

const PAGE: &str = include_str!("../src/guide/logs.md");

/// The text of each string literal in this piece of source, as the compiler reads it.
fn literals(source: &str) -> Vec<String> {
    let (mut literals, mut chars) = (Vec::new(), source.chars().peekable());
    while let Some(character) = chars.next() {
        match character {
            // A character, whose quotation mark begins no string.
            '\'' if chars.peek() == Some(&'"') => drop(chars.next()),
            '/' if chars.peek() == Some(&'/') => {
                while chars.next().is_some_and(|next| next != '\n') {}
            }
            '"' => {
                let mut text = String::new();
                loop {
                    match chars.next() {
                        None | Some('"') => break,
                        Some('\\') => match chars.next() {
                            Some('\n') => {
                                while chars.next_if(|next| next.is_whitespace()).is_some() {}
                            }
                            Some(escaped) => text.push(escaped),
                            None => break,
                        },
                        Some(other) => text.push(other),
                    }
                }
                literals.push(text);
            }
            _ => {}
        }
    }
    literals
}

/// The line with `…` for what differs.
fn shown(format: &str) -> String {
    let mut text = String::new();
    let mut rest = format;
    while let Some((before, after)) = rest.split_once('{') {
        text += before;
        text += "…";
        rest = after.split_once('}').map_or("", |(_, after)| after);
    }
    text += rest;
    for twice in ["……", "… …"] {
        while text.contains(twice) {
            text = text.replace(twice, "…");
        }
    }
    text
}

/// What stands in the brackets that open here.
fn arguments(source: &str) -> &str {
    let mut depth = 0;
    for (at, character) in source.char_indices() {
        match character {
            '(' => depth += 1,
            ')' if depth == 1 => return &source[..at],
            ')' => depth -= 1,
            _ => {}
        }
    }
    source
}

/// The lines that a file can log at level info or above.
fn lines(source: &str, found: &mut BTreeSet<String>) {
    // Tests log nothing that somebody else reads.
    let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let loud = [
        "log::error!(",
        "log::warn!(",
        "log::info!(",
        "log::log!(",
        ".log_throttled(",
        "let line = || ",
    ];
    for begin in loud {
        for (at, _) in source.match_indices(begin) {
            let bracket = at + begin.len() - usize::from(begin.ends_with('('));
            let source = match begin.ends_with('(') {
                true => arguments(&source[bracket..]),
                false => source[bracket..].split_once(';').unwrap().0,
            };
            // Kinds and targets are words.
            let texts = literals(source).into_iter().map(|text| shown(&text));
            found.extend(
                texts.filter(|text| text.contains(' ') && text.contains(char::is_alphabetic)),
            );
        }
    }
    // Texts that are made before, as an error has them as well.
    for begin in [".log_throttled(", "Notice::Log("] {
        for (at, _) in source.match_indices(begin) {
            let function = source[..at].rfind("fn ").unwrap_or(0);
            let before = &source[function..at];
            let Some((made, name)) = before
                .rfind(" = format!(")
                .and_then(|made| Some((made, before[..made].rsplit_once("let ")?.1)))
            else {
                continue;
            };
            let used = arguments(&source[at + begin.len() - 1..]);
            let mut words = used.split(|character: char| !character.is_alphanumeric());
            if words.any(|word| word == name) {
                let format = arguments(&before[made + " = format!".len()..]);
                found.extend(literals(format).first().map(|text| shown(text)));
            }
        }
    }
}

fn read(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            lines(&std::fs::read_to_string(path).unwrap(), found);
        }
    }
}

#[test]
fn each_line_of_the_log_has_its_place_on_the_page() {
    let mut found = BTreeSet::new();
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    // Of each kind one, so that none is overlooked as a whole.
    for known in [
        "Redis answers again",
        "refused a request: …",
        "over: … times in … s, such as: …",
        "signal … again: ending at once",
        "listens on … with up to … event loops",
        "damaged session data: …",
        "… answers …",
        "the sentinel at … does not answer: …",
        "the sentinel at … lets nobody listen to its channels",
        "…: … replicas had what was written within …",
    ] {
        assert!(found.iter().any(|line| line.contains(known)), "{known}: {found:#?}");
    }
    // Written on the page with what it stands for.
    let spelled = |line: &str| line == "… answers …";
    let missing: Vec<_> = found
        .iter()
        .filter(|line| !spelled(line) && !PAGE.contains(&format!("`{line}`")))
        .collect();
    assert!(missing.is_empty(), "the page does not have {missing:#?}");
}

#[test]
fn the_page_has_no_line_that_the_source_has_not() {
    let mut source = String::new();
    fn gather(folder: &Path, source: &mut String) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => gather(&path, source),
                false if path.extension().is_some_and(|extension| extension == "rs") => {
                    let text = std::fs::read_to_string(path).unwrap();
                    literals(&text)
                        .iter()
                        .for_each(|text| *source += &format!("\n{}", shown(text)));
                }
                false => {}
            }
        }
    }
    gather(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut source);
    let tables = PAGE.split("# Why Redis fails").next().unwrap();
    let rows = tables.lines().filter(|row| row.starts_with("| `"));
    let cells = rows.map(|row| row.trim_start_matches("| ").split(" | ").next().unwrap());
    let mut count = 0;
    for line in cells.flat_map(|cell| cell.split("`, `")).map(|line| line.trim_matches('`')) {
        // Between what differs stand words of the source.
        for part in line
            .split('…')
            .flat_map(|part| part.split(" 500: "))
            .flat_map(|part| part.split(" 503: "))
        {
            let part = part.trim_matches([' ', ':', '(', ')', ',']);
            assert!(source.contains(part), "{line}: {part:?} is nowhere in the source");
        }
        count += 1;
    }
    assert!(count > 40, "{count}");
}
