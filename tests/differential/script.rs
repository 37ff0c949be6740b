//! A generated build as data, and its Dockerfile as text.

use super::features::Feature;
use super::random::Random;
use super::tree::Entry;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

/// One build: what the builders get.
#[derive(Clone, Debug)]
pub struct Case {
    /// The context.
    pub tree: Vec<Entry>,
    /// The lines of .dockerignore; no file where there is none.
    pub ignore: Vec<String>,
    /// `--build-arg`.
    pub build_args: Vec<(String, String)>,
    /// `--label`.
    pub labels: Vec<(String, String)>,
    /// The content of the secret `hidden`.
    pub secret: Option<String>,
    /// The stage to build, by id; the last where there is none.
    pub target: Option<usize>,
    /// The Dockerfile.
    pub script: Script,
    /// What of the language is in it.
    pub used: BTreeSet<Feature>,
}

/// A Dockerfile.
#[derive(Clone, Debug)]
pub struct Script {
    /// Lines before the first FROM: directives, then ARGs.
    pub head: Vec<String>,
    /// The stages, in order.
    pub stages: Vec<Stage>,
}

/// One stage.
#[derive(Clone, Debug)]
pub struct Stage {
    /// What other stages know it by here; stays when stages before it go.
    pub id: usize,
    /// Its name in the Dockerfile.
    pub name: Option<String>,
    /// What it starts from.
    pub from: From,
    /// Its instructions.
    pub steps: Vec<Step>,
}

/// What a stage starts from, or a COPY takes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// A base image, by the name that the builders know.
    Image(&'static str),
    /// The same, by an ARG of the head.
    Arg(String),
    /// Nothing.
    Scratch,
    /// A stage; by its name in some letters, or by its number.
    Stage(usize, By),
}

/// How a stage is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    Name,
    Lower,
    Upper,
    Number,
}

/// One instruction.
#[derive(Clone, Debug)]
pub enum Step {
    /// One that has nothing to it but text; what its heredocs say is in further lines.
    Line(&'static str, String),
    Copy(Copy),
    Run(Run),
    /// ONBUILD and an instruction.
    Trigger(Box<Step>),
}

/// COPY or ADD.
#[derive(Clone, Debug)]
pub struct Copy {
    pub keyword: &'static str,
    pub flags: Vec<String>,
    pub from: Option<From>,
    pub sources: Vec<String>,
    pub dest: String,
    /// Whether it is written as a JSON array.
    pub json: bool,
    /// Files in the Dockerfile: the words after `<<`, the end line, the lines between.
    pub heredocs: Vec<(String, String, Vec<String>)>,
}

/// RUN.
#[derive(Clone, Debug)]
pub struct Run {
    pub flags: Vec<String>,
    /// `--mount` texts, `@` standing for the stage.
    pub mounts: Vec<(String, Option<From>)>,
    pub form: Form,
    /// Commands of a shell, none of which is waited for to succeed.
    pub commands: Vec<String>,
    /// A command with a document, its end line and its text, after all others (in shell form).
    pub here: Option<(String, String, String)>,
}

/// How a command is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `RUN a; b`
    Shell,
    /// `RUN ["/bin/sh", "-c", "a; b"]`
    Exec,
    /// `RUN <<EOF`
    Heredoc,
    /// `RUN <<EOF` with `#!` in the first line.
    Script,
}

/// How a Dockerfile is written, where that makes no difference.
pub enum Style {
    /// As plainly as can be.
    Plain,
    /// With comments, blank lines, lines continued and keywords in all sorts of letters.
    Varied(Random),
    /// Plain, the lines ending in CR LF.
    Windows,
}

impl Case {
    /// Gives the Dockerfile.
    pub fn dockerfile(&self, style: Style) -> String {
        let mut pen = Pen {
            script: &self.script,
            style,
            out: String::new(),
        };
        pen.write();
        pen.out
    }

