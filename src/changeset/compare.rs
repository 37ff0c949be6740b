use super::Error;
use crate::fs::{ContentId, Found, Kind, Meta, RelPath, Source, Time, Tree};
use std::io::{self, Read};

/// Tells whether two times are the same as far as both are known: layers mostly have whole seconds.
pub(super) fn same_time(a: Time, b: Time) -> bool {
    a.secs == b.secs && (a.nanos == b.nanos || a.nanos == 0 || b.nanos == 0)
}

/// Tells whether two files are alike in everything but their content. The time of a directory does
/// not count: it changes with what is in it.
pub(super) fn same_meta(a: &Meta, b: &Meta) -> bool {
    a.kind == b.kind
        && a.mode == b.mode
        && a.uid == b.uid
        && a.gid == b.gid
        && a.size == b.size
        && a.device == b.device
        && a.target == b.target
        && a.xattrs == b.xattrs
        && (a.kind == Kind::Dir || same_time(a.mtime, b.mtime))
}

/// Tells whether the content of a regular file is what the tree has at the path.
pub(super) fn same_content(
    path: &RelPath,
    source: &Source,
    found: &Found,
    tree: &Tree,
) -> Result<bool, Error> {
    if found.meta.size == 0 {
        return Ok(true);
    }
    let old = match (found.content, tree.source(path)) {
        (Some(id), _) => id,
        (None, Some(source)) => content_id(path, &source)?,
        // Nothing to compare with: it counts as changed.
        (None, None) => return Ok(false),
    };
    Ok(content_id(path, source)? == old)
}

/// Takes the BLAKE3 of a file's content.
pub(super) fn content_id(path: &RelPath, source: &Source) -> Result<ContentId, Error> {
    hash(source).map_err(|source| Error::Io {
        action: "read",
        path: path.clone(),
        source,
    })
}

/// Takes the BLAKE3 of a content.
pub fn hash(source: &Source) -> io::Result<ContentId> {
    let mut hasher = blake3::Hasher::new();
    if let Source::Bytes(bytes) = source {
        hasher.update(bytes);
        return Ok(*hasher.finalize().as_bytes());
    }
    let mut content = source.open()?;
    let mut buffer = vec![0; 128 << 10];
    loop {
        match content.read(&mut buffer) {
            Ok(0) => return Ok(*hasher.finalize().as_bytes()),
            Ok(len) => {
                hasher.update(buffer.get(..len).unwrap_or_default());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
