use super::board::*;
use super::*;
use crate::build::Identity;
use crate::cli::meaning::Stamp;
use crate::oci::{Descriptor, Digest, Reference};
use crate::progress::{Owner, StepId, Stream, Work};

/// Plays events at milliseconds to a board; gives it with all notes.
fn play(events: Vec<(u64, Event)>) -> (Board, Instant, Vec<Note>) {
    let begun = Instant::now();
    let mut board = Board::new(begun);
    let mut notes = Vec::new();
    for (millis, event) in events {
        notes.extend(board.take(event, begun + Duration::from_millis(millis)));
    }
    (board, begun, notes)
}

fn planned() -> Event {
    Event::Planned(vec![
        (
            0,
            "build".into(),
            vec!["RUN make \u{1b}[31mall".into(), "COPY a b".into()],
        ),
        (2, "2".into(), vec!["RUN x".into()]),
    ])
}

const MAKE: StepId = StepId { stage: 0, step: 0 };
const COPY: StepId = StepId { stage: 0, step: 1 };
const X: StepId = StepId { stage: 2, step: 0 };

fn span(id: u64, owner: Owner, work: Work, total: Option<u64>, begun: Instant) -> Event {
    Event::SpanStarted {
        id,
        owner,
        work,
        label: Digest::of(b"").to_string(),
        total,
        at: begun,
    }
}

#[test]
fn a_log_has_a_line_for_what_is_worth_one() {
    let now = Instant::now();
    let layer = Event::LayerDone {
        step: MAKE,
        digest: Digest::of(b""),
        raw: 9_000_000,
        size: 3_400_000,
        entries: 1,
    };
    let (board, _, notes) = play(vec![
        (0, planned()),
        (5, span(1, Owner::Base(0), Work::Fetch, Some(10), now)),
        (
            6,
            Event::SpanProgress {
                id: 1,
                bytes: 4_000_000,
            },
        ),
        (
            7,
            Event::SpanDone {
                id: 1,
                at: now + Duration::from_millis(2000),
            },
        ),
        (10, Event::StepStarted(MAKE)),
        (20, Event::Output(MAKE, Stream::Out, b"one\ntw".to_vec())),
        (30, Event::Output(MAKE, Stream::Out, b"o\nthree".to_vec())),
        (1210, Event::StepDone(MAKE)),
        (1210, layer),
        (1211, Event::StepStarted(COPY)),
        (1212, Event::StepDone(COPY)),
        (1300, Event::StepStarted(X)),
        (
            1300,
            Event::Reused {
                owner: Owner::Build,
                work: Work::Push,
                label: "l".into(),
                bytes: 5,
            },
        ),
        (1400, Event::StepFailed(X)),
        (1400, Event::Message(Level::Warn, "odd\nthing\u{7}".into())),
    ]);
    let lines: Vec<String> = notes
        .iter()
        .map(|note| match log::sentence(note, &board) {
            Some((tone, sentence)) => format!("{tone:?} {sentence}"),
            None => format!("{note:?}"),
        })
        .collect();
    assert_eq!(
        lines,
        [
            "Info 3 steps in 2 stages",
            "Info [build base] fetch sha256:e3b0c44298fc 4.0 MB in 2.0s",
            "Info [build 1/2] RUN make all",
            "Line(StepId { stage: 0, step: 0 }, Out, [111, 110, 101])",
            "Line(StepId { stage: 0, step: 0 }, Out, [116, 119, 111])",
            "Line(StepId { stage: 0, step: 0 }, Out, [116, 104, 114, 101, 101])",
            "Info [build 1/2] done in 1.2s",
            "Info [build 1/2] layer 3.4 MB (9.0 MB unpacked, 1 entry) sha256:e3b0c44298fc",
            "Info [build 2/2] COPY a b",
            "Debug [build 2/2] done in 1ms",
            "Info [stage-2 1/1] RUN x",
            "Info l is at the destination already (5 B)",
            "Error [stage-2 1/1] failed after 0.1s",
            "Warn odd thing",
        ]
    );
    assert_eq!(
        log::line(
            Tone::Info,
            "x",
            Stamp::Elapsed,
            Duration::from_millis(3999),
            Colours::Drop
        ),
        "INFO[0003] x\n"
    );
    assert_eq!(
        log::line(
            Tone::Warn,
            "x",
            Stamp::Elapsed,
            Duration::ZERO,
            Colours::Keep
        ),
        "\u{1b}[33mWARN\u{1b}[0m[0000] x\n"
    );
    let clock = log::line(Tone::Info, "x", Stamp::Clock, Duration::ZERO, Colours::Drop);
    assert!(
        clock.starts_with("INFO[20") && clock.contains('T') && clock.ends_with("Z] x\n"),
        "{clock}"
    );
}

