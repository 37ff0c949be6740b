use super::graph::{Found, copy_from};
use super::{
    Base, CopyOp, CopySource, Error, From, Network, Op, Plan, RunOp, Scope, Staged, Step, Unpack,
    args, check, config, ports, support,
};
use crate::dockerfile::ast::{Add, CommandLine, Copy, Heredoc, Instruction, Item, Kind, Run, Span};
use crate::dockerfile::{parse_trigger, words};
use crate::oci::Image;
use crate::request::Request;

/// Computes a stage's steps on its base (`None` for scratch): triggers of the base first (its
/// `OnBuild` is cleared), every word expanded, the config after every step. `inherited` is the
/// scope of the stage that is the base, the default where the base is none. Labels of the request
/// are put on the target.
pub fn steps(
    plan: &Plan,
    stage: usize,
    base: Option<&Image>,
    inherited: &Scope,
    request: &Request,
) -> Result<Staged, Error> {
    let Some(this) = plan.stages.get(stage) else {
        return Err(Error {
            span: None,
            message: format!("there is no stage {stage} in the plan"),
            hint: None,
        });
    };
    let mut walk = Walk {
        plan,
        stage,
        request,
        image: config::start(base, &this.platform),
        scope: inherited.clone(),
        cmd_is_set: false,
        steps: Vec::new(),
        notes: check::Notes::default(),
    };
    for entry in &walk.image.config.env {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        walk.scope.set(name, value);
    }
    let triggers = base.map_or(&[][..], |base| &base.config.on_build);
    // A stage that a named context took the place of is that context's image as it is.
    if !matches!(&this.base, Base::Layout(name) if this.instructions.is_empty() && *name == this.name)
    {
        for trigger in triggers {
            let mut instruction = parse_trigger(trigger).map_err(|error| Error {
                span: Some(this.span),
                message: format!("trigger `{trigger}` of the base image: {error}"),
                hint: error.hint.clone(),
            })?;
            instruction.span = this.span;
            support::check(&instruction)?;
            walk.take(&instruction)?;
        }
    }
    for instruction in &this.instructions {
        walk.take(instruction)?;
    }
    if stage == plan.target && !request.labels.is_empty() {
        let labels = request.labels.iter().cloned();
        walk.image.config.labels.extend(labels);
        if let Some(last) = walk.steps.last_mut() {
            last.image = walk.image.clone();
        }
    }
    Ok(Staged {
        steps: walk.steps,
        image: walk.image,
        scope: walk.scope,
        findings: walk.notes.findings.into_inner(),
    })
}

/// Gives the images and named contexts that steps copy from, with the step; those that a base
/// image's triggers name are known only when the base is.
pub fn copies_from(steps: &[Step]) -> impl Iterator<Item = (&Step, &Base)> {
    steps.iter().filter_map(|step| match &step.op {
        Op::Copy(CopyOp {
            from: From::Base(base @ (Base::Image(_) | Base::Layout(_))),
            ..
        }) => Some((step, base)),
        _ => None,
    })
}

struct Walk<'a> {
    plan: &'a Plan,
    stage: usize,
    request: &'a Request,
    image: Image,
    scope: Scope,
    cmd_is_set: bool,
    steps: Vec<Step>,
    notes: check::Notes,
}

