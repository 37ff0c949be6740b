//! What the command line gives and nothing in the Dockerfile takes.

use super::graph::{context_key, named_in};
use super::{Base, CopySource, Mount, Op, Plan, Remote, Staged};
use crate::dockerfile::ast::{self, Dockerfile, Instruction, Kind};
use crate::dockerfile::spelling::nearest;
use crate::request::{ContextSource, NamedContext, Request};
use std::collections::BTreeSet;

/// What the instructions of a Dockerfile name, whether they are carried out or not.
#[derive(Default)]
struct Names<'a> {
    secrets: BTreeSet<&'a str>,
    agents: BTreeSet<&'a str>,
    contexts: BTreeSet<&'a str>,
    /// Whether a name is what a variable makes of it.
    has_variables: bool,
}

/// Says which secrets, SSH agents and named contexts have no effect: those that nothing in the
/// Dockerfile and in the triggers of its bases names.
pub fn unused(
    dockerfile: &Dockerfile,
    request: &Request,
    plan: &Plan,
    staged: &[Staged],
) -> Vec<String> {
    let mut names = Names::default();
    for stage in &dockerfile.stages {
        names.contexts.extend(stage.from.name.as_deref());
        names.context(&stage.from.base);
        for instruction in &stage.instructions {
            names.take(instruction);
        }
    }
    for stage in &plan.stages {
        let bases = stage.names.iter().map(|named| &named.base);
        for base in bases.chain([&stage.base]) {
            if let Base::Image(name) | Base::Layout(name) | Base::Files(name) = base {
                names.contexts.insert(name);
            }
        }
    }
    let steps = staged.iter().flat_map(|staged| &staged.steps);
    for step in steps {
        names.step(&step.op);
    }
    if is_over_ssh(request) {
        names.agents.insert("default");
    }
    let say = |what: &str, given: &str, known: &BTreeSet<&str>| {
        if names.has_variables || known.contains(given) {
            return None;
        }
        let known: Vec<&str> = known.iter().copied().collect();
        let meant = nearest(given, &known);
        let meant = meant.map_or(String::new(), |meant| format!(" (did you mean {meant}?)"));
        Some(format!("{what} {given}, which has no effect{meant}"))
    };
    let mut out = Vec::new();
    for id in request.secrets.keys() {
        out.extend(say("no RUN mounts the secret", id, &names.secrets));
    }
    for id in request.ssh.keys() {
        out.extend(say("no RUN mounts the SSH agent", id, &names.agents));
    }
    let taken: BTreeSet<&str> = names
        .contexts
        .iter()
        .filter_map(|name| context_key(request, name))
        .collect();
    for (name, context) in &request.contexts {
        let stands = |context: &NamedContext| match context {
            // What a FROM says with variables in it is known by what it came to.
            NamedContext::Image(image) => names.contexts.contains(image.to_string().as_str()),
            NamedContext::Files(_) | NamedContext::Layout(_) => false,
        };
        match name.to_ascii_lowercase().as_str() {
            "scratch" | "context" => out.push(format!(
                "{name} is never a build context of that name, so that --build-context {name} has no effect"
            )),
            _ if taken.contains(name.as_str()) || stands(context) => {}
            _ => out.extend(say(
                "no FROM and no --from names the build context",
                name,
                &names.contexts,
            )),
        }
    }
    out
}

impl<'a> Names<'a> {
    fn take(&mut self, instruction: &'a Instruction) {
        if let Kind::Onbuild(trigger, _) = &instruction.kind {
            return self.take(trigger);
        }
        for name in named_in(instruction).into_iter().flatten() {
            self.contexts.insert(name.from);
        }
        if let Kind::Run(run) = &instruction.kind {
            for mount in &run.mounts {
                self.mount(mount);
            }
        }
    }

    fn context(&mut self, name: &'a str) {
        self.has_variables |= name.contains('$');
        self.contexts.insert(name);
    }

    fn mount(&mut self, mount: &'a ast::Mount) {
        let last = |keys: &[&str]| {
            let fields = mount.fields.iter().rev();
            let mut fields = fields.filter(|field| keys.contains(&field.key.as_str()));
            fields
                .find_map(|field| field.value.as_deref())
                .filter(|value| !value.is_empty())
        };
        let kind = last(&["type"]).unwrap_or_default();
        let is = |name: &str| kind.eq_ignore_ascii_case(name);
        let id = match () {
            () if is("secret") => last(&["id"])
                .or(last(&["source", "src"]))
                .or(mount.target().and_then(|target| target.rsplit('/').next())),
            () if is("ssh") => last(&["id"]).or(Some("default")),
            () => None,
        };
        let texts = [Some(kind), id];
        self.has_variables |= texts.iter().flatten().any(|text| text.contains('$'));
        match is("ssh") {
            true => self.agents.extend(id),
            false => self.secrets.extend(id),
        }
    }

    fn step(&mut self, op: &'a Op) {
        match op {
            Op::Run(run) => {
                for mount in &run.mounts {
                    match mount {
                        Mount::Secret { id, .. } => drop(self.secrets.insert(id)),
                        Mount::Ssh { id, .. } => drop(self.agents.insert(id)),
                        Mount::Bind { .. } | Mount::Cache { .. } | Mount::Tmpfs { .. } => {}
                    }
                }
            }
            Op::Copy(copy) => {
                let is_git =
                    |source: &CopySource| matches!(source, CopySource::Remote(Remote::Git { .. }));
                if copy.sources.iter().any(is_git) {
                    self.agents.insert("default");
                }
            }
            Op::Config | Op::Workdir { .. } => {}
        }
    }
}

/// Tells whether a context may want an agent: those of git may be fetched over ssh.
fn is_over_ssh(request: &Request) -> bool {
    let named = request
        .contexts
        .values()
        .filter_map(|context| match context {
            NamedContext::Files(source) => Some(source),
            NamedContext::Image(_) | NamedContext::Layout(_) => None,
        });
    named
        .chain([&request.context])
        .any(|source| matches!(source, ContextSource::Git(_)))
}
