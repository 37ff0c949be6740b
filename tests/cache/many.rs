//! Many builds at once, as processes, with one store and one registry.

use super::fake::Fake;
use super::forward::forward;
use super::{Project, project, registry};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};

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

/// Builds that wait for one whose step fails do not fail one after the other.
#[test]
fn a_step_that_fails_is_waited_for_once() {
    let project = Project::new();
    // The first one fails when it is told to, the others once all of them are there.
    project.file(
        "Dockerfile",
        "FROM base\nRUN --mount=type=cache,target=/c <<END\n\
         n=0\n\
         soon() { n=$((n + 1)); [ $n -lt 600 ] || exit 9; sleep 0.1; }\n\
         if mkdir /c/lead 2>/dev/null; then\n\
           echo leads\n\
           until [ -e /c/go ]; do soon; done\n\
         else\n\
           mkdir /c/in.$(cat /proc/sys/kernel/random/uuid)\n\
           until [ $(ls -d /c/in.* | wc -l) = 3 ]; do soon; done\n\
         fi\n\
         exit 7\nEND\n",
    );
    let start = || -> (Child, BufReader<ChildStderr>) {
        let mut command = project.command();
        command.args(["--cache", "--no-push"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("start");
        let said = BufReader::new(child.stderr.take().expect("piped"));
        (child, said)
    };
    let hear = |said: &mut dyn BufRead, wanted: &str| {
        let mut all = String::new();
        while !all.contains(wanted) {
            let n = said.read_line(&mut all).expect("text");
            assert!(n > 0, "no `{wanted}` in {all}");
        }
    };
    let mut all = vec![start()];
    let out = all[0].0.stdout.take().expect("piped");
    hear(&mut BufReader::new(out), "leads");
    all.extend((0..3).map(|_| start()));
    for (_, said) in &mut all[1..] {
        hear(said, "waiting for another build");
    }
    let mut find = Command::new("find");
    let found = find.arg(project.path("store")).args(["-name", "lead"]);
    let found = found.output().expect("find").stdout;
    let lead = String::from_utf8(found).expect("a path");
    let go = Path::new(lead.trim_end()).with_file_name("go");
    std::fs::write(go, "").expect("write");
    for (child, mut said) in all {
        let mut rest = String::new();
        said.read_to_string(&mut rest).expect("text");
        let output = child.wait_with_output().expect("wait");
        assert!(!output.status.success());
        assert!(rest.contains("ended with exit code 7"), "{rest}");
    }
}
