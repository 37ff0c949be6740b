//! The parser against BuildKit's trees: `testdata/parser/` has Dockerfiles that trip parsers up, and
//! `expected.txt` what BuildKit makes of each.

use shutter::dockerfile::{self, node};
use std::fmt::Write;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/parser")
}

/// Shows what the parser makes of a file, in the format of `expected.txt`.
fn show(text: &[u8]) -> String {
    let tree = match node::parse(text) {
        Ok(tree) => tree,
        Err(error) => return format!("PARSE-ERR: {}\n", error.joined()),
    };
    let mut out = String::new();
    for node in &tree.nodes {
        let _ = writeln!(out, "{}", node.dump());
    }
    let _ = match dockerfile::parse(text) {
        Ok(parsed) => {
            assert_eq!(parsed.escape, tree.escape);
            writeln!(out, "ok escape={}", parsed.escape)
        }
        Err(error) => {
            let line = error.span.map_or(0, |span| span.first);
            let joined = error.joined();
            writeln!(
                out,
                "INSTR-ERR: dockerfile parse error on line {line}: {joined}"
            )
        }
    };
    out
}

#[test]
fn trees_are_buildkits() {
    let expected = std::fs::read_to_string(folder().join("expected.txt")).expect("expected.txt");
    let mut cases = 0;
    for case in expected.split("===== ").skip(1) {
        let (name, expected) = case.split_once('\n').expect("a name on a line");
        let text = std::fs::read(folder().join(name)).expect(name);
        let shown = show(&text);
        assert_eq!(shown.trim_end(), expected.trim_end(), "{name}");
        cases += 1;
    }
    let files = std::fs::read_dir(folder()).expect("folder").count() - 1;
    assert_eq!((cases, files), (48, 48));
}
