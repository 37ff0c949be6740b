use super::graph::{Found, Name, base_of, of_trigger, trigger};
use super::{
    Base, Chmod, CopyOp, CopySource, Error, From, Mount, Network, Op, Plan, RunOp, Scope, Staged,
    Step, Unpack, args, check, config, mounts, ports, remote, support,
};
use crate::dockerfile::ast::{
    self, Add, CommandLine, Copy, Heredoc, Instruction, Item, Kind, Run, Span,
};
use crate::dockerfile::check::{Hide, masked_instruction, without_credentials};
use crate::dockerfile::ignore::{self, Ignore};
use crate::dockerfile::{is_heredoc, words};
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
    let (image, env) = config::start(base, &this.platform);
    let mut walk = Walk {
        plan,
        stage,
        request,
        image,
        env,
        hostname: args::hostname(request)?,
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
    if !this.replaced {
        for text in triggers {
            let base = match &this.base {
                Base::Scratch => "scratch",
                Base::Stage(place) => plan.stages.get(*place).map_or("", |stage| &stage.name),
                Base::Image(name) | Base::Layout(name) | Base::Files(name) => name,
            };
            let of = |error| of_trigger(base, text, error);
            let instruction = trigger(base, text, this.span)?;
            support::check(&instruction, request).map_err(of)?;
            walk.take(&instruction).map_err(of)?;
        }
    }
    for instruction in &this.instructions {
        walk.take(instruction)?;
    }
    if stage == plan.target {
        let labels = request.labels.iter().cloned();
        walk.image.config.labels.extend(labels);
        config::finish(&mut walk.image, &request.platform);
    }
    Ok(Staged {
        steps: walk.steps,
        image: walk.image,
        scope: walk.scope,
        findings: walk.notes.findings.into_inner(),
    })
}

/// Gives what steps copy from or mount, with the step: stages, images, named contexts, each as often
/// as it is named; those that a base image's triggers name are known only when the base is.
pub fn bases(steps: &[Step]) -> impl Iterator<Item = (&Step, &Base)> {
    steps
        .iter()
        .flat_map(|step| step.op.bases().map(move |base| (step, base)))
}

impl Op {
    /// Gives what it copies from or mounts, beside the build context.
    pub fn bases(&self) -> impl Iterator<Item = &Base> {
        let (copied, mounted) = match self {
            Op::Copy(copy) => (Some(&copy.from), &[][..]),
            Op::Run(run) => (None, run.mounts.as_slice()),
            Op::Config | Op::Workdir { .. } => (None, &[][..]),
        };
        let mounted = mounted.iter().filter_map(|mount| match mount {
            Mount::Bind { from, .. } => Some(from),
            Mount::Cache { from, .. } => from.as_ref(),
            Mount::Tmpfs { .. } | Mount::Secret { .. } | Mount::Ssh { .. } => None,
        });
        copied
            .into_iter()
            .chain(mounted)
            .filter_map(|from| match from {
                From::Context => None,
                From::Base(base) => Some(base),
            })
    }
}

