//! The base image of the recorded builds, as an OCI layout made by hand.

use serde_json::json;
use shutter::oci::Digest;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Makes the base's OCI layout in `dir/base` and gives its path.
pub fn make(dir: &Path) -> PathBuf {
    let tar = dir.join("base.tar");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/conformance/mkbase.sh");
    let status = Command::new("sh")
        .arg(script)
        .arg(&tar)
        .status()
        .expect("run mkbase.sh");
    assert!(
        status.success(),
        "mkbase.sh needs a static busybox (busybox-static)"
    );
    let layout = dir.join("base");
    let layer = std::fs::read(&tar).expect("read the tar");
    let put = |bytes: &[u8], media_type: &str| {
        let digest = Digest::of(bytes);
        let blobs = layout.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).expect("make the layout");
        std::fs::write(blobs.join(digest.hex()), bytes).expect("write a blob");
        json!({"mediaType": media_type, "digest": digest.to_string(), "size": bytes.len()})
    };
    let layer_descriptor = put(&layer, "application/vnd.oci.image.layer.v1.tar");
    let config = json!({
        "architecture": "amd64", "os": "linux", "created": "2023-11-14T22:13:20Z",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(&layer).to_string()]},
    });
    let config = put(
        config.to_string().as_bytes(),
        "application/vnd.oci.image.config.v1+json",
    );
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config, "layers": [layer_descriptor],
    });
    let manifest = put(
        manifest.to_string().as_bytes(),
        "application/vnd.oci.image.manifest.v1+json",
    );
    let write = |name: &str, value: serde_json::Value| {
        std::fs::write(layout.join(name), value.to_string()).expect("write the layout");
    };
    write(
        "index.json",
        json!({"schemaVersion": 2, "manifests": [manifest]}),
    );
    write("oci-layout", json!({"imageLayoutVersion": "1.0.0"}));
    layout
}
