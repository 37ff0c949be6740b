//! The scripts: each a name and steps, over the base that `stage` makes.

use crate::operations::{Bytes, Op, Op::*};

/// CAP_DAC_OVERRIDE and CAP_FOWNER: a value with a newline byte and NULs in it.
const CAPABILITY: &[u8; 20] =
    b"\x01\x00\x00\x02\x0a\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";

/// An access control list: the owner all, user 1000 and the mask what is given, the rest to read.
fn list(user: u8, mask: u8) -> Bytes {
    let mut value = vec![2, 0, 0, 0];
    for (tag, perm, id) in [
        (1, 7, u32::MAX),
        (2, user, 1000),
        (4, 5, u32::MAX),
        (16, mask, u32::MAX),
        (32, 4, u32::MAX),
    ] {
        value.extend([tag, 0, perm, 0]);
        value.extend(id.to_le_bytes());
    }
    Bytes(value)
}

/// One that says no more than mode 0751.
const MINIMAL: &[u8; 28] = b"\x02\0\0\0\x01\0\x07\0\xff\xff\xff\xff\x04\0\x05\0\xff\xff\xff\xff\x20\0\x01\0\xff\xff\xff\xff";

pub fn all() -> Vec<(&'static str, Vec<Vec<Op>>)> {
    let b = |text: &str| -> Bytes { text.into() };
    let long = "n".repeat(255);
    vec![
        (
            "rmdir",
            vec![vec![
                RemoveAll(b("dir/sub")),
                Mkdir(b("dir/sub")),
                Rmdir(b("dir/sub")),
            ]],
        ),
        ("nothing", vec![vec![]]),
        (
            "create",
            vec![
                vec![Write(b("new"), b("1")), Write(b("dir/new"), b(""))],
                vec![Write(b("dir/new"), b("2"))],
            ],
        ),
        (
            "append",
            vec![
                vec![Append(b("file"), b("x"))],
                vec![Append(b("file"), b("y"))],
            ],
        ),
        (
            "truncate",
            vec![
                vec![Truncate(b("file"), 0)],
                vec![Truncate(b("dir/a"), 100)],
            ],
        ),
        (
            "same_bytes_back",
            vec![vec![Rewrite(b("file"))], vec![RewriteInTime(b("dir/a"))]],
        ),
        (
            "same_length_and_time_other_bytes",
            vec![
                vec![
                    Touch(b("file"), 1000),
                    Write(b("file"), b("1234567")),
                    Touch(b("file"), 1000),
                ],
                vec![Write(b("file"), b("7654321")), Touch(b("file"), 1000)],
            ],
        ),
        (
            "touch",
            vec![
                vec![Touch(b("file"), 5)],
                vec![Touch(b("dir"), 5)],
                vec![Touch(b("dir/link"), 7)],
            ],
        ),
        (
            "made_and_removed",
            vec![vec![Write(b("dir/tmp"), b("x")), Unlink(b("dir/tmp"))]],
        ),
        (
            "rename_over",
            vec![
                vec![Rename(b("file"), b("dir/a"))],
                vec![Rename(b("dir/b"), b("dir/a"))],
            ],
        ),
        (
            "rename_dir",
            vec![
                vec![Rename(b("dir"), b("moved"))],
                vec![Write(b("moved/a"), b("new")), Unlink(b("moved/b"))],
                vec![Rename(b("moved"), b("tree/again"))],
            ],
        ),
        (
            "rename_dir_and_write",
            vec![vec![
                Rename(b("dir"), b("moved")),
                Write(b("moved/a"), b("new")),
                Unlink(b("moved/b")),
                Mkdir(b("dir")),
                Write(b("dir/x"), b("x")),
            ]],
        ),
        (
            "rename_circle",
            vec![
                vec![
                    Rename(b("dir"), b("t")),
                    Rename(b("tree"), b("dir")),
                    Rename(b("t"), b("tree")),
                ],
                vec![
                    Write(b("tree/a"), b("z")),
                    Rename(b("tree/sub"), b("dir/sub2")),
                ],
            ],
        ),
        (
            "rename_in_renamed",
            vec![
                vec![
                    Rename(b("dir/sub"), b("dir/sub2")),
                    Rename(b("dir"), b("moved")),
                    Rename(b("moved/sub2"), b("top")),
                ],
                vec![
                    Chown(b("top/deep"), 3, 4),
                    Rename(b("top"), b("moved/back")),
                ],
            ],
        ),
        (
            "rename_over_empty_dir",
            vec![vec![
                RemoveAll(b("tree")),
                Mkdir(b("tree")),
                Rename(b("dir"), b("tree")),
            ]],
        ),
        (
            "exchange",
            vec![
                vec![Exchange(b("dir"), b("tree"))],
                vec![Exchange(b("file"), b("dir"))],
            ],
        ),
        (
            "link_to_base",
            vec![
                vec![Link(b("file"), b("dir/hard"))],
                vec![Append(b("dir/hard"), b("x"))],
            ],
        ),
        (
            "link_group",
            vec![
                vec![
                    Write(b("z"), b("x")),
                    Link(b("z"), b("a")),
                    Link(b("z"), b("dir/m")),
                ],
                vec![Unlink(b("a"))],
                vec![Append(b("z"), b("y"))],
            ],
        ),
        (
            "link_and_unlink",
            vec![
                vec![Link(b("file"), b("temp")), Unlink(b("temp"))],
                vec![Link(b("file"), b("temp")), Unlink(b("file"))],
            ],
        ),
        (
            "link_of_metacopy",
            vec![
                vec![Chown(b("file"), 5, 5), Link(b("file"), b("hard"))],
                vec![Chown(b("hard"), 6, 6), Link(b("hard"), b("tree/hard"))],
            ],
        ),
        (
            "link_out_of_renamed",
            vec![
                vec![Rename(b("dir"), b("moved")), Link(b("moved/a"), b("top"))],
                vec![
                    Link(b("moved/sub/deep"), b("aaa")),
                    Rename(b("moved"), b("zzz")),
                ],
            ],
        ),
        (
            "link_group_of_base",
            vec![
                vec![Unlink(b("links/one"))],
                vec![Append(b("links/two"), b("x"))],
            ],
        ),
        (
            "link_group_of_base_moves",
            vec![
                vec![Rename(b("links"), b("moved"))],
                vec![Chmod(b("moved/one"), 0o600)],
            ],
        ),
        (
            "link_of_symlink",
            vec![
                vec![Link(b("dir/link"), b("dir/link2"))],
                vec![Symlink(b("x"), b("s")), Link(b("s"), b("r"))],
            ],
        ),
        (
            "link_of_fifo",
            vec![vec![Fifo(b("p")), Link(b("p"), b("q"))]],
        ),
        (
            "unlink_while_open",
            vec![
                vec![UnlinkOpen(b("file"))],
                vec![Write(b("n"), b("1")), UnlinkOpen(b("n"))],
            ],
        ),
        (
            "delete",
            vec![
                vec![Unlink(b("file"))],
                vec![RemoveAll(b("dir"))],
                vec![RemoveAll(b("tree/sub"))],
            ],
        ),
        (
            "delete_and_make_again",
            vec![
                vec![Unlink(b("file")), Write(b("file"), b("new"))],
                vec![Unlink(b("file"))],
                vec![Write(b("file"), b("newer"))],
            ],
        ),
        (
            "dir_by_file_and_back",
            vec![
                vec![RemoveAll(b("dir")), Write(b("dir"), b("f"))],
                vec![Unlink(b("dir")), Mkdir(b("dir")), Write(b("dir/a"), b("a"))],
            ],
        ),
        (
            "file_by_dir_and_back",
            vec![
                vec![
                    Unlink(b("file")),
                    Mkdir(b("file")),
                    Write(b("file/in"), b("f")),
                ],
                vec![RemoveAll(b("file")), Write(b("file"), b("g"))],
            ],
        ),
        (
            "dir_by_symlink",
            vec![
                vec![RemoveAll(b("dir")), Symlink(b("tree"), b("dir"))],
                vec![Unlink(b("dir")), Mkdir(b("dir"))],
            ],
        ),
        (
            "opaque",
            vec![
                vec![
                    RemoveAll(b("dir")),
                    Mkdir(b("dir")),
                    Write(b("dir/only"), b("o")),
                ],
                vec![RemoveAll(b("dir")), Mkdir(b("dir"))],
            ],
        ),
        (
            "opaque_nested",
            vec![
                vec![
                    RemoveAll(b("dir")),
                    Mkdir(b("dir")),
                    Mkdir(b("dir/sub")),
                    Write(b("dir/sub/deep"), b("o")),
                    Write(b("dir/a"), b("a")),
                ],
                vec![RemoveAll(b("dir/sub")), Mkdir(b("dir/sub"))],
            ],
        ),
        (
            "opaque_same_again",
            vec![vec![
                Rename(b("dir"), b("t")),
                Mkdir(b("dir")),
                Rename(b("t/a"), b("dir/a")),
                RemoveAll(b("t")),
            ]],
        ),
        (
            "chmod_chown",
            vec![
                vec![
                    Chmod(b("file"), 0o600),
                    Chown(b("dir/a"), 1, 2),
                    Chmod(b("dir"), 0o700),
                    Chown(b("tree"), 3, 4),
                ],
                vec![Chmod(b("file"), 0o4755), Chown(b("dir/link"), 9, 9)],
            ],
        ),
        (
            "chmod_and_back",
            vec![vec![
                Chmod(b("file"), 0o600),
                Chmod(b("file"), 0o644),
                Chmod(b("dir"), 0o700),
                Chmod(b("dir"), 0o755),
            ]],
        ),
        (
            "chown_all",
            vec![
                vec![ChownAll(b("dir"), 5, 6)],
                vec![Append(b("dir/a"), b("x")), Rename(b("dir/b"), b("b"))],
                vec![ChownAll(b("b"), 7, 7), Rename(b("dir"), b("moved"))],
            ],
        ),
        ("chown_all_to_the_same", vec![vec![ChownAll(b(""), 0, 0)]]),
        (
            "root_itself",
            vec![
                vec![Chmod(b(""), 0o711)],
                vec![Write(b("new"), b("x"))],
                vec![Chown(b(""), 1, 1), Chmod(b(""), 0o755)],
            ],
        ),
        (
            "xattrs",
            vec![
                vec![
                    Xattr(b("file"), "user.note", b"a\0b\nc".into()),
                    Xattr(b("dir"), "user.note", b("d")),
                ],
                vec![
                    Xattr(b("file"), "user.note", b("")),
                    NoXattr(b("dir"), "user.note"),
                ],
                vec![Xattr(b("dir/a"), "security.capability", CAPABILITY.into())],
            ],
        ),
        (
            "foreign_overlay_notes",
            vec![vec![
                Write(b("e"), b("")),
                Xattr(b("e"), "user.overlay.whiteout", b("y")),
                Xattr(b("dir"), "user.overlay.opaque", b("y")),
                Xattr(b("tree"), "trusted.overlay.opaque", b("y")),
            ]],
        ),
        (
            "symlinks",
            vec![
                vec![
                    Unlink(b("dir/link")),
                    Symlink(b("elsewhere"), b("dir/link")),
                ],
                vec![Symlink(b"/abs/\xff\n".into(), b("s"))],
            ],
        ),
        (
            "special",
            vec![
                vec![Fifo(b("p")), Char(b("null"), 1, 3), Block(b("disk"), 8, 1)],
                vec![Unlink(b("p")), Char(b("p"), 5, 1), Chmod(b("null"), 0o666)],
            ],
        ),
        (
            "sockets",
            vec![
                vec![Socket(b("s")), Unlink(b("file")), Socket(b("file"))],
                vec![RemoveAll(b("dir")), Socket(b("dir"))],
            ],
        ),
        (
            "sparse",
            vec![
                vec![Sparse(b("s"), 1 << 20), Sparse(b("file"), 5 << 20)],
                vec![Truncate(b("s"), 4 << 20)],
            ],
        ),
        (
            "mapped",
            vec![
                vec![
                    Map(b("file"), b("MAP")),
                    Sparse(b("big"), 3 << 20),
                    Map(b("big"), b("start")),
                ],
                vec![Map(b("big"), b("other")), Map(b("dir/a"), b("A"))],
            ],
        ),
        (
            "written_while_read",
            vec![
                vec![AppendWhileRead(b("file"), b("more"))],
                vec![
                    AppendWhileRead(b("file"), b("and more")),
                    AppendWhileRead(b("links/one"), b("x")),
                ],
            ],
        ),
        (
            "linked_while_read",
            vec![
                vec![
                    Sparse(b("s"), 1 << 20),
                    Sparse(b("dir/t"), 1 << 20),
                    Sparse(b("u"), 1 << 20),
                ],
                vec![
                    LinkWhileRead(b("s"), b("dir/s"), true),
                    LinkWhileRead(b("dir/t"), b("t"), false),
                    // It keeps the name that is not the last it was given.
                    Link(b("u"), b("dir/u")),
                    Unlink(b("dir/u")),
                    AppendWhileRead(b("u"), b("more")),
                ],
                vec![Append(b("s"), b("x")), AppendWhileRead(b("t"), b("y"))],
            ],
        ),
        (
            "changed_by_several",
            vec![
                long_files(&["s", "w", "z"]),
                vec![
                    WriteAtOnce(b("s")),
                    RenameWhileLinked(b("w"), b("y")),
                    Write(b("small"), Bytes(vec![b'+'; 60_000])),
                ],
                vec![
                    WriteAtOnce(b("z")),
                    RenameWhileLinked(b("y"), b("w")),
                    CutWhileWritten(b("new"), b("small")),
                ],
            ],
        ),
        (
            "linked_by_several",
            vec![
                long_files(&["s", "dir/t", "u", "v", "x"]),
                vec![
                    LinkAtOnce(b("dir/t")),
                    LinkByDescriptor(b("u"), b("dir/u")),
                    SetByOldDescriptor(b("v"), b("dir/v")),
                ],
                vec![SetByOldDescriptor(b("x"), b("dir/x")), LinkAtOnce(b("s"))],
            ],
        ),
        (
            "holes",
            vec![
                vec![
                    Sparse(b("s"), 1 << 20),
                    Punch(b("s"), 0, 4096),
                    SeekWritten(b("t")),
                ],
                vec![Punch(b("s"), 1 << 20, 4096), Punch(b("file"), 2, 3)],
            ],
        ),
        (
            "copied_in_the_kernel",
            vec![
                vec![CopyRange(b("file"), b("dir/a"))],
                vec![CopyRange(b("dir/a"), b("file")), Touch(b("file"), 9)],
            ],
        ),
        (
            "moved_while_listed",
            vec![
                vec![
                    Mkdir(b("many")),
                    Mkdir(b("others")),
                    Many(b("many"), 600),
                    MoveWhileListed(b("many"), b("others"), 600),
                    RemoveAll(b("others")),
                ],
                vec![
                    Mkdir(b("others")),
                    Many(b("many"), 600),
                    MoveWhileListed(b("many"), b("others"), 600),
                ],
            ],
        ),
        (
            "removed_while_listed",
            vec![
                vec![
                    Mkdir(b("many")),
                    Many(b("many"), 3000),
                    RemoveWhileListed(b("many")),
                ],
                vec![Many(b("many"), 300)],
                vec![RemoveWhileListed(b("many")), Rmdir(b("many"))],
            ],
        ),
        (
            "rights_are_lost",
            vec![
                vec![
                    Chmod(b("file"), 0o6755),
                    Chown(b("file"), 1, 1),
                    Chmod(b("dir/a"), 0o2644),
                    Chown(b("dir/a"), 1, 1),
                ],
                vec![
                    Xattr(b("dir/b"), "security.capability", CAPABILITY.into()),
                    Append(b("dir/b"), b("x")),
                    Xattr(b("file"), "security.capability", CAPABILITY.into()),
                    Chown(b("file"), 2, 2),
                    Xattr(b("dir/a"), "security.capability", CAPABILITY.into()),
                    Truncate(b("dir/a"), 1),
                ],
                vec![Chmod(b("file"), 0o6755), Append(b("file"), b("x"))],
            ],
        ),
        (
            "access_lists",
            vec![
                vec![
                    Xattr(b("file"), "system.posix_acl_access", list(6, 7)),
                    Xattr(b("dir/a"), "system.posix_acl_access", MINIMAL.into()),
                    Xattr(b("dir"), "system.posix_acl_default", list(7, 7)),
                ],
                vec![
                    Write(b("dir/new"), b("x")),
                    Mkdir(b("dir/below")),
                    Write(b("dir/below/new"), b("x")),
                    Fifo(b("dir/fifo")),
                    Symlink(b("x"), b("dir/symlink")),
                    Chmod(b("file"), 0o640),
                ],
                vec![
                    NoXattr(b("dir"), "system.posix_acl_default"),
                    NoXattr(b("file"), "system.posix_acl_access"),
                    Xattr(b("dir/new"), "system.posix_acl_access", MINIMAL.into()),
                ],
            ],
        ),
        (
            "clock_set_back",
            vec![
                vec![
                    Write(b("new"), b("1")),
                    Touch(b("new"), 1),
                    Append(b("file"), b("x")),
                    Touch(b("file"), -5),
                ],
                vec![
                    Append(b("new"), b("2")),
                    Touch(b("new"), 1),
                    Touch(b("dir"), 1),
                ],
            ],
        ),
        (
            "names",
            vec![
                vec![
                    Write(long.into(), b("x")),
                    Write(b"not\xffutf\xfe".into(), b("x")),
                    Write(b("new\nline"), b("x")),
                    Write(b(".wh.file"), b("x")),
                    Write(b("dir.sorts"), b("x")),
                    Write(b("dir-sorts"), b("x")),
                ],
                vec![
                    Rename(b"not\xffutf\xfe".into(), b("\t")),
                    Unlink(b("new\nline")),
                ],
            ],
        ),
        (
            "many_files",
            vec![vec![Mkdir(b("many")), Many(b("many"), 10_000)]],
        ),
        (
            "many_dirs",
            vec![
                (0..200)
                    .flat_map(|n| {
                        [
                            Mkdir(format!("d{n}").into()),
                            Write(format!("d{n}/f").into(), b("x")),
                        ]
                    })
                    .collect(),
            ],
        ),
        (
            "deep",
            vec![
                vec![Mkdir(b("deep")), Deep(b("deep"), 250)],
                vec![Rename(b("deep/d/d"), b("deeper"))],
            ],
        ),
        (
            "through_whiteouts",
            vec![
                vec![Write(b("hidden"), b("back"))],
                vec![Unlink(b("hidden"))],
                vec![Mkdir(b("hidden"))],
            ],
        ),
        (
            "in_a_replaced_dir",
            vec![
                vec![
                    Write(b("replaced/old"), b("back")),
                    Unlink(b("replaced/new")),
                ],
                vec![Rename(b("replaced"), b("r"))],
            ],
        ),
    ]
}

/// Makes files longer than those that the builder reads itself on FUSE.
fn long_files(names: &[&str]) -> Vec<Op> {
    let one = |name: &&str| Write(Bytes::from(*name), Bytes(vec![b'-'; 300_000]));
    names.iter().map(one).collect()
}
