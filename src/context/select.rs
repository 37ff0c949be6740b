use super::pick::Pick;
use super::{Error, Origin, clean};
use crate::dockerfile::ignore::{Glob, Ignore, has_wildcards};
use crate::fs::{Kind, RelPath};

/// What one source of a COPY means.
pub(super) struct Selected<'a> {
    /// What is copied, in order; links are not followed yet.
    pub names: Vec<RelPath>,
    /// What of a directory.
    pub pick: Pick<'a>,
    /// What `--parents` names without a wildcard: where it is seen from, and where it must be.
    pub wanted: Option<(RelPath, RelPath)>,
}

/// Finds what a source means, without `--parents`.
pub(super) fn plain<'a>(
    source: &str,
    from: &Origin<'_>,
    without: &'a Ignore,
) -> Result<Selected<'a>, Error> {
    Ok(Selected {
        names: names(source, from)?,
        pick: Pick::all(without),
        wanted: None,
    })
}

/// Finds what a source means with `--parents`: what is before `/./` is where it is copied from, the
/// root where there is no such thing, and the rest is a pattern as in an ignore file.
pub(super) fn with_parents<'a>(
    source: &str,
    from: &Origin<'_>,
    without: &'a Ignore,
) -> Result<Selected<'a>, Error> {
    let (root, pattern) = source.split_once("/./").unwrap_or(("/", source));
    // As BuildKit does: only what is relative is cleaned before it is compiled, so that a `..` at
    // the beginning of the one stays at the root and the other matches nothing.
    let cleaned = clean(pattern)?;
    let pattern = match pattern.strip_prefix('/') {
        Some(rest) => rest.to_owned(),
        None => String::from_utf8_lossy(cleaned.as_bytes()).into_owned(),
    };
    let wanted = (!has_wildcards(root) && !has_wildcards(&pattern))
        .then(|| Ok::<_, Error>((clean(root)?, cleaned)))
        .transpose()?;
    Ok(Selected {
        names: names(root, from)?,
        pick: Pick::only(&pattern, without)?,
        wanted,
    })
}

/// Gives the paths a source means: itself, or what its pattern matches.
fn names(source: &str, from: &Origin<'_>) -> Result<Vec<RelPath>, Error> {
    let cleaned = clean(source)?;
    if !has_wildcards(source) {
        return Ok(vec![cleaned]);
    }
    let parts: Vec<&[u8]> = cleaned.components().collect();
    let is_pattern = |part: &[u8]| has_wildcards(&String::from_utf8_lossy(part));
    let fixed = parts.iter().take_while(|part| !is_pattern(part)).count();
    let (fixed, pattern) = parts.split_at(fixed);
    let base = fixed
        .iter()
        .fold(RelPath::root(), |dir, part| dir.join(part));
    let glob = Glob::new(&pattern.join(&b'/')).map_err(|error| Error::Pattern {
        pattern: source.to_owned(),
        source: error,
    })?;
    let start = from.resolve(&base)?;
    if from.get(&start)?.is_none() {
        return Err(from.missing(&base, &start)?);
    }
    let mut out = Vec::new();
    find(from, &start, &start, &glob, &mut out)?;
    Ok(out)
}

/// Goes down from `top` to what the pattern matches. The way does not lead through links, and not
/// into what matched.
fn find(
    from: &Origin<'_>,
    top: &RelPath,
    dir: &RelPath,
    glob: &Glob,
    out: &mut Vec<RelPath>,
) -> Result<(), Error> {
    let below = |path: &RelPath| path.strip(top).unwrap_or_default();
    let wanted = |path: &RelPath, kind: Kind| {
        let below = below(path);
        glob.matches(below.as_bytes())
            || kind == Kind::Dir && glob.may_match_below(below.as_bytes())
    };
    for (path, _) in from.children(dir, &wanted)? {
        match glob.matches(below(&path).as_bytes()) {
            true => out.push(path),
            false => find(from, top, &path, glob, out)?,
        }
    }
    Ok(())
}
