//! Servers of a cache that are slow, full, busy, broken, cut off or lie: every build is right, ends soon
//! and well, and says once what it did without.

use super::fake::{Asked, Fake, Reply, reply};
use super::forward::forward;
use super::objects::{build_with, noise};
use super::s3::{BUCKET, KEY, S3, SECRET};
use super::trouble::warnings;
use super::{Made, Project, build, registry};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What a server does instead of what it should, with the answer that it should give.
type Fault = fn(&Asked, Reply) -> Reply;

fn is_blob(asked: &Asked) -> bool {
    asked.method == "GET" && asked.path().contains("/blobs/")
}

fn is_upload(asked: &Asked) -> bool {
    matches!(asked.method.as_str(), "PUT" | "POST" | "PATCH")
}

/// A place of either kind behind a server that can go wrong.
enum Place {
    Registry(registry::Registry),
    Objects(S3),
}

struct Scene {
    project: Project,
    place: Place,
    fake: Fake,
    is_wrong: Arc<AtomicBool>,
}

impl Scene {
    fn new(place: Place, fault: Fault) -> Scene {
        let project = Project::new();
        project.file(
            "Dockerfile",
            "FROM base\nRUN echo one > /one\nCOPY large /large\nRUN cat /one /large > /both\n",
        );
        project.file("large", noise(300_000));
        let host = match &place {
            Place::Registry(registry) => registry.host.clone(),
            Place::Objects(server) => format!("127.0.0.1:{}", server.port),
        };
        let is_wrong = Arc::new(AtomicBool::new(false));
        let wrong = Arc::clone(&is_wrong);
        let fake = Fake::start(move |asked| {
            let right = forward(&host, asked);
            match wrong.load(Ordering::SeqCst) {
                true => fault(asked, right),
                false => right,
            }
        });
        Scene {
            project,
            place,
            fake,
            is_wrong,
        }
    }

    fn name(&self) -> String {
        match self.place {
            Place::Registry(_) => format!("{}/cache", self.fake.host),
            Place::Objects(_) => format!("s3://{BUCKET}/cache"),
        }
    }

    fn build(&self, store: &str) -> Made {
        self.build_with(store, "--cache")
    }

    fn build_with(&self, store: &str, flag: &str) -> Made {
        let name = self.name();
        let args = ["--insecure", flag, "--cache-repo", &name];
        let endpoint = format!("http://{}", self.fake.host);
        let env = [
            ("AWS_ACCESS_KEY_ID", KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET),
            ("S3_ENDPOINT", endpoint.as_str()),
        ];
        build_with(&self.project, store, &args, &env)
    }
}

/// When a server begins to go wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
enum From {
    /// Before anything was written.
    TheStart,
    /// Once all is written.
    TheSecondBuild,
}

fn check(what: &str, from: From, fault: Fault, longest: Duration) {
    std::thread::scope(|scope| {
        let places: [fn() -> Place; 2] = [
            || Place::Registry(registry::start()),
            || Place::Objects(S3::start()),
        ];
        for place in places {
            scope.spawn(move || check_one(what, from, Scene::new(place(), fault), longest));
        }
    });
}

fn check_one(what: &str, from: From, scene: Scene, longest: Duration) {
    let what = format!("{what} {}", scene.name());
    if from == From::TheSecondBuild {
        let first = scene.build("store");
        assert_eq!(warnings(&first.said), Vec::<String>::new(), "{what}");
        // What was changed last wants all that is below it.
        scene.project.file(
            "Dockerfile",
            "FROM base\nRUN echo one > /one\nCOPY large /large\nRUN cat /one /large /one > /all\n",
        );
    }
    scene.is_wrong.store(true, Ordering::SeqCst);
    let start = Instant::now();
    let made = scene.build("empty");
    let took = start.elapsed();
    let said = warnings(&made.said);
    assert!(took < longest, "{what}: {took:?} {said:#?}");
    let off = said.iter().filter(|text| text.contains("goes on without"));
    assert!(off.count() <= 1, "{what}: {said:#?}");
    assert!((1..=3).contains(&said.len()), "{what}: {said:#?}");
    let plain = build(&scene.project, "plain", &[]);
    assert_eq!(made.digest, plain.digest, "{what}");
    // And all is well again once the server is.
    scene.is_wrong.store(false, Ordering::SeqCst);
    let after = scene.build("after");
    assert_eq!(after.digest, plain.digest, "{what}");
    assert_eq!(warnings(&after.said), Vec::<String>::new(), "{what}");
}

