//! Commits, tags and trees (gitformat-pack(5), gitdatamodel(7)).

use super::{Error, Format, Oid};

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A commit.
    Commit,
    /// A directory.
    Tree,
    /// A file's content.
    Blob,
    /// An annotated tag.
    Tag,
}

impl Kind {
    /// Gives its name, which its hash begins with.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Commit => "commit",
            Kind::Tree => "tree",
            Kind::Blob => "blob",
            Kind::Tag => "tag",
        }
    }
}

/// What is wanted of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Commit {
    /// Its root directory.
    pub(super) tree: Oid,
    /// When it was committed, in seconds since 1970.
    pub(super) time: i64,
}

/// Reads a commit.
pub(super) fn commit(oid: &Oid, bytes: &[u8]) -> Result<Commit, Error> {
    let odd = |what: &str| Error::object(oid, format!("it is a commit without a {what}"));
    let tree = header(bytes, b"tree")
        .and_then(|hex| Oid::parse(std::str::from_utf8(hex).ok()?))
        .filter(|tree| tree.format() == oid.format())
        .ok_or_else(|| odd("tree"))?;
    // `NAME <MAIL> SECONDS ZONE`
    let time = header(bytes, b"committer")
        .and_then(|line| {
            let after = line.iter().rposition(|&c| c == b'>')? + 1;
            let mut words = std::str::from_utf8(&line[after..]).ok()?.split_whitespace();
            words.next()?.parse().ok()
        })
        // git takes a time that cannot be read for 1970, too.
        .unwrap_or(0);
    Ok(Commit { tree, time })
}

/// Reads what a tag points to.
pub(super) fn tagged(oid: &Oid, bytes: &[u8]) -> Result<Oid, Error> {
    header(bytes, b"object")
        .and_then(|hex| Oid::parse(std::str::from_utf8(hex).ok()?))
        .filter(|target| target.format() == oid.format())
        .ok_or_else(|| Error::object(oid, "it is a tag of nothing"))
}

/// Gives a line of those before the message.
fn header<'a>(bytes: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    bytes
        .split(|&c| c == b'\n')
        .take_while(|line| !line.is_empty())
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(b" "))
}

/// What a name in a tree is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    File,
    Executable,
    Symlink,
    Directory,
    /// A commit of another repository.
    Submodule,
}

impl Mode {
    fn of(digits: &[u8]) -> Option<Mode> {
        let mode = u32::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()?;
        Some(match mode & 0o170_000 {
            // Only whether the owner may run it counts; old repositories have other bits.
            0o100_000 if mode & 0o100 != 0 => Mode::Executable,
            0o100_000 => Mode::File,
            0o120_000 => Mode::Symlink,
            0o040_000 => Mode::Directory,
            0o160_000 => Mode::Submodule,
            _ => return None,
        })
    }

    /// Gives the bits that an index has.
    pub(super) fn bits(self) -> u32 {
        match self {
            Mode::File => 0o100_644,
            Mode::Executable => 0o100_755,
            Mode::Symlink => 0o120_000,
            Mode::Directory => 0o040_000,
            Mode::Submodule => 0o160_000,
        }
    }
}

/// A name in a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub(super) mode: Mode,
    pub(super) name: &'a [u8],
    pub(super) oid: Oid,
}

/// Reads a tree; names that no directory may have are errors.
pub(super) fn tree<'a>(oid: &Oid, mut bytes: &'a [u8]) -> Result<Vec<Entry<'a>>, Error> {
    let format: Format = oid.format();
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let odd = || Error::object(oid, "it is a tree that cannot be read");
        let space = bytes.iter().position(|&c| c == b' ').ok_or_else(odd)?;
        let (digits, rest) = (&bytes[..space], &bytes[space + 1..]);
        let nul = rest.iter().position(|&c| c == 0).ok_or_else(odd)?;
        let (name, rest) = (&rest[..nul], &rest[nul + 1..]);
        let hash = rest.get(..format.size()).ok_or_else(odd)?;
        bytes = &rest[format.size()..];
        if !may_be_named(name) {
            let why = format!("its tree has the name `{}`", name.escape_ascii());
            return Err(Error::object(oid, why));
        }
        out.push(Entry {
            mode: Mode::of(digits).ok_or_else(odd)?,
            name,
            oid: Oid::from_bytes(hash, format).ok_or_else(odd)?,
        });
    }
    Ok(out)
}

/// Tells whether git lets a tree have a name: one component, and nothing that some file system may
/// take for `.git`.
pub(super) fn may_be_named(name: &[u8]) -> bool {
    if !crate::fs::RelPath::is_name(name) {
        return false;
    }
    // NTFS drops what is after a colon, and spaces and dots at the end.
    let plain = name.split(|&c| c == b':').next().unwrap_or_default();
    let end = plain
        .iter()
        .rposition(|c| !matches!(c, b' ' | b'.'))
        .map_or(0, |at| at + 1);
    let plain = &plain[..end];
    !plain.eq_ignore_ascii_case(b".git") && !plain.eq_ignore_ascii_case(b"git~1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_and_tags_are_read() {
        let oid = Oid::parse("0123456789abcdef0123456789abcdef01234567").unwrap();
        let text = b"tree 89abcdef0123456789abcdef0123456789abcdef\nparent 0000000000000000000000000000000000000000\nauthor A <a> 1 +0000\ncommitter B <b> c> 1700000000 -0330\n\ntree x\n";
        let read = commit(&oid, text).unwrap();
        assert_eq!(
            read.tree.to_string(),
            "89abcdef0123456789abcdef0123456789abcdef"
        );
        assert_eq!(read.time, 1_700_000_000);
        assert!(
            commit(
                &oid,
                b"author A\n\ntree 89abcdef0123456789abcdef0123456789abcdef\n"
            )
            .is_err()
        );
        let tag = b"object 89abcdef0123456789abcdef0123456789abcdef\ntype commit\n\nx";
        assert_eq!(tagged(&oid, tag).unwrap(), read.tree);
        assert!(tagged(&oid, b"type commit\n").is_err());
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let oid = Oid::parse("0123456789abcdef0123456789abcdef01234567").unwrap();
        let one = |mode: &str, name: &[u8]| {
            let mut bytes = [mode.as_bytes(), b" ", name, b"\0"].concat();
            bytes.extend_from_slice(&[7; 20]);
            tree(&oid, &bytes).map(|entries| entries[0].mode)
        };
        for name in [
            &b"a"[..],
            b".gitignore",
            b".git2",
            b"git~2",
            b"..a",
            b"\xff",
            b"a b",
            b"a:b",
        ] {
            assert_eq!(
                one("100644", name).unwrap(),
                Mode::File,
                "{}",
                name.escape_ascii()
            );
        }
        for name in [
            &b""[..],
            b".",
            b"..",
            b"a/b",
            b".git",
            b".GIT",
            b".git ",
            b".git...",
            b".gIt::x",
            b"git~1",
        ] {
            assert!(one("100644", name).is_err(), "{}", name.escape_ascii());
        }
        for (mode, want) in [
            ("100664", Mode::File),
            ("100755", Mode::Executable),
            ("120000", Mode::Symlink),
            ("40000", Mode::Directory),
            ("160000", Mode::Submodule),
        ] {
            assert_eq!(one(mode, b"a").unwrap(), want);
        }
        for mode in ["", "x", "10000", "99999999999"] {
            assert!(one(mode, b"a").is_err(), "{mode}");
        }
    }
}
