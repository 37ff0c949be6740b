//! ISA-L's stateless deflate: its safe wrapper cannot leave a stream open at a block's end.

use isal::isal_sys::igzip_lib as raw;
use std::io;
use std::mem::MaybeUninit;
use std::ptr;

const LEVEL: u32 = 1;
const LEVEL_BUFFER: usize = raw::ISAL_DEF_LVL1_DEFAULT as usize;

/// What one thread needs to deflate, made once and used for block after block.
pub struct Deflater {
    stream: Box<raw::isal_zstream>,
    buffer: Vec<u8>,
}

impl Deflater {
    /// Makes the working memory, about 350 KiB.
    pub fn new() -> Deflater {
        let mut stream: Box<MaybeUninit<raw::isal_zstream>> = Box::new_zeroed();
        // SAFETY: the struct is plain C data (pointers, integers, arrays of them) for which zeroes
        // are a valid value, and `isal_deflate_stateless_init` only writes to the struct that it
        // is given. There is no other way to make one.
        let stream = unsafe {
            raw::isal_deflate_stateless_init(stream.as_mut_ptr());
            stream.assume_init()
        };
        Deflater {
            stream,
            buffer: vec![0; LEVEL_BUFFER],
        }
    }

    /// Deflates a block at level 1 and adds the raw deflate data to `out`: whole blocks that end
    /// on a byte boundary, refer to nothing before them and are not marked as the last. The bytes
    /// depend on the input alone.
    pub fn block(&mut self, input: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        // The worst case is stored blocks: 5 bytes for every 65,535 and the flush's empty block.
        let room = input.len() + input.len() / 1024 + 1024;
        out.reserve(room);
        let (Ok(avail_in), Ok(avail_out)) = (u32::try_from(input.len()), u32::try_from(room))
        else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let stream = &mut *self.stream;
        // SAFETY: as in `new`: it only resets fields of the struct, which is a valid one.
        unsafe { raw::isal_deflate_stateless_init(stream) };
        // What an earlier block left in the hash table would be tried for matches: good ones, but
        // others than a fresh table has.
        self.buffer.fill(0);
        stream.level = LEVEL;
        stream.level_buf = self.buffer.as_mut_ptr();
        stream.level_buf_size = LEVEL_BUFFER as u32;
        stream.end_of_stream = 0;
        stream.flush = raw::FULL_FLUSH as u16;
        stream.gzip_flag = raw::IGZIP_DEFLATE as u16;
        // The library never writes through `next_in`; its type lacks a const.
        stream.next_in = input.as_ptr().cast_mut();
        stream.avail_in = avail_in;
        let spare = out.spare_capacity_mut();
        stream.next_out = spare.as_mut_ptr().cast();
        stream.avail_out = avail_out;
        // SAFETY: `next_in` is valid for reading `avail_in` bytes and `next_out` for writing
        // `avail_out`, since that much was reserved; `level_buf` is as long as said. All three
        // outlive the call, which keeps none of them: it is stateless.
        let code = unsafe { raw::isal_deflate_stateless(stream) };
        let (left_in, left_out) = (stream.avail_in, stream.avail_out);
        stream.next_in = ptr::null_mut();
        stream.next_out = ptr::null_mut();
        stream.level_buf = ptr::null_mut();
        if code != raw::COMP_OK as i32 || left_in != 0 || left_out > avail_out {
            return Err(io::Error::other(format!(
                "isal_deflate_stateless gave {code} with {left_in} bytes to go"
            )));
        }
        let written = (avail_out - left_out) as usize;
        // SAFETY: the library wrote that many bytes from the old end on, within what was reserved.
        unsafe { out.set_len(out.len() + written) };
        Ok(())
    }
}

impl Default for Deflater {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that repeat themselves in many ways, drawn from a seed.
    fn block(seed: u64, len: usize) -> Vec<u8> {
        let mut state = seed | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut out: Vec<u8> = Vec::with_capacity(len);
        while out.len() < len {
            let draw = next();
            match draw % 3 {
                0 => out.extend([0; 100]),
                1 if !out.is_empty() => {
                    let from = (next() % out.len() as u64) as usize;
                    let piece = out[from..out.len().min(from + 40)].to_vec();
                    out.extend(piece);
                }
                _ => out.extend(draw.to_string().bytes()),
            }
        }
        out.truncate(len);
        out
    }

    #[test]
    fn a_block_does_not_depend_on_those_before_it() {
        let mut used = Deflater::new();
        for seed in 1..2000_u64 {
            let input = block(
                seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
                64 + seed as usize * 7919 % 70_000,
            );
            let (mut got, mut fresh) = (Vec::new(), Vec::new());
            used.block(&input, &mut got).unwrap();
            Deflater::new().block(&input, &mut fresh).unwrap();
            assert!(
                got == fresh,
                "seed {seed}: {} and {}",
                got.len(),
                fresh.len()
            );
        }
    }
}