const SOON: Duration = Duration::from_secs(30);

#[test]
fn an_error_for_everything() {
    check("500", From::TheStart, |_, _| reply(500), SOON);
}

#[test]
fn an_error_for_everything_that_was_there() {
    check("500", From::TheSecondBuild, |_, _| reply(500), SOON);
}

#[test]
fn busy_for_hours() {
    let busy: Fault = |_, _| reply(429).with("retry-after", "7200");
    check("429", From::TheStart, busy, SOON);
}

/// A short wait is kept, and all is well.
#[test]
fn busy_for_a_moment() {
    static ASKED: AtomicBool = AtomicBool::new(false);
    let busy: Fault = |asked, right| match is_upload(asked) && !ASKED.swap(true, Ordering::SeqCst) {
        true => reply(429).with("retry-after", "1"),
        false => right,
    };
    let scene = Scene::new(Place::Objects(S3::start()), busy);
    scene.is_wrong.store(true, Ordering::SeqCst);
    let made = scene.build("store");
    assert_eq!(warnings(&made.said), Vec::<String>::new());
    let again = scene.build("empty");
    assert_eq!(again.steps.made, Vec::<String>::new());
}

#[test]
fn full() {
    let full: Fault = |asked, right| match is_upload(asked) {
        true => reply(507),
        false => right,
    };
    check("full", From::TheStart, full, SOON);
}

#[test]
fn slow() {
    check("slow", From::TheStart, |_, right| right.silent(), SOON * 2);
}

#[test]
fn slow_with_blobs() {
    let slow: Fault = |asked, right| match is_blob(asked) {
        true => right.silent(),
        false => right,
    };
    check("slow blobs", From::TheSecondBuild, slow, SOON * 2);
}

/// A pack that comes too slowly is given up, and with it the place: what comes after waits for nothing.
#[test]
fn slow_with_caches_of_commands() {
    let slow: Fault = |asked, right| match is_blob(asked) && right.size() > 100_000 {
        true => right.drip(),
        false => right,
    };
    let check = |scene: Scene| {
        let what = scene.name();
        let dockerfile = |command: &str| {
            let mount =
                |name: &str| format!("RUN --mount=type=cache,target=/{name} {command} /{name}/x\n");
            let text = ["FROM base\n".to_owned(), mount("a"), mount("b"), mount("c")];
            scene.project.file("Dockerfile", text.concat());
        };
        let build = |store: &str| scene.build_with(store, "--cache-mounts");
        dockerfile("head -c 200000 /dev/urandom >");
        build("store");
        scene.is_wrong.store(true, Ordering::SeqCst);
        dockerfile("! test -e");
        let start = Instant::now();
        let made = build("empty");
        let took = start.elapsed();
        let said = warnings(&made.said);
        assert!(took < SOON * 2, "{what}: {took:?} {said:#?}");
        assert_eq!(said.len(), 1, "{what}: {said:#?}");
        assert!(said[0].contains("goes on without"), "{what}: {said:#?}");
        assert!(said[0].contains("bytes came in"), "{what}: {said:#?}");
        // It has what it had.
        scene.is_wrong.store(false, Ordering::SeqCst);
        dockerfile("test -s");
        let after = build("after");
        assert_eq!(warnings(&after.said), Vec::<String>::new(), "{what}");
    };
    std::thread::scope(|scope| {
        scope.spawn(|| check(Scene::new(Place::Registry(registry::start()), slow)));
        scope.spawn(|| check(Scene::new(Place::Objects(S3::start()), slow)));
    });
}

#[test]
fn cut_in_the_middle_of_a_layer() {
    let cut: Fault = |asked, right| match is_blob(asked) {
        true => right.cut_after(100),
        false => right,
    };
    check("cut", From::TheSecondBuild, cut, SOON);
}

#[test]
fn hung_up_on() {
    let gone: Fault = |asked, right| match is_blob(asked) {
        true => right.hang_up(),
        false => right,
    };
    check("hung up", From::TheSecondBuild, gone, SOON);
}

/// Other bytes of the same number.
#[test]
fn lies() {
    let lie: Fault = |asked, right| match is_blob(asked) {
        true => right.turned(),
        false => right,
    };
    check("lies", From::TheSecondBuild, lie, SOON);
}
