use super::bpf::{Action, assemble, simulate};
use super::*;

const ALLOW: u32 = 0x7fff_0000;
const NOT_PERMITTED: u32 = 0x0005_0001;
const NOT_THERE: u32 = 0x0005_0026;

fn decide(code: &[Insn], arch: u32, nr: u32, first: u64) -> u32 {
    simulate(code, arch, nr, [first, 0, 0, 0, 0, 0]).expect("a filter")
}

#[test]
fn every_name_is_a_call_somewhere() {
    let tables = [table!(x86_64), table!(x86), table!(aarch64), table!(arm)];
    for name in names().chain(CONDITIONAL.iter().map(|(name, _)| *name)) {
        assert!(
            tables.iter().any(|table| table.contains_key(name)) || name == "utimensat_time64",
            "{name}"
        );
    }
}

#[test]
fn allowed_names_are_distinct_and_not_conditional() {
    let mut seen = std::collections::HashSet::new();
    for name in names() {
        assert!(seen.insert(name), "{name} is there twice");
        assert!(
            CONDITIONAL.iter().all(|(other, _)| *other != name),
            "{name}"
        );
    }
    assert!(seen.len() > 330, "{}", seen.len());
}

#[test]
fn every_number_is_decided_as_its_name_says() {
    let families = [
        (
            x86_family(&["arch_prctl"]),
            X86_64,
            table!(x86_64),
            0,
            "arch_prctl",
        ),
        (
            x86_family(&["arch_prctl"]),
            X86,
            table!(x86),
            0,
            "arch_prctl",
        ),
        (
            x86_family(&["arch_prctl"]),
            X86_64,
            x32(&table!(x86_64)),
            X32_BIT,
            "arch_prctl",
        ),
        (
            arm_family(&["sync_file_range2"]),
            AARCH64,
            table!(aarch64),
            0,
            "sync_file_range2",
        ),
        (
            arm_family(&["sync_file_range2"]),
            ARM,
            table!(arm),
            0,
            "sync_file_range2",
        ),
    ];
    let allowed: std::collections::HashSet<_> = names().collect();
    for (family, arch, table, offset, native) in families {
        let code = assemble(&family);
        assert!(code.len() < 2000, "{}", code.len());
        let last = allowed
            .iter()
            .filter_map(|name| table.get(name))
            .max()
            .expect("calls");
        for (name, number) in &table {
            let expected = if allowed.contains(name) || *name == native {
                ALLOW
            } else if CONDITIONAL.iter().any(|(other, _)| other == name) {
                continue;
            } else if number > last {
                NOT_THERE
            } else {
                NOT_PERMITTED
            };
            assert_eq!(
                decide(&code, arch, number + offset, 0),
                expected,
                "{name} on {arch:x}"
            );
        }
    }
}

#[test]
fn arguments_decide() {
    let cases: &[(&str, u64, u32)] = &[
        ("personality", 0, ALLOW),
        ("personality", 8, ALLOW),
        ("personality", 0x20000, ALLOW),
        ("personality", 0x20008, ALLOW),
        ("personality", 0xffff_ffff, ALLOW),
        ("personality", 0x0040_0000, NOT_PERMITTED),
        ("personality", 0x1_0000_0000, NOT_PERMITTED),
        ("personality", 1, NOT_PERMITTED),
        ("clone", 0x0000_0011, ALLOW),
        ("clone", 0x003d_0f00, ALLOW),
        ("clone", 0x1000_0011, NOT_PERMITTED),
        ("clone", 0x0002_0011, NOT_PERMITTED),
        ("clone", 0x4000_0000, NOT_PERMITTED),
        ("clone3", 0, NOT_THERE),
        ("socket", 1, ALLOW),
        ("socket", 2, ALLOW),
        ("socket", 10, ALLOW),
        ("socket", 16, ALLOW),
        ("socket", 17, ALLOW),
        ("socket", 12, NOT_PERMITTED),
        ("socket", 38, NOT_PERMITTED),
        ("socket", 40, NOT_PERMITTED),
        ("socket", 44, ALLOW),
        ("socket", 46, NOT_PERMITTED),
        ("socket", 0x1_0000_0002, NOT_PERMITTED),
        ("unshare", 0, NOT_PERMITTED),
        ("setns", 0, NOT_PERMITTED),
        ("mount", 0, NOT_PERMITTED),
        ("bpf", 0, NOT_PERMITTED),
        ("keyctl", 0, NOT_PERMITTED),
        ("add_key", 0, NOT_PERMITTED),
        ("request_key", 0, NOT_PERMITTED),
        ("userfaultfd", 0, NOT_PERMITTED),
        ("perf_event_open", 0, NOT_PERMITTED),
        ("io_uring_setup", 0, NOT_PERMITTED),
        ("kexec_load", 0, NOT_PERMITTED),
        ("swapon", 0, NOT_PERMITTED),
        ("reboot", 0, NOT_PERMITTED),
        ("kcmp", 0, NOT_PERMITTED),
        ("ptrace", 0, ALLOW),
        ("chroot", 0, ALLOW),
        ("execve", 0, ALLOW),
    ];
    let x86 = assemble(&x86_family(&[]));
    let arm = assemble(&arm_family(&[]));
    for (name, first, expected) in cases {
        for (code, arch, table) in [
            (&x86, X86_64, table!(x86_64)),
            (&x86, X86, table!(x86)),
            (&arm, AARCH64, table!(aarch64)),
            (&arm, ARM, table!(arm)),
        ] {
            if let Some(number) = table.get(name) {
                assert_eq!(
                    decide(code, arch, *number, *first),
                    *expected,
                    "{name}({first:#x}) on {arch:x}"
                );
            }
        }
    }
}

#[test]
fn a_foreign_architecture_and_a_future_call() {
    let code = assemble(&x86_family(&[]));
    assert_eq!(decide(&code, AARCH64, 1, 0), Action::KillProcess.value());
    for (number, expected) in [
        (100_000, NOT_THERE),
        (0x3fff_ffff, NOT_THERE),
        (X32_BIT + 100_000, NOT_THERE),
        (u32::MAX, NOT_THERE),
        // A gap between the old numbers and the common ones.
        (400, NOT_PERMITTED),
    ] {
        assert_eq!(decide(&code, X86_64, number, 0), expected, "{number}");
    }
    let code = assemble(&arm_family(&[]));
    for (number, expected) in [
        (0x0f_0002, ALLOW),
        (0x0f_0005, ALLOW),
        (0x0f_0003, NOT_THERE),
        (0x0f_0006, NOT_THERE),
    ] {
        assert_eq!(decide(&code, ARM, number, 0), expected, "{number:#x}");
    }
}
