//! The 512 bytes that every entry of a tar starts with.

/// A number of a header; `None` where it is none.
pub(super) type Field = Option<i64>;

/// A header block, taken apart.
pub(super) struct Header {
    pub kind: u8,
    pub path: Vec<u8>,
    pub link: Vec<u8>,
    pub size: u64,
    pub mode: Field,
    pub uid: Field,
    pub gid: Field,
    pub mtime: Field,
    pub major: Field,
    pub minor: Field,
    /// Written by GNU tar's own format.
    pub gnu: bool,
}

impl Header {
    /// Checks the sum and takes the block apart.
    pub fn parse(block: &[u8; 512]) -> Result<Header, &'static str> {
        let told = number(&block[148..156]).ok_or("a header without a checksum: this is no tar")?;
        let outside = block[..148].iter().chain(&block[156..]);
        let spaces = 8 * i64::from(b' ');
        let unsigned: i64 = outside.clone().map(|&byte| i64::from(byte)).sum();
        // Some old writers added the bytes up as signed numbers.
        let signed: i64 = outside.map(|&byte| i64::from(byte as i8)).sum();
        if told != unsigned + spaces && told != signed + spaces {
            return Err("a header whose checksum is wrong: this is no tar, or it is damaged");
        }
        let gnu = &block[257..265] == b"ustar  \0";
        let ustar = &block[257..262] == b"ustar" && !gnu;
        let kind = block[156];
        let size = number(&block[124..136])
            .and_then(|size| u64::try_from(size).ok())
            .ok_or("a header whose size is not a number")?;
        let mut path = Vec::new();
        let prefix = until_nul(&block[345..500]);
        if ustar && !prefix.is_empty() {
            path.extend_from_slice(prefix);
            path.push(b'/');
        }
        path.extend_from_slice(until_nul(&block[..100]));
        // Before ustar there were no devices, and whatever stands there means nothing.
        let device = |field: &[u8]| match gnu || ustar {
            true => number(field),
            false => Some(0),
        };
        Ok(Header {
            kind,
            path,
            link: until_nul(&block[157..257]).to_vec(),
            size,
            mode: number(&block[100..108]),
            uid: number(&block[108..116]),
            gid: number(&block[116..124]),
            mtime: number(&block[136..148]),
            major: device(&block[329..337]),
            minor: device(&block[337..345]),
            gnu,
        })
    }
}

/// Gives the bytes before the first NUL.
pub(super) fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// Reads a number: octal digits between blanks and NULs, 0 where there are none; or, with the
/// highest bit set, a big-endian number of two's complement.
pub(super) fn number(field: &[u8]) -> Field {
    let first = *field.first()?;
    if first & 0x80 != 0 {
        let negative = first & 0x40 != 0;
        let mut value: i64 = if negative { -1 } else { 0 };
        for (at, &byte) in field.iter().enumerate() {
            let byte = match at {
                0 if negative => byte | 0x80,
                0 => byte & 0x7f,
                _ => byte,
            };
            // The bits that fall off must all be those of the sign.
            if value >> 55 != if negative { -1 } else { 0 } {
                return None;
            }
            value = value << 8 | i64::from(byte);
        }
        return Some(value);
    }
    let digits = until_nul(field).trim_ascii();
    digits.iter().try_fold(0i64, |value, &digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

/// Adds the pieces that stand in a header of GNU's old sparse format: offset and length, 12 bytes
/// each, up to the first empty one.
pub(super) fn old_pieces(field: &[u8], pieces: &mut Vec<(u64, u64)>) -> Result<(), &'static str> {
    for pair in field.chunks_exact(24) {
        if pair[0] == 0 {
            break;
        }
        let value = |field: &[u8]| number(field).and_then(|value| u64::try_from(value).ok());
        match (value(&pair[..12]), value(&pair[12..])) {
            (Some(offset), Some(len)) => pieces.push((offset, len)),
            _ => return Err("the map of a sparse file is no list of numbers"),
        }
    }
    Ok(())
}
