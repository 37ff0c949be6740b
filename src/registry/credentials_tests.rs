use super::*;
use std::os::unix::fs::PermissionsExt;

fn credentials(inline: Option<&str>, paths: &[&Path]) -> Credentials {
    Credentials::new(
        inline.map(str::to_owned),
        paths.iter().map(|p| p.to_path_buf()).collect(),
        Cancel::new().unwrap(),
    )
}

/// Writes a secret in one word.
fn shown(secret: &Secret) -> String {
    match secret {
        Secret::Anonymous => "nothing".into(),
        Secret::Basic { user, password } => format!("{user}:{password}"),
        Secret::Identity(token) => format!("identity {token}"),
        Secret::Access(token) => format!("access {token}"),
    }
}

fn find(config: &str, registry: &str, repository: &str) -> String {
    match credentials(Some(config), &[]).of(registry, repository) {
        Ok(found) => shown(&found.secret),
        Err(e) => e.to_string(),
    }
}

#[test]
fn matches_keys_the_way_docker_and_podman_write_them() {
    // bTpw is m:p.
    for (key, registry, repository, found) in [
        ("r.example", "r.example", "a/b", true),
        ("https://r.example", "r.example", "a/b", true),
        ("https://r.example/", "r.example", "a/b", true),
        ("http://r.example/v1/", "r.example", "a/b", true),
        ("https://r.example/v2/", "r.example", "a/b", true),
        ("r.example:5000", "r.example:5000", "a/b", true),
        ("r.example", "r.example:5000", "a/b", false),
        ("r.example:5000", "r.example", "a/b", false),
        ("r.example/a", "r.example", "a/b", true),
        ("r.example/a/b", "r.example", "a/b", true),
        ("r.example/a", "r.example", "ab/b", false),
        ("example", "r.example", "a/b", false),
        (
            "https://index.docker.io/v1/",
            "docker.io",
            "library/x",
            true,
        ),
        ("docker.io", "docker.io", "library/x", true),
        ("registry-1.docker.io", "docker.io", "library/x", true),
        ("docker.io/library", "docker.io", "library/x", true),
        ("docker.io", "r.example", "library/x", false),
    ] {
        let config = format!(r#"{{"auths":{{"{key}":{{"auth":"bTpw"}}}}}}"#);
        let wanted = if found { "m:p" } else { "nothing" };
        assert_eq!(
            find(&config, registry, repository),
            wanted,
            "{key} {registry}/{repository}"
        );
    }
}

#[test]
fn reads_each_kind_of_entry() {
    for (entry, wanted) in [
        (r#"{"auth":"bTpw"}"#, "m:p"),
        (r#"{"auth":"bTpwOnE="}"#, "m:p:q"),
        (r#"{"auth":"bTpwOnE"}"#, "m:p:q"),
        (r#"{"username":"u","password":"v"}"#, "u:v"),
        (r#"{"auth":"bTpw","identitytoken":"t"}"#, "identity t"),
        (r#"{"registrytoken":"t"}"#, "access t"),
        (r#"{"username":"<token>","password":"t"}"#, "identity t"),
        (r#"{"auth":"","email":"x"}"#, "nothing"),
        ("{}", "nothing"),
        ("null", "nothing"),
        (
            r#"{"auth":"!"}"#,
            "read credentials from DOCKER_AUTH_CONFIG: the entry `r` has an `auth` that is not base64",
        ),
        (
            r#"{"auth":"bQ=="}"#,
            "read credentials from DOCKER_AUTH_CONFIG: the entry `r` has an `auth` without a colon between user and password",
        ),
    ] {
        let config = format!(r#"{{"auths":{{"r":{entry}}}}}"#);
        assert_eq!(find(&config, "r", "a"), wanted, "{entry}");
    }
}

#[test]
fn takes_the_nearest() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, config: &str| {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, config).unwrap();
        path
    };
    let entry =
        |key: &str, user: &str| format!(r#""{key}":{{"username":"{user}","password":"p"}}"#);
    write(
        "one/config.json",
        &format!(
            r#"{{"auths":{{{},{}}}}}"#,
            entry("r/team/app", "app"),
            entry("r/team", "team")
        ),
    );
    let two = write(
        "two.json",
        &format!(r#"{{"auths":{{{}}}}}"#, entry("r", "two")),
    );
    let empty = write("empty.json", " \n");
    let missing = dir.path().join("missing");
    let one = dir.path().join("one");
    let all = credentials(None, &[&missing, &empty, &one, &two]);
    for (repository, wanted) in [
        ("team/app", "app:p"),
        ("team/app/deep", "app:p"),
        ("team/other", "team:p"),
        ("other", "two:p"),
    ] {
        let found = all.of("r", repository).unwrap();
        assert_eq!(shown(&found.secret), wanted, "{repository}");
        assert!(!found.told().contains(":p"), "{}", found.told());
    }
    let inline = format!(r#"{{"auths":{{{}}}}}"#, entry("r", "inline"));
    let found = credentials(Some(&inline), &[&one])
        .of("r", "team/app")
        .unwrap();
    assert_eq!(shown(&found.secret), "inline:p");

    let nothing = all.of("other", "a").unwrap().told();
    for part in ["no credentials were sent", "config.json", "two.json"] {
        assert!(nothing.contains(part), "{nothing}");
    }
    let broken = write("broken.json", "{\"auths\":{\"r\":{\"auth\":\"c2VjcmV0\n");
    let error = credentials(None, &[&broken])
        .of("r", "a")
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("broken.json") && error.contains("line"),
        "{error}"
    );
    assert!(!error.contains("c2VjcmV0"), "{error}");
}

/// Puts a helper on the disk whose name leads out of the PATH; names with a slash are refused
/// otherwise, so the program itself is run here.
fn helper(script: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("docker-credential-test");
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    (dir, path)
}

#[test]
fn understands_helpers() {
    for (script, wanted) in [
        (
            r#"read s; echo "{\"ServerURL\":\"$s\",\"Username\":\"$1\",\"Secret\":\"$s\"}""#,
            "get:the-server",
        ),
        (
            r#"echo '{"Username":"<token>","Secret":"t"}'"#,
            "identity t",
        ),
        (
            "echo credentials not found in native keychain; exit 1",
            "nothing",
        ),
        (r#"echo '{"Username":"","Secret":""}'"#, "nothing"),
        (
            "echo no luck; exit 1",
            "read credentials from the helper: it failed: no luck",
        ),
        (
            "echo on the other >&2; exit 2",
            "read credentials from the helper: it failed: on the other",
        ),
        (
            "echo secret-text",
            "read credentials from the helper: it did not print JSON with Username and Secret",
        ),
        (
            "while echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; do :; done",
            "read credentials from the helper: it printed more than 1048576 bytes",
        ),
    ] {
        let (_dir, path) = helper(script);
        let cancel = Cancel::new().unwrap();
        // A file that was just written may still be open for writing in another test's child.
        let answer = loop {
            match helper::run(&path, "the-server\n", "the helper", &cancel) {
                Err(e) if e.to_string().contains("busy") => {}
                other => break other,
            }
        };
        let got = match answer {
            Ok(Answer::Found(secret)) => shown(&secret),
            Ok(Answer::Nothing) => "nothing".into(),
            Ok(Answer::Missing) => "missing".into(),
            Err(e) => e.to_string(),
        };
        assert_eq!(got, wanted, "{script}");
    }
}

#[test]
fn ends_a_helper_when_cancelled() {
    let (_dir, path) = helper("exec sleep 1000");
    let cancel = Cancel::new().unwrap();
    cancel.cancel();
    let answer = loop {
        match helper::run(&path, "s", "the helper", &cancel) {
            Err(e) if e.to_string().contains("busy") => {}
            other => break other,
        }
    };
    assert!(matches!(answer, Err(Error::Cancelled)));
}

#[test]
fn looks_on_where_a_helper_is_missing() {
    let store = r#"{"credsStore":"surely-not-installed"}"#;
    let found = credentials(Some(store), &[]).of("r", "a").unwrap();
    assert!(found.told().contains("not installed"), "{}", found.told());
    let both = r#"{"credsStore":"surely-not-installed","auths":{"r":{"auth":"bTpw"}}}"#;
    assert_eq!(find(both, "r", "a"), "m:p");
    // One that is named for the registry must be there.
    let named = r#"{"credHelpers":{"r":"surely-not-installed"},"auths":{"r":{"auth":"bTpw"}}}"#;
    let error = find(named, "r", "a");
    assert!(
        error.contains("docker-credential-surely-not-installed"),
        "{error}"
    );
    assert_eq!(find(named, "s", "a"), "nothing");
    let odd = r#"{"credHelpers":{"r":"../../x"}}"#;
    assert!(find(odd, "r", "a").contains("not the name of a helper"));
}
