//! What is copied: COPY and ADD with their sources, destinations and flags.

use super::Maker;
use crate::features::Feature;
use crate::script::{Copy, From, Step};
use crate::tree::What;

impl Maker {
    /// Gives a source in the context, as it is written in a COPY without quotes.
    pub(super) fn source(&mut self) -> String {
        if self.chance(20, Feature::CopyWildcard) {
            if self.chance(30, Feature::CopyWildcardDir) {
                return self.text(&["*/one.txt", "*/*", "d*/s*/deep", "*/sub"]);
            }
            return self.text(&[
                "*",
                "d*",
                "dir/*.txt",
                "dir/*",
                "f?le",
                "[d-f]*",
                "dir/[!x]*",
                "file*",
            ]);
        }
        let plain: Vec<String> = self
            .tree
            .iter()
            .filter(|entry| {
                let odd = |c: char| !(c.is_alphanumeric() || "./-_#~%".contains(c));
                !entry.path.contains(odd) && !entry.path.starts_with(['-', '#'])
            })
            .map(|entry| entry.path.clone())
            .collect();
        match self.random.below(12) {
            0 => ".".into(),
            1 => "dir/".into(),
            2 => "/dir/sub".into(),
            3 => "dir/../file".into(),
            4 => "./dir/sub/".into(),
            5 if self.chance(15, Feature::CopyMissing) => "no-such-file".into(),
            _ => self.random.one(&plain).clone(),
        }
    }

    /// Gives a path in what a stage or image has.
    pub(super) fn inside(&mut self) -> String {
        self.text(&[
            "/tree",
            "/tree/",
            "/tree/file",
            "tree/link",
            "/other",
            "/etc/passwd",
            "/home/app",
            "/tree/sub/",
            "/tree/*",
            "/o*",
            "/tree/sub/deep",
        ])
    }

    pub(super) fn dest(&mut self) -> String {
        if self.chance(15, Feature::CopyThroughLink) {
            return self.text(&[
                "/tree/link",
                "/rich/dirlink",
                "/rich/dirlink/",
                "/rich/dirlink/new/",
                "/lib/x",
                "/rich/abs/y",
            ]);
        }
        if self.random.chance(4) {
            return self.text(&[
                "/out/.",
                "/tree/file/",
                "..",
                "/new/..",
                "//out//",
                "/tree/../tree/sub/",
                "/.",
            ]);
        }
        if self.chance(3, Feature::CopyDanglingLink) {
            return self.text(&["/rich/dangling", "/rich/dangling/"]);
        }
        self.text(&[
            "/",
            "/out/",
            "/out/",
            "/out/x/",
            "rel/",
            ".",
            "./",
            "/tree/",
            "/new/deep/er/",
            "/other/",
            "/a/../b/",
            "/out/ü/",
            "/tmp/",
            "/tree/sub/",
        ])
    }

    pub(super) fn copy_flags(&mut self) -> Vec<String> {
        let mut flags = Vec::new();
        if self.chance(20, Feature::CopyChown) {
            let owner = if !self.scratch && self.chance(40, Feature::CopyChownName) {
                self.text(&["app", "app:staff", "root:app", "1000:staff"])
            } else {
                self.text(&["1:2", "1000", "0:0", "65534:65533"])
            };
            flags.push(format!("--chown={owner}"));
        }
        if self.chance(20, Feature::CopyChmod) {
            flags.push(format!(
                "--chmod={}",
                self.text(&["755", "0600", "4711", "777", "0"])
            ));
        } else if self.chance(5, Feature::CopyChmodSymbolic) {
            flags.push(format!(
                "--chmod={}",
                self.text(&["u+x", "a=rX", "go-w,u+s", "o="])
            ));
        }
        if self.chance(15, Feature::CopyLink) {
            flags.push("--link".into());
        }
        flags
    }

