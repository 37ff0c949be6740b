//! A build from a seed. What is made is mostly valid, so that most of it is built.

mod config;
mod copies;

use super::features::{Allowed, Feature, Rival};
use super::random::Random;
use super::script::{By, Case, Form, From, Run, Script, Stage, Step};
use super::tree::{self, Entry, What};
use std::collections::BTreeSet;

/// Makes a build that a rival can be asked for too.
pub fn case(seed: u64, rival: Rival) -> Case {
    let mut random = Random::new(seed);
    let mut allowed = Allowed::with(rival);
    // A directory that is moved where renaming is refused is copied, which breaks hard links.
    if random.chance(50) {
        allowed.without(Feature::RunHardLinks);
    } else {
        allowed.without(Feature::RunMoveDirs);
    }
    let tree = tree::random(&mut random, &allowed);
    let mut maker = Maker {
        random,
        allowed,
        tree,
        used: BTreeSet::new(),
        stages: Vec::new(),
        args: Vec::new(),
        build_args: Vec::new(),
        user: false,
        scratch: false,
        empty: BTreeSet::new(),
        escape: '\\',
    };
    maker.case()
}

struct Maker {
    random: Random,
    allowed: Allowed,
    tree: Vec<Entry>,
    used: BTreeSet<Feature>,
    stages: Vec<Stage>,
    /// Global ARGs that name an image.
    args: Vec<String>,
    build_args: Vec<(String, String)>,
    /// Whether the present stage's user is not root.
    user: bool,
    /// Whether the present stage has no shell.
    scratch: bool,
    /// The stages that have none.
    empty: BTreeSet<usize>,
    escape: char,
}

impl Maker {
    /// Tells whether a feature may be used, and notes that it is.
    fn may(&mut self, feature: Feature) -> bool {
        let may = self.allowed.has(feature);
        if may {
            self.used.insert(feature);
        }
        may
    }

    fn chance(&mut self, percent: usize, feature: Feature) -> bool {
        self.allowed.has(feature) && self.random.chance(percent) && self.may(feature)
    }

