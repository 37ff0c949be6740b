//! Law: the checks of any file that parses end without a panic, be its bases known or not; every span
//! of a finding or an error lies in the file; where no base is known no undefined variable is found
//! that is not found where all are; and a masked file has the same lines, none of which has grown by
//! more than the masks: one for a secret, two for a URL.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shutter::dockerfile::ast::Span;
use shutter::dockerfile::check::{Options, Rule, masked, wanted};
use shutter::dockerfile::{self, ignore::Ignore};
use shutter::oci::{Image, Platform};
use shutter::plan::{self, Base};
use shutter::request::Request;

fuzz_target!(|text: &[u8]| {
    let lines = text.split(|b| *b == b'\n').count();
    let inside = |span: Span| {
        assert!(
            span.first >= 1 && span.first <= span.last && span.last <= lines,
            "{span:?}"
        );
    };
    let Ok(parsed) = dockerfile::parse(text) else {
        return;
    };
    let request = Request::local("/c".into(), "/c/Dockerfile".into());
    if let Err(error) = plan::options(&parsed, &request) {
        error.span.into_iter().for_each(inside);
    }
    // The first line serves as an ignore file too.
    let first = text.split(|b| *b == b'\n').next().unwrap_or_default();
    let ignore = Ignore::parse(first).ok();
    let undefined = [false, true].map(|known| {
        let base = |_: &Base, platform: &Platform| known.then(|| Image::scratch(platform));
        let checked = plan::check(&parsed, &request, &base, ignore.as_ref());
        checked.findings.iter().for_each(|f| inside(f.span));
        checked.unknown.iter().copied().for_each(inside);
        if let Some(error) = &checked.error {
            error.span.into_iter().for_each(inside);
        }
        let all = Options::parse("experimental=all").unwrap_or_default();
        let number = checked.findings.len();
        let (found, _) = wanted(checked.findings, &all, &parsed.exceptions);
        assert!(found.len() <= number);
        assert!(found.is_sorted_by_key(|f| f.span.first));
        let undefined = found.into_iter().filter(|f| f.rule == Rule::UndefinedVar);
        (undefined.collect::<Vec<_>>(), checked.error.is_some())
    });
    let [(unknown, _), (known, failed)] = undefined;
    // A mistake that may be none on an unknown base ends the check on a known one.
    assert!(failed || unknown.iter().all(|finding| known.contains(finding)));

    let whole = String::from_utf8_lossy(text);
    let hidden = masked(text);
    assert_eq!(hidden.split('\n').count(), whole.split('\n').count());
    for (hidden, line) in hidden.split('\n').zip(whole.split('\n')) {
        let credentials = line.matches("//").count() * 2 * "REDACTED".len();
        assert!(hidden.len() <= line.len() + "***".len() + credentials);
    }
});