#[test]
fn objects_have_the_parts_by_name() {
    let (board, _, notes) = play(vec![
        (0, planned()),
        (10, Event::StepStarted(X)),
        (
            20,
            Event::Output(X, Stream::Err, b"\x1b[1mhi\xff\r\n".to_vec()),
        ),
        (1510, Event::StepDone(X)),
    ]);
    let objects: Vec<String> = notes
        .iter()
        .map(|note| log::object(note, &board, "T".into()).1.to_string())
        .collect();
    assert_eq!(
        objects,
        [
            r#"{"time":"T","level":"info","msg":"3 steps in 2 stages","event":"planned","stages":2,"steps":3}"#,
            r#"{"time":"T","level":"info","msg":"[stage-2 1/1] RUN x","event":"step-started","stage":2,"step":0,"text":"RUN x"}"#,
            "{\"time\":\"T\",\"level\":\"info\",\"msg\":\"hi\u{fffd}\",\"event\":\"output\",\"stage\":2,\"step\":0,\"stream\":\"stderr\"}",
            r#"{"time":"T","level":"info","msg":"[stage-2 1/1] done in 1.5s","event":"step-done","stage":2,"step":0,"seconds":1.5}"#,
        ]
    );
}

#[test]
fn verbosity_lets_through_what_is_bad_enough() {
    let tones = [Tone::Debug, Tone::Info, Tone::Warn, Tone::Error];
    for (verbosity, passing) in [
        (Verbosity::Debug, 4),
        (Verbosity::Info, 3),
        (Verbosity::Warn, 2),
        (Verbosity::Error, 1),
    ] {
        let passed = tones.iter().filter(|tone| tone.passes(verbosity)).count();
        assert_eq!(passed, passing, "{verbosity:?}");
    }
}

/// Takes colours off.
fn bare(lines: &[String]) -> Vec<String> {
    lines
        .iter()
        .map(|line| {
            text::line(line.as_bytes(), Colours::Drop)
                .trim_end()
                .to_owned()
        })
        .collect()
}

#[test]
fn a_frame_shows_what_runs_and_fits_the_terminal() {
    let now = Instant::now();
    let (board, begun, _) = play(vec![
        (0, planned()),
        (0, Event::StepStarted(MAKE)),
        (0, span(1, Owner::Step(MAKE), Work::Run, None, now)),
        (
            5,
            Event::Output(
                MAKE,
                Stream::Out,
                b"l1\nl2\nl3\nl4\nl5\nl6\nl7\n\x1b[2J\tl8\n".to_vec(),
            ),
        ),
        (5, span(2, Owner::Build, Work::Push, Some(4_000_000), now)),
        (
            6,
            Event::SpanProgress {
                id: 2,
                bytes: 1_000_000,
            },
        ),
    ]);
    let at = begun + Duration::from_secs(2);
    let lines = bare(&live::frame(&board, at, 70, 7));
    assert_eq!(lines.len(), 6);
    assert_eq!(lines[0], "building 2.0s  0/3 steps");
    assert!(
        lines[1].starts_with("⠋ [build 1/2] RUN make all"),
        "{lines:?}"
    );
    assert!(lines[1].ends_with("run  2.0s"), "{lines:?}");
    assert_eq!(lines[2..5], ["  │ l6", "  │ l7", "  │     l8"]);
    assert!(lines[5].starts_with("⠋ push sha256:e3b0c"), "{lines:?}");
    assert!(
        lines[5].contains("━━━━╌╌╌╌╌╌╌╌╌╌╌╌   1.0 MB/4.0 MB"),
        "{lines:?}"
    );
    for (columns, rows) in [(1, 1), (10, 3), (40, 2), (200, 60), (70, 4)] {
        let lines = bare(&live::frame(&board, at, columns, rows));
        assert!(lines.len() <= rows.max(3), "{columns}x{rows}: {lines:?}");
    }
    let many = (0..100).map(|id| (0, span(id, Owner::Build, Work::Fetch, None, now)));
    let (board, begun, _) = play(many.collect());
    let lines = bare(&live::frame(&board, begun, 80, 24));
    assert_eq!(lines.len(), 23);
    assert_eq!(lines[22], "  and 79 more lines");
}

