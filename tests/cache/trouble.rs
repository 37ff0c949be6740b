//! Places that are gone, lie, or have lost something: the build is right every time and says so.

use super::{Project, build, registry, try_build};

fn project() -> Project {
    let project = Project::new();
    project.file(
        "Dockerfile",
        "FROM base\nRUN echo one > /one\nCOPY a /a\nRUN cat /one /a > /both\n",
    );
    project.file("a", "a\n");
    project
}

pub fn warnings(said: &str) -> Vec<String> {
    let lines = said
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    lines
        .filter(|line| line["level"] == "warning")
        .map(|line| line["msg"].as_str().unwrap_or_default().to_owned())
        .collect()
}

/// Every blob and manifest that a registry keeps, as files.
fn kept(registry: &registry::Registry) -> Vec<std::path::PathBuf> {
    let hexes = registry.hexes();
    hexes.iter().map(|hex| registry.blob_path(hex)).collect()
}

#[test]
fn a_registry_that_is_gone_costs_a_rebuild() {
    let project = project();
    let registry = registry::start();
    let repo = format!("{}/cache", registry.host);
    let args = ["--insecure", "--cache", "--cache-repo", &repo];
    let first = build(&project, "store", &args);
    assert_eq!(warnings(&first.said), Vec::<String>::new());
    drop(registry);
    for store in ["empty", "store"] {
        let again = build(&project, store, &args);
        assert_eq!(again.digest, first.digest);
        let warnings = warnings(&again.said);
        assert!(warnings.len() <= 1, "{warnings:?}");
        if store == "empty" {
            assert!(warnings[0].contains(&repo), "{warnings:?}");
            assert!(
                warnings[0].contains("goes on without the cache"),
                "{warnings:?}"
            );
        }
    }
}

/// Whatever a registry has instead of what was put there.
#[test]
fn what_is_damaged_is_made_again() {
    type Damage = fn(&[u8]) -> Vec<u8>;
    let damages: [(&str, Damage); 4] = [
        ("cut", |bytes| bytes[..bytes.len() / 2].to_vec()),
        ("empty", |_| Vec::new()),
        ("flipped", |bytes| {
            bytes.iter().map(|byte| byte ^ 1).collect()
        }),
        ("longer", |bytes| [bytes, b"more"].concat()),
    ];
    for (what, damage) in damages {
        let project = project();
        let registry = registry::start();
        let repo = format!("{}/cache", registry.host);
        let args = ["--insecure", "--cache", "--cache-repo", &repo];
        build(&project, "store", &args);
        for path in kept(&registry) {
            let bytes = std::fs::read(&path).expect("a blob");
            std::fs::write(&path, damage(&bytes)).expect("damage");
        }
        // So that what is below must be fetched.
        project.file(
            "Dockerfile",
            "FROM base\nRUN echo one > /one\nCOPY a /a\nRUN cat /one /a > /new\n",
        );
        let got = build(&project, "empty", &args);
        let plain = build(&project, "plain", &[]);
        assert_eq!(got.digest, plain.digest, "{what}");
        assert!(!warnings(&got.said).is_empty(), "{what}");
    }
}

/// A layer that is gone is found out only when it is wanted.
#[test]
fn a_layer_that_is_lost_is_made_again() {
    let project = project();
    let registry = registry::start();
    let repo = format!("{}/cache", registry.host);
    let args = ["--insecure", "--cache", "--cache-repo", &repo];
    let first = build(&project, "store", &args);
    let layout = listing::read(&project.path("layout"));
    for hex in &layout {
        let path = registry.blob_path(hex);
        if path.exists() {
            std::fs::remove_file(path).expect("remove");
        }
    }
    let again = build(&project, "empty", &args);
    assert_eq!(again.digest, first.digest);
    let said = warnings(&again.said).join("\n");
    assert!(said.contains("cannot be used"), "{said}");
}

/// What is in the store is checked too.
#[test]
fn an_entry_of_the_store_that_cannot_be_used_is_none() {
    let project = project();
    let first = build(&project, "store", &["--cache"]);
    let steps = project.path("store/steps");
    let entries = || {
        std::fs::read_dir(&steps)
            .expect("steps")
            .map(|e| e.expect("an entry").path())
    };
    let wrongs: [&[u8]; 4] = [b"", b"{", b"{}", b"[]"];
    for wrong in wrongs {
        for path in entries() {
            std::fs::write(path, wrong).expect("damage");
        }
        let again = build(&project, "store", &["--cache"]);
        assert_eq!(again.digest, first.digest);
        assert_eq!(again.steps.cached, Vec::<String>::new());
    }
    // One that stands under another key.
    let paths: Vec<_> = entries().collect();
    for pair in paths.windows(2) {
        std::fs::copy(&pair[0], &pair[1]).expect("copy");
    }
    let again = build(&project, "store", &["--cache"]);
    assert_eq!(again.digest, first.digest);
}

/// A command that fails leaves nothing to be found, and what came before it is found.
#[test]
fn a_failed_step_is_not_kept() {
    let project = Project::new();
    project.file("Dockerfile", "FROM base\nRUN echo one > /one\nRUN false\n");
    for cached in [0, 1, 1] {
        let (output, _) = try_build(&project, "store", &["--cache"]);
        assert_eq!(output.status.code(), Some(1));
        let steps = super::steps(&String::from_utf8_lossy(&output.stderr));
        assert_eq!(steps.cached.len(), cached, "{steps:?}");
    }
}

pub mod listing {
    /// Gives the hexadecimal digits of all layers of a layout's image.
    pub fn read(dir: &std::path::Path) -> Vec<String> {
        let image = crate::listing::read_layout(dir);
        let layers = image.manifest["layers"].as_array().expect("layers").clone();
        layers
            .iter()
            .filter_map(|layer| layer["digest"].as_str()?.strip_prefix("sha256:"))
            .map(str::to_owned)
            .collect()
    }
}
