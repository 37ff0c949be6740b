//! Registries that let nobody in, or not this one: the build is right, and says once what it did without.

use super::fake::{Asked, Fake, reply};
use super::forward::forward;
use super::trouble::warnings;
use super::{Made, Project, build, build_by, registry};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

fn project() -> Project {
    let project = Project::new();
    let text = "FROM base\nRUN --mount=type=cache,target=/c echo one | tee /one > /c/one\nCOPY a /a\n\
                RUN cat /one /a > /both\n";
    project.file("Dockerfile", text).file("a", "a\n");
    project
}

/// Builds with a login for a registry, or with none.
fn build_as(project: &Project, store: &str, host: &str, login: &str, more: &[&str]) -> Made {
    let dir = project.path("login");
    std::fs::create_dir_all(&dir).expect("a directory");
    let entry = match login {
        "" => "{}".to_owned(),
        login => format!(r#"{{"{host}": {{"auth": "{}"}}}}"#, STANDARD.encode(login)),
    };
    let text = format!(r#"{{"auths": {entry}}}"#);
    std::fs::write(dir.join("config.json"), text).expect("write");
    let args = [
        &["--insecure", "--insecure-pull", "--cache", "--cache-mounts"],
        more,
    ]
    .concat();
    build_by(project, store, &args, |mut usual| {
        usual.env("DOCKER_CONFIG", &dir);
        usual
    })
}

/// Gives what was said of the cache, below warnings.
fn infos(made: &Made) -> Vec<String> {
    let lines = made.said.lines();
    let lines = lines.filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let told = lines.filter(|line| line["level"] == "info");
    let texts = told.filter_map(|line| Some(line["msg"].as_str()?.to_owned()));
    texts
        .filter(|text| text.contains("taken for empty"))
        .collect()
}

#[test]
fn who_may_not_log_in_builds_without() {
    let registry = registry::start_with(&registry::Setup {
        login: Some(("me".into(), "s3cret".into())),
        ..registry::Setup::default()
    });
    let project = project();
    let repo = format!("{}/cache", registry.host);
    let plain = build(&project, "plain", &[]);
    let writes = ["--cache-repo", repo.as_str()];
    let first = build_as(&project, "store", &registry.host, "me:s3cret", &writes);
    assert_eq!(warnings(&first.said), Vec::<String>::new());
    let reads = ["--cache-from", repo.as_str()];
    let keeps = ["--cache-repo", repo.as_str(), "--no-push-cache"];
    for login in ["", "me:wr0ng"] {
        for (more, says) in [
            (&writes[..], "goes on without the cache"),
            (&reads, "is taken for empty"),
            (&keeps, "is taken for empty"),
        ] {
            let what = format!("{login} {more:?}");
            let _ = std::fs::remove_dir_all(project.path("empty"));
            let made = build_as(&project, "empty", &registry.host, login, more);
            assert_eq!(made.digest, plain.digest, "{what}");
            assert_eq!(made.steps.cached, Vec::<String>::new(), "{what}");
            let said = warnings(&made.said);
            assert_eq!(said.len(), 1, "{what}: {said:#?}");
            assert!(
                said[0].contains(says) && said[0].contains("401"),
                "{what}: {said:#?}"
            );
            assert!(said[0].contains(&repo), "{what}: {said:#?}");
            assert!(!made.said.contains("wr0ng"), "{what}: {}", made.said);
        }
    }
    for more in [&writes[..], &reads, &keeps] {
        let _ = std::fs::remove_dir_all(project.path("empty"));
        let made = build_as(&project, "empty", &registry.host, "me:s3cret", more);
        assert_eq!(made.steps.made, Vec::<String>::new(), "{more:?}");
        assert_eq!(made.digest, plain.digest, "{more:?}");
        assert_eq!(warnings(&made.said), Vec::<String>::new(), "{more:?}");
    }
}

/// Some registries say so of a repository that nobody has made yet.
#[test]
fn a_repository_that_may_be_written_to_but_not_read() {
    let real = registry::start();
    let host = real.host.clone();
    let is_read = |asked: &Asked| asked.method == "GET" && asked.path().contains("/manifests/");
    let proxy = Fake::start(move |asked| match is_read(asked) {
        true => reply(403),
        false => forward(&host, asked),
    });
    let project = project();
    let plain = build(&project, "plain", &[]);
    let repo = format!("{}/cache", proxy.host);
    let made = build_as(&project, "store", &proxy.host, "", &["--cache-repo", &repo]);
    assert_eq!(made.digest, plain.digest);
    assert_eq!(warnings(&made.said), Vec::<String>::new());
    let told = infos(&made);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].contains(&repo) && told[0].contains("403"),
        "{told:?}"
    );
    // All is there for who may read it.
    let repo = format!("{}/cache", real.host);
    let again = build_as(&project, "empty", &real.host, "", &["--cache-from", &repo]);
    assert_eq!(again.steps.made, Vec::<String>::new());
    assert_eq!(again.digest, plain.digest);
}

/// What stands under keys may be read, and blobs may not: that is seen when the first one is wanted.
#[test]
fn blobs_that_may_not_be_read() {
    let real = registry::start();
    let repo = format!("{}/cache", real.host);
    let project = project();
    build_as(&project, "store", "", "", &["--cache-repo", &repo]);
    let text = "FROM base\nRUN --mount=type=cache,target=/c echo one | tee /one > /c/one\nCOPY a /a\n\
                RUN --mount=type=cache,target=/c cat /one /a > /new\n";
    project.file("Dockerfile", text);
    let plain = build(&project, "plain", &[]);
    for status in [401, 403] {
        let host = real.host.clone();
        let is_blob = |asked: &Asked| asked.method == "GET" && asked.path().contains("/blobs/");
        let proxy = Fake::start(move |asked| match is_blob(asked) {
            true => reply(status),
            false => forward(&host, asked),
        });
        let repo = format!("{}/cache", proxy.host);
        let _ = std::fs::remove_dir_all(project.path("empty"));
        let made = build_as(&project, "empty", "", "", &["--cache-repo", &repo]);
        assert_eq!(made.digest, plain.digest, "{status}");
        let said = warnings(&made.said);
        assert_eq!(said.len(), 1, "{status}: {said:#?}");
        assert!(said[0].contains("goes on without the cache"), "{said:#?}");
        assert!(said[0].contains(&status.to_string()), "{said:#?}");
    }
}