    fn text(&mut self, of: &[&'static str]) -> String {
        self.random.pick(of).to_owned()
    }

    fn case(&mut self) -> Case {
        let mut head = Vec::new();
        if self.chance(10, Feature::Escape) {
            self.escape = '`';
            head.push("# escape=`".into());
        }
        if self.chance(20, Feature::ArgFrom) {
            let rich = self.allowed.has(Feature::RichBase) && self.random.chance(30);
            head.push(format!("ARG BASE={}", if rich { "rich" } else { "base" }));
            self.args.push("BASE".into());
        }
        if self.chance(20, Feature::Arg) {
            head.push("ARG GLOBAL=\"from the head\"".into());
            if self.random.chance(50) {
                self.build_args
                    .push(("GLOBAL".into(), "from the call".into()));
            }
        }
        let ignore = self.ignore();
        let of = |what: &What| match what {
            What::Hard(_) => Some(Feature::ContextHardLinks),
            What::Archive(archive) => archive.feature(),
            _ => None,
        };
        self.used
            .extend(self.tree.iter().filter_map(|entry| of(&entry.what)));
        let stages = if self.may(Feature::Stages) {
            self.random.weighted(&[(5, 1), (4, 2), (2, 3), (1, 4)])
        } else {
            1
        };
        for id in 0..stages {
            let stage = self.stage(id, stages);
            self.stages.push(stage);
        }
        let mut target = None;
        if stages > 1 && self.chance(10, Feature::Target) {
            let id = self.random.below(stages);
            let named = self.stages[id].name.is_some();
            if named || self.may(Feature::TargetNumber) {
                target = Some(id);
            }
        }
        let mut labels = Vec::new();
        if self.chance(10, Feature::Label) {
            labels.push(("flag".into(), "from the call".into()));
        }
        Case {
            tree: self.tree.clone(),
            ignore,
            build_args: self.build_args.clone(),
            labels,
            secret: self
                .used
                .contains(&Feature::MountSecret)
                .then(|| "hush\n".into()),
            target,
            script: Script {
                head,
                stages: self.stages.clone(),
            },
            used: self.used.clone(),
        }
    }

    fn ignore(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        if !self.chance(35, Feature::Ignore) {
            return lines;
        }
        const PATTERNS: &[&str] = &[
            "*.md",
            "**/*.md",
            "dir/*",
            "dir",
            "dir/sub",
            "/dir/sub/",
            "**/deep",
            "*",
            "**",
            "dir/**",
            "?",
            "[a-c]*",
            "dir/*/deep",
            "# comment",
            "",
            "./file",
            "dir/../file",
            "archive*",
            "**/sub/**",
            "emp?y",
            "  file  ",
            "d*/s*",
            ".hidden",
            "*[!x]*",
            "dir/s[a-z]b",
        ];
        for _ in 0..self.random.between(1, 4) {
            let pattern = self.random.pick(PATTERNS).to_owned();
            if self.chance(35, Feature::IgnoreExceptions) {
                let pattern = if pattern.starts_with('#') || pattern.is_empty() {
                    "file".into()
                } else {
                    pattern
                };
                lines.push(format!("!{pattern}"));
            } else {
                lines.push(pattern);
            }
        }
        lines
    }

    fn stage(&mut self, id: usize, of: usize) -> Stage {
        // FROM takes a number for an image.
        let named: Vec<usize> = (0..id)
            .filter(|id| self.stages[*id].name.is_some())
            .collect();
        let from = match self.random.below(20) {
            0..4 if !named.is_empty() => {
                let by = match self.chance(30, Feature::FromUpper) {
                    true => By::Upper,
                    false => By::Lower,
                };
                From::Stage(*self.random.one(&named), by)
            }
            4..6 if self.may(Feature::FromScratch) => From::Scratch,
            6..9 if !self.args.is_empty() => From::Arg(self.args[0].clone()),
            9..12 if self.may(Feature::RichBase) => From::Image("rich"),
            12 if self.may(Feature::TriggerBase) => From::Image("trigger"),
            _ => From::Image("base"),
        };
        self.scratch =
            from == From::Scratch || matches!(&from, From::Stage(id, _) if self.empty.contains(id));
        self.user = false;
        let name = (id + 1 < of && self.random.chance(70)).then(|| {
            let name = self.text(&["build", "s", "stage-", "x_.y-", "Mixed"]);
            format!("{name}{id}")
        });
        let mut steps = Vec::new();
        if self.scratch {
            self.empty.insert(id);
        }
        if let From::Stage(..) = from {
            // Whatever user and shell the stage before left.
            steps.push(Step::Line("USER", "0".into()));
            steps.push(Step::Line("SHELL", r#"["/bin/sh","-c"]"#.into()));
        }
        for _ in 0..self.random.between(1, 6) {
            self.unit(id, &mut steps);
        }
        Stage {
            id,
            name,
            from,
            steps,
        }
    }

    fn by(&mut self) -> By {
        *self.random.one(&[By::Name, By::Upper, By::Number])
    }

    /// Adds a few instructions that belong together.
    fn unit(&mut self, id: usize, steps: &mut Vec<Step>) {
        if !self.allowed.has(Feature::Copy) {
            let run = self.run(id);
            steps.push(run);
            return;
        }
        match self.random.weighted(&[
            (30, 0),
            (30, 1),
            (10, 2),
            (8, 3),
            (8, 4),
            (5, 5),
            (5, 6),
            (4, 7),
        ]) {
            0 if !self.scratch => {
                let run = self.run(id);
                steps.push(run);
            }
            0 | 1 => {
                let copy = self.copy(id);
                steps.push(Step::Copy(copy));
            }
            2 => self.add(steps),
            3 => self.variables(steps),
            4 => self.config(steps),
            5 => self.workdir(steps),
            6 if !self.scratch => self.user(id, steps),
            7 => self.trigger(id, steps),
            _ => self.variables(steps),
        }
    }

    fn run(&mut self, id: usize) -> Step {
        self.may(Feature::Run);
        let mut run = Run {
            flags: Vec::new(),
            mounts: Vec::new(),
            form: Form::Shell,
            commands: Vec::new(),
            here: None,
        };
        if self.chance(15, Feature::RunExec) {
            run.form = Form::Exec;
        } else if self.chance(15, Feature::RunHeredoc) {
            run.form = if self.random.chance(30) {
                Form::Script
            } else {
                Form::Heredoc
            };
        }
        for _ in 0..self.random.between(1, 6) {
            let command = self.command();
            run.commands.push(command);
        }
        if run.form == Form::Shell && self.chance(5, Feature::RunHeredoc) {
            // Documents that the shell reads, among other commands.
            let here = *self.random.one(&[
                (
                    "cat <<ONE > /here1",
                    "ONE",
                    "x $HOME \\$HOME `echo y`\n\ttab",
                ),
                (
                    "cat <<'TWO' > /here2; echo z > /z",
                    "TWO",
                    "x $HOME \\$HOME\n# no comment\n",
                ),
                ("cat <<-TABS > /here3", "TABS", "\tone\n\t\ttwo"),
            ]);
            run.here = Some((here.0.into(), here.1.into(), here.2.into()));
        }
        if self.chance(6, Feature::RunNetwork) {
            let network = self.text(&["none", "default", "host"]);
            run.flags.push(format!("--network={network}"));
        }
        if self.chance(10, Feature::RunVariables) {
            run.commands
                .push("echo \"$A-$B-$GLOBAL-${HOME}\" > /variables".into());
        }
        self.mount(id, &mut run);
        Step::Run(run)
    }

    fn mount(&mut self, id: usize, run: &mut Run) {
        let target = |maker: &mut Maker, new: &str, old: &str| {
            let new = maker.chance(70, Feature::MountNew).then(|| new.to_owned());
            new.unwrap_or_else(|| old.to_owned())
        };
        if self.chance(15, Feature::MountBind) {
            let at = target(self, "/mounted", "/other");
            let from = (id > 0 && self.random.chance(50))
                .then(|| From::Stage(self.random.below(id), self.by()));
            let from = from.map(|from| match from {
                From::Stage(id, By::Number) if !self.may(Feature::MountFromNumber) => {
                    From::Stage(id, By::Name)
                }
                from => from,
            });
            let source = self.text(&["dir", "", ".", "dir/sub"]);
            let mut text = match from {
                Some(_) => format!("type=bind,from=@,target={at}"),
                None => format!("type=bind,source={source},target={at}"),
            };
            if self.random.chance(40) {
                text.push_str(",rw");
                run.commands.push(format!("echo lost > {at}/lost"));
            }
            let below = if from.is_some() { "/tree" } else { "" };
            run.mounts.push((text, from));
            // A stage's root also has what an engine mounted things on.
            run.commands.push(format!("ls -A {at}{below} > /seen"));
        }
        if self.chance(8, Feature::MountCache) {
            // No place that other commands change: what is in a cache outlives the build.
            let at = target(self, "/cached/here", "/var/run");
            let text = format!("type=cache,target={at},id=seed{id}");
            run.mounts.push((text, None));
            let look = format!("echo kept > {at}/x; ls -ld {at} | cut -c1-10 > /seen2");
            run.commands.push(look);
        }
        if self.chance(6, Feature::MountSecret) {
            let (options, file) = match self.chance(70, Feature::MountNew) {
                true => *self.random.one(&[
                    ("", "/run/secrets/hidden"),
                    (",target=/tree/hidden,mode=0444,uid=7,gid=8", "/tree/hidden"),
                    (",dst=/made/for/it,required=true", "/made/for/it"),
                ]),
                false => (",target=/etc/group,uid=5", "/etc/group"),
            };
            run.mounts
                .push((format!("type=secret,id=hidden{options}"), None));
            let look = format!("wc -c < {file} > /seen4; stat -c '%a %u %g' {file} >> /seen4");
            run.commands.push(look);
        }
        if self.chance(8, Feature::MountTmpfs) {
            let at = target(self, "/tmpfs", "/tree/sub");
            run.mounts.push((format!("type=tmpfs,target={at}"), None));
            run.commands
                .push(format!("echo lost > {at}/x; ls -A {at} > /seen3"));
        }
    }

    /// Gives one command that changes files; it may fail, then in every builder.
    fn command(&mut self) -> String {
        const PATHS: &[&str] = &[
            "/tree",
            "/tree/file",
            "/tree/sub",
            "/tree/sub/deep",
            "/tree/link",
            "/other",
            "/other/o",
            "/home/app",
            "/n1",
            "/n2",
            "/n3",
            "/tree/n1",
            "/tree/sub/n2",
            "/n1/n2",
            "/n1/n2/n3",
            "/n2/x",
            "/other/n1",
            "/out",
            "/out/file",
            "/tmp/t",
            "/etc/passwd",
            "/usr/lib/l",
            "/rich/a",
            "/rich",
            "/rich/gone",
            "'/sp ace'",
            "/ünï",
        ];
        const FILES: &[&str] = &[
            "/tree/file",
            "/tree/sub/deep",
            "/tree/link",
            "/other/o",
            "/n1",
            "/n3",
            "/tree/n1",
            "/n1/n2",
            "/n1/n2/n3",
            "/n2/x",
            "/other/n1",
            "/out/file",
            "/rich/a",
            "/rich/b",
            "/one",
            "/two",
        ];
        let p = self.text(PATHS);
        let q = self.text(PATHS);
        let (f, g) = (self.text(FILES), self.text(FILES));
        let mode = self.text(&[
            "644", "600", "755", "4755", "2775", "1777", "0", "u+s,g-r", "a=rX",
        ]);
        let owner = self.text(&[
            "0",
            "1000",
            "1000:50",
            "app",
            "app:staff",
            ":7",
            "12345:54321",
        ]);
        let number = self.random.below(100);
        loop {
            return match self.random.below(33) {
                0..3 => format!("echo {number} > {f}"),
                3 => format!("echo {number} >> {f}"),
                4 => format!("printf '' > {f}"),
                5..8 => format!("mkdir -p {p}"),
                8..10 => format!("rm -rf {p}"),
                10 if self.may(Feature::RunMoveDirs) => format!("mv {p} {q}"),
                11 if self.may(Feature::RunMoveDirs) => format!("mv -T {p} {q}"),
                12 if self.may(Feature::RunMoveDirs) => {
                    format!("mv {p} /swap; mv {q} {p}; mv /swap {q}")
                }
                10..13 => format!("[ -f {f} ] && mv {f} {g}"),
                13 if self.may(Feature::RunHardLinks) => format!("ln {f} {g}"),
                14 if self.may(Feature::RunHardLinks) => {
                    format!("ln -f {f} {g}; echo {number} >> {g}")
                }
                13..15 => format!("ln -s {p} {g}"),
                15 => format!("ln -sfn {f} {q}"),
                16 => format!("chmod {mode} {p}"),
                17 => format!("chown {owner} {p}"),
                18 => format!("chown -h {owner} {q}; chmod -R {mode} {p}"),
                19 => format!("cp -a {p} {q}"),
                20 => format!("touch {p}; touch -d @{number} {q}"),
                // Where nothing is ever written: that would wait for a reader.
                21 if self.may(Feature::RunFifo) => {
                    let pipe = self.text(&["/pipe", "/tree/pipe", "/n1/pipe", "/out/pipe"]);
                    format!("mkfifo -m {mode} {pipe}")
                }
                26 if self.may(Feature::RunOwnLinks) => {
                    format!(
                        "mkdir -p /hl; echo {number} > /hl/b; ln -f /hl/b /hl/a; ln -f /hl/a /hl/c"
                    )
                }
                27 if self.may(Feature::RunOddNames) => {
                    let name = self.random.pick(&[
                        "$(printf 'line\\nfeed')",
                        "$(printf 'no\\377utf')",
                        "$(printf 'n%.0s' $(seq 255))",
                        "'trailing '",
                        "$(printf 'deep/%.0s' $(seq 60))x",
                        "'*'",
                        "'a\\b'",
                        "ﬀ",
                        "-n",
                        "'q\"'",
                    ]);
                    format!(
                        "mkdir -p /odd; cd /odd; mkdir -p ./deep; f=./{name}; mkdir -p \"$(dirname \"$f\")\"; echo {number} > \"$f\"; rm -f ./-n; cd -"
                    )
                }
                28 if self.may(Feature::RunDevices) => {
                    format!(
                        "mknod -m {mode} /n1/null c 1 3; mknod /tree/disk b 7 {number}; rm -f /other/null; mknod /other/null c 1 5"
                    )
                }
                29 if self.may(Feature::RunLarge) => format!(
                    "truncate -s 3000000 /large; dd if=/bin/busybox of=/large bs=1000 count={number} seek={number}0 conv=notrunc"
                ),
                30 if self.may(Feature::RunMoveDirs) => {
                    format!(
                        "mv {p} {p}.d; ln -s {p}.d {p}; echo {number} > {p}/through; rm -rf {q}.d"
                    )
                }
                31 => format!(
                    "mkdir -p {p}; for i in 1 2 3; do echo $i > {p}/many$i; done; rm -f {q}/many2 {q}/x"
                ),
                32 => format!("chmod 000 {p}; chown 5:6 {p}; touch {p}/in; chmod u+w {q}"),
                22 => format!("truncate -s {number} {f}"),
                // The same once more, as something else, under the same name.
                23 => format!("rm -rf {p}; mkdir -p {p}; echo {number} > {p}/x"),
                24 => format!("rm -rf {p}; echo {number} > {p}"),
                25 => format!("cat {f} > /swap; rm -f {f}; mv /swap {f}; chmod {mode} {f}"),
                _ => continue,
            };
        }
    }

    /// Adds an ONBUILD, which the image keeps or a later stage carries out.
    fn trigger(&mut self, id: usize, steps: &mut Vec<Step>) {
        if !self.may(Feature::Onbuild) {
            return;
        }
        let step = match self.random.below(4) {
            0 if !self.scratch => {
                let commands = vec!["echo triggered >> /triggered".into()];
                Step::Run(Run {
                    flags: Vec::new(),
                    mounts: Vec::new(),
                    form: Form::Shell,
                    commands,
                    here: None,
                })
            }
            1 => Step::Line("ENV", "TRIGGERED=yes".into()),
            2 => Step::Line("LABEL", "triggered=\"$A\"".into()),
            _ => {
                let mut copy = self.copy(id);
                copy.heredocs.clear();
                copy.from = None;
                copy.sources = vec!["file".into()];
                copy.dest = "/onbuild/".into();
                copy.json = false;
                Step::Copy(copy)
            }
        };
        steps.push(Step::Trigger(Box::new(step)));
    }
}

/// What a rival can be asked for is asked for.
#[test]
fn generated_builds_use_everything() {
    for rival in [Rival::None, Rival::Docker, Rival::Buildah, Rival::Chroot] {
        let used: BTreeSet<Feature> = (0..600).flat_map(|seed| case(seed, rival).used).collect();
        let allowed = Allowed::with(rival);
        let unused = super::features::TABLE
            .iter()
            .map(|row| row.0)
            .filter(|feature| allowed.has(*feature) && !used.contains(feature));
        assert_eq!(unused.collect::<Vec<_>>(), [], "{rival:?}");
    }
}
