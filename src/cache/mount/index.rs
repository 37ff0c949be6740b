//! Which contents are in which pack.

use crate::fs::ContentId;

const MAGIC: &[u8; 8] = b"SHUTRIDX";
const VERSION: u32 = 1;

/// The contents of packs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    /// In order.
    pub packs: Vec<Pack>,
}

/// The contents of one pack in the order in which they are in it, each with its length in bytes.
pub type Pack = Vec<(ContentId, u64)>;

impl Index {
    /// Gives it as bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&count(self.packs.len()));
        for pack in &self.packs {
            out.extend_from_slice(&count(pack.len()));
            for (id, length) in pack {
                out.extend_from_slice(id);
                out.extend_from_slice(&length.to_le_bytes());
            }
        }
        out
    }

    /// Reads it; `None` where it is something else.
    pub fn parse(bytes: &[u8]) -> Option<Index> {
        let mut rest = bytes.strip_prefix(MAGIC)?;
        if number(&mut rest)? != VERSION {
            return None;
        }
        let mut packs = Vec::new();
        for _ in 0..number(&mut rest)? {
            let mut pack = Pack::new();
            for _ in 0..number(&mut rest)? {
                let (id, after) = rest.split_first_chunk::<32>()?;
                let (length, after) = after.split_first_chunk::<8>()?;
                rest = after;
                pack.push((*id, u64::from_le_bytes(*length)));
            }
            packs.push(pack);
        }
        rest.is_empty().then_some(Index { packs })
    }
}

fn count(number: usize) -> [u8; 4] {
    u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes()
}

fn number(rest: &mut &[u8]) -> Option<u32> {
    let (bytes, after) = rest.split_first_chunk::<4>()?;
    *rest = after;
    Some(u32::from_le_bytes(*bytes))
}
