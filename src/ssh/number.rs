//! Numbers of any length, big-endian: what RSA keys in OpenSSH's form leave out is computed from what
//! they have.

/// Takes zeroes in front away.
pub(super) fn strip(number: &[u8]) -> &[u8] {
    let zeroes = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeroes..).unwrap_or_default()
}

/// Gives an odd number less one; `None` for an even one, which no prime is.
pub(super) fn less_one(number: &[u8]) -> Option<Vec<u8>> {
    let mut out = number.to_vec();
    let last = out.last_mut()?;
    *last = last.checked_sub(1).filter(|last| last & 1 == 0)?;
    Some(out)
}

/// Gives the remainder of a division, bit by bit; numbers are big-endian. OpenSSH's form leaves
/// out the exponents that RSA signs with, which are remainders of the private one.
pub(super) fn remainder(number: &[u8], by: &[u8]) -> Vec<u8> {
    let width = by.len() + 1;
    let by = [&[0], by].concat();
    let mut rest = vec![0_u8; width];
    for bit in number
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1))
    {
        let mut carry = bit;
        for byte in rest.iter_mut().rev() {
            (*byte, carry) = (*byte << 1 | carry, *byte >> 7);
        }
        if rest >= by {
            let mut borrow = false;
            for (byte, less) in rest.iter_mut().zip(&by).rev() {
                let (first, one) = byte.overflowing_sub(*less);
                let (second, two) = first.overflowing_sub(u8::from(borrow));
                *byte = second;
                borrow = one || two;
            }
        }
    }
    strip(&rest).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remainders_are_right() {
        for number in [0_u32, 1, 255, 256, 65_537, 0xdead_beef, u32::MAX] {
            for by in [1_u32, 2, 3, 255, 256, 257, 0x00de_adbf, u32::MAX] {
                let got = remainder(&number.to_be_bytes(), strip(&by.to_be_bytes()));
                let expected = (number % by).to_be_bytes();
                assert_eq!(got, strip(&expected), "{number} by {by}");
            }
        }
    }
}
