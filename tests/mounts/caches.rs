//! Caches of commands.

use crate::listing::read_layout;
use crate::project::Project;
use crate::{end, has, nothing_is_left, wait_for};
use std::fs;
use std::process::Child;

/// Starts a build whose command waits for the end of its standard input's stead, a file.
fn start(project: &Project, dockerfile: &str, out: &str) -> Child {
    let file = project.path(out).with_extension("Dockerfile");
    fs::write(&file, dockerfile).expect("write");
    let out = project.path(out);
    let _ = fs::remove_dir_all(&out);
    project.spawn(&[
        "--no-push",
        "--dockerfile",
        file.to_str().expect("a path"),
        "--oci-layout-path",
        out.to_str().expect("a path"),
    ])
}

#[test]
fn a_cache_is_kept_between_builds_and_in_no_layer() {
    let project = Project::new();
    project.file(
        "Dockerfile",
        "FROM base AS seed\nRUN mkdir -p /s/d && echo seed > /s/d/f && chmod 700 /s && chown 3:4 /s\n\
         FROM base\nARG N\n\
         RUN --mount=type=cache,target=/c cat /c/* 2>/dev/null; echo $N > /c/$N; ls /c > /all\n\
         RUN --mount=type=cache,id=/c,target=/d,ro ls /d > /again; ! touch /d/x\n\
         RUN --mount=type=cache,id=/c,target=/c --mount=type=cache,id=/c,target=/e,sharing=locked \
           touch /c/both && test -e /e/both && rm /e/both\n\
         RUN --mount=type=cache,id=s,target=/c,from=seed,source=/s \
           stat -c '%a %u %g' /c > /seeded; cat /c/d/f >> /seeded; echo $N >> /c/d/f\n\
         RUN --mount=type=cache,id=b,target=/c,from=base,source=/bin test -x /c/busybox -o -e /c/second && rm -rf /c/* && touch /c/second\n\
         RUN --mount=type=cache,id=b,target=/c,from=base,source=/bin test \"$(ls /c)\" = second\n\
         RUN --mount=type=cache,id=b,target=/c,from=base test -x /c/bin/busybox\n",
    );
    project.build("one", &["--build-arg", "N=1"]);
    assert!(has(&project, "one", "all", "1\n") && has(&project, "one", "again", "1\n"));
    assert!(has(&project, "one", "seeded", "700 3 4\nseed\n"));
    let two = read_layout(&project.path("one"));
    assert!(
        two.files.keys().all(|path| !path.starts_with(b"c")),
        "{:?}",
        two.files.keys()
    );

    // The stage is built again, with other times: its cache is the same one.
    project.build("two", &["--build-arg", "N=2", "--reproducible"]);
    assert!(has(&project, "two", "all", "1\n2\n"));
    assert!(has(&project, "two", "seeded", "700 3 4\nseed\n1\n"));
}

#[test]
fn builds_at_the_same_time_share_lock_and_part_their_caches() {
    let project = Project::new();
    // One holds the cache until a file in it tells it to end; the other comes meanwhile.
    let hold = |sharing: &str| {
        format!(
            "FROM base\nRUN --mount=type=cache,target=/c,sharing={sharing} \
             --mount=type=cache,id=go,target=/go \
             echo holder > /c/holder; echo holding; until rm /go/end 2>/dev/null; do :; done\n"
        )
    };
    let go = "RUN --mount=type=cache,id=go,target=/go touch /go/end\n";
    for (held, wanted, seen) in [
        ("shared", "shared", "holder\n"),
        ("shared", "private", ""),
        ("locked", "private", ""),
        ("private", "shared", ""),
        // Of one cache, the mount that shares least counts.
        (
            "shared",
            "shared --mount=type=cache,id=/c,target=/e,sharing=private",
            "",
        ),
    ] {
        let mut holder = start(&project, &hold(held), "holder");
        wait_for(&mut holder, "holding");
        let other = format!(
            "FROM base\nRUN --mount=type=cache,target=/c,sharing={wanted} ls /c > /seen\n{go}"
        );
        let (code, said) = end(start(&project, &other, "other"));
        assert_eq!(code, Some(0), "{said}");
        assert!(
            has(&project, "other", "seen", seen),
            "{held}, {wanted}: {said}"
        );
        assert_eq!(end(holder).0, Some(0));
        let caches = project.path("store/caches");
        fs::remove_dir_all(&caches).expect("forget the caches");
        fs::create_dir(&caches).expect("forget the caches");
    }
    // A locked one is waited for, until it is free or the build is cancelled.
    let mut holder = start(&project, &hold("locked"), "holder");
    wait_for(&mut holder, "holding");
    let wants = "FROM base\nRUN --mount=type=cache,target=/c,sharing=locked ls /c > /seen\n";
    let mut patient = start(&project, wants, "patient");
    wait_for(&mut patient, "waiting for the cache");
    let mut cancelled = start(&project, wants, "cancelled");
    wait_for(&mut cancelled, "waiting for the cache");
    let pid = rustix::process::Pid::from_child(&cancelled);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("kill");
    let (code, said) = end(cancelled);
    assert_eq!(code, Some(143), "{said}");
    let (code, said) = end(start(&project, &format!("FROM base\n{go}"), "go"));
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(end(patient).0, Some(0));
    assert_eq!(end(holder).0, Some(0));
    assert!(has(&project, "patient", "seen", "holder\n"));
    // A lock dies with its holder, whatever kills that.
    let mut holder = start(&project, &hold("locked"), "holder");
    wait_for(&mut holder, "holding");
    holder.kill().expect("kill");
    end(holder);
    let (code, said) = end(start(&project, wants, "after"));
    assert_eq!(code, Some(0), "{said}");
    assert!(has(&project, "after", "seen", "holder\n"), "{said}");
    nothing_is_left(&project);
}

#[test]
fn a_cache_is_waited_for_by_one_build_s_own_stages_too() {
    let project = Project::new();
    // Each stage takes two locked caches, in another order; and counts up without a lock of its own.
    let stage = |name: &str, first: &str, second: &str| {
        format!(
            "FROM base AS {name}\nRUN --mount=type=cache,id={first},target=/x,sharing=locked \
             --mount=type=cache,id={second},target=/y,sharing=locked \
             for i in 1 2 3 4 5 6 7 8 9; do n=$(cat /{at}/n 2>/dev/null || echo 0); \
             echo $((n + 1)) > /{at}/n; done; touch /{name}\n",
            at = if first == "one" { "x" } else { "y" },
        )
    };
    project.file(
        "Dockerfile",
        format!(
            "{}{}{}FROM base\nCOPY --from=a /a /\nCOPY --from=b /b /\nCOPY --from=c /c /\n\
             RUN --mount=type=cache,id=one,target=/x cat /x/n > /n\n",
            stage("a", "one", "two"),
            stage("b", "two", "one"),
            stage("c", "one", "two")
        ),
    );
    project.build("out", &[]);
    assert!(has(&project, "out", "n", "27\n"));
}
