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

/// What is damaged, the layer of the first or the second stage in which place; the steps that are whole
/// nowhere for that; and how often something is said at most.
type Row = (
    &'static [(usize, usize, Fate)],
    &'static [&'static str],
    usize,
);

const TABLE: &[Row] = &[
    (&[(0, 0, Fate::Gone), (1, 1, Fate::Cut)], &[], 2),
    (
        &[(0, 0, Fate::Flipped), (0, 1, Fate::Cut), (1, 0, Fate::Gone)],
        &[],
        3,
    ),
    (
        &[(0, 0, Fate::Cut), (1, 0, Fate::Gone), (2, 0, Fate::Gone)],
        &[ONE],
        3,
    ),
];

fn check(build_by: &dyn Fn(&Project, &str, &[&str]) -> Made) {
    for (damages, lost, said) in TABLE {
        let project = Project::new();
        let registry = registry::start();
        let layouts = [project.path("second"), project.path("third")];
        let names = [
            format!("{}/cache", registry.host),
            format!("oci:{}", layouts[0].display()),
            format!("oci:{}", layouts[1].display()),
        ];
        dockerfile(&project, "first");
        let mut layers = Vec::new();
        for (place, store, more) in [
            (&names[0], "store0", &["--target=a"][..]),
            (&names[0], "store0", &[]),
            (&names[1], "store1", &[]),
        ] {
            let args = ["--insecure", "--cache", "--cache-repo", place];
            build_by(&project, store, &[&args[..], more].concat());
            layers.push(listing::read(&project.path("layout"))[1].clone());
        }
        let copy = [&layouts[0], &layouts[1]].map(|dir| dir.display().to_string());
        registry::run("cp", &["-r", &copy[0], &copy[1]]);
        let [first, second, third] = &names;
        let args = ["--insecure", "--cache", "--cache-repo", first];
        let args = [&args[..], &["--cache-from", second, "--cache-from", third]].concat();
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
        let is_made = |step: &&str| made.steps.made.iter().any(|text| text == step);
        assert!(lost.iter().all(is_made), "{damages:?}: {:?}", made.said);
        // What a place has whole is not made again, whatever the others have.
        assert_eq!(
            [ONE, TWO].iter().any(is_made),
            !lost.is_empty(),
            "{damages:?}: {}",
            made.said
        );
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