struct Walk<'a> {
    plan: &'a Plan,
    stage: usize,
    request: &'a Request,
    image: Image,
    env: config::Env,
    hostname: Option<String>,
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
            text: masked_instruction(text, self.plan.escape),
            op,
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
                    self.env.set(&mut self.image.config, name, value);
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
            let value = match (self.request.build_arg(name), default) {
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
        let Run {
            command,
            heredocs,
            mounts: written,
            network,
            security,
            // `support` has refused them.
            devices: _,
        } = run;
        let config = &self.image.config;
        let mut script = None;
        let args = match (command, heredocs.as_slice()) {
            (command, []) => config::command(config, command),
            (CommandLine::Exec(_), _) => {
                return Err(Error::at(span, "a heredoc needs RUN in shell form"));
            }
            (CommandLine::Shell(line), [only]) if is_heredoc(line) => {
                let body = body(only);
                if body.starts_with("#!") {
                    let path = format!("/dev/pipes/{}", only.name);
                    script = Some((only.name.clone(), body));
                    config::with_shell(config, &path)
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
        let mut proxies = Vec::new();
        for (name, value) in args::proxies(self.request) {
            if self.scope.get(&name).is_none() {
                env.push(format!("{name}={value}"));
                proxies.push(name);
            }
        }
        let cwd = config::join_path("/", &config.working_dir);
        let mounts = self.mounts(written, &cwd, span)?;
        let agent = mounts.iter().find_map(|mount| match mount {
            Mount::Ssh { file, .. } => Some(&file.target),
            _ => None,
        });
        if let Some(target) = agent
            && self.scope.get("SSH_AUTH_SOCK").is_none()
        {
            env.push(format!("SSH_AUTH_SOCK={target}"));
        }
        let history = format!("RUN {}{}", self.scope.history_prefix(), args.join(" "));
        let op = RunOp {
            args,
            env,
            proxies,
            cwd,
            user: config.user.clone(),
            hostname: self.hostname.clone(),
            script,
            mounts,
            network: match network.as_deref() {
                Some("none") => Network::None,
                _ => Network::Host,
            },
            insecure: security.as_deref() == Some("insecure"),
        };
        Ok((Op::Run(op), history))
    }

    fn mounts(&self, written: &[ast::Mount], cwd: &str, span: Span) -> Result<Vec<Mount>, Error> {
        let mut out: Vec<Mount> = Vec::with_capacity(written.len());
        for mount in written {
            let agents = out.iter().filter(|m| matches!(m, Mount::Ssh { .. }));
            let place = mounts::Place {
                span,
                cwd,
                agents: agents.count(),
                expand: &|text| self.word(text, span),
                namespace: self.request.build_arg("BUILDKIT_CACHE_MOUNT_NS"),
                find: &|from, target| {
                    let target = Some(target);
                    self.from(&Name { from, target }, span)
                },
            };
            out.push(mounts::mount(mount, &place)?);
        }
        Ok(out)
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
            link,
            parents,
            exclude,
        } = copy;
        let from = match from {
            None => From::Context,
            Some(from) => From::Base(self.from(&Name { from, target: None }, span)?),
        };
        let files = Files {
            instruction: "COPY",
            from,
            items: sources,
            dest,
            chown,
            chmod,
            link: *link,
            parents: *parents,
            exclude,
            unpack: Unpack::Never,
            remote: None,
        };
        self.files(files, span)
    }

    fn add(&self, add: &Add, span: Span) -> Result<(Op, String), Error> {
        let Add {
            sources,
            dest,
            chown,
            chmod,
            link,
            exclude,
            checksum,
            keep_git_dir,
            unpack,
        } = add;
        let unpack = match unpack {
            Some(true) => Unpack::All,
            Some(false) => Unpack::Never,
            None => Unpack::Local,
        };
        let files = Files {
            instruction: "ADD",
            from: From::Context,
            items: sources,
            dest,
            chown,
            chmod,
            link: *link,
            parents: false,
            exclude,
            unpack,
            remote: Some(remote::Options {
                checksum: self.optional(checksum, span)?,
                keep_git_dir: *keep_git_dir,
            }),
        };
        self.files(files, span)
    }

    fn from(&self, named: &Name, span: Span) -> Result<Base, Error> {
        let stages = &self.plan.stages;
        let base = base_of(named.from, span, self.request, |name| {
            let Ok(number) = name.parse::<usize>() else {
                let place = self.plan.names.get(&name.to_ascii_lowercase());
                return place.map_or(Found::NoStage, |place| Found::Stage(*place));
            };
            match stages.binary_search_by_key(&number, |stage| stage.index) {
                Ok(place) => Found::Stage(place),
                Err(_) => Found::NoSuchNumber,
            }
        })?;
        match base {
            Base::Stage(place) if place >= self.stage => {
                Err(Error::at(span, named.late(&stages[self.stage].name)))
            }
            base => Ok(base),
        }
    }

    fn files(&self, files: Files, span: Span) -> Result<(Op, String), Error> {
        let Files {
            instruction,
            from,
            items,
            dest,
            chown,
            chmod,
            link,
            parents,
            exclude,
            unpack,
            remote,
        } = files;
        let mut paths = Vec::new();
        let mut inline = Vec::new();
        for item in items {
            match item {
                Item::Path(path) => paths.push(self.word(path, span)?),
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
        let sources = remote::sources(&paths, remote.as_ref()).map_err(|wrong| Error {
            span: Some(span),
            message: wrong.message,
            hint: wrong.hint.map(str::to_owned),
        })?;
        let dest = self.word(dest, span)?;
        let chown = self.optional(chown, span)?;
        let chmod = self.optional(chmod, span)?;
        let exclude = self.words(exclude, span)?;
        let mode = chmod.as_deref().map(Chmod::parse).transpose();
        let mode = mode.map_err(|why| {
            Error::at(span, why).hint("octal modes are (644), and symbolic ones (u=rwX,go=rX)")
        })?;
        for source in &sources {
            if let CopySource::Path(path) = source {
                pattern(path, parents).map_err(|why| Error::at(span, why.to_string()))?;
            }
        }
        Ignore::compile(&exclude).map_err(|why| Error::at(span, why.to_string()))?;
        let mut history = instruction.to_owned();
        if parents {
            history.push_str(" --parents");
        }
        if let Some(chown) = &chown {
            history.push_str(&format!(" --chown={chown}"));
        }
        if let Some(chmod) = &chmod {
            history.push_str(&format!(" --chmod={chmod}"));
        }
        for path in &paths {
            // A token that a variable brings may be a secret of whoever builds.
            let path = without_credentials(path, Hide::User);
            history.push_str(&format!(" {path}"));
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
            chmod: mode,
            unpack,
            link,
            parents,
            exclude,
            instruction,
        };
        Ok((Op::Copy(op), history))
    }
}

/// What COPY and ADD share; `remote` is there where something may be fetched.
struct Files<'a> {
    instruction: &'static str,
    from: From,
    items: &'a [Item],
    dest: &'a str,
    chown: &'a Option<String>,
    chmod: &'a Option<String>,
    link: bool,
    parents: bool,
    exclude: &'a [String],
    unpack: Unpack,
    remote: Option<remote::Options>,
}

/// Looks at the pattern that a source may be, long before anything is matched with it.
fn pattern(source: &str, parents: bool) -> Result<(), ignore::Error> {
    let (plain, below) = match source.split_once("/./") {
        Some((root, below)) if parents => (root, below),
        None if parents => ("", source),
        _ => (source, ""),
    };
    if ignore::has_wildcards(plain) {
        let clean = config::join_path("/", plain);
        ignore::Glob::new(clean.trim_start_matches('/').as_bytes())?;
    }
    Ignore::compile(&[below.to_owned()]).map(drop)
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
