//! Words expanded by Shutter and by a shell: where the two languages are one, so are the results.

use super::random::Random;
use shutter::dockerfile::words;
use std::process::Command;

/// The variables that words see.
const VARIABLES: [(&str, &str); 5] = [
    ("A", "a*b/c.tar.gz"),
    ("B", "one two"),
    ("E", ""),
    ("P", "/usr/local/bin:/bin"),
    ("X", "xx"),
];

#[test]
fn words_expand_as_in_a_shell() {
    let count = std::env::var("DIFFERENTIAL_CASES")
        .ok()
        .map_or(2000, |n| n.parse().expect("a number"));
    let start: u64 = std::env::var("DIFFERENTIAL_SEED")
        .ok()
        .map_or(1, |n| n.parse().expect("a number"));
    let all: Vec<String> = (start..start + count)
        .map(|seed| word(&mut Random::new(seed), 3))
        .collect();
    let mut script = String::new();
    for (name, value) in VARIABLES {
        script.push_str(&format!("{name}='{value}'\n"));
    }
    for word in &all {
        script.push_str(&format!("printf '%s\\n' \"{word}\"\n"));
    }
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("script");
    std::fs::write(&file, script).expect("write");
    let output = Command::new("bash")
        .arg(&file)
        .env("LC_ALL", "C.UTF-8")
        .output()
        .expect("run bash");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), all.len(), "a line for each word");
    let env = |name: &str| {
        let found = VARIABLES.iter().find(|(other, _)| *other == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    let mut wrong = Vec::new();
    for (word, expected) in all.iter().zip(lines) {
        let got = words::word(&format!("\"{word}\""), '\\', &env).map(|word| word.text);
        if got.as_deref() != Ok(expected) {
            wrong.push(format!("\"{word}\": {got:?}, the shell says {expected:?}"));
        }
    }
    println!("words: {} words, {} different", all.len(), wrong.len());
    assert!(
        wrong.is_empty(),
        "{} of {} differ:\n{}",
        wrong.len(),
        all.len(),
        wrong.join("\n")
    );
}

/// Makes a word that stands between double quotes.
fn word(random: &mut Random, depth: usize) -> String {
    let mut out = String::new();
    for _ in 0..random.between(1, 3) {
        let name = random.pick(&["A", "B", "E", "P", "X", "N"]);
        let text = match random.below(12) {
            0 => random
                .pick(&["x", " ", "a b", "/", ".", "-", "=", "—", "'", "*", "?"])
                .to_owned(),
            1 => format!("${name}."),
            2 => format!("${{{name}}}"),
            3 => random.pick(&["\\$A", "\\\\", "\\\""]).to_owned(),
            4..8 if depth > 0 => {
                let operator = random.pick(&[":-", ":+", "-", "+"]);
                let word = inner(random, depth - 1);
                format!("${{{name}{operator}{word}}}")
            }
            8..10 => {
                let operator = random.pick(&["#", "##", "%", "%%"]);
                format!("${{{name}{operator}{}}}", pattern(random))
            }
            10 => {
                let operator = random.pick(&["/", "//"]);
                let by = random.pick(&["", "R", "-", "a b"]);
                // Where a pattern matches nothing at all, shells do as they like.
                let pattern = pattern(random).replace(['/', '*'], ".");
                format!("${{{name}{operator}{pattern}/{by}}}")
            }
            _ => format!("${{{name}}}"),
        };
        out.push_str(&text);
    }
    out
}

/// Makes the word of a substitution: no quotes, whose meaning there differs from shell to shell.
fn inner(random: &mut Random, depth: usize) -> String {
    let text = word(random, depth);
    text.replace(['\'', '"', '\\'], "")
}

/// Makes a pattern of what both languages have: `*` and `?`.
fn pattern(random: &mut Random) -> String {
    let mut out = String::new();
    for _ in 0..random.between(1, 3) {
        out.push_str(random.pick(&[
            "*", "?", "a", "b", ".", "/", "x", "one", " ", "*.", "/*", "l",
        ]));
    }
    out
}
