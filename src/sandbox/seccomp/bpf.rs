//! Classic BPF as seccomp wants it: building a decision over system call numbers, and running one
//! for the tests.

use crate::sys::Insn;

/// Offsets in `struct seccomp_data` (linux/seccomp.h), on little-endian machines.
const NR: u32 = 0;
const ARCH: u32 = 4;

// Opcodes: class, size and mode, or operation and source (linux/bpf_common.h).
const LD_W_ABS: u16 = 0x20;
const JMP_JA: u16 = 0x05;
const JMP_JEQ: u16 = 0x15;
const JMP_JGT: u16 = 0x25;
const JMP_JGE: u16 = 0x35;
const ALU_AND: u16 = 0x54;
const RET: u16 = 0x06;

/// What the kernel does with a call (linux/seccomp.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Allow,
    Errno(u16),
    KillProcess,
}

impl Action {
    /// Gives the value that a filter returns.
    pub(super) fn value(self) -> u32 {
        match self {
            Action::Allow => 0x7fff_0000,
            Action::Errno(errno) => 0x0005_0000 | u32::from(errno),
            Action::KillProcess => 0x8000_0000,
        }
    }
}

/// What is decided for one system call number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// The same whatever the arguments.
    Always(Action),
    /// Allowed where the argument is one of these ranges (both ends included), else the action.
    Within(u8, &'static [(u32, u32)], Action),
    /// Allowed where none of these bits is set in the argument, else the action.
    Without(u8, u32, Action),
}

fn insn(code: u16, jt: u8, jf: u8, k: u32) -> Insn {
    Insn { code, jt, jf, k }
}

fn ret(action: Action) -> Insn {
    insn(RET, 0, 0, action.value())
}

/// Gives the code for one rule; every way through it ends in a return.
fn rule(rule: Rule) -> Vec<Insn> {
    match rule {
        Rule::Always(action) => vec![ret(action)],
        Rule::Within(argument, ranges, otherwise) => {
            // A value with high bits is in no range: the comparison is one of 64 bits.
            let mut code = vec![
                insn(LD_W_ABS, 0, 0, high(argument)),
                insn(JMP_JEQ, 1, 0, 0),
                ret(otherwise),
                insn(LD_W_ABS, 0, 0, low(argument)),
            ];
            for &(first, last) in ranges {
                code.push(insn(JMP_JGE, 0, 2, first));
                code.push(insn(JMP_JGT, 1, 0, last));
                code.push(ret(Action::Allow));
            }
            code.push(ret(otherwise));
            code
        }
        Rule::Without(argument, bits, otherwise) => vec![
            insn(LD_W_ABS, 0, 0, low(argument)),
            insn(ALU_AND, 0, 0, bits),
            insn(JMP_JEQ, 0, 1, 0),
            ret(Action::Allow),
            ret(otherwise),
        ],
    }
}

fn low(argument: u8) -> u32 {
    16 + 8 * u32::from(argument)
}

fn high(argument: u8) -> u32 {
    low(argument) + 4
}

/// Gives the code for one architecture: a binary search over ranges of numbers. `ranges` are
/// `(first number, rule)`, ascending from 0, each reaching to the next.
fn search(ranges: &[(u32, Rule)]) -> Vec<Insn> {
    match ranges {
        [] => vec![ret(Action::KillProcess)],
        [(_, only)] => rule(*only),
        _ => {
            let (left, right) = ranges.split_at(ranges.len() / 2);
            let at = right.first().map_or(0, |(first, _)| *first);
            let (left, right) = (search(left), search(right));
            branch(JMP_JGE, at, right, left)
        }
    }
}

/// Gives `if A <test> k { yes } else { no }` where both sides end in returns.
fn branch(test: u16, k: u32, yes: Vec<Insn>, no: Vec<Insn>) -> Vec<Insn> {
    let mut code = Vec::with_capacity(yes.len() + no.len() + 2);
    match u8::try_from(no.len()) {
        Ok(near) => code.push(insn(test, near, 0, k)),
        Err(_) => {
            // A conditional jump reaches 255 instructions; an unconditional one anywhere.
            let far = u32::try_from(no.len()).unwrap_or(u32::MAX);
            code.push(insn(test, 0, 1, k));
            code.push(insn(JMP_JA, 0, 0, far));
        }
    }
    code.extend(no);
    code.extend(yes);
    code
}

/// Gives a whole filter: each architecture (its AUDIT_ARCH value) with its ranges; a call of any
/// other architecture kills the process.
pub(super) fn assemble(architectures: &[(u32, Vec<(u32, Rule)>)]) -> Vec<Insn> {
    let mut code = vec![ret(Action::KillProcess)];
    for (architecture, ranges) in architectures.iter().rev() {
        let mut own = vec![insn(LD_W_ABS, 0, 0, NR)];
        own.extend(search(ranges));
        code = branch(JMP_JEQ, *architecture, own, code);
    }
    code.insert(0, insn(LD_W_ABS, 0, 0, ARCH));
    code
}

/// Runs a filter as the kernel would; `None` where it is not a filter.
#[cfg(test)]
pub(super) fn simulate(code: &[Insn], arch: u32, nr: u32, args: [u64; 6]) -> Option<u32> {
    let mut data = Vec::new();
    data.extend(nr.to_le_bytes());
    data.extend(arch.to_le_bytes());
    data.extend(0u64.to_le_bytes());
    for argument in args {
        data.extend(argument.to_le_bytes());
    }
    let (mut at, mut a) = (0usize, 0u32);
    loop {
        let Insn {
            code: op,
            jt,
            jf,
            k,
        } = *code.get(at)?;
        at += 1;
        let taken = match op {
            RET => return Some(k),
            LD_W_ABS => {
                let place = usize::try_from(k).ok()?;
                a = u32::from_le_bytes(data.get(place..place + 4)?.try_into().ok()?);
                continue;
            }
            ALU_AND => {
                a &= k;
                continue;
            }
            JMP_JA => {
                at += usize::try_from(k).ok()?;
                continue;
            }
            JMP_JEQ => a == k,
            JMP_JGT => a > k,
            JMP_JGE => a >= k,
            _ => return None,
        };
        at += usize::from(if taken { jt } else { jf });
    }
}
