use crate::oci::Sha256;
use std::fmt;

/// What a repository names its objects by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// SHA-1, 40 digits.
    #[default]
    Sha1,
    /// SHA-256, 64 digits.
    Sha256,
}

/// The name of an object.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Oid {
    bytes: [u8; 32],
    format: Format,
}

/// A hash under way.
pub struct Hasher(Kind);

#[allow(
    clippy::large_enum_variant,
    reason = "few live at a time, and never long"
)]
enum Kind {
    Sha1(sha1dc::Hasher),
    Sha256(Sha256),
}

/// The content bears the marks of an attack on SHA-1: another content of the same name is likely.
#[derive(Debug, thiserror::Error)]
#[error("its content was made to collide with another under SHA-1")]
pub struct Collision;

impl Format {
    /// Gives the number of bytes of a name.
    pub fn size(self) -> usize {
        match self {
            Format::Sha1 => 20,
            Format::Sha256 => 32,
        }
    }

    /// Gives what the protocol and a repository's configuration call it.
    pub fn name(self) -> &'static str {
        match self {
            Format::Sha1 => "sha1",
            Format::Sha256 => "sha256",
        }
    }

    /// Finds what is called so.
    pub fn of_name(name: &str) -> Option<Format> {
        [Format::Sha1, Format::Sha256]
            .into_iter()
            .find(|format| format.name() == name)
    }
}

impl Oid {
    /// Takes a name's bytes; `None` where they are not as many as the format's names have.
    pub fn from_bytes(bytes: &[u8], format: Format) -> Option<Oid> {
        let mut out = [0; 32];
        (bytes.len() == format.size()).then(|| {
            out[..bytes.len()].copy_from_slice(bytes);
            Oid { bytes: out, format }
        })
    }

    /// Reads 40 or 64 lower-case hexadecimal digits.
    pub fn parse(hex: &str) -> Option<Oid> {
        let format = match hex.len() {
            40 => Format::Sha1,
            64 => Format::Sha256,
            _ => return None,
        };
        let nibble = |c: u8| match c {
            b'0'..=b'9' => Some(c - b'0'),
            b'a'..=b'f' => Some(c - b'a' + 10),
            _ => None,
        };
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Some(Oid { bytes, format })
    }

    /// Gives the bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.format.size()]
    }

    /// Gives what it is a hash of.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Tells whether it is the name that stands for nothing.
    pub fn is_null(&self) -> bool {
        self.bytes == [0; 32]
    }
}

impl fmt::Display for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.as_bytes() {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Hasher {
    /// Starts with no bytes.
    pub fn new(format: Format) -> Hasher {
        Hasher(match format {
            Format::Sha1 => Kind::Sha1(sha1dc::Hasher::new()),
            Format::Sha256 => Kind::Sha256(Sha256::new()),
        })
    }

    /// Starts the hash that names an object: its kind and size come first.
    pub fn object(format: Format, kind: &str, size: u64) -> Hasher {
        let mut hash = Hasher::new(format);
        hash.update(format!("{kind} {size}\0").as_bytes());
        hash
    }

    /// Takes in more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            Kind::Sha1(hash) => hash.update(bytes),
            Kind::Sha256(hash) => hash.update(bytes),
        }
    }

    /// Gives the hash of all bytes taken in.
    pub fn finish(self) -> Result<Oid, Collision> {
        let mut bytes = [0; 32];
        let format = match self.0 {
            Kind::Sha1(hash) => {
                let digest = hash.finalize().map_err(|_| Collision)?;
                bytes[..20].copy_from_slice(digest.as_ref());
                Format::Sha1
            }
            Kind::Sha256(hash) => {
                bytes = hash.finish().0;
                Format::Sha256
            }
        };
        Ok(Oid { bytes, format })
    }
}
