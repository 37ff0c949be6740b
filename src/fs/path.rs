use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;

/// A path inside a root: bytes without a leading slash, no empty, `.` or `..` component, no NUL.
///
/// The root itself is the empty path. The order is canonical: component by component, so that a
/// directory stands before what is in it and a subtree is contiguous.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct RelPath(Vec<u8>);

impl RelPath {
    /// Gives the root.
    pub fn root() -> RelPath {
        RelPath::default()
    }

    /// Cleans a path as seen from a root: leading and doubled slashes and `.` go, `..` goes up and
    /// stops at the root. Nothing but the text is looked at. `None` where there is a NUL.
    pub fn clean(path: &[u8]) -> Option<RelPath> {
        if path.contains(&0) {
            return None;
        }
        let mut parts: Vec<&[u8]> = Vec::new();
        for part in path.split(|&c| c == b'/') {
            match part {
                b"" | b"." => {}
                b".." => {
                    parts.pop();
                }
                name => parts.push(name),
            }
        }
        Some(RelPath(parts.join(&b'/')))
    }

    /// Tells whether bytes can be one component of a path.
    pub fn is_name(name: &[u8]) -> bool {
        !matches!(name, b"" | b"." | b"..") && !name.iter().any(|&c| c == b'/' || c == 0)
    }

    /// Takes bytes that are said to be clean already; `None` where they are not.
    pub fn checked(path: &[u8]) -> Option<RelPath> {
        let clean = path.is_empty()
            || !path.contains(&0)
                && path
                    .split(|&c| c == b'/')
                    .all(|part| !matches!(part, b"" | b"." | b".."));
        clean.then(|| RelPath(path.to_vec()))
    }

    /// Gives the bytes, without a leading slash.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Tells whether it is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Gives the directory it is in; `None` for the root.
    pub fn parent(&self) -> Option<RelPath> {
        if self.is_root() {
            return None;
        }
        let cut = self.0.iter().rposition(|&c| c == b'/').unwrap_or(0);
        Some(RelPath(self.0[..cut].to_vec()))
    }

    /// Gives the last component; empty for the root.
    pub fn name(&self) -> &[u8] {
        match self.0.iter().rposition(|&c| c == b'/') {
            Some(at) => &self.0[at + 1..],
            None => &self.0,
        }
    }

    /// Gives the path of `name` in this directory; `name` is one component.
    pub fn join(&self, name: &[u8]) -> RelPath {
        debug_assert!(RelPath::is_name(name));
        let mut out = Vec::with_capacity(self.0.len() + 1 + name.len());
        out.extend_from_slice(&self.0);
        if !out.is_empty() {
            out.push(b'/');
        }
        out.extend_from_slice(name);
        RelPath(out)
    }

    /// Gives the path with `below`, which is relative to this one, added.
    pub fn join_path(&self, below: &RelPath) -> RelPath {
        match (self.is_root(), below.is_root()) {
            (true, _) => below.clone(),
            (_, true) => self.clone(),
            _ => RelPath([&self.0[..], b"/", &below.0[..]].concat()),
        }
    }

    /// Gives the components.
    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|&c| c == b'/').filter(|part| !part.is_empty())
    }

    /// Gives what is left of the path below `dir`; `None` where it is not `dir` or below it.
    pub fn strip(&self, dir: &RelPath) -> Option<RelPath> {
        if dir.is_root() {
            return Some(self.clone());
        }
        let rest = self.0.strip_prefix(&dir.0[..])?;
        match rest.first() {
            None => Some(RelPath::root()),
            Some(b'/') => Some(RelPath(rest[1..].to_vec())),
            Some(_) => None,
        }
    }

    /// Tells whether it is `dir` or below it.
    pub fn is_within(&self, dir: &RelPath) -> bool {
        dir.is_root()
            || (self.0.starts_with(&dir.0) && matches!(self.0.get(dir.0.len()), None | Some(b'/')))
    }

    /// Gives the deepest directory that both are in or are.
    pub fn common(&self, other: &RelPath) -> RelPath {
        let (a, b) = (&self.0, &other.0);
        let same = same_start(a, b);
        let ends = |path: &[u8], at| matches!(path.get(at), None | Some(b'/'));
        let end = match ends(a, same) && ends(b, same) {
            true => same,
            false => a[..same].iter().rposition(|&c| c == b'/').unwrap_or(0),
        };
        RelPath(a[..end].to_vec())
    }

    /// Gives the directories above it, nearest first, the root last; none for the root.
    pub fn ancestors(&self) -> impl Iterator<Item = RelPath> + use<> {
        let mut next = self.parent();
        std::iter::from_fn(move || {
            let now = next.take()?;
            next = now.parent();
            Some(now)
        })
    }

    /// Gives it as a `Path`; the root is `.`.
    pub fn as_path(&self) -> &std::path::Path {
        use std::os::unix::ffi::OsStrExt;
        let bytes: &[u8] = if self.is_root() { b"." } else { &self.0 };
        std::path::Path::new(std::ffi::OsStr::from_bytes(bytes))
    }

    /// Compares two cleaned paths in canonical order.
    pub fn compare(a: &[u8], b: &[u8]) -> Ordering {
        let at = same_start(a, b);
        match (a.get(at), b.get(at)) {
            (Some(x), Some(y)) => match (x, y) {
                // A slash ends a component, so it sorts before every other byte.
                (b'/', _) => Ordering::Less,
                (_, b'/') => Ordering::Greater,
                (x, y) => x.cmp(y),
            },
            _ => a.len().cmp(&b.len()),
        }
    }
}

/// Counts the bytes that two paths begin with in common. Whole words first: deep paths share much, and are
/// compared with each other often.
pub(super) fn same_start(a: &[u8], b: &[u8]) -> usize {
    const WORD: usize = size_of::<u64>();
    let words = a.as_chunks::<WORD>().0.iter().zip(b.as_chunks::<WORD>().0);
    let mut at = 0;
    for (x, y) in words {
        let differs = u64::from_le_bytes(*x) ^ u64::from_le_bytes(*y);
        if differs != 0 {
            // The first byte is the lowest.
            return at + differs.trailing_zeros() as usize / 8;
        }
        at += WORD;
    }
    let rest = a[at..].iter().zip(&b[at..]);
    at + rest.take_while(|(a, b)| a == b).count()
}

impl Ord for RelPath {
    fn cmp(&self, other: &Self) -> Ordering {
        RelPath::compare(&self.0, &other.0)
    }
}

impl PartialOrd for RelPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Borrow<[u8]> for RelPath {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for RelPath {
    /// Writes it with a leading slash.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}
