//! What must not be found in a cache, wherever it is: values of secrets, and of build arguments.

use super::{Project, project, registry};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Everything below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        out.push(path.clone());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            out.extend(files(&path));
        }
    }
    out
}

/// Gives a file as it is, and what is in it where it is compressed.
fn contents(path: &Path) -> Vec<Vec<u8>> {
    let bytes = std::fs::read(path).unwrap_or_default();
    let programs = [("zstd", &b"\x28\xb5\x2f\xfd"[..]), ("gzip", b"\x1f\x8b")];
    let mut out = Vec::new();
    for (program, _) in programs
        .iter()
        .filter(|(_, magic)| bytes.starts_with(magic))
    {
        let mut command = Command::new(program);
        command
            .arg("-dc")
            .stdin(std::fs::File::open(path).expect("open"));
        let output = command.output();
        let output = output.unwrap_or_else(|e| panic!("these tests need `{program}`: {e}"));
        assert!(output.status.success(), "{}", path.display());
        out.push(output.stdout);
    }
    out.push(bytes);
    out
}

fn found(dirs: &[&Path], value: &str) -> Vec<PathBuf> {
    let has = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains(value);
    let all = dirs.iter().flat_map(|dir| files(dir));
    let hits = all.filter(|path| {
        has(path.as_os_str().as_encoded_bytes()) || contents(path).iter().any(|bytes| has(bytes))
    });
    hits.collect()
}

#[test]
fn no_value_is_in_a_cache() {
    let project = Project::new();
    project.file("src", "x\n").file("given-to-copy", "y\n");
    project.file(
        "Dockerfile",
        "FROM base AS first\n\
         ARG GIVEN\n\
         ARG NAME\n\
         RUN --mount=type=secret,id=one --mount=type=secret,id=two,env=TWO \
             --mount=type=cache,target=/c,id=$GIVEN \
             cat /run/secrets/one | md5sum > /c/sum; echo \"$TWO$GIVEN\" | md5sum > /sum\n\
         RUN --mount=type=secret,id=one,target=/deep/one echo \"$GIVEN\" > /dev/null\n\
         COPY $NAME /copied\n\
         FROM base\n\
         COPY --from=first /sum /sum\n\
         RUN <<END\necho heredoc\nEND\n",
    );
    let registry = registry::start();
    let repo = format!("{}/cache", registry.host);
    let (one, two, given) = ("correct-horse", "battery-staple", "tr0ub4dor-and-3");
    project.file("../one", format!("{one}\n"));
    let file = format!("id=one,src={}", project.path("one").display());
    let mut command = project.command();
    command.args([
        "--insecure",
        "--cache",
        "--cache-mounts",
        "--cache-repo",
        &repo,
    ]);
    command.args(["--secret", &file, "--secret", "id=two,env=TWO", "--no-push"]);
    command.args(["--build-arg", &format!("GIVEN={given}")]);
    command.args(["--build-arg", "NAME=given-to-copy"]);
    command.env("TWO", two);
    project::succeed(&mut command);
    let steps = std::fs::read_dir(project.path("store/steps")).expect("steps");
    assert!(steps.count() >= 5);
    assert!(registry.hexes().len() >= 10);
    let store = project.path("store");
    for value in [one, two] {
        let found = found(&[&store, registry.dir()], value);
        assert_eq!(found, Vec::<PathBuf>::new(), "{value}");
    }
    // The id of a cache is a file of the store, as the command wrote it; what travels has no value.
    let steps = store.join("steps");
    let found = found(&[&steps, registry.dir()], given);
    assert_eq!(found, Vec::<PathBuf>::new());
    // Nor is it in what is said of it.
    let mut command = Command::new(env!("CARGO_BIN_EXE_shutter"));
    command.args([
        "cache",
        "explain",
        "--insecure",
        "--cache-repo",
        &repo,
        "--json",
    ]);
    command.arg("--context").arg(project.path("context"));
    command
        .arg("--cache-dir")
        .arg(&store)
        .arg("--build-context");
    command.arg(format!("base=oci-layout://{}", project.base.display()));
    command.args(["--build-arg", &format!("GIVEN={given}x")]);
    command.args(["--build-arg", "NAME=given-to-copy", "--secret", &file]);
    let output = project::succeed(&mut command);
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    for part in ["variable GIVEN", "\"given\""] {
        assert!(said.contains(part), "{said}");
    }
    for value in [one, two, given] {
        assert!(!said.contains(value), "{said}");
    }
    // And it is a cache all the same.
    let mut command = project.command();
    command.args([
        "--insecure",
        "--cache",
        "--cache-mounts",
        "--cache-repo",
        &repo,
    ]);
    command.args(["--secret", &file, "--secret", "id=two,env=TWO", "--no-push"]);
    command.args(["--build-arg", &format!("GIVEN={given}")]);
    command.args(["--build-arg", "NAME=given-to-copy", "--log-format", "json"]);
    command.env("TWO", "another");
    let output = project::succeed(&mut command);
    let steps = super::steps(&String::from_utf8_lossy(&output.stderr));
    assert_eq!(steps.made, Vec::<String>::new());
}
