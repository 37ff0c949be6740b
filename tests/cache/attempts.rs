//! Entries of which a layer is gone or cut, in several steps, stages and places: the build makes another
//! attempt, with what is whole, and is right.

use super::inplace::in_place;
use super::trouble::{listing, warnings};
use super::{Made, Project, build, build_by, registry};
use std::path::{Path, PathBuf};

const ONE: &str = "RUN echo one > /one; rm /tree/file";
const TWO: &str = "RUN echo two > /two";

/// Two stages whose last commands stand on layers of the cache.
fn dockerfile(project: &Project, last: &str) {
    let text = format!(
        "FROM base AS a\n{ONE}\nRUN cat /one > /uno; echo {last} >> /uno\n\
         FROM base\n{TWO}\nCOPY --from=a /uno /uno\nRUN cat /two /uno > /last; echo {last}\n"
    );
    project.file("Dockerfile", text);
}

/// What became of a layer.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Gone,
    Cut,
    Flipped,
}

fn damage(path: &Path, fate: Fate) {
    let bytes = std::fs::read(path).expect("a blob");
    let done = match fate {
        Fate::Gone => std::fs::remove_file(path),
        Fate::Cut => std::fs::write(path, &bytes[..bytes.len() / 2]),
        Fate::Flipped => {
            std::fs::write(path, bytes.iter().map(|byte| byte ^ 1).collect::<Vec<_>>())
        }
    };
    done.expect("damage");
}

/// What is damaged: in which place the layer of the first or the second stage is so; the steps that
/// have to be made again for that besides the last ones; and how often something is said.
type Row = (
    &'static [(usize, usize, Fate)],
    &'static [&'static str],
    usize,
);

const TABLE: &[Row] = &[
    (&[(0, 0, Fate::Gone), (0, 1, Fate::Cut)], &[], 2),
    (&[(0, 0, Fate::Gone), (1, 1, Fate::Cut)], &[], 2),
    (&[(0, 0, Fate::Flipped), (1, 0, Fate::Cut)], &[], 2),
    (&[(0, 1, Fate::Cut), (1, 0, Fate::Gone)], &[], 2),
    (
        &[(0, 0, Fate::Cut), (1, 0, Fate::Gone), (2, 0, Fate::Gone)],
        &[ONE, TWO],
        3,
    ),
];

fn check(build_by: &dyn Fn(&Project, &str, &[&str]) -> Made) {
    for (damages, made_again, said) in TABLE {
        let project = Project::new();
        let registry = registry::start();
        let layouts = [project.path("second"), project.path("third")];
        let mut args = vec!["--insecure".to_owned(), "--cache".to_owned()];
        for place in [
            format!("{}/cache", registry.host),
            format!("oci:{}", layouts[0].display()),
            format!("oci:{}", layouts[1].display()),
        ] {
            args.extend(["--cache-repo".to_owned(), place]);
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        dockerfile(&project, "first");
        let mut layers = Vec::new();
        for more in [&["--target=a"][..], &[]] {
            build_by(&project, "store", &[&args[..], more].concat());
            layers.push(listing::read(&project.path("layout"))[1].clone());
        }
        for (place, stage, fate) in *damages {
            let hex = &layers[*stage];
            let path: PathBuf = match place {
                0 => registry.blob_path(hex),
                place => layouts[place - 1].join("blobs/sha256").join(hex),
            };
            damage(&path, *fate);
        }
        dockerfile(&project, "second");
        let made = build_by(&project, "empty", &args);
        let plain = build(&project, "plain", &[]);
        assert_eq!(made.digest, plain.digest, "{damages:?}");
        let again = |step: &&str| made.steps.made.iter().any(|text| text == step);
        let again: Vec<&str> = [ONE, TWO].into_iter().filter(again).collect();
        assert_eq!(again, *made_again, "{damages:?}: {:?}", made.said);
        let told = warnings(&made.said);
        assert!((1..=*said).contains(&told.len()), "{damages:?}: {told:#?}");
        assert!(
            told.iter().all(|text| text.contains("cannot be used")),
            "{damages:?}: {told:#?}"
        );
        // What was made is in places that are whole, and nothing is wanted of the others.
        dockerfile(&project, "second");
        let after = build_by(&project, "empty", &args);
        assert_eq!(after.steps.made, Vec::<String>::new(), "{damages:?}");
        assert_eq!(after.digest, plain.digest, "{damages:?}");
    }
}

#[test]
fn on_overlay() {
    check(&|project, store, args| build(project, store, args));
}

#[test]
fn in_place_too() {
    check(&|project, store, args| {
        build_by(project, store, args, |usual| in_place(project, &usual))
    });
}
