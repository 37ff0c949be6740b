//! Law: any Dockerfile is planned or refused without a panic, and takes less than a second for
//! planning; every error and every step names lines of the file; every path a step works on is absolute.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rustix::time::{ClockId, clock_gettime};
use shutter::dockerfile::{self, check, ignore::Ignore};
use shutter::oci::{Config, Image, Platform};
use shutter::plan::{self, Base, Op, Plan, Scope, Staged};
use shutter::request::{ContextSource, Layout, NamedContext, Request};
use std::path::PathBuf;
use std::sync::LazyLock;

/// What the fuzzer finds by `base` or any other name: an image with a variable and a trigger.
static BASE: LazyLock<Image> = LazyLock::new(|| Image {
    config: Config {
        env: vec!["PATH=/bin".into(), "A=a*b/c.tar.gz".into()],
        cmd: Some(vec!["sh".into()]),
        on_build: vec!["RUN echo $A".into(), "COPY --chown=1 $A /x/".into()],
        ..Config::default()
    },
    ..Image::scratch(&"linux/arm64".parse().expect("a platform"))
});

static REQUEST: LazyLock<Request> = LazyLock::new(|| Request {
    contexts: [
        (
            "layout",
            NamedContext::Layout(Layout {
                dir: "/l".into(),
                tag: None,
                digest: None,
            }),
        ),
        (
            "files",
            NamedContext::Files(ContextSource::Directory("/f".into())),
        ),
    ]
    .map(|(name, context)| (name.to_owned(), context))
    .into(),
    build_args: vec![("B".into(), "x".repeat(2000)), ("C".into(), String::new())],
    labels: vec![("l".into(), "v".into())],
    platform: "linux/arm64".parse().expect("a platform"),
    ..Request::local(PathBuf::from("/c"), PathBuf::from("/c/Dockerfile"))
});

static IGNORE: LazyLock<Ignore> =
    LazyLock::new(|| Ignore::parse(b"*.md\n!a*\nx/**/y").expect("patterns"));

fuzz_target!(|text: &[u8]| {
    let Ok(parsed) = dockerfile::parse(text) else {
        return;
    };
    let begun = seconds();
    let lines = text.split(|b| *b == b'\n').count();
    let triggers = |_: &Base, _: &Platform| BASE.config.on_build.clone();
    match plan::graph_with(&parsed, &REQUEST, &triggers) {
        Ok(plan) => {
            if let Err(error) = steps(&plan, lines) {
                in_file(error.span, lines);
            }
        }
        Err(error) => in_file(error.span, lines),
    }
    let took = seconds() - begun;
    assert!(took < 1.0, "planning took {took} s");
    let begun = seconds();
    let base = |_: &Base, _: &Platform| Some(BASE.clone());
    let checked = plan::check(&parsed, &REQUEST, &base, Some(&IGNORE));
    in_file(checked.error.and_then(|error| error.span), lines);
    for finding in &checked.findings {
        in_file(Some(finding.span), lines);
    }
    if let Ok(options) = plan::options(&parsed, &REQUEST) {
        let all = checked.findings.len();
        let (wanted, _) = check::wanted(checked.findings, &options, &parsed.exceptions);
        assert!(wanted.len() <= all);
    }
    let masked = check::masked(text);
    assert_eq!(masked.matches('\n').count() + 1, lines);
    let took = seconds() - begun;
    assert!(took < 1.0, "checking took {took} s");
});

fn steps(plan: &Plan, lines: usize) -> Result<(), plan::Error> {
    let mut done: Vec<Staged> = Vec::new();
    for (place, stage) in plan.stages.iter().enumerate() {
        let none = Scope::default();
        let (image, scope) = match &stage.base {
            Base::Scratch | Base::Files(_) => (None, &none),
            Base::Stage(other) => (Some(&done[*other].image), &done[*other].scope),
            Base::Image(_) | Base::Layout(_) => (Some(&*BASE), &none),
        };
        assert!(stage.needs.iter().all(|need| *need < place));
        let staged = plan::steps(plan, place, image, scope, &REQUEST)?;
        let _ = plan::bases(&staged.steps).count();
        for step in &staged.steps {
            in_file(Some(step.span), lines);
            let path = match &step.op {
                Op::Config => continue,
                Op::Run(run) => &run.cwd,
                Op::Copy(copy) => &copy.dest,
                Op::Workdir { path, .. } => path,
            };
            assert!(path.starts_with('/'), "{path}");
        }
        done.push(staged);
    }
    Ok(())
}

fn in_file(span: Option<dockerfile::ast::Span>, lines: usize) {
    if let Some(span) = span {
        assert!(span.first >= 1 && span.first <= span.last && span.last <= lines);
    }
}

/// Gives the processor time of this thread, which other processes do not lengthen.
fn seconds() -> f64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}
