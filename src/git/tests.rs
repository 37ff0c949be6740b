//! Odd things that a stranger may send.

use super::*;
use std::fmt::Write as _;

#[test]
fn gitmodules_of_any_size_are_bounded() {
    let mut text = String::new();
    for number in 0..20_000 {
        writeln!(
            text,
            "[submodule \"{number}\"]\npath = {number}\nurl = ../x"
        )
        .unwrap();
    }
    let said = submodules(text.as_bytes()).unwrap_err();
    assert_eq!(said, "there are more than 10000 submodules");
}
