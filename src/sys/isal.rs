//! ISA-L's stateless deflate: its safe wrapper cannot leave a stream open at a block's end.

use isal::isal_sys::igzip_lib as raw;
use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};

const LEVEL: u32 = 1;
const LEVEL_BUFFER: usize = raw::ISAL_DEF_LVL1_DEFAULT as usize;

/// What one thread needs to deflate, made once and used for block after block.
pub struct Deflater {
    stream: Placed,
    buffer: Vec<u8>,
}

impl Deflater {
    /// Makes the working memory, about 350 KiB. Fails where there is no memory, or no place for it.
    pub fn new() -> io::Result<Deflater> {
        Ok(Deflater {
            stream: Placed::new()?,
            buffer: vec![0; LEVEL_BUFFER],
        })
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
        let stream = self.stream.get();
        // SAFETY: it only resets fields of the struct, which is a valid one.
        unsafe { raw::isal_deflate_stateless_init(stream) };
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

/// The library's struct at an address that does not show in what it makes.
///
/// For the third byte of a block, `write_first_byte` in ISA-L's `igzip_icf_body_h1_gr_bt.asm` hashes
/// a register that holds the address of this struct where it means to hash the input. So which
/// matches are found near a block's start, and with them the bytes of a layer, would depend on where
/// the allocator has put the struct. All the addresses that are taken here have one hash.
struct Placed(NonNull<raw::isal_zstream>);

/// Addresses are counted in units of this, in bytes: what is hashed is the address without its lowest
/// 16 bits.
const UNIT: u64 = 1 << 16;
/// The addresses that are tried, in units: a part of the address space in which Linux places nothing
/// by itself on machines with 47 bits of it.
const UNITS: std::ops::Range<u32> = 0x1000_0000..0x5000_0000;
/// The bits of a hash that the library uses at this level, at most.
const HASH_MASK: u32 = raw::IGZIP_LVL1_HASH_SIZE - 1;
/// How many addresses are tried, which may be taken already.
const TRIES: u32 = 1000;

/// Where the next search starts.
static NEXT: AtomicU32 = AtomicU32::new(UNITS.start);

impl Placed {
    fn new() -> io::Result<Placed> {
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for _ in 0..TRIES {
            let address = u64::from(next_unit()) * UNIT;
            match Placed::at(address as usize) {
                Ok(placed) => return Ok(placed),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn at(address: usize) -> io::Result<Placed> {
        use rustix::mm::{MapFlags, ProtFlags};
        let wanted = ptr::without_provenance_mut(address);
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::FIXED_NOREPLACE;
        // SAFETY: a new mapping of memory that is nobody's: with NOREPLACE the kernel refuses an
        // address that is in use, and a kernel that does not know the flag (before 4.17) takes the
        // address for a hint and replaces nothing either.
        let got = unsafe { rustix::mm::mmap_anonymous(wanted, SIZE, access, flags)? };
        let placed = Placed(NonNull::new(got.cast()).ok_or(io::ErrorKind::OutOfMemory)?);
        // Dropped, and unmapped by that, where the address was only a hint.
        match got == wanted {
            true => Ok(placed),
            false => Err(io::ErrorKind::AddrNotAvailable.into()),
        }
    }

    fn get(&mut self) -> &mut raw::isal_zstream {
        // SAFETY: the mapping is this value's alone, as long as it lives, is aligned to a page and
        // large enough, and is zeroed by the kernel at first; the struct is plain C data (pointers,
        // integers, arrays of them) for which zeroes are a valid value.
        unsafe { self.0.as_mut() }
    }
}

const SIZE: usize = size_of::<raw::isal_zstream>();

impl Drop for Placed {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `at` with this size, and no reference to it is left.
        // Failing would leak it, which nothing can be done about.
        let _ = unsafe { rustix::mm::munmap(self.0.as_ptr().cast(), SIZE) };
    }
}

// SAFETY: the mapping belongs to no thread, and only the value's owner has its address.
unsafe impl Send for Placed {}

/// Gives the next address, in units, whose hash is 0 in the bits that count.
fn next_unit() -> u32 {
    let from = NEXT.load(Ordering::Relaxed);
    let from = if UNITS.contains(&from) {
        from
    } else {
        UNITS.start
    };
    // One of 8,192 is; so there is one wherever the search starts but at the very end.
    let found = (from..UNITS.end)
        .find(|unit| crc32c(*unit) & HASH_MASK == 0)
        .unwrap_or(UNITS.start);
    NEXT.store(found + 1, Ordering::Relaxed);
    found
}

/// What the processor's `crc32` instruction makes of 4 bytes, starting from 0.
fn crc32c(data: u32) -> u32 {
    (0..32).fold(data, |crc, _| {
        (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg())
    })
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
    fn addresses_have_one_hash() {
        for data in [0, 1, 2, 0xffff_ffff, 0x1234_5678, UNITS.start, UNITS.end] {
            // SAFETY: ISA-L at this level needs the instruction as well.
            let real = unsafe { std::arch::x86_64::_mm_crc32_u32(0, data) };
            assert_eq!(crc32c(data), real, "{data:#x}");
        }
        let many: Vec<Placed> = (0..200).map(|_| Placed::new().unwrap()).collect();
        for placed in &many {
            let address = placed.0.as_ptr().addr();
            assert_eq!(
                crc32c((address >> 16) as u32) & HASH_MASK,
                0,
                "{address:#x}"
            );
        }
    }

    /// A fault that one in some thousand blocks shows, with the struct wherever it comes to lie:
    /// hence so many of both.
    #[test]
    fn a_block_does_not_depend_on_where_it_is_deflated() {
        let mut many: Vec<Deflater> = (0..32).map(|_| Deflater::new().unwrap()).collect();
        for seed in 1..400_u64 {
            let input = block(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15), 9_000);
            let mut first = Vec::new();
            many[0].block(&input, &mut first).unwrap();
            for deflater in &mut many[1..] {
                let mut other = Vec::new();
                deflater.block(&input, &mut other).unwrap();
                assert!(first == other, "seed {seed}");
            }
        }
    }

    #[test]
    fn a_block_does_not_depend_on_those_before_it() {
        let mut used = Deflater::new().unwrap();
        for seed in 1..300_u64 {
            let input = block(
                seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
                64 + seed as usize * 7919 % 70_000,
            );
            let (mut got, mut fresh) = (Vec::new(), Vec::new());
            used.block(&input, &mut got).unwrap();
            Deflater::new().unwrap().block(&input, &mut fresh).unwrap();
            assert!(
                got == fresh,
                "seed {seed}: {} and {}",
                got.len(),
                fresh.len()
            );
        }
    }
}
