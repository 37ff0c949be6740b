//! Access control lists of POSIX: what a file system does with them beside keeping them. The kernel
//! checks access by them itself.
//!
//! As an attribute a list is a version (32 bits, little-endian) and entries of tag, permissions (16
//! bits each) and id (32 bits); see `linux/posix_acl_xattr.h`.

use super::node::Node;
use rustix::io::Errno;

pub(super) const ACCESS: &[u8] = b"system.posix_acl_access";
pub(super) const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;
// The other two, 0x02 and 0x08, are of users and groups by id.
const USER_OBJ: u16 = 0x01;
const GROUP_OBJ: u16 = 0x04;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

struct Entry {
    tag: u16,
    perm: u16,
    id: [u8; 4],
}

/// Reads a list; an empty one is none.
fn parse(value: &[u8]) -> Result<Vec<Entry>, Errno> {
    let Some((version, rest)) = value.split_first_chunk::<4>() else {
        return Err(Errno::INVAL);
    };
    if u32::from_le_bytes(*version) != VERSION {
        return Err(Errno::OPNOTSUPP);
    }
    let entries = rest.chunks(8).map(|entry| match *entry {
        [t0, t1, p0, p1, i0, i1, i2, i3] => Ok(Entry {
            tag: u16::from_le_bytes([t0, t1]),
            perm: u16::from_le_bytes([p0, p1]) & 7,
            id: [i0, i1, i2, i3],
        }),
        _ => Err(Errno::INVAL),
    });
    let entries: Vec<Entry> = entries.collect::<Result<_, _>>()?;
    let has = |tag| entries.iter().any(|entry| entry.tag == tag);
    if !entries.is_empty() && ![USER_OBJ, GROUP_OBJ, OTHER].into_iter().all(has) {
        return Err(Errno::INVAL);
    }
    Ok(entries)
}

fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut out = VERSION.to_le_bytes().to_vec();
    for entry in entries {
        out.extend_from_slice(&entry.tag.to_le_bytes());
        out.extend_from_slice(&entry.perm.to_le_bytes());
        out.extend_from_slice(&entry.id);
    }
    out
}

/// Tells whether a list says no more than permission bits do.
fn is_minimal(entries: &[Entry]) -> bool {
    entries
        .iter()
        .all(|entry| matches!(entry.tag, USER_OBJ | GROUP_OBJ | OTHER))
}

/// Gives which entry stands for the bits of the group.
fn group_tag(entries: &[Entry]) -> u16 {
    match entries.iter().any(|entry| entry.tag == MASK) {
        true => MASK,
        false => GROUP_OBJ,
    }
}

fn shift(entries: &[Entry], tag: u16) -> Option<u32> {
    match tag {
        USER_OBJ => Some(6),
        OTHER => Some(0),
        tag if tag == group_tag(entries) => Some(3),
        _ => None,
    }
}

/// Sets a list on a file: the permission bits follow, and one that says no more than they is not
/// kept.
pub(super) fn set(node: &mut Node, name: &[u8], value: &[u8]) -> Result<(), Errno> {
    let entries = parse(value)?;
    if name == DEFAULT {
        match (node.is_dir(), entries.is_empty()) {
            (false, _) => return Err(Errno::ACCESS),
            (true, true) => drop(node.remove_xattr(DEFAULT)),
            (true, false) => node.set_xattr(DEFAULT, value),
        }
        return Ok(());
    }
    if entries.is_empty() {
        node.remove_xattr(ACCESS);
        return Ok(());
    }
    for entry in &entries {
        if let Some(shift) = shift(&entries, entry.tag) {
            let bits = u32::from(entry.perm) << shift;
            node.meta.mode = node.meta.mode & !(7 << shift) | bits;
        }
    }
    match is_minimal(&entries) {
        true => drop(node.remove_xattr(ACCESS)),
        false => node.set_xattr(ACCESS, value),
    }
    Ok(())
}

