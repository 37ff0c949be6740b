//! The packets that git's protocol is made of: four hexadecimal digits of length, then so many
//! bytes less four (gitprotocol-common(5)).

use std::io::{self, Read};

/// The most bytes of a packet, its length included.
const MAX: usize = 65520;

/// What was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Packet<'a> {
    /// Bytes; of a text line without its end.
    Data(&'a [u8]),
    /// The end of a message.
    Flush,
    /// The end of a section of it.
    Delimiter,
    /// The end of an answer.
    End,
}

/// Reads packets.
pub(super) struct Packets<R> {
    source: R,
    buffer: Vec<u8>,
}

impl<R: Read> Packets<R> {
    pub(super) fn new(source: R) -> Packets<R> {
        Packets {
            source,
            buffer: Vec::new(),
        }
    }

    /// Gives the next packet as it is; `None` where the source ends before one.
    pub(super) fn next(&mut self) -> io::Result<Option<Packet<'_>>> {
        let mut digits = [0; 4];
        let mut have = 0;
        while have < 4 {
            match self.source.read(&mut digits[have..]) {
                Ok(0) if have == 0 => return Ok(None),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => have += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        let length = std::str::from_utf8(&digits)
            .ok()
            .filter(|text| text.bytes().all(|c| c.is_ascii_hexdigit()))
            .and_then(|text| usize::from_str_radix(text, 16).ok());
        match length {
            Some(0) => Ok(Some(Packet::Flush)),
            Some(1) => Ok(Some(Packet::Delimiter)),
            Some(2) => Ok(Some(Packet::End)),
            Some(length @ 4..=MAX) => {
                self.buffer.resize(length - 4, 0);
                self.source.read_exact(&mut self.buffer)?;
                Ok(Some(Packet::Data(&self.buffer)))
            }
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("`{}` is no length of a packet", digits.escape_ascii()),
            )),
        }
    }

    /// Gives the next packet, a text line without its end.
    pub(super) fn line(&mut self) -> io::Result<Option<Packet<'_>>> {
        Ok(self.next()?.map(|packet| match packet {
            Packet::Data(data) => Packet::Data(data.strip_suffix(b"\n").unwrap_or(data)),
            other => other,
        }))
    }

    /// Gives the source, which stands behind the last packet.
    pub(super) fn get_mut(&mut self) -> &mut R {
        &mut self.source
    }
}

/// Adds a text line as a packet.
pub(super) fn line(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(format!("{:04x}{text}\n", text.len() + 5).as_bytes());
}

/// Adds the end of a message.
pub(super) fn flush(out: &mut Vec<u8>) {
    out.extend_from_slice(b"0000");
}

/// Adds the end of a section.
pub(super) fn delimiter(out: &mut Vec<u8>) {
    out.extend_from_slice(b"0001");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_read_as_they_are_written() {
        let mut wire = Vec::new();
        line(&mut wire, "hello");
        delimiter(&mut wire);
        wire.extend_from_slice(b"0004");
        flush(&mut wire);
        wire.extend_from_slice(b"0002");
        assert_eq!(wire, b"000ahello\n0001000400000002");
        let mut packets = Packets::new(&wire[..]);
        let wanted = [
            Packet::Data(b"hello"),
            Packet::Delimiter,
            Packet::Data(b""),
            Packet::Flush,
            Packet::End,
        ];
        for want in wanted {
            assert_eq!(packets.line().unwrap(), Some(want));
        }
        assert_eq!(packets.line().unwrap(), None);
    }

    #[test]
    fn what_is_no_packet_is_an_error() {
        let cases: [&[u8]; 6] = [
            b"000",
            b"0003",
            b"fff1x",
            b"00zz",
            b"+00a123456",
            b"0009abc",
        ];
        for wire in cases {
            let read = Packets::new(wire).next().map(|packet| packet.is_some());
            assert!(read.is_err(), "{}: {read:?}", wire.escape_ascii());
        }
    }
}
