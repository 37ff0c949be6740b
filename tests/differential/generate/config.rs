//! What a config says: variables, settings, directories, users.

use super::Maker;
use crate::features::Feature;
use crate::script::{Form, Run, Step};

impl Maker {
    /// Adds variables, and labels that show what becomes of them.
    pub(super) fn variables(&mut self, steps: &mut Vec<Step>) {
        self.may(Feature::Env);
        let mut line = |keyword: &'static str, rest: String| steps.push(Step::Line(keyword, rest));
        let value = self.text(&[
            "plain",
            "\"two words\"",
            "'single $A'",
            "a\\ b",
            "x$A",
            "${A}y",
            "\"$B-${B}\"",
            "\"\"",
            "a=b=c",
            "\"q\\\"q\"",
            "${NONE:-def}",
            "${A:+set}",
            "pre${NONE}post",
            "$PATH",
            "'\\'",
            "\"\\$A\"",
            "*",
            "ünï",
        ]);
        let value = if self.escape == '`' && value.contains('\\') {
            "plain".into()
        } else {
            value
        };
        if self.chance(40, Feature::Arg) {
            let default = if self.random.chance(70) {
                format!("={value}")
            } else {
                String::new()
            };
            let name = self.text(&["A", "B", "C", "GLOBAL", "HTTP_PROXY"]);
            line("ARG", format!("{name}{default}"));
            if self.random.chance(40) {
                self.build_args.retain(|(other, _)| *other != name);
                self.build_args.push((name, "of the call".into()));
            }
            if self.chance(10, Feature::ArgSeveral) {
                line("ARG", "A=1 B=$A C".into());
            }
        } else {
            let name = self.text(&["A", "B", "LONG_NAME", "PATH2"]);
            line("ENV", format!("{name}={value}"));
            match self.random.below(6) {
                0 => line("ENV", format!("{name} {}", value.trim_matches('"'))),
                1 => line("ENV", format!("A=new B=$A C=\"${{B:-{name}}}\"")),
                _ => {}
            }
        }
        self.may(Feature::Label);
        let mut forms = vec![
            "$A",
            "\"$A\"",
            "'$A'",
            "${A:-no}",
            "${A:+yes}",
            "${B:-${A:-${C:-x}}}",
            "\"${C:-a b}\"",
            "x\"$A\"y'$B'z",
            "${LONG_NAME}",
            "\"${B:+ $A }\"",
            "$GLOBAL",
            "a$",
            "\"$$A\"",
            "$A$B",
            "${A}_$B",
        ];
        if self.escape == '\\' {
            forms.extend([
                "\\$A",
                "\"\\$A\"",
                "\"a\\\\b\"",
                "a\\ b",
                "\"a\\b\"",
                "'a\\b'",
            ]);
        }
        if self.chance(50, Feature::ExpandMore) {
            forms.extend([
                "${A-no}",
                "${A+yes}",
                "${A#*b}",
                "${PATH##*/}",
                "${PATH%/*}",
                "${A%%l*}",
                "${A/l/L}",
                "\"${A//[a]/ b}\"",
                "${PATH//\\//:}",
                "${B#${A}}",
                "${A/a/$B}",
                "${A#?}",
                "\"${A%n}\"",
            ]);
            if self.escape == '`' {
                forms.retain(|form| !form.contains('\\'));
            }
        }
        for _ in 0..self.random.between(1, 4) {
            let (key, form) = (
                self.text(&["k1", "k2", "\"quoted key\"", "k.3"]),
                self.random.pick(&forms).to_owned(),
            );
            line("LABEL", format!("{key}={form}"));
        }
    }