impl Walk<'_> {
    fn take(&mut self, instruction: &Instruction) -> Result<(), Error> {
        let Instruction { span, text, kind } = instruction;
        let shell = self.image.config.shell.as_deref().unwrap_or_default();
        self.notes.instruction(instruction, shell, self.plan.escape);
        let carried_out = self.carry_out(kind, *span);
        if self.notes.is_unsure(&self.scope) {
            // What the words come to is not known, nor whether a mistake is one.
            return Ok(());
        }
        let (op, history) = carried_out?;
        self.steps.push(Step {
            span: *span,
            text: text.clone(),
            op,
            image: self.image.clone(),
            history,
        });
        Ok(())
    }

    fn carry_out(&mut self, kind: &Kind, span: Span) -> Result<(Op, String), Error> {
        let config = &mut self.image.config;
        let history = match kind {
            Kind::Run(run) => return self.run(run, span),
            Kind::Copy(copy) => return self.copy(copy, span),
            Kind::Add(add) => return self.add(add, span),
            Kind::Workdir(path) => return self.workdir(path, span),
            Kind::Arg(pairs) => self.arg(pairs, span)?,
            Kind::Env(pairs) => {
                // Every pair of a line sees the variables as they were before the line.
                let pairs = self.pairs(pairs, span)?;
                for (name, value) in &pairs {
                    self.notes.secret("ENV", name, span);
                    config::set_env(&mut self.image.config, name, value);
                    self.scope.set(name, value);
                }
                format!("ENV{}", joined(&pairs))
            }
            Kind::Label(pairs) => {
                let pairs = self.pairs(pairs, span)?;
                let labels = &mut self.image.config.labels;
                labels.extend(pairs.iter().cloned());
                format!("LABEL{}", joined(&pairs))
            }
            Kind::Cmd(line) => {
                let words = config::command(config, line);
                let history = format!("CMD {}", config::quoted(&words));
                config.cmd = Some(words);
                self.cmd_is_set = true;
                history
            }
            Kind::Entrypoint(line) => {
                let words = config::command(config, line);
                let history = format!("ENTRYPOINT {}", config::quoted(&words));
                config.entrypoint = Some(words);
                if !self.cmd_is_set {
                    config.cmd = None;
                }
                history
            }
            Kind::Shell(words) => {
                config.shell = Some(words.clone());
                format!("SHELL [{}]", words.join(" "))
            }
            Kind::Expose(specs) => {
                let mut all = Vec::new();
                for spec in specs {
                    let env = |name: &str| self.lookup(name);
                    let expanded = words::split(spec, self.plan.escape, &env)
                        .map_err(|error| Error::at(span, error.to_string()))?;
                    for spec in expanded {
                        self.notes.port(&spec, &self.scope, span);
                        all.extend(ports::parse(&spec).map_err(|why| Error::at(span, why))?);
                    }
                }
                let config = &mut self.image.config;
                for port in &all {
                    config.exposed_ports.insert(port.clone(), config::present());
                }
                format!("EXPOSE [{}]", all.join(" "))
            }
            Kind::Volume(paths) => {
                let paths = self.words(paths, span)?;
                if paths.iter().any(String::is_empty) {
                    return Err(Error::at(
                        span,
                        "VOLUME specified can not be an empty string",
                    ));
                }
                for path in &paths {
                    let volumes = &mut self.image.config.volumes;
                    volumes.insert(path.clone(), config::present());
                }
                format!("VOLUME [{}]", paths.join(" "))
            }
            Kind::User(user) => {
                let user = self.word(user, span)?;
                self.image.config.user.clone_from(&user);
                format!("USER {user}")
            }
            Kind::StopSignal(signal) => {
                let signal = self.word(signal, span)?;
                if !config::is_signal(&signal) {
                    return Err(Error::at(span, format!("invalid signal: {signal}")));
                }
                self.image.config.stop_signal.clone_from(&signal);
                format!("STOPSIGNAL {signal}")
            }
            Kind::Healthcheck(check) => {
                let check = config::healthcheck(check);
                let history = config::health_text(&check);
                config.healthcheck = Some(check);
                history
            }
            Kind::Maintainer(name) => {
                self.image.author = Some(name.clone());
                format!("MAINTAINER {name}")
            }
            Kind::Onbuild(_, text) => {
                config.on_build.push(text.clone());
                format!("ONBUILD {text}")
            }
        };
        Ok((Op::Config, history))
    }

    fn lookup(&self, name: &str) -> Option<String> {
        let value = self.scope.get(name).map(str::to_owned);
        self.notes
            .missed
            .set(self.notes.missed.get() || value.is_none());
        value
    }

    fn word(&self, text: &str, span: Span) -> Result<String, Error> {
        match words::word(text, self.plan.escape, &|name| self.lookup(name)) {
            Ok(word) => {
                self.notes.undefined(&word.unset, &self.scope, span);
                Ok(word.text)
            }
            Err(error) => Err(Error::at(span, error.to_string())),
        }
    }

    fn words(&self, texts: &[String], span: Span) -> Result<Vec<String>, Error> {
        texts.iter().map(|text| self.word(text, span)).collect()
    }

    fn optional(&self, text: &Option<String>, span: Span) -> Result<Option<String>, Error> {
        let word = text
            .as_ref()
            .map(|text| self.word(text, span))
            .transpose()?;
        Ok(word.filter(|word| !word.is_empty()))
    }

    fn pairs(
        &self,
        pairs: &[(String, String)],
        span: Span,
    ) -> Result<Vec<(String, String)>, Error> {
        pairs
            .iter()
            .map(|(name, value)| Ok((self.word(name, span)?, self.word(value, span)?)))
            .collect()
    }

    fn arg(&mut self, pairs: &[(String, Option<String>)], span: Span) -> Result<String, Error> {
        let mut history = "ARG".to_owned();
        for (name, default) in pairs {
            self.notes.secret("ARG", name, span);
            let value = match (args::build_arg(self.request, name), default) {
                (Some(value), _) => Some(value.to_owned()),
                (None, Some(default)) => Some(self.word(default, span)?),
                (None, None) => args::lookup(&self.plan.globals, name),
            };
            history.push(' ');
            history.push_str(name);
            if let Some(value) = &value {
                history.push('=');
                history.push_str(value);
            }
            self.scope.declare(name, value);
        }
        Ok(history)
    }

    fn run(&self, run: &Run, span: Span) -> Result<(Op, String), Error> {
        // The options are refused by `support`, which has looked at every one of them.
        let Run {
            command,
            heredocs,
            mounts: _,
            network: _,
            security: _,
            devices: _,
        } = run;
        let config = &self.image.config;
        let mut script = None;
        let args = match (command, heredocs.as_slice()) {
            (command, []) => config::command(config, command),
            (CommandLine::Exec(_), _) => {
                return Err(Error::at(span, "a heredoc needs RUN in shell form"));
            }
            (CommandLine::Shell(line), [only]) if is_one_heredoc(line) => {
                let body = body(only);
                if body.starts_with("#!") {
                    let path = format!("/dev/pipes/{}", only.name);
                    script = Some((only.name.clone(), body));
                    vec![path]
                } else {
                    config::with_shell(config, &body)
                }
            }
            (CommandLine::Shell(line), heredocs) => {
                let mut text = line.clone();
                for heredoc in heredocs {
                    text.push('\n');
                    text.push_str(&heredoc.body);
                    text.push_str(&heredoc.name);
                }
                config::with_shell(config, &text)
            }
        };
        let mut env: Vec<String> = self
            .scope
            .variables()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        for (name, value) in args::proxies(self.request) {
            if self.scope.get(&name).is_none() {
                env.push(format!("{name}={value}"));
            }
        }
        let history = format!("RUN {}{}", self.scope.history_prefix(), args.join(" "));
        let op = RunOp {
            args,
            env,
            cwd: config::join_path("/", &config.working_dir),
            user: config.user.clone(),
            script,
            mounts: Vec::new(),
            network: Network::Host,
            insecure: false,
        };
        Ok((Op::Run(op), history))
    }

    fn workdir(&mut self, path: &str, span: Span) -> Result<(Op, String), Error> {
        let path = self.word(path, span)?;
        self.notes.workdir(&path, &mut self.scope, span);
        let config = &mut self.image.config;
        let path = config::join_path(&config.working_dir, &path);
        config.working_dir.clone_from(&path);
        let history = format!("WORKDIR {path}");
        let op = match path.as_str() {
            "/" => Op::Config,
            _ => Op::Workdir {
                path,
                user: config.user.clone(),
            },
        };
        Ok((op, history))
    }

    fn copy(&self, copy: &Copy, span: Span) -> Result<(Op, String), Error> {
        let Copy {
            sources,
            dest,
            from,
            chown,
            chmod,
            link: _,
            parents: _,
            exclude: _,
        } = copy;
        let from = match from {
            None => From::Context,
            Some(from) => From::Base(self.from(from, span)?),
        };
        self.files(
            "COPY",
            from,
            sources,
            dest,
            chown,
            chmod,
            Unpack::Never,
            span,
        )
    }

    fn add(&self, add: &Add, span: Span) -> Result<(Op, String), Error> {
        let Add {
            sources,
            dest,
            chown,
            chmod,
            link: _,
            exclude: _,
            checksum: _,
            keep_git_dir: _,
            unpack,
        } = add;
        let unpack = match unpack {
            Some(true) => Unpack::All,
            Some(false) => Unpack::Never,
            None => Unpack::Local,
        };
        self.files(
            "ADD",
            From::Context,
            sources,
            dest,
            chown,
            chmod,
            unpack,
            span,
        )
    }

    fn from(&self, from: &str, span: Span) -> Result<Base, Error> {
        let stages = &self.plan.stages;
        let base = copy_from(from, span, self.request, |name| {
            let place = match name.parse::<usize>() {
                Ok(number) => stages.iter().position(|stage| stage.index == number),
                Err(_) => stages
                    .iter()
                    .rposition(|stage| stage.name.eq_ignore_ascii_case(name)),
            };
            match place {
                Some(place) => Found::Stage(place),
                None if name.parse::<usize>().is_ok() => Found::NoSuchNumber,
                None => Found::NoStage,
            }
        })?;
        match base {
            Base::Stage(place) if place >= self.stage => Err(Error::at(
                span,
                format!(
                    "cannot copy from stage \"{from}\", it needs to be defined before current stage \"{}\"",
                    stages[self.stage].name
                ),
            )),
            base => Ok(base),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts COPY and ADD share")]
    fn files(
        &self,
        instruction: &'static str,
        from: From,
        items: &[Item],
        dest: &str,
        chown: &Option<String>,
        chmod: &Option<String>,
        unpack: Unpack,
        span: Span,
    ) -> Result<(Op, String), Error> {
        let mut sources = Vec::new();
        let mut inline = Vec::new();
        for item in items {
            match item {
                Item::Path(path) => {
                    let path = self.word(path, span)?;
                    support::check_source(instruction, &path, span)?;
                    sources.push(CopySource::Path(path));
                }
                Item::Inline(heredoc) => {
                    let mut body = body(heredoc);
                    if heredoc.expand {
                        // A body is always escaped with a backslash, whatever the directive says.
                        let expanded = words::raw(&body, '\\', &|name| self.lookup(name))
                            .map_err(|error| Error::at(span, error.to_string()))?;
                        self.notes.undefined(&expanded.unset, &self.scope, span);
                        body = expanded.text;
                    }
                    inline.push((heredoc.name.clone(), body.into_bytes()));
                }
            }
        }
        let dest = self.word(dest, span)?;
        let chown = self.optional(chown, span)?;
        let chmod = self.optional(chmod, span)?;
        let mut history = instruction.to_owned();
        if let Some(chown) = &chown {
            history.push_str(&format!(" --chown={chown}"));
        }
        if let Some(chmod) = &chmod {
            history.push_str(&format!(" --chmod={chmod}"));
        }
        for source in &sources {
            if let CopySource::Path(source) = source {
                history.push_str(&format!(" {source}"));
            }
        }
        for (name, _) in &inline {
            history.push_str(&format!(" <<{name}"));
        }
        history.push_str(&format!(" {dest}"));
        let op = CopyOp {
            from,
            sources,
            inline,
            dest: config::join_dest(&self.image.config.working_dir, &dest),
            chown,
            chmod,
            unpack,
            link: false,
            parents: false,
            exclude: Vec::new(),
            instruction,
        };
        Ok((Op::Copy(op), history))
    }
}

fn joined(pairs: &[(String, String)]) -> String {
    pairs
        .iter()
        .map(|(name, value)| format!(" {name}={value}"))
        .collect()
}

/// Gives a heredoc's body, without leading tabs where `<<-` says so.
fn body(heredoc: &Heredoc) -> String {
    let Heredoc {
        name: _,
        body,
        expand: _,
        chomp,
        fd: _,
    } = heredoc;
    if !chomp {
        return body.clone();
    }
    body.split_inclusive('\n')
        .map(|line| line.trim_start_matches('\t'))
        .collect()
}

/// Tells whether a line is nothing but one `<<NAME`.
fn is_one_heredoc(line: &str) -> bool {
    let line = line.trim();
    let line = line.trim_start_matches(|c: char| c.is_ascii_digit());
    let Some(name) = line.strip_prefix("<<") else {
        return false;
    };
    let name = name.strip_prefix('-').unwrap_or(name);
    let mut quote = None;
    let mut escaped = false;
    for c in name.chars() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (Some('"') | None, '\\') => escaped = true,
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, c) if c.is_whitespace() || c == '<' => return false,
            (None, _) => {}
        }
    }
    !name.is_empty()
}
