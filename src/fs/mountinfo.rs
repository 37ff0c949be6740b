//! The kernel's table of mounts (`/proc/self/mountinfo`, proc_pid_mountinfo(5)).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// One mount.
#[derive(Debug, PartialEq, Eq)]
pub struct Mount {
    /// Its number.
    pub id: u64,
    /// The number of the mount it lies in.
    pub parent: u64,
    /// Where.
    pub point: Vec<u8>,
    /// The name of its file system's kind; empty where the table does not say.
    pub kind: Vec<u8>,
    /// What is mounted, as whoever mounted it calls it; empty where the table does not say.
    pub source: Vec<u8>,
}

/// Gives the mounts of a table, in the order they were mounted in.
pub fn mounts(table: &[u8]) -> impl Iterator<Item = Mount> {
    let number = |field: &[u8]| std::str::from_utf8(field).ok()?.parse().ok();
    table.split(|byte| *byte == b'\n').filter_map(move |line| {
        let mut fields = line.split(|byte| *byte == b' ');
        let id = number(fields.next()?)?;
        let parent = number(fields.next()?)?;
        let point = unescape(fields.nth(2)?);
        // Fields of which there may be any number end with a dash.
        let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
        Some(Mount {
            id,
            parent,
            point,
            kind: rest.next().unwrap_or_default().to_vec(),
            source: unescape(rest.next().unwrap_or_default()),
        })
    })
}

/// Gives the mount points of this process, each once for every mount on it; none where the table
/// cannot be read.
pub fn points() -> Vec<Vec<u8>> {
    all_points().unwrap_or_default()
}

/// Gives the same; an error where the table cannot be read.
pub fn all_points() -> std::io::Result<Vec<Vec<u8>>> {
    let table = std::fs::read("/proc/self/mountinfo")?;
    Ok(mounts(&table).map(|mount| mount.point).collect())
}

/// Gives the mount of this process that a path lies in: absolute, and without symbolic links.
pub fn holding(path: &Path) -> Option<Mount> {
    let table = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    let point = |mount: &Mount| PathBuf::from(OsStr::from_bytes(&mount.point));
    let above = mounts(&table).filter(|mount| path.starts_with(point(mount)));
    // Of several on one point the last is the one that is seen.
    above.max_by_key(|mount| point(mount).components().count())
}

/// Reads a path in which space, tab, newline and backslash are written as three octal digits.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        let octal = after.first_chunk::<3>().and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 8).ok()
        });
        match (byte, octal) {
            (b'\\', Some(octal)) => {
                path.push(octal);
                rest = after.get(3..).unwrap_or_default();
            }
            _ => {
                path.push(*byte);
                rest = after;
            }
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read() {
        let table = b"22 1 0:20 / / rw - overlay overlay rw\n\
            36 35 98:0 /mnt1 /mnt\\0402\\134 rw,noatime master:1 - ext3 /dev/root rw,errors=x\n\
            37 36 0:3 / /odd\\9 rw - proc proc rw\n\n";
        let found: Vec<Mount> = mounts(table).collect();
        let mount = |id, parent, point: &[u8], kind: &[u8], source: &[u8]| Mount {
            id,
            parent,
            point: point.to_vec(),
            kind: kind.to_vec(),
            source: source.to_vec(),
        };
        let expected = [
            mount(22, 1, b"/", b"overlay", b"overlay"),
            mount(36, 35, b"/mnt 2\\", b"ext3", b"/dev/root"),
            mount(37, 36, b"/odd\\9", b"proc", b"proc"),
        ];
        assert_eq!(found, expected);
        assert_eq!(mounts(b"").count(), 0);
        assert_eq!(holding(Path::new("/proc/self/fd")).unwrap().kind, b"proc");
    }
}