    /// Gives the flags that go with it, the same for all builders; `secret` is the secret's file.
    pub fn flags(&self, secret: &Path) -> Vec<String> {
        let mut flags = Vec::new();
        if self.secret.is_some() {
            flags.push(format!("--secret=id=hidden,src={}", secret.display()));
        }
        for (name, value) in &self.build_args {
            flags.push(format!("--build-arg={name}={value}"));
        }
        for (name, value) in &self.labels {
            flags.push(format!("--label={name}={value}"));
        }
        if let Some(target) = self.target
            && let Some(place) = self.script.place(target)
        {
            let stage = &self.script.stages[place];
            let name = stage.name.clone().unwrap_or_else(|| place.to_string());
            flags.push(format!("--target={name}"));
        }
        flags
    }
}

impl Script {
    /// Gives where a stage stands.
    pub fn place(&self, id: usize) -> Option<usize> {
        self.stages.iter().position(|stage| stage.id == id)
    }

    /// Tells whether any stage starts from, copies from or mounts this one.
    pub fn is_used(&self, id: usize) -> bool {
        self.stages
            .iter()
            .any(|stage| stage.from.is_stage(id) || stage.steps.iter().any(|step| step.names(id)))
    }
}

impl From {
    pub fn is_stage(&self, id: usize) -> bool {
        matches!(self, From::Stage(stage, _) if *stage == id)
    }
}

impl Step {
    fn names(&self, id: usize) -> bool {
        match self {
            Step::Line(..) => false,
            Step::Copy(copy) => copy.from.as_ref().is_some_and(|from| from.is_stage(id)),
            Step::Run(run) => {
                let mut froms = run.mounts.iter().filter_map(|(_, from)| from.as_ref());
                froms.any(|from| from.is_stage(id))
            }
            Step::Trigger(step) => step.names(id),
        }
    }
}

struct Pen<'a> {
    script: &'a Script,
    style: Style,
    out: String,
}

