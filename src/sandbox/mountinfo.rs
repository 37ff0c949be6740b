//! The kernel's table of mounts (proc_pid_mountinfo(5)).

/// Gives the mount points of a table, in the order they were mounted in.
pub(super) fn points(table: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    table
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(unescape)
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
        let found: Vec<Vec<u8>> = points(table).collect();
        assert_eq!(
            found,
            [b"/".to_vec(), b"/mnt 2\\".to_vec(), b"/odd\\9".to_vec()]
        );
        assert_eq!(points(b"").count(), 0);
    }
}
