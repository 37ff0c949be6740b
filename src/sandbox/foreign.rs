//! Which platforms' programs this machine runs: its own, those its processor runs beside, and those
//! that an emulator is registered for with binfmt_misc.
//!
//! The format of the entries is that of the kernel's `admin-guide/binfmt-misc`.

use crate::oci::Platform;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

/// What this machine runs.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Its own platform.
    pub host: Platform,
    /// Architectures that its processor and kernel run beside.
    pub beside: Vec<&'static str>,
    /// The entries of binfmt_misc, each as the kernel shows it; none where they cannot be seen.
    pub handlers: Option<Vec<String>>,
}

impl Machine {
    /// Looks at this machine.
    pub fn probe() -> Machine {
        let host = Platform::host();
        let beside: &[&str] = match host.architecture.as_str() {
            // Kernels without it are made on purpose; then a command says that it cannot be executed.
            "amd64" => &["386"],
            "arm64" if crate::sys::runs_arm32() => &["arm"],
            _ => &[],
        };
        Machine {
            host,
            beside: beside.to_vec(),
            handlers: handlers(),
        }
    }

    /// Tells whether programs for a platform run here, and in any root: an emulator counts that the
    /// kernel holds open (flag F). Where the emulators cannot be seen, every platform may have one.
    pub fn runs(&self, wanted: &Platform) -> bool {
        let architecture = wanted.architecture.as_str();
        if wanted.os != self.host.os {
            return false;
        }
        if architecture == self.host.architecture || self.beside.contains(&architecture) {
            return true;
        }
        let Some(handlers) = &self.handlers else {
            return true;
        };
        let Some(headers) = headers(architecture) else {
            return false;
        };
        let takes = |header: &[u8; 20]| handlers.iter().any(|entry| takes(entry, header));
        headers.iter().any(takes)
    }
}

/// Gives how programs of an architecture begin: position-dependent and position-independent ones.
fn headers(architecture: &str) -> Option<[[u8; 20]; 2]> {
    const LITTLE: u8 = 1;
    const BIG: u8 = 2;
    // Class (1 for 32 bits, 2 for 64), byte order, machine, as elf.h numbers them.
    let (class, order, machine) = match architecture {
        "386" => (1, LITTLE, 3u16),
        "amd64" => (2, LITTLE, 62),
        "arm" => (1, LITTLE, 40),
        "arm64" => (2, LITTLE, 183),
        "loong64" => (2, LITTLE, 258),
        "mips" => (1, BIG, 8),
        "mipsle" => (1, LITTLE, 8),
        "mips64" => (2, BIG, 8),
        "mips64le" => (2, LITTLE, 8),
        "ppc64" => (2, BIG, 21),
        "ppc64le" => (2, LITTLE, 21),
        "riscv64" => (2, LITTLE, 243),
        "s390x" => (2, BIG, 22),
        _ => return None,
    };
    let header = |kind: u16| {
        let mut out = [0; 20];
        out[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', class, order, 1]);
        let number = |n: u16| match order {
            LITTLE => n.to_le_bytes(),
            _ => n.to_be_bytes(),
        };
        out[16..18].copy_from_slice(&number(kind));
        out[18..].copy_from_slice(&number(machine));
        out
    };
    Some([header(2), header(3)])
}

/// Tells whether an entry is enabled, works in any root, and takes programs that begin so.
fn takes(entry: &str, header: &[u8]) -> bool {
    let mut lines = entry.lines();
    if lines.next() != Some("enabled") {
        return false;
    }
    let value = |name: &str| {
        let mut lines = entry.lines();
        lines
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim)
    };
    let everywhere = value("flags:").is_some_and(|flags| flags.contains('F'));
    let offset = value("offset ").and_then(|text| text.parse::<usize>().ok());
    let (Some(offset), Some(magic)) = (offset, value("magic ").and_then(bytes)) else {
        return false;
    };
    let mask = match value("mask ") {
        Some(mask) => bytes(mask),
        None => Some(vec![0xff; magic.len()]),
    };
    let Some(mask) = mask.filter(|mask| mask.len() == magic.len()) else {
        return false;
    };
    let begins = header
        .get(offset..)
        .and_then(|rest| rest.get(..magic.len()))
        .is_some_and(|found| {
            let same = found.iter().zip(&magic).zip(&mask);
            same.into_iter().all(|((a, b), mask)| a & mask == b & mask)
        });
    everywhere && begins
}

/// Reads hexadecimal digits.
fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| {
        char::from(c)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    let pairs = hex.as_bytes().chunks(2);
    pairs
        .map(|pair| match pair {
            [high, low] => Some((digit(*high)? << 4) | digit(*low)?),
            _ => None,
        })
        .collect()
}