/// Brings the list of a file in line with new permission bits.
pub(super) fn follow_mode(node: &mut Node) {
    let Some(Ok(mut entries)) = node.xattr(ACCESS).map(parse) else {
        return;
    };
    let shifts: Vec<Option<u32>> = entries
        .iter()
        .map(|entry| shift(&entries, entry.tag))
        .collect();
    for (entry, shift) in entries.iter_mut().zip(shifts) {
        if let Some(shift) = shift {
            entry.perm = ((node.meta.mode >> shift) & 7) as u16;
        }
    }
    let value = encode(&entries);
    node.set_xattr(ACCESS, &value);
}

/// What a new file gets of the list of its directory.
pub(super) struct Inherited {
    pub mode: u32,
    pub access: Option<Vec<u8>>,
    pub default: Option<Vec<u8>>,
}

/// Gives what a new file gets: by the default list of its directory, or by the umask where there is
/// none.
pub(super) fn inherit(dir: &Node, mode: u32, umask: u32) -> Inherited {
    let Some(default) = dir.xattr(DEFAULT) else {
        return Inherited {
            mode: mode & !umask,
            access: None,
            default: None,
        };
    };
    let Ok(mut entries) = parse(default) else {
        return Inherited {
            mode: mode & !umask,
            access: None,
            default: None,
        };
    };
    let shifts: Vec<Option<u32>> = entries
        .iter()
        .map(|entry| shift(&entries, entry.tag))
        .collect();
    let mut mode = mode;
    for (entry, shift) in entries.iter_mut().zip(shifts) {
        if let Some(shift) = shift {
            entry.perm &= ((mode >> shift) & 7) as u16;
            mode = mode & !(7 << shift) | u32::from(entry.perm) << shift;
        }
    }
    Inherited {
        mode,
        access: (!is_minimal(&entries)).then(|| encode(&entries)),
        default: Some(default.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::Meta;
    use crate::rootfs::fuse::node::Body;
    use crate::rootfs::fuse::table::new_dir;

    fn list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let entries: Vec<Entry> = entries
            .iter()
            .map(|&(tag, perm, id)| Entry {
                tag,
                perm,
                id: id.to_le_bytes(),
            })
            .collect();
        encode(&entries)
    }

    #[test]
    fn a_list_moves_the_bits_and_the_bits_the_list() {
        const NONE: u32 = u32::MAX;
        let minimal = list(&[(USER_OBJ, 7, NONE), (GROUP_OBJ, 5, NONE), (OTHER, 1, NONE)]);
        let full = |user, mask, other| {
            list(&[
                (USER_OBJ, user, NONE),
                (0x02, 6, 1000),
                (GROUP_OBJ, 5, NONE),
                (MASK, mask, NONE),
                (OTHER, other, NONE),
            ])
        };
        let mut node = Node::new(Meta::file(0o4600, 0, Default::default()), Body::Other, 1);
        set(&mut node, ACCESS, &full(7, 6, 4)).expect("set");
        assert_eq!(node.meta.mode, 0o4764);
        assert_eq!(node.xattr(ACCESS), Some(&full(7, 6, 4)[..]));
        node.meta.mode = 0o640;
        follow_mode(&mut node);
        assert_eq!(node.xattr(ACCESS), Some(&full(6, 4, 0)[..]));
        set(&mut node, ACCESS, &minimal).expect("set");
        assert_eq!((node.meta.mode, node.xattr(ACCESS)), (0o751, None));
        assert_eq!(set(&mut node, DEFAULT, &minimal), Err(Errno::ACCESS));
        assert_eq!(set(&mut node, ACCESS, b"\x02\0\0\0x"), Err(Errno::INVAL));

        let mut dir = Node::new(Meta::dir(0o755, Default::default()), new_dir(), 1);
        assert_eq!(inherit(&dir, 0o666, 0o022).mode, 0o644);
        set(&mut dir, DEFAULT, &full(7, 7, 5)).expect("set");
        let got = inherit(&dir, 0o660, 0o077);
        assert_eq!(got.mode, 0o660);
        assert_eq!(got.access, Some(full(6, 6, 0)));
        assert_eq!(got.default, Some(full(7, 7, 5)));
    }
}
