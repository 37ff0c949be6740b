//! The system calls a command may make: Docker's default profile, as one filter.
//!
//! The profile is the one of <https://github.com/moby/profiles> for a container with Docker's
//! default capabilities; what it grants for further capabilities is not here, since a command never
//! has them. As with runc, a call that is newer than every call of the profile is answered with
//! ENOSYS, so that a C library which tries it falls back.

mod bpf;

use crate::sys::Insn;
use bpf::{Action, Rule};
use std::collections::{BTreeMap, HashMap};

/// Names of the calls that are always allowed.
const ALLOWED: &str = include_str!("allowed.txt");

const EPERM: u16 = 1;
const ENOSYS: u16 = 38;
const REFUSED: Action = Action::Errno(EPERM);

/// Calls whose arguments decide.
const CONDITIONAL: [(&str, Rule); 4] = [
    // Of the execution domains: Linux, UNAME26 (8), PER_LINUX32 (8 and 0x20000 set one bit each)
    // and the query.
    (
        "personality",
        Rule::Within(
            0,
            &[
                (0, 0),
                (8, 8),
                (0x20000, 0x20000),
                (0x20008, 0x20008),
                (u32::MAX, u32::MAX),
            ],
            REFUSED,
        ),
    ),
    // No CLONE_NEW* flag.
    ("clone", Rule::Without(0, 0x7e02_0000, REFUSED)),
    // Its flags lie in memory, where a filter cannot look; ENOSYS makes C libraries use clone.
    ("clone3", Rule::Always(Action::Errno(ENOSYS))),
    // Not AF_ALG, AF_VSOCK and families that nobody has used for decades.
    (
        "socket",
        Rule::Within(
            0,
            &[
                (0, 11),
                (13, 18),
                (21, 22),
                (24, 24),
                (26, 33),
                (35, 36),
                (39, 39),
                (41, 45),
            ],
            REFUSED,
        ),
    ),
];

/// Calls that are allowed on one family of machines only.
#[cfg(target_arch = "x86_64")]
const NATIVE: &[&str] = &["arch_prctl", "modify_ldt"];
#[cfg(target_arch = "aarch64")]
const NATIVE: &[&str] = &[
    "arm_fadvise64_64",
    "arm_sync_file_range",
    "sync_file_range2",
    "breakpoint",
    "cacheflush",
    "set_tls",
];

/// AUDIT_ARCH values (linux/audit.h).
#[cfg(any(target_arch = "x86_64", test))]
const X86_64: u32 = 0xc000_003e;
#[cfg(any(target_arch = "x86_64", test))]
const X86: u32 = 0x4000_0003;
#[cfg(any(target_arch = "aarch64", test))]
const AARCH64: u32 = 0xc000_00b7;
#[cfg(any(target_arch = "aarch64", test))]
const ARM: u32 = 0x4000_0028;

/// Numbers by name.
type Table = HashMap<&'static str, u32>;

macro_rules! table {
    ($arch:ident) => {
        syscalls::$arch::Sysno::iter()
            .map(|call| (call.name(), call.id().unsigned_abs()))
            .collect::<Table>()
    };
}

/// Builds the filter for this machine.
pub(super) fn filter() -> Vec<Insn> {
    #[cfg(target_arch = "x86_64")]
    let architectures = x86_family(NATIVE);
    #[cfg(target_arch = "aarch64")]
    let architectures = arm_family(NATIVE);
    bpf::assemble(&architectures)
}