    pub(super) fn config(&mut self, steps: &mut Vec<Step>) {
        self.may(Feature::Config);
        for _ in 0..self.random.between(1, 4) {
            let line = match self.random.below(9) {
                0 => (
                    "EXPOSE",
                    self.text(&[
                        "80",
                        "80/udp",
                        "1000-1003",
                        "8080:80",
                        "443/tcp 53/udp",
                        "${A:-99}",
                    ]),
                ),
                1 if self.may(Feature::Volume) => (
                    "VOLUME",
                    self.text(&[
                        "/vol",
                        "[\"/vol a\",\"/b\"]",
                        "/v1 /v2",
                        "/tree/sub",
                        "/${A:-va}",
                    ]),
                ),
                2 => (
                    "CMD",
                    self.text(&[
                        "[\"a\",\"b c\"]",
                        "echo $A",
                        "[]",
                        "[\"unterminated",
                        "exec x \"y\"",
                    ]),
                ),
                3 => (
                    "ENTRYPOINT",
                    self.text(&["[\"/e\"]", "run it", "[\"$A\"]", "[]"]),
                ),
                4 => (
                    "STOPSIGNAL",
                    self.text(&["SIGTERM", "9", "INT", "${A:+SIGHUP}SIGUSR1"]),
                ),
                5 => (
                    "LABEL",
                    self.text(&[
                        "a=b c=d",
                        "multi=\"x y\" other='z'",
                        "old style value",
                        "empty=",
                    ]),
                ),
                6 => (
                    "MAINTAINER",
                    self.text(&["someone <some@example.org>", "x"]),
                ),
                7 if self.may(Feature::Health) => {
                    let flags = self.text(&[
                        "",
                        "--interval=5s ",
                        "--timeout=1m30s --retries=3 ",
                        "--start-period=1h ",
                    ]);
                    let flags = if self.chance(20, Feature::HealthStartInterval) {
                        "--start-interval=2s ".into()
                    } else {
                        flags
                    };
                    let command = self.text(&["CMD true", "CMD [\"true\", \"x\"]", "NONE"]);
                    let flags = if command == "NONE" {
                        String::new()
                    } else {
                        flags
                    };
                    ("HEALTHCHECK", format!("{flags}{command}"))
                }
                8 if !self.scratch && self.may(Feature::RunShell) => (
                    "SHELL",
                    self.text(&[
                        "[\"/bin/sh\",\"-e\",\"-c\"]",
                        "[\"/bin/ash\",\"-c\"]",
                        "[\"/bin/sh\", \"-c\"]",
                    ]),
                ),
                _ => ("EXPOSE", "1".into()),
            };
            let escapes = line.1.contains('\\') && self.escape == '`';
            if !escapes {
                steps.push(Step::Line(line.0, line.1));
            }
        }
    }

    pub(super) fn workdir(&mut self, steps: &mut Vec<Step>) {
        self.may(Feature::Workdir);
        let path = self.text(&[
            "/work",
            "sub",
            "/tree/sub",
            "..",
            "/",
            "a/b",
            "/wörk",
            "\"/work dir\"",
            "/w/$A",
            "/tree",
        ]);
        steps.push(Step::Line("WORKDIR", path));
        if !self.scratch && self.random.chance(50) && self.may(Feature::Run) {
            let commands = vec!["pwd > /here; echo x > in-workdir".into()];
            steps.push(Step::Run(Run {
                flags: Vec::new(),
                mounts: Vec::new(),
                form: Form::Shell,
                commands,
                here: None,
            }));
        }
    }

    pub(super) fn user(&mut self, id: usize, steps: &mut Vec<Step>) {
        if !self.may(Feature::RunUser) {
            return;
        }
        self.user = true;
        let user = self.text(&[
            "app",
            "1000",
            "app:staff",
            "1000:50",
            "4242",
            "${NOBODY:-app}",
            "0:app",
        ]);
        steps.push(Step::Line("USER", user));
        if self.random.chance(30) && self.may(Feature::WorkdirUser) {
            steps.push(Step::Line(
                "WORKDIR",
                self.text(&["/home/app/made", "/users-own", "/tree"]),
            ));
        }
        if self.random.chance(40) {
            let copy = self.copy(id);
            steps.push(Step::Copy(copy));
        }
        let commands = vec![
            "id -u > /tmp/id; id -g >> /tmp/id; id -G >> /tmp/id".into(),
            "echo mine > /home/app/mine; echo no > /tree/no; mkdir /tmp/dir".into(),
            "echo $HOME >> /tmp/id; umask >> /tmp/id".into(),
        ];
        steps.push(Step::Run(Run {
            flags: Vec::new(),
            mounts: Vec::new(),
            form: Form::Shell,
            commands,
            here: None,
        }));
        if self.random.chance(80) {
            steps.push(Step::Line("USER", self.text(&["root", "0", "0:0"])));
            self.user = false;
        }
    }
}
