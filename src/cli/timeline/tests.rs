use super::*;
use crate::oci::Digest;
use crate::progress::Stream;

/// A hostile text: none of it may be more than text on the page.
const HOSTILE: &str = "RUN echo \"</script><script>alert(1)</script>\" '\" onmouseover=alert(2) x=' & \u{1b}[31m {{x}}";

struct Build {
    begun: Instant,
    timeline: Timeline,
    board: Board,
    next: u64,
}

impl Build {
    fn new(stages: Vec<(usize, String, Vec<String>)>) -> Build {
        let begun = Instant::now();
        let mut build = Build {
            begun,
            timeline: Timeline::new(begun),
            board: Board::new(begun),
            next: 1,
        };
        build.event(0, Event::Planned(stages));
        build
    }

    fn event(&mut self, millis: u64, event: Event) {
        let at = self.begun + Duration::from_millis(millis);
        self.timeline.take(&event, at);
        self.board.take(event, at);
    }

    fn span(
        &mut self,
        owner: Owner,
        work: Work,
        label: &str,
        from: u64,
        to: Option<u64>,
        bytes: u64,
    ) {
        let id = self.next;
        self.next += 1;
        let at = |millis| self.begun + Duration::from_millis(millis);
        let (from, to) = (at(from), to.map(at));
        let label = label.to_owned();
        let total = (bytes > 0).then_some(bytes);
        self.event(
            0,
            Event::SpanStarted {
                id,
                owner,
                work,
                label,
                total,
                at: from,
            },
        );
        self.event(0, Event::SpanProgress { id, bytes });
        if let Some(at) = to {
            self.event(0, Event::SpanDone { id, at });
        }
    }

    fn page(&self, verdict: &Verdict, millis: u64) -> String {
        let end = self.begun + Duration::from_millis(millis);
        self.timeline
            .page(&self.board, verdict, end, Duration::from_millis(millis / 2))
    }
}

/// A build of two stages, as they come.
fn lifelike() -> Build {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    let mut build = Build::new(vec![
        (
            0,
            "build".into(),
            texts(&[
                "WORKDIR /src",
                "COPY go.mod go.sum ./",
                "RUN go mod download",
                "COPY . .",
                "RUN go build -o /out/app ./cmd/app",
            ]),
        ),
        (
            1,
            "1".into(),
            texts(&[
                "RUN apk add --no-cache ca-certificates tzdata",
                "COPY --from=build /out/app /usr/bin/app",
                HOSTILE,
            ]),
        ),
    ]);
    build.span(
        Owner::Build,
        Work::Resolve,
        "docker.io/library/golang:1.25",
        0,
        Some(420),
        0,
    );
    build.span(
        Owner::Build,
        Work::Resolve,
        "docker.io/library/alpine:3.22",
        0,
        Some(380),
        0,
    );
    for layer in 0..5_u64 {
        let label = Digest::of(&[layer as u8]).to_string();
        let from = 430 + layer * 15;
        build.span(
            Owner::Base(0),
            Work::Fetch,
            &label,
            from,
            Some(from + 700 + layer * 420),
            12_000_000 * (layer + 1),
        );
        build.span(
            Owner::Base(0),
            Work::Unpack,
            &label,
            from + 60,
            Some(from + 900 + layer * 450),
            0,
        );
    }
    build.span(
        Owner::Base(1),
        Work::Fetch,
        &Digest::of(b"alpine").to_string(),
        400,
        Some(700),
        3_800_000,
    );
    build.span(
        Owner::Base(1),
        Work::Unpack,
        &Digest::of(b"alpine").to_string(),
        450,
        Some(790),
        0,
    );
    let runs: [(usize, usize, u64, u64, Work); 8] = [
        (0, 0, 440, 450, Work::Copy),
        (0, 1, 450, 470, Work::Copy),
        (0, 2, 3100, 6200, Work::Run),
        (0, 3, 6230, 6400, Work::Copy),
        (0, 4, 6400, 11_300, Work::Run),
        (1, 0, 820, 2600, Work::Run),
        (1, 1, 11_330, 11_360, Work::Copy),
        (1, 2, 11_360, 11_900, Work::Run),
    ];
    for (stage, step, from, to, work) in runs {
        let id = StepId { stage, step };
        build.event(from, Event::StepStarted(id));
        build.span(Owner::Step(id), Work::Root, "root", from, Some(from + 6), 0);
        build.span(Owner::Step(id), work, "", from + 6, Some(to - 20), 0);
        build.span(Owner::Step(id), Work::Diff, "diff", to - 20, Some(to), 0);
        build.event(to, Event::Output(id, Stream::Out, b"...\n".to_vec()));
        build.event(to, Event::StepDone(id));
        let size = (to - from) * 9000;
        build.span(
            Owner::Step(id),
            Work::Compress,
            "layer",
            to,
            Some(to + 40 + (to - from) / 4),
            size * 3,
        );
        build.span(
            Owner::Step(id),
            Work::Push,
            &Digest::of(HOSTILE.as_bytes()).to_string(),
            to + 40 + (to - from) / 4,
            Some(to + 90 + (to - from) / 3),
            size,
        );
        let digest = Digest::of(&size.to_le_bytes());
        build.event(
            to,
            Event::LayerDone {
                step: id,
                digest,
                raw: size * 3,
                size,
                entries: size / 9000,
            },
        );
    }
    build.span(
        Owner::Build,
        Work::Push,
        "registry.example/team/app:v1",
        13_300,
        Some(13_420),
        1200,
    );
    build
}