#[cfg(any(target_arch = "x86_64", test))]
fn x86_family(native: &[&'static str]) -> Vec<(u32, Vec<(u32, Rule)>)> {
    let table = table!(x86_64);
    let mut both = ranges(&table, native, 0);
    both.extend(ranges(&x32(&table), native, X32_BIT));
    vec![(X86_64, both), (X86, ranges(&table!(x86), native, 0))]
}

#[cfg(any(target_arch = "aarch64", test))]
fn arm_family(native: &[&'static str]) -> Vec<(u32, Vec<(u32, Rule)>)> {
    let mut arm = ranges(&table!(arm), native, 0);
    // The private calls of 32-bit ARM (asm/unistd.h): breakpoint, cacheflush, set_tls.
    for number in [0x0f_0001, 0x0f_0002, 0x0f_0005] {
        arm.push((number, Rule::Always(Action::Allow)));
        arm.push((number + 1, Rule::Always(Action::Errno(ENOSYS))));
    }
    vec![
        (AARCH64, ranges(&table!(aarch64), native, 0)),
        (ARM, fix_neighbours(arm)),
    ]
}

/// Puts ranges in order where one was said to start twice: the later word counts.
#[cfg(any(target_arch = "aarch64", test))]
fn fix_neighbours(ranges: Vec<(u32, Rule)>) -> Vec<(u32, Rule)> {
    ranges
        .into_iter()
        .collect::<BTreeMap<_, _>>()
        .into_iter()
        .collect()
}

/// The bit that tells x32 calls from x86-64 ones (asm/unistd.h).
#[cfg(any(target_arch = "x86_64", test))]
const X32_BIT: u32 = 0x4000_0000;

/// Calls whose structures differ in x32 and that have numbers of their own there, from 512 on
/// (arch/x86/entry/syscalls/syscall_64.tbl).
#[cfg(any(target_arch = "x86_64", test))]
const X32_OWN: [&str; 36] = [
    "rt_sigaction",
    "rt_sigreturn",
    "ioctl",
    "readv",
    "writev",
    "recvfrom",
    "sendmsg",
    "recvmsg",
    "execve",
    "ptrace",
    "rt_sigpending",
    "rt_sigtimedwait",
    "rt_sigqueueinfo",
    "sigaltstack",
    "timer_create",
    "mq_notify",
    "kexec_load",
    "waitid",
    "set_robust_list",
    "get_robust_list",
    "vmsplice",
    "move_pages",
    "preadv",
    "pwritev",
    "rt_tgsigqueueinfo",
    "recvmmsg",
    "sendmmsg",
    "process_vm_readv",
    "process_vm_writev",
    "setsockopt",
    "getsockopt",
    "io_setup",
    "io_submit",
    "execveat",
    "preadv2",
    "pwritev2",
];

#[cfg(any(target_arch = "x86_64", test))]
fn x32(table: &Table) -> Table {
    let mut table = table.clone();
    for (name, number) in X32_OWN.into_iter().zip(512..) {
        table.insert(name, number);
    }
    table
}

/// Gives the rules of one architecture as ranges of numbers, each moved up by `offset`.
fn ranges(table: &Table, native: &[&'static str], offset: u32) -> Vec<(u32, Rule)> {
    let mut rules: BTreeMap<u32, Rule> = BTreeMap::new();
    for name in names().chain(native.iter().copied()) {
        if let Some(number) = table.get(name) {
            rules.insert(*number, Rule::Always(Action::Allow));
        }
    }
    for (name, rule) in CONDITIONAL {
        if let Some(number) = table.get(name) {
            rules.insert(*number, rule);
        }
    }
    let mut ranges: Vec<(u32, Rule)> = Vec::new();
    let mut put = |first: u32, rule: Rule| {
        if ranges.last().is_none_or(|(_, before)| *before != rule) {
            ranges.push((first + offset, rule));
        }
    };
    let mut next = 0;
    for (number, rule) in rules {
        if number > next {
            put(next, Rule::Always(REFUSED));
        }
        put(number, rule);
        next = number + 1;
    }
    put(next, Rule::Always(Action::Errno(ENOSYS)));
    ranges
}

/// Gives the names of the table file.
fn names() -> impl Iterator<Item = &'static str> {
    ALLOWED
        .lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(str::split_whitespace)
}

// Below the macro that it uses.
#[cfg(test)]
mod tests;
