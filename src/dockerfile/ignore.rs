//! .dockerignore and the patterns of COPY, matched as moby's patternmatcher and Go's `path.Match` do.

/// Why a pattern cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);

/// The compiled patterns of an ignore file.
pub struct Ignore {
    _todo: (),
}

/// What an ignore file says of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is kept.
    Keep,
    /// It is left out, but something below it may be kept by an exception.
    LeaveOutButLook,
    /// It is left out with everything below it.
    Prune,
}

impl Ignore {
    /// Compiles the text of an ignore file (comments, BOM, `!` exceptions).
    pub fn parse(text: &[u8]) -> Result<Ignore, Error> {
        let _ = text;
        todo!()
    }

    /// Tells whether a path (cleaned, relative, bytes) is left out; parents are taken into account.
    pub fn is_ignored(&self, path: &[u8]) -> bool {
        let _ = path;
        todo!()
    }

    /// Tells what becomes of a directory, so that a walk need not enter what cannot match.
    pub fn directory(&self, path: &[u8]) -> Verdict {
        let _ = path;
        todo!()
    }
}

/// Matches one path against one pattern as Go's `path/filepath.Match`: `*`, `?`, `[...]`, `\`; a
/// slash is matched only by a slash.
pub fn glob(pattern: &[u8], path: &[u8]) -> Result<bool, Error> {
    let _ = (pattern, path);
    todo!()
}

/// Tells whether a source of COPY has wildcards (BuildKit's `containsWildcards`).
pub fn has_wildcards(source: &str) -> bool {
    let _ = source;
    todo!()
}