#[test]
fn a_page_is_whole_in_itself_and_takes_hostile_text_as_text() {
    let verdict = Verdict::Built {
        digest: Digest::of(b"x").to_string(),
        pushed: vec![HOSTILE.into()],
    };
    let page = lifelike().page(&verdict, 13_450);
    assert_eq!(page.matches("<script>").count(), 1);
    assert_eq!(page.matches("</script>").count(), 1);
    assert!(!page.contains("\" onmouseover"));
    assert!(!page.contains('\u{1b}'));
    assert!(page.contains("&lt;/script&gt;&lt;script&gt;alert(1)"));
    for foreign in ["http://", "https://", "src=", "href=", "url(", "@import"] {
        assert!(!page.contains(foreign), "{foreign}");
    }
}

#[test]
fn a_failed_build_has_a_page_too() {
    let mut build = Build::new(vec![(0, "0".into(), vec!["RUN exit 7".into()])]);
    let id = StepId { stage: 0, step: 0 };
    build.event(5, Event::StepStarted(id));
    build.span(Owner::Step(id), Work::Run, "", 6, Some(90), 0);
    build.span(Owner::Base(0), Work::Fetch, "sha256:x", 1, None, 10);
    build.event(90, Event::StepFailed(id));
    let page = build.page(&Verdict::Failed("<b>`exit 7`</b> ended".into()), 100);
    assert!(page.contains("&lt;b&gt;`exit 7`&lt;/b&gt; ended"));
    assert!(
        page.contains("span fetch open"),
        "a span without an end lasts to the build's"
    );
    assert!(page.contains("step failed"));
    let empty = Timeline::new(build.begun).page(
        &Board::new(build.begun),
        &Verdict::Failed(String::new()),
        build.begun,
        Duration::ZERO,
    );
    assert!(empty.ends_with("</html>\n"));
}

#[test]
fn three_hundred_spans_share_lines_where_they_do_not_overlap() {
    let mut build = Build::new(vec![(0, "0".into(), vec!["RUN x".into(); 60])]);
    for number in 0..300_u64 {
        let id = StepId {
            stage: 0,
            step: (number / 5) as usize,
        };
        let from = number * 40;
        build.span(
            Owner::Step(id),
            WORKS[(number % 10) as usize],
            "x",
            from,
            Some(from + 100),
            1000,
        );
    }
    let page = build.page(&Verdict::Failed("x".into()), 12_100);
    assert_eq!(page.matches("class=\"span ").count(), 300);
    assert!(page.len() < 200_000, "{}", page.len());
}

#[test]
fn more_spans_than_a_page_holds_are_counted() {
    let mut build = Build::new(vec![]);
    for _ in 0..MOST + 3 {
        build.span(Owner::Build, Work::Push, "", 0, Some(1), 0);
    }
    let page = build.page(&Verdict::Failed("x".into()), 10);
    assert!(page.contains("3 spans beyond the first 20000 are left out"));
}
