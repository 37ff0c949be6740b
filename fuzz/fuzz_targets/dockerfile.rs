//! Law: any bytes parse or are refused, without a panic; every span lies in the file, an error's
//! too; and a trigger's text, parsed by itself, is the trigger where the escape character is the
//! backslash and no heredoc's name was quoted.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shutter::dockerfile::{self, ast::Kind};

fuzz_target!(|text: &[u8]| {
    let lines = text.split(|b| *b == b'\n').count();
    let _ = dockerfile::detect_syntax(text);
    let parsed = match dockerfile::parse(text) {
        Ok(parsed) => parsed,
        Err(error) => {
            if let Some(span) = error.span {
                assert!(span.first >= 1 && span.first <= span.last && span.last <= lines);
            }
            return;
        }
    };
    for stage in &parsed.stages {
        let mut last = stage.span.last;
        for instruction in &stage.instructions {
            assert!(instruction.span.first > last && instruction.span.last <= lines);
            last = instruction.span.last;
            if let Kind::Onbuild(trigger, text) = &instruction.kind {
                let again = dockerfile::parse_trigger(text);
                if parsed.escape == '\\' && !text.contains("<<") && !text.ends_with('\\') {
                    assert_eq!(again.map(|again| again.kind), Ok(trigger.kind.clone()));
                }
            }
        }
    }
});