/// Reads the entries of binfmt_misc.
fn handlers() -> Option<Vec<String>> {
    let dir = open().ok()?;
    let read = |name: &str| -> io::Result<String> {
        use rustix::fs::{Mode, OFlags, openat};
        let file = openat(&dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let mut text = String::new();
        std::fs::File::from(file)
            .take(1 << 16)
            .read_to_string(&mut text)?;
        Ok(text)
    };
    if read("status").ok()?.trim() != "enabled" {
        return Some(Vec::new());
    }
    let names = rustix::fs::Dir::read_from(&dir).ok()?;
    let names = names.filter_map(|entry| entry.ok()?.file_name().to_str().ok().map(str::to_owned));
    let entries = names.filter(|name| !matches!(name.as_str(), "." | ".." | "status" | "register"));
    Some(entries.filter_map(|name| read(&name).ok()).collect())
}

/// Opens binfmt_misc where it is mounted, or by a mount that nothing else sees.
fn open() -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags, open, openat};
    use rustix::mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen,
    };
    const DIR: &str = "/proc/sys/fs/binfmt_misc";
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mounted = open(DIR, flags, Mode::empty())?;
    let status = openat(
        &mounted,
        "status",
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    );
    if status.is_ok() {
        return Ok(mounted);
    }
    // In another user namespace a mount would be a new table, and an empty one.
    let map = std::fs::read_to_string("/proc/self/uid_map")?;
    if map.split_whitespace().ne(["0", "0", "4294967295"]) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let context = fsopen("binfmt_misc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let mount = fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::MOUNT_ATTR_RDONLY,
    )?;
    Ok(openat(&mount, ".", flags, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARM64: &str = "enabled\ninterpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P\n\
                         flags: POCF\noffset 0\nmagic 7f454c460201010000000000000000000200b700\n\
                         mask ffffffffffffff00fffffffffffffffffeffffff\n";
    const S390X: &str = "enabled\ninterpreter /q\nflags: F\noffset 0\n\
                         magic 7f454c4602020100000000000000000000020016\n\
                         mask ffffffffffffff00fffffffffffffffffffeffff\n";

    fn machine(host: &str, beside: &[&'static str], handlers: Option<&[&str]>) -> Machine {
        Machine {
            host: host.parse().unwrap(),
            beside: beside.to_vec(),
            handlers: handlers.map(|all| all.iter().map(|text| (*text).to_owned()).collect()),
        }
    }

    #[test]
    fn platforms_that_run() {
        let disabled = ARM64.replacen("enabled", "disabled", 1);
        let in_the_root = ARM64.replacen("POCF", "OC", 1);
        let extension = "enabled\ninterpreter /j\nflags: F\nextension .jar\n";
        let amd64 = |handlers: &[&str]| machine("linux/amd64", &["386"], Some(handlers));
        for (machine, wanted, expected) in [
            (amd64(&[]), "linux/amd64", true),
            (amd64(&[]), "linux/amd64/v3", true),
            (amd64(&[]), "linux/386", true),
            (amd64(&[]), "linux/arm64", false),
            (amd64(&[ARM64]), "windows/amd64", false),
            (amd64(&[ARM64]), "linux/arm64", true),
            (amd64(&[ARM64]), "linux/arm64/v8", true),
            (amd64(&[ARM64]), "linux/arm/v7", false),
            (amd64(&[ARM64]), "linux/s390x", false),
            (amd64(&[ARM64, S390X]), "linux/s390x", true),
            (amd64(&[ARM64]), "linux/sparc64", false),
            (amd64(&[&disabled]), "linux/arm64", false),
            // An emulator that is looked for in the image's own root is not there.
            (amd64(&[&in_the_root]), "linux/arm64", false),
            (amd64(&[extension, "", "enabled\n"]), "linux/arm64", false),
            (
                machine("linux/arm64", &[], Some(&[])),
                "linux/arm/v7",
                false,
            ),
            (
                machine("linux/arm64", &["arm"], Some(&[])),
                "linux/arm/v7",
                true,
            ),
            (machine("linux/arm64", &[], Some(&[])), "linux/amd64", false),
            (machine("linux/amd64", &[], None), "linux/riscv64", true),
            (machine("linux/amd64", &[], None), "windows/amd64", false),
        ] {
            let shown = wanted.parse().unwrap();
            assert_eq!(machine.runs(&shown), expected, "{wanted} on {machine:?}");
        }
    }

    #[test]
    fn entries_that_are_damaged() {
        let header = headers("arm64").unwrap()[0];
        assert!(takes(ARM64, &header));
        for (from, to) in [
            ("offset 0", "offset 99999999999"),
            ("offset 0", "offset 2"),
            ("offset 0\n", ""),
            ("magic 7f", "magic zz"),
            ("magic 7f", "magic 7"),
            ("mask ff", "mask "),
            ("enabled", "enabled?"),
        ] {
            assert!(!takes(&ARM64.replacen(from, to, 1), &header), "{to}");
        }
    }

    #[test]
    fn this_machine_runs_its_own() {
        assert!(Machine::probe().runs(&Platform::host()));
    }
}
