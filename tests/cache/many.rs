//! Many builds at once, as processes, with one store and one registry.

use super::fake::Fake;
use super::forward::forward;
use super::{Project, project, registry};
use std::collections::BTreeMap;
use std::process::{Child, Stdio};

/// So many builds at once.
const BUILDS: usize = 50;
/// Of so many different Dockerfiles.
const KINDS: usize = 5;

/// All are right, and the registry gets each blob once, whatever repository it is for.
#[test]
fn fifty_builds_at_once() {
    let project = Project::new();
    project.file("shared", "shared\n");
    for kind in 0..KINDS {
        let text = format!(
            "FROM base AS tool\nCOPY shared /shared\nRUN cat /shared > /tool\n\
             FROM base\nWORKDIR /work\nCOPY --from=tool /tool /tool\n\
             RUN echo {kind} > /kind\nCOPY Dockerfile.{kind} last\n"
        );
        project.file(&format!("Dockerfile.{kind}"), text);
    }
    let real = registry::start();
    let host = real.host.clone();
    let proxy = Fake::start(move |asked| forward(&host, asked));
    let repo = format!("{}/cache", proxy.host);
    let start = |number: usize| -> Child {
        let kind = number % KINDS;
        let mut command = project.command();
        let name = format!("Dockerfile.{kind}");
        command
            .arg("--dockerfile")
            .arg(project.path("context").join(name));
        command.args(["--reproducible", "--insecure", "--cache"]);
        command.args(["--cache-repo", &repo]);
        let tag = format!("{}/image{kind}:{number}", proxy.host);
        command.args(["--destination", &tag, "--digest-file"]);
        command.arg(project.path(&format!("digest{number}")));
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn().expect("start")
    };
    let children: Vec<Child> = (0..BUILDS).map(start).collect();
    let mut digests: BTreeMap<usize, String> = BTreeMap::new();
    for (number, child) in children.into_iter().enumerate() {
        let output = child.wait_with_output().expect("wait");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{number}: {said}");
        // The registry does not know a blob for a moment that another build puts there too.
        let mut warnings = said.lines().filter(|line| line.starts_with("WARN"));
        let is_bad = |line: &str| !line.ends_with("it is tried again");
        assert!(!warnings.any(is_bad), "{number}: {said}");
        let digest = std::fs::read_to_string(project.path(&format!("digest{number}")));
        let digest = digest.expect("a digest");
        let first = digests
            .entry(number % KINDS)
            .or_insert_with(|| digest.clone());
        assert_eq!(*first, digest, "{number}");
    }
    for number in 0..BUILDS {
        let tag = number.to_string();
        assert!(real.has_tag(&format!("image{}", number % KINDS), &tag));
    }
    // A digest is named where an upload ends.
    let mut sent: BTreeMap<String, usize> = BTreeMap::new();
    for line in proxy.lines() {
        if line.starts_with("PUT") && line.contains("/blobs/uploads/") {
            let digest = line.split("digest=").nth(1).unwrap_or_default();
            *sent.entry(digest.to_owned()).or_default() += 1;
        }
    }
    assert!(sent.len() > 2 * KINDS, "{sent:#?}");
    let again: Vec<_> = sent.iter().filter(|(_, times)| **times > 1).collect();
    assert!(again.is_empty(), "{again:#?} of {}", sent.len());
    // And what is there is all there.
    for kind in 0..KINDS {
        let image = format!("docker://{}/image{kind}:{kind}", real.host);
        let to = format!("dir:{}", project.path(&format!("out{kind}")).display());
        registry::run(
            "skopeo",
            &["copy", "--src-tls-verify=false", "-q", &image, &to],
        );
    }
    let left = project::mounts(&project.path("store"));
    assert_eq!(left, Vec::<String>::new());
}