impl Pen<'_> {
    fn write(&mut self) {
        for line in &self.script.head {
            if line.starts_with('#') {
                let _ = writeln!(self.out, "{line}");
            } else {
                let (keyword, rest) = line.split_once(' ').expect("a keyword");
                self.line(keyword, rest, true);
            }
        }
        let script = self.script;
        for stage in &script.stages {
            let name = stage
                .name
                .as_ref()
                .map_or(String::new(), |name| format!(" AS {name}"));
            let from = format!("{}{name}", self.from(&stage.from));
            self.line("FROM", &from, true);
            for step in &stage.steps {
                let (keyword, rest, bodies) = self.step(step);
                // A heredoc's body follows the line it is named in.
                self.line(keyword, &rest, bodies.is_empty());
                self.out.push_str(&bodies);
            }
        }
        if matches!(self.style, Style::Windows) {
            self.out = self.out.replace('\n', "\r\n");
        }
    }

    fn from(&self, from: &From) -> String {
        match from {
            From::Image(name) => (*name).to_owned(),
            From::Arg(name) => format!("${{{name}}}"),
            From::Scratch => "scratch".into(),
            From::Stage(id, by) => {
                let place = self.script.place(*id).expect("a stage that is there");
                match (&self.script.stages[place].name, by) {
                    (Some(name), By::Name) => name.clone(),
                    (Some(name), By::Lower) => name.to_lowercase(),
                    (Some(name), By::Upper) => name.to_uppercase(),
                    (_, By::Number) | (None, _) => place.to_string(),
                }
            }
        }
    }

    fn step(&self, step: &Step) -> (&'static str, String, String) {
        match step {
            Step::Line(keyword, rest) => match rest.split_once('\n') {
                Some((rest, bodies)) => (keyword, rest.into(), format!("{bodies}\n")),
                None => (keyword, rest.clone(), String::new()),
            },
            Step::Copy(copy) => self.copy(copy),
            Step::Run(run) => self.run(run),
            Step::Trigger(step) => {
                let (keyword, rest, bodies) = self.step(step);
                ("ONBUILD", format!("{keyword} {rest}"), bodies)
            }
        }
    }

    fn copy(&self, copy: &Copy) -> (&'static str, String, String) {
        let mut words = copy.flags.clone();
        if let Some(from) = &copy.from {
            words.push(format!("--from={}", self.from(from)));
        }
        let mut bodies = String::new();
        if copy.json {
            let all: Vec<&String> = copy.sources.iter().chain([&copy.dest]).collect();
            words.push(serde_json::to_string(&all).expect("JSON"));
        } else {
            words.extend(copy.sources.iter().cloned());
            for (word, end, lines) in &copy.heredocs {
                words.push(format!("<<{word}"));
                for line in lines {
                    let _ = writeln!(bodies, "{line}");
                }
                let _ = writeln!(bodies, "{end}");
            }
            words.push(copy.dest.clone());
        }
        (copy.keyword, words.join(" "), bodies)
    }

    fn run(&self, run: &Run) -> (&'static str, String, String) {
        let mut words = run.flags.clone();
        for (text, from) in &run.mounts {
            let from = from.as_ref().map_or(String::new(), |from| self.from(from));
            words.push(format!("--mount={}", text.replace('@', &from)));
        }
        let mut bodies = String::new();
        let mut commands = run.commands.clone();
        commands.push("true".into());
        match run.form {
            Form::Shell => {
                if let Some((command, end, text)) = &run.here {
                    commands.push(command.clone());
                    bodies = format!("{text}\n{end}\n");
                }
                words.push(commands.join("; "));
            }
            Form::Exec => {
                let args = ["/bin/sh", "-c", &commands.join("; ")];
                words.push(serde_json::to_string(&args).expect("JSON"));
            }
            Form::Heredoc | Form::Script => {
                words.push("<<EOF".into());
                if run.form == Form::Script {
                    bodies.push_str("#!/bin/sh\n");
                }
                for line in &commands {
                    let _ = writeln!(bodies, "{line}");
                }
                bodies.push_str("EOF\n");
            }
        }
        ("RUN", words.join(" "), bodies)
    }

    /// Writes one line, which may be cut where `whole` says that nothing hangs on it.
    fn line(&mut self, keyword: &str, rest: &str, whole: bool) {
        let backtick = self.script.head.iter().any(|line| line == "# escape=`");
        let escape = if backtick { '`' } else { '\\' };
        let Style::Varied(random) = &mut self.style else {
            let _ = writeln!(self.out, "{keyword} {rest}");
            return;
        };
        for _ in 0..random.below(3) {
            let between = ["", "   ", "# a comment", "  # one that is moved in \\", "#"];
            let _ = writeln!(self.out, "{}", random.pick(&between));
        }
        let keyword: String = keyword
            .chars()
            .map(|c| {
                if random.chance(40) {
                    c.to_ascii_lowercase()
                } else {
                    c
                }
            })
            .collect();
        let indent = random.pick(&["", "", " ", "\t"]);
        let _ = write!(
            self.out,
            "{indent}{keyword}{}",
            random.pick(&[" ", "  ", "\t"])
        );
        let mut before = '\n';
        let mut chars = rest.chars().peekable();
        while let Some(c) = chars.next() {
            self.out.push(c);
            // Behind a space, before what cannot be taken for a comment or an empty line.
            let after = chars.peek().copied().unwrap_or('\n');
            let fits = c == ' '
                && !before.is_whitespace()
                && !matches!(before, '\\' | '`')
                && !matches!(after, '#' | ' ' | '\t' | '\n');
            if whole && fits && random.chance(15) {
                let end = random.pick(&["\n", "  \n", "\n# a comment between\n"]);
                let _ = write!(self.out, "{escape}{end}");
            }
            before = c;
        }
        let _ = writeln!(
            self.out,
            "{}",
            // An ONBUILD is kept as it is written, blanks at its end included.
            if whole && !rest.contains('"') && !keyword.eq_ignore_ascii_case("ONBUILD") {
                random.pick(&["", "", " "])
            } else {
                ""
            }
        );
    }
}