#[test]
fn a_screen_replaces_just_what_it_drew() {
    let mut screen = live::Screen::default();
    let frame = |lines: usize| vec!["x".to_owned(); lines];
    let first = screen.draw(&[], &frame(2));
    assert!(first.starts_with("\r\u{1b}[J"), "{first:?}");
    let second = screen.draw(&frame(1), &frame(1));
    assert!(second.starts_with("\u{1b}[2A\r\u{1b}[J"), "{second:?}");
    let third = screen.draw(&[], &[]);
    assert!(third.starts_with("\u{1b}[1A\r\u{1b}[J"), "{third:?}");
    assert!(third.ends_with("\u{1b}[?7h"), "the terminal wraps again");
}

#[test]
fn endless_lines_and_output_of_unknown_steps_are_bounded() {
    let long = vec![b'x'; 100_000];
    let (board, _, notes) = play(vec![(0, Event::Output(X, Stream::Out, long))]);
    assert_eq!(notes.len(), 6);
    let kept: usize = board.running[&X].tail.iter().map(String::len).sum();
    assert!(kept <= 6 * (16 << 10), "{kept}");
}

#[test]
fn a_summary_says_what_was_made_and_moved() {
    let now = Instant::now();
    let (board, begun, _) = play(vec![
        (0, planned()),
        (0, span(1, Owner::Base(0), Work::Fetch, None, now)),
        (
            0,
            Event::SpanProgress {
                id: 1,
                bytes: 40_000_000,
            },
        ),
        (0, Event::SpanDone { id: 1, at: now }),
        (
            0,
            Event::Reused {
                owner: Owner::Base(2),
                work: Work::Fetch,
                label: "x".into(),
                bytes: 7,
            },
        ),
        (
            0,
            Event::LayerDone {
                step: COPY,
                digest: Digest::of(b""),
                raw: 10,
                size: 5,
                entries: 2,
            },
        ),
    ]);
    let pushed: Reference = "localhost:1/a:b".parse().unwrap();
    let built = Built {
        image: Some(Identity {
            manifest: Descriptor {
                media_type: String::new(),
                digest: Digest::of(b""),
                size: 0,
                urls: Vec::new(),
                annotations: Default::default(),
            },
            config: Digest::of(b""),
        }),
        pushed: vec![pushed],
    };
    let lines = log::summary(&built, &board, begun + Duration::from_secs(65));
    assert_eq!(
        lines,
        [
            &format!("built {} in 1m05s", Digest::of(b"")),
            "pushed localhost:1/a:b",
            "made 1 layer, 5 B (10 B unpacked)",
            "       5 B  [build 2/2] COPY a b",
            "fetched 1 blob, 40.0 MB",
            "reused 1 blob, 7 B",
        ]
    );
    let object = log::summary_object(&built, &board, begun, "T".into());
    assert_eq!(object["fetched"], 40_000_000);
    assert_eq!(object["pushed"][0], "localhost:1/a:b");
}

#[test]
fn findings_show_rule_page_and_lines() {
    use crate::dockerfile::ast::Span;
    use crate::dockerfile::check::{Finding, Rule};
    let event = |rule| Event::Finding {
        finding: Finding::new(rule, Span { first: 2, last: 2 }, "it is\u{1b}[31m so"),
        file: "/work/x/Dockerfile".into(),
        lines: std::sync::Arc::new(vec!["FROM a".into(), "CMD \u{1b}[31mb".into()]),
    };
    let mut board = Board::new(Instant::now());
    board.cwd = "/work".into();
    let mut note = |rule| board.take(event(rule), Instant::now()).remove(0);
    let (with, without) = (note(Rule::JsonArgsRecommended), note(Rule::UnreadFlag));
    let sentence = (Tone::Warn, "JSONArgsRecommended: it is so".to_owned());
    assert_eq!(log::sentence(&with, &board), Some(sentence));
    let place = "\
x/Dockerfile:2
--------------------
   1 |     FROM a
   2 | >>> CMD b
--------------------
";
    let page = "https://docs.docker.com/go/dockerfile/rule/json-args-recommended/\n";
    assert_eq!(log::below(&with), format!("{page}{place}"));
    assert_eq!(log::below(&without), place);
    let (tone, object) = log::object(&with, &board, "now".into());
    assert_eq!(tone, Tone::Warn);
    assert_eq!(object["event"], "finding");
    assert_eq!(object["rule"], "JSONArgsRecommended");
    assert_eq!(object["url"], page.trim_end());
    assert_eq!(object["file"], "x/Dockerfile");
    assert_eq!(object["line"], 2);
    let (_, object) = log::object(&without, &board, "now".into());
    assert_eq!(object.get("url"), None);
    let stays = live::stays(&with, &board).unwrap();
    assert!(stays.contains("JSONArgsRecommended: it is so\n"), "{stays}");
    assert!(stays.ends_with("-----"), "{stays}");
}
