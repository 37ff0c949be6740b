//! A user of no rights, with a range of ids or without one, and programs run as that user.
//!
//! The user is there in a mount namespace of each program alone: nothing of the machine is changed.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::Command;

/// The user's number; nobody has it.
pub const UID: u32 = 424_242;

/// Which ids the user can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ids {
    /// A range of 65,536.
    Range,
    /// Its own.
    One,
}

/// What is laid over the machine's own files before the program starts: lists of users and of ranges,
/// and a device that everybody may open, as it is on most machines.
const SCRIPT: &str = r#"set -e
room=$1 range=$2 uid=$3; shift 3
mount -t tmpfs -o mode=755 room "$room"
cp /etc/passwd "$room/passwd"
echo "shutter-test:x:$uid:$uid::/nowhere:/bin/sh" >> "$room/passwd"
printf '%s' "$range" > "$room/range"
for list in subuid subgid; do
    [ -e /etc/$list ] || : > /etc/$list
    mount --bind "$room/range" /etc/$list
done
mount --bind "$room/passwd" /etc/passwd
if [ -e /dev/fuse ]; then
    mknod -m 666 "$room/fuse" c 10 229
    mount --bind "$room/fuse" /dev/fuse
fi
exec setpriv --reuid="$uid" --regid="$uid" --clear-groups "$@"
"#;

/// Gives a command that runs a program as the user. `room` is a directory that anybody may enter.
pub fn command(program: &Path, ids: Ids, room: &Path) -> Command {
    let dir = room.join("room");
    if !dir.exists() {
        std::fs::create_dir(&dir).expect("a directory");
    }
    let range = match ids {
        Ids::Range => "shutter-test:1000000000:65536\n",
        Ids::One => "",
    };
    let mut command = Command::new("unshare");
    command
        .args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            SCRIPT,
            "sh",
        ])
        .arg(dir)
        .args([range, &UID.to_string()])
        .arg(program);
    command
}

/// Copies a program to where the user can reach it, and gives the directory to the user.
pub fn settle(work: &Path, program: &Path) -> PathBuf {
    use std::os::unix::fs::{PermissionsExt, chown};
    std::fs::set_permissions(work, PermissionsExt::from_mode(0o755)).expect("a mode");
    chown(work, Some(UID), Some(UID)).expect("an owner");
    let copy = work.join("shutter");
    std::fs::copy(program, &copy).expect("copy the program");
    copy
}