    pub(super) fn copy(&mut self, id: usize) -> Copy {
        self.may(Feature::Copy);
        let mut copy = Copy {
            keyword: if self.chance(10, Feature::Add) {
                "ADD"
            } else {
                "COPY"
            },
            flags: self.copy_flags(),
            from: None,
            sources: Vec::new(),
            dest: self.dest(),
            json: false,
            heredocs: Vec::new(),
        };
        if copy.keyword == "COPY" {
            let full: Vec<usize> = (0..id).filter(|id| !self.empty.contains(id)).collect();
            if !full.is_empty() && self.chance(35, Feature::CopyFromStage) {
                copy.from = Some(From::Stage(*self.random.one(&full), self.by()));
            } else if self.chance(8, Feature::CopyFromImage) {
                copy.from = Some(From::Image("base"));
            } else if self.chance(8, Feature::CopyFromRich) {
                copy.from = Some(From::Image("rich"));
            }
        }
        let more = self.random.weighted(&[(6, 1), (2, 2), (1, 3)]);
        for _ in 0..more {
            let source = match copy.from {
                Some(From::Image("rich")) => self.text(&[
                    "/rich/",
                    "/rich",
                    "/rich/dirlink/",
                    "/rich/dirlink",
                    "/rich/[ab]",
                    "/rich/setuid",
                    "/lib",
                    "/lib/l",
                    "/rich/deep/",
                    "/rich/abs/../a",
                    "/rich/dangling",
                    "/rich/d*",
                    "/opt",
                ]),
                Some(_) => self.inside(),
                None => self.source(),
            };
            copy.sources.push(source);
        }
        if copy.from.is_none() && self.chance(10, Feature::CopyHeredoc) {
            let body = vec![
                "line of $A".into(),
                "\ttab ${B:-default} \\$A".into(),
                "# no comment".into(),
                String::new(),
            ];
            let (word, end) = *self.random.one(&[
                ("EOT", "EOT"),
                ("-EOT", "\tEOT"),
                ("'EOT'", "EOT"),
                ("\"a.txt\"", "a.txt"),
            ]);
            copy.heredocs.push((word.into(), end.into(), body));
            if self.random.chance(50) {
                copy.sources.clear();
            }
        } else if self.random.chance(10) {
            copy.json = true;
            if copy.from.is_none() {
                // Names that need quotes, wildcards in them kept from being ones.
                let odd: Vec<String> = self
                    .tree
                    .iter()
                    .map(|entry| entry.path.clone())
                    .filter(|path| path.contains([' ', '\'', ';']))
                    .collect();
                copy.sources.extend(
                    odd.into_iter()
                        .filter(|path| !path.contains(['*', '?', '[', '\\', '\'', '"', '$']))
                        .take(2),
                );
            }
        }
        if copy.sources.len() + copy.heredocs.len() > 1
            && !copy.dest.ends_with('/')
            && self.random.chance(90)
        {
            copy.dest.push('/');
        }
        if copy.sources.len() == 1 && copy.heredocs.is_empty() && self.random.chance(15) {
            copy.dest = self.text(&["/named", "/out/named", "rel-named", "/tree/file", "/other"]);
        }
        let chmod = copy.flags.iter().any(|flag| flag.starts_with("--chmod"));
        if !chmod && self.chance(8, Feature::CopyChmodFile) {
            let mode = self.text(&["755", "0600", "777", "0"]);
            copy.flags.push(format!("--chmod={mode}"));
            copy.sources = vec![
                if copy.from.is_none() {
                    "file"
                } else {
                    "/etc/passwd"
                }
                .into(),
            ];
            copy.heredocs.clear();
            copy.dest = self.text(&["/", "/chmodded", "./", "/made\u{fc}"]);
        }
        if copy.keyword == "COPY" && self.chance(12, Feature::CopyParents) {
            copy.flags.push("--parents".into());
        }
        if self.chance(12, Feature::CopyExclude) {
            copy.flags.push(format!(
                "--exclude={}",
                self.text(&["*.md", "**/*.md", "sub", "dir/sub", "**", "one*", "**/deep"])
            ));
        }
        copy
    }

    pub(super) fn add(&mut self, steps: &mut Vec<Step>) {
        self.may(Feature::Add);
        let archives: Vec<String> = self
            .tree
            .iter()
            .filter(|entry| matches!(entry.what, What::Archive(_)))
            .map(|entry| entry.path.clone())
            .collect();
        if archives.is_empty() {
            return;
        }
        let mut flags = self.copy_flags();
        if !self.may(Feature::AddChown) {
            flags.retain(|flag| !flag.starts_with("--chown"));
        }
        if self.chance(20, Feature::AddUnpack) {
            flags.push(self.text(&["--unpack=true", "--unpack=false"]));
        }
        let dest = if self.random.chance(60) {
            "/unpack/".into()
        } else {
            self.dest()
        };
        let sources = vec![self.random.one(&archives).clone()];
        let copy = Copy {
            keyword: "ADD",
            flags,
            from: None,
            sources,
            dest,
            json: false,
            heredocs: Vec::new(),
        };
        steps.push(Step::Copy(copy));
    }
}
