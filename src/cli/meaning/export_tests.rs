use super::super::tests::{mean_in, place};
use crate::cli::parse::Called;
use crate::oci::{Format, Reference};
use crate::request::{Output, Place};

#[test]
fn outputs_are_spelled_as_buildx_spells_them() {
    let dir = place();
    let at = |path: &str| dir.path().join(path);
    let file = |path: &str| Place::File(at(path));
    let cases: Vec<(&[&str], Vec<Output>)> = vec![
        (&["-o", "out"], vec![Output::Directory(at("out"))]),
        (&["-o", "-"], vec![Output::RootTar(Place::Stdout)]),
        (&["--output=type=tar"], vec![Output::RootTar(Place::Stdout)]),
        (
            &["-o=type=tar,dest=a.tar"],
            vec![Output::RootTar(file("a.tar"))],
        ),
        (
            &["-o=type=docker,dest=-"],
            vec![Output::DockerTar(Place::Stdout)],
        ),
        (&["-o=type=oci"], vec![Output::OciTar(Place::Stdout)]),
        (
            &["-o=type=oci,tar=true,dest=/a b.tar"],
            vec![Output::OciTar(Place::File("/a b.tar".into()))],
        ),
        (
            &["-o=type=oci,tar=false,dest=lay"],
            vec![Output::OciLayout(at("lay"))],
        ),
        (
            &["-o=type=local,dest=a,platform-split=false"],
            vec![Output::Directory(at("a"))],
        ),
        (
            &[r#"-o=type=local,"dest=a,b""#],
            vec![Output::Directory(at("a,b"))],
        ),
        (
            &[
                "-o=one",
                "-o=type=tar",
                "--tar-path=t",
                "--oci-layout-path=l",
                "-o=type=docker,dest=d",
            ],
            vec![
                Output::OciLayout(at("l")),
                Output::DockerTar(file("t")),
                Output::Directory(at("one")),
                Output::RootTar(Place::Stdout),
                Output::DockerTar(file("d")),
            ],
        ),
        (
            &["--tar-path=/dev/stdout", "--no-push"],
            vec![Output::DockerTar(Place::Stdout)],
        ),
        (&["-o=type=cacheonly"], vec![]),
        (&["-o=", "--no-push"], vec![]),
        (
            &["-o=type=tar,dest=/dev/null", "-o=type=oci,dest=/dev/null"],
            vec![
                Output::RootTar(Place::File("/dev/null".into())),
                Output::OciTar(Place::File("/dev/null".into())),
            ],
        ),
    ];
    for (args, want) in cases {
        let args = [&["-c=ctx"], args].concat();
        let (request, _) = mean_in(dir.path(), Called::Executor, &args, &[]).unwrap();
        assert_eq!(request.outputs, want, "{args:?}");
        assert!(request.destinations.is_empty(), "{args:?}");
    }
}

#[test]
fn names_of_outputs_are_destinations_or_labels() {
    let dir = place();
    let mean = |args: &[&str]| {
        let args = [&["ctx"], args].concat();
        let (request, options) = mean_in(dir.path(), Called::Shutter, &args, &[]).unwrap();
        let words = |all: &[Reference]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
        (
            words(&request.destinations),
            words(&request.names),
            words(&options.names),
            request.format,
        )
    };
    let a = || vec!["docker.io/library/a:latest".to_owned()];
    let b = || vec!["b.test/b:1".to_owned()];
    for (args, pushed, named, noted) in [
        (&["-o=type=registry,name=a"][..], a(), a(), a()),
        (&["-o=type=image,name=a,push=true"], a(), a(), a()),
        (&["-o=type=image,name=a"], vec![], a(), a()),
        (&["-o=type=image,name=a,push=false"], vec![], a(), a()),
        (&["-o=type=registry,name=a", "--no-push"], vec![], a(), a()),
        (&["-o=type=registry", "-d=a"], a(), a(), a()),
        (&["-o=type=registry,name=a", "-d=a"], a(), a(), a()),
        (
            &["-o=type=docker,name=b.test/b:1,dest=x", "-d=a"],
            a(),
            b(),
            a(),
        ),
        (&["-o=type=docker,dest=x", "-d=a"], a(), a(), a()),
        (
            &[r#"-o=type=registry,"name=a,b.test/b:1""#],
            [a(), b()].concat(),
            [a(), b()].concat(),
            [a(), b()].concat(),
        ),
    ] {
        let got = mean(args);
        assert_eq!((got.0, got.1, got.2), (pushed, named, noted), "{args:?}");
    }
    assert_eq!(mean(&["-o=type=oci,dest=x"]).3, Some(Format::Oci));
    assert_eq!(
        mean(&["-o=type=oci,dest=x", "--image-format=docker"]).3,
        Some(Format::Docker)
    );
    assert_eq!(mean(&["-o=type=docker,dest=x"]).3, None);
}

#[test]
fn wrong_outputs_are_refused_by_name() {
    let dir = place();
    for (args, want) in [
        (&["-o=type=floppy,dest=x"][..], "unknown type `floppy`"),
        (&["-o=dest=x"], "`dest=x` has no type"),
        (&["-o=type=tar,x"], "`x` is not KEY=VALUE"),
        (&[r#"-o=type=tar,"dest=x"#], "a double quote has no end"),
        (&["-o=type=local"], "type=local wants dest=DIRECTORY"),
        (&["-o=type=local,dest=-"], "cannot go to standard output"),
        (&["-o=type=oci,tar=false"], "type=oci wants dest=DIRECTORY"),
        (&["-o=type=docker"], "type=docker wants dest=FILE"),
        (
            &["-o=type=docker,tar=false,dest=x"],
            "tar=false is not supported",
        ),
        (
            &["-o=type=tar,tar=true"],
            "attribute `tar` is not supported",
        ),
        (&["-o=type=oci,tar=perhaps"], "tar=perhaps: true or false"),
        (
            &["-o=type=oci,dest=x,compression=zstd"],
            "attribute `compression` is not supported",
        ),
        (
            &["-o=type=image,push-by-digest=true"],
            "attribute `push-by-digest` is not supported",
        ),
        (
            &["-o=type=image,dest=x"],
            "attribute `dest` is not supported",
        ),
        (&["-o=type=cacheonly,dest=x"], "it has no attribute `dest`"),
        (&["-o=type=registry"], "type=registry wants name=IMAGE"),
        (&["-o=type=registry,name=UP"], "type=registry: `UP` is not"),
        (
            &["-o=type=image,push=false", "-d=x"],
            "type=image without push=true and --destination exclude each other",
        ),
        (
            &["-o=type=docker,dest=x,name=a", "-o=type=oci,dest=y,name=b"],
            "archives with different names",
        ),
        (
            &["-o=-", "-o=type=oci"],
            "two outputs cannot both go to standard output",
        ),
        (
            &["-o=a", "-o=type=tar,dest=./a"],
            "two outputs cannot both be ",
        ),
        (
            &["-o=type=tar,dest=a", "--digest-file=a"],
            "two outputs cannot both be ",
        ),
        (
            &["-o=-", "--digest-file=/dev/stdout"],
            "standard output is taken",
        ),
        (
            &["-o=type=docker,dest=a", "--compression=zstd"],
            "--compression=zstd and --output type=docker exclude each other",
        ),
        (
            &["-o=type=docker,dest=a", "--image-format=oci"],
            "--output type=docker and --image-format=oci exclude each other",
        ),
        (
            &["-o=a", "--image-name-with-digest-file=x"],
            "wants a --destination",
        ),
    ] {
        let args = [&["ctx"], args].concat();
        match mean_in(dir.path(), Called::Shutter, &args, &[]) {
            Ok(_) => panic!("{args:?} is taken"),
            Err(usage) => assert!(usage.message.contains(want), "{args:?}: {usage}"),
        }
    }
}
