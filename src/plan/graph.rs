use super::{Base, Error, Named, Plan, Stage, args, check, support};
use crate::dockerfile::ast::{self, Dockerfile, Instruction, Kind, Span};
use crate::dockerfile::check::{Finding, masked_instruction};
use crate::dockerfile::spelling::{self, quote};
use crate::dockerfile::{parse_trigger, words};
use crate::oci::{Platform, Reference};
use crate::request::{NamedContext, Request};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A stage before pruning; places are those in the Dockerfile.
struct Draft<'a> {
    stage: &'a ast::Stage,
    base: Base,
    platform: Platform,
    /// The instructions to carry out; none where a named context took the stage's place.
    instructions: &'a [Instruction],
    replaced: bool,
    /// By place: the stages that its instructions name.
    needs: BTreeMap<usize, Need>,
    /// What else they name.
    names: Vec<Named>,
}

/// Which stages are planned.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Those that the target needs.
    Target,
    /// All, where no target is named.
    All,
}

impl Draft<'_> {
    /// Gives the places of the stages that must be there before this one ends.
    /// Names what it starts from.
    fn base_name(&self, drafts: &[Draft]) -> String {
        match &self.base {
            Base::Scratch => "scratch".into(),
            Base::Stage(other) => match drafts.get(*other) {
                Some(draft) => name_of(*other, draft.stage),
                None => other.to_string(),
            },
            Base::Image(name) | Base::Layout(name) | Base::Files(name) => name.clone(),
        }
    }

    fn all_needs(&self) -> impl Iterator<Item = usize> {
        let base = match self.base {
            Base::Stage(other) => Some(other),
            _ => None,
        };
        let named = self.needs.keys().copied();
        base.into_iter()
            .filter(|base| !self.needs.contains_key(base))
            .chain(named)
    }
}

/// Why a stage needs another one.
struct Need {
    /// The instruction.
    span: Span,
    /// What to say where the other one is not there yet.
    late: String,
}

/// The ONBUILD triggers of a base that is an image or a named context, as its config has them.
pub type Triggers<'a> = &'a dyn Fn(&Base, &Platform) -> Vec<String>;

/// Makes the stage graph: expands FROM lines with the global ARGs, finds stages by name or number,
/// prunes to the target, finds circles and unknown names, refuses by name and line what is not
/// supported.
pub fn graph(dockerfile: &Dockerfile, request: &Request) -> Result<Plan, Error> {
    graph_with(dockerfile, request, &|_, _| Vec::new())
}

/// Makes the graph as [`graph()`] does, once the triggers of bases are known: they may name stages
/// that nothing else needs.
pub fn graph_with(
    dockerfile: &Dockerfile,
    request: &Request,
    triggers: Triggers<'_>,
) -> Result<Plan, Error> {
    graph_of(dockerfile, request, triggers, Reach::Target)
}

/// Makes the graph of all stages, whether or not the last one needs them.
pub fn graph_of_all(dockerfile: &Dockerfile, request: &Request) -> Result<Plan, Error> {
    graph_of(dockerfile, request, &|_, _| Vec::new(), Reach::All)
}

pub(super) fn graph_of(
    dockerfile: &Dockerfile,
    request: &Request,
    triggers: Triggers<'_>,
    reach: Reach,
) -> Result<Plan, Error> {
    let Dockerfile {
        directives: _,
        escape,
        globals: declared,
        stages,
        findings,
        exceptions: _,
    } = dockerfile;
    let Some(last) = stages.last() else {
        return Err(Error {
            span: None,
            message: "dockerfile contains no stages to build".into(),
            hint: None,
        });
    };
    let mut findings = findings.clone();

    let target_name = match &request.target {
        Some(target) if !target.is_empty() => target.clone(),
        _ => last.from.name.clone().unwrap_or_else(|| "default".into()),
    };
    let automatic = args::automatic(request, &target_name);
    check::default_bases(dockerfile, &automatic, &mut findings);
    let globals = args::globals(declared, automatic, *escape, &request.build_args)?;
    let epoch = args::epoch(declared, &globals, request)?;

    let names = Names::of(stages);
    let mut drafts: Vec<Draft> = Vec::with_capacity(stages.len());
    let mut earlier: HashMap<&str, usize> = HashMap::new();
    for (index, stage) in stages.iter().enumerate() {
        let by_name = |name: &str| {
            let place = *earlier.get(name.to_ascii_lowercase().as_str())?;
            Some((place, drafts.get(place)?))
        };
        let draft = draft(stage, by_name, *escape, &globals, request, &mut findings)?;
        drafts.push(draft);
        if let Some(name) = &stage.from.name {
            earlier.insert(name, index);
        }
    }
    let target = match &request.target {
        Some(target) if !target.is_empty() => find_target(target, &names, stages)?,
        _ => drafts.len() - 1,
    };
    for index in 0..drafts.len() {
        let instructions = drafts[index].instructions;
        let (needs, named) = needs(index, instructions, &drafts, &names, request)?;
        drafts[index].needs = needs;
        drafts[index].names = named;
    }
    refuse_circles(&drafts)?;
    let wanted = match reach {
        Reach::All if request.target.as_deref().is_none_or(str::is_empty) => {
            (0..drafts.len()).collect()
        }
        Reach::All | Reach::Target => vec![target],
    };
    let kept = fire(wanted, &mut drafts, &names, request, triggers)?;
    refuse_later(&kept, &drafts)?;
    for &index in &kept {
        for instruction in drafts[index].instructions {
            support::check(instruction, request)?;
        }
    }

    let place: HashMap<usize, usize> = kept
        .iter()
        .enumerate()
        .map(|(place, &index)| (index, place))
        .collect();
    let stages = kept
        .iter()
        .map(|&index| {
            let draft = &drafts[index];
            Stage {
                index,
                name: name_of(index, draft.stage),
                base: match &draft.base {
                    Base::Stage(other) => Base::Stage(place[other]),
                    other => other.clone(),
                },
                platform: draft.platform.clone(),
                span: draft.stage.span,
                text: draft.stage.text.clone(),
                instructions: draft.instructions.to_vec(),
                replaced: draft.replaced,
                names: draft.names.clone(),
                needs: draft.all_needs().map(|other| place[&other]).collect(),
            }
        })
        .collect();
    let names = names.0.into_iter();
    let names = names.filter_map(|(name, index)| Some((name, *place.get(&index)?)));
    Ok(Plan {
        stages,
        names: names.collect(),
        target: place[&target],
        globals,
        epoch,
        escape: *escape,
        findings,
    })
}

/// Which stage a name means: the last of that name.
struct Names(HashMap<String, usize>);

impl Names {
    fn of(stages: &[ast::Stage]) -> Names {
        let named = stages.iter().zip(0..).filter_map(|(stage, index)| {
            let name = stage.from.name.as_ref()?;
            Some((name.to_ascii_lowercase(), index))
        });
        Names(named.collect())
    }

    fn get(&self, name: &str) -> Option<usize> {
        self.0.get(&name.to_ascii_lowercase()).copied()
    }
}

/// What to do where a FROM's words are empty.
const VALUE_BEFORE_FROM: &str =
    "FROM sees the ARGs before the first FROM: give one a default there, or use --build-arg";

fn draft<'a: 'd, 'd>(
    stage: &'a ast::Stage,
    earlier: impl Fn(&str) -> Option<(usize, &'d Draft<'a>)>,
    escape: char,
    globals: &args::Globals,
    request: &Request,
    findings: &mut Vec<Finding>,
) -> Result<Draft<'a>, Error> {
    let ast::Stage {
        from,
        span,
        text: _,
        instructions,
    } = stage;
    let ast::From {
        base,
        name,
        platform,
    } = from;
    let span = *span;
    let mut expand = |text: &str| {
        let word = check::FromWord::expand(text, escape, globals)
            .map_err(|error| Error::at(span, error.to_string()))?;
        word.undefined(globals, span, findings);
        Ok::<_, Error>(word)
    };

    let expanded = expand(base)?.text;
    if expanded.is_empty() {
        let error = Error::at(span, format!("base name ({base}) should not be blank"));
        return Err(error.hint(VALUE_BEFORE_FROM));
    }
    let platform = match platform {
        None => None,
        Some(written) => {
            let word = expand(written)?;
            let expanded = &word.text;
            if expanded.is_empty() {
                let message = format!("empty platform value from expression {written}");
                return Err(Error::at(span, message).hint(VALUE_BEFORE_FROM));
            }
            let parsed = self::platform(expanded).map_err(|(error, hint)| Error {
                span: Some(span),
                message: format!("failed to parse platform {written}: {error}"),
                hint,
            })?;
            word.platform(written, &parsed, name.as_deref(), globals, span, findings);
            Some(parsed)
        }
    };

    let as_context = name.as_deref().and_then(|name| context(request, name));
    let base_stage = earlier(&expanded);
    // A name that only a later stage has is an image's: `FROM alpine AS base` and then
    // `FROM base AS alpine` is no circle.
    let replaced = as_context.is_some();
    let base = match (as_context, base_stage) {
        (Some(context), _) => context,
        (None, Some((other, _))) => Base::Stage(other),
        (None, None) => image(&expanded, request),
    };
    let platform = match &base {
        Base::Stage(_) => base_stage.map(|(_, stage)| stage.platform.clone()),
        // Nothing is for no platform: what is made of it is for the image's.
        Base::Scratch => None,
        _ => platform,
    };
    Ok(Draft {
        stage,
        base,
        platform: platform.unwrap_or_else(|| request.platform.clone()),
        instructions: if replaced { &[] } else { instructions },
        replaced,
        needs: BTreeMap::new(),
        names: Vec::new(),
    })
}

/// Gives what a name is where it is no stage.
fn image(name: &str, request: &Request) -> Base {
    if name == "scratch" {
        return Base::Scratch;
    }
    context(request, name).unwrap_or_else(|| Base::Image(name.to_owned()))
}

/// Gives the named context that stands for a name: of the same name, or of a name that means the
/// same image.
fn context(request: &Request, name: &str) -> Option<Base> {
    let key = context_key(request, name)?;
    Some(match request.contexts.get(key)? {
        NamedContext::Files(_) => Base::Files(key.to_owned()),
        NamedContext::Layout(_) => Base::Layout(key.to_owned()),
        // What it stands for is no name of another context.
        NamedContext::Image(image) => Base::Image(image.to_string()),
    })
}

/// Gives the key of the named context that stands for a name.
pub(super) fn context_key<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    if name.eq_ignore_ascii_case("scratch") || name.eq_ignore_ascii_case("context") {
        return None;
    }
    if let Some((key, _)) = request.contexts.get_key_value(name) {
        return Some(key);
    }
    let wanted: Reference = name.parse().ok()?;
    let means = |key: &str| key.parse::<Reference>().is_ok_and(|key| key == wanted);
    let mut keys = request.contexts.keys();
    keys.find(|key| means(key)).map(String::as_str)
}

/// The architectures that may stand by themselves, by Go's names.
const ARCHITECTURES: [&str; 16] = [
    "386", "amd64", "arm", "arm64", "i386", "x86_64", "x86-64", "aarch64", "armhf", "armel",
    "loong64", "mips64le", "ppc64", "ppc64le", "riscv64", "s390x",
];

/// Reads a platform: `os/architecture[/variant]`, or one of the first two by itself. An error is why
/// it is none, and perhaps what was meant.
pub fn platform(text: &str) -> Result<Platform, (String, Option<String>)> {
    const SYSTEMS: [&str; 4] = ["linux", "windows", "darwin", "freebsd"];
    let letter = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-');
    if text.contains(',') {
        let message = format!(
            "{} names several platforms: an image is for one",
            quote(text)
        );
        return Err((message, None));
    }
    if let Some(part) = text
        .split('/')
        .find(|part| part.is_empty() || !part.bytes().all(letter))
    {
        let message = format!(
            "{} is an invalid component of {}: letters, digits, and any of `_.-` are wanted",
            quote(part),
            quote(text)
        );
        return Err((message, None));
    }
    if text.contains('/') {
        return text.parse().map_err(|error| (error, None));
    }
    let lower = text.to_ascii_lowercase();
    if SYSTEMS.contains(&lower.as_str()) {
        return Ok(Platform {
            os: lower,
            ..Platform::host()
        });
    }
    if !ARCHITECTURES.contains(&lower.as_str()) {
        let message = format!("{}: unknown operating system or architecture", quote(text));
        let meant = spelling::nearest(&lower, &ARCHITECTURES);
        return Err((message, meant.map(|name| format!("did you mean {name}?"))));
    }
    format!("linux/{lower}")
        .parse()
        .map_err(|error| (error, None))
}

/// Gives the stages that a target needs, in order, with what the triggers of their bases need: they
/// fire in a stage that is built, not in another one.
fn fire(
    wanted: Vec<usize>,
    drafts: &mut [Draft],
    names: &Names,
    request: &Request,
    triggers: Triggers<'_>,
) -> Result<BTreeSet<usize>, Error> {
    let mut kept = BTreeSet::new();
    let mut open = wanted;
    while let Some(index) = open.pop() {
        if !kept.insert(index) {
            continue;
        }
        let base = drafts[index].base_name(drafts);
        for trigger in fired(&drafts[index], &base, drafts, triggers)? {
            let of = |error| of_trigger(&base, &trigger.text, error);
            support::check(&trigger, request).map_err(of)?;
            let only = std::slice::from_ref(&trigger);
            let (needs, named) = needs(index, only, drafts, names, request).map_err(of)?;
            for (other, mut need) in needs {
                need.late = said_of_trigger(&base, &trigger.text, &need.late);
                drafts[index].needs.entry(other).or_insert(need);
            }
            drafts[index].names.extend(named);
        }
        open.extend(drafts[index].all_needs());
    }
    Ok(kept)
}

/// Gives the triggers that fire in a stage, at the place of its FROM.
fn fired(
    draft: &Draft,
    base: &str,
    drafts: &[Draft],
    triggers: Triggers<'_>,
) -> Result<Vec<Instruction>, Error> {
    let texts = match &draft.base {
        Base::Stage(other) => {
            let texts = drafts[*other].instructions.iter();
            let texts = texts.filter_map(|instruction| match &instruction.kind {
                Kind::Onbuild(_, text) => Some(text.clone()),
                _ => None,
            });
            texts.collect()
        }
        Base::Scratch => Vec::new(),
        _ if draft.replaced => Vec::new(),
        base => triggers(base, &draft.platform),
    };
    texts
        .iter()
        .map(|text| trigger(base, text, draft.stage.span))
        .collect()
}

/// Reads a trigger, which stands at the place of the FROM that makes it fire.
pub(super) fn trigger(base: &str, text: &str, span: Span) -> Result<Instruction, Error> {
    match parse_trigger(text) {
        Ok(instruction) => Ok(Instruction {
            span,
            ..instruction
        }),
        Err(error) => {
            let wrong = Error {
                span: Some(span),
                message: error.message,
                hint: error.hint,
            };
            Err(of_trigger(base, text, wrong))
        }
    }
}

/// Says of a mistake that it is a trigger's, which the Dockerfile itself does not have.
pub(super) fn of_trigger(base: &str, text: &str, error: Error) -> Error {
    Error {
        message: said_of_trigger(base, text, &error.message),
        ..error
    }
}

fn said_of_trigger(base: &str, text: &str, message: &str) -> String {
    let text = masked_instruction(text, '\\');
    format!("trigger of {base}, `{text}`: {message}")
}

/// Gives the stages that a stage's instructions name, and what else they do.
fn needs(
    index: usize,
    instructions: &[Instruction],
    drafts: &[Draft],
    names: &Names,
    request: &Request,
) -> Result<(BTreeMap<usize, Need>, Vec<Named>), Error> {
    let mut needs = BTreeMap::new();
    let mut others = Vec::new();
    let find = |name: &str| match name.parse::<usize>() {
        Ok(number) if number < drafts.len() => Found::Stage(number),
        Ok(_) => Found::NoSuchNumber,
        Err(_) => names.get(name).map_or(Found::NoStage, Found::Stage),
    };
    let this = name_of(index, drafts[index].stage);
    for instruction in instructions {
        for name in named_in(instruction)? {
            match base_of(name.from, instruction.span, request, find)? {
                Base::Scratch => {}
                Base::Stage(other) => {
                    needs.entry(other).or_insert_with(|| Need {
                        span: instruction.span,
                        late: name.late(&this),
                    });
                }
                base => others.push(Named {
                    base,
                    span: instruction.span,
                    // Neither an ARG nor an ENV, so that it is the same which character escapes.
                    text: masked_instruction(&instruction.text, '\\'),
                }),
            }
        }
    }
    Ok((needs, others))
}

/// A name after `from=`, in a flag of COPY or in a mount of RUN.
pub(super) struct Name<'a> {
    pub(super) from: &'a str,
    /// A mount's target, as written.
    pub(super) target: Option<&'a str>,
}

impl Name<'_> {
    /// Says that what is named is a stage that is not there yet when `this` one is built.
    pub(super) fn late(&self, this: &str) -> String {
        let Name { from, target } = self;
        match target {
            None => format!(
                "cannot copy from stage \"{from}\", it needs to be defined before current stage \"{this}\""
            ),
            Some(target) => format!(
                "cannot mount from stage \"{from}\" to \"{target}\", stage needs to be defined before current command"
            ),
        }
    }
}

/// Gives what an instruction names after `--from=` and in its mounts.
pub(super) fn named_in(instruction: &Instruction) -> Result<Vec<Name<'_>>, Error> {
    match &instruction.kind {
        Kind::Copy(copy) => {
            let Some(from) = &copy.from else {
                return Ok(Vec::new());
            };
            let plain = words::word(from, '\\', &|_| None)
                .map_err(|e| Error::at(instruction.span, e.to_string()))?;
            if plain.text != *from {
                return Err(Error::at(
                    instruction.span,
                    "variable expansion is not supported for --from, define a new stage with FROM \
                     using ARG from global scope as a workaround",
                ));
            }
            Ok(vec![Name { from, target: None }])
        }
        Kind::Run(run) => {
            let named = run.mounts.iter().filter_map(|mount| {
                let target = Some(mount.target().unwrap_or_default());
                mount.from().map(|from| Name { from, target })
            });
            Ok(named.collect())
        }
        _ => Ok(Vec::new()),
    }
}

/// What a name after `--from=` is among the stages.
pub(super) enum Found {
    /// A stage, by its place.
    Stage(usize),
    /// A number that no stage has.
    NoSuchNumber,
    /// No stage: an image or a named context.
    NoStage,
}

/// Gives what a name after `from=` means.
pub(super) fn base_of(
    from: &str,
    span: Span,
    request: &Request,
    find: impl Fn(&str) -> Found,
) -> Result<Base, Error> {
    match find(from) {
        Found::Stage(place) => Ok(Base::Stage(place)),
        Found::NoSuchNumber => Err(Error::at(span, format!("invalid stage index {from}"))
            .hint("stages are counted from 0, in the order of their FROMs")),
        Found::NoStage => Ok(image(from, request)),
    }
}

/// Finds a stage whose instructions need itself, be it through others'.
fn refuse_circles(drafts: &[Draft]) -> Result<(), Error> {
    /// How far a stage has been looked at.
    #[derive(Clone, Copy, PartialEq)]
    enum Seen {
        No,
        OnTheWay,
        Yes,
    }
    let mut seen = vec![Seen::No; drafts.len()];
    for start in 0..drafts.len() {
        if seen[start] != Seen::No {
            continue;
        }
        seen[start] = Seen::OnTheWay;
        // The way from the start: each with its needs that are still to be looked at, and the one
        // that was looked at last. There may be more stages than a stack of calls has room for.
        let mut way = vec![(start, drafts[start].needs.iter(), None)];
        while let Some((index, needs, last)) = way.last_mut() {
            let Some((&other, need)) = needs.next() else {
                seen[*index] = Seen::Yes;
                way.pop();
                continue;
            };
            *last = Some(need);
            match seen[other] {
                Seen::Yes => {}
                Seen::No => {
                    seen[other] = Seen::OnTheWay;
                    way.push((other, drafts[other].needs.iter(), None));
                }
                Seen::OnTheWay => {
                    let step = way.iter().find(|(index, ..)| *index == other);
                    let need = step.and_then(|(_, _, last)| *last).unwrap_or(need);
                    let name = name_of(other, drafts[other].stage);
                    let message = format!("circular dependency detected on stage: {name}");
                    return Err(Error::at(need.span, message)
                        .hint("a stage takes from stages that stand before it"));
                }
            }
        }
    }
    Ok(())
}

/// Finds an instruction that needs a stage which is not there yet.
fn refuse_later(kept: &BTreeSet<usize>, drafts: &[Draft]) -> Result<(), Error> {
    let late = kept.iter().find_map(|&index| {
        let mut needs = drafts[index].needs.iter();
        needs.find(|&(&other, _)| other >= index)
    });
    match late {
        Some((_, need)) => Err(Error::at(need.span, need.late.clone())),
        None => Ok(()),
    }
}

fn find_target(target: &str, names: &Names, stages: &[ast::Stage]) -> Result<usize, Error> {
    if let Some(index) = names.get(target) {
        return Ok(index);
    }
    if let Ok(index) = target.parse::<usize>()
        && index < stages.len()
    {
        return Ok(index);
    }
    let known: Vec<&str> = stages
        .iter()
        .filter_map(|stage| stage.from.name.as_deref())
        .collect();
    let meant = spelling::nearest(&target.to_ascii_lowercase(), &known);
    Err(Error {
        span: None,
        message: format!("target stage \"{target}\" could not be found"),
        hint: meant.map(|name| format!("did you mean {name}?")),
    })
}

/// Gives what somebody may have meant by an image that cannot be had: a stage, or an image that
/// many start from.
///
/// `span` is where it is named: a FROM, or what names it after `from=`, where a stage or a named
/// context is meant more often than an image.
pub fn meant(base: &Base, span: Span, dockerfile: &Dockerfile) -> Option<String> {
    const COMMON: [&str; 7] = [
        "alpine", "busybox", "centos", "debian", "fedora", "golang", "ubuntu",
    ];
    let Base::Image(name) = base else { return None };
    let stages = dockerfile.stages.iter();
    let mut known: Vec<&str> = stages.filter_map(|s| s.from.name.as_deref()).collect();
    known.extend(COMMON);
    let lower = name.to_ascii_lowercase();
    let meant = spelling::nearest(&lower, &known).map(|name| format!("did you mean {name}?"));
    let is_from = dockerfile.stages.iter().any(|stage| stage.span == span);
    let is_bare = !is_from && !name.contains(['/', ':', '.', '@']);
    meant.or_else(|| is_bare.then(|| format!("no stage and no --build-context is called {name}")))
}

fn name_of(index: usize, stage: &ast::Stage) -> String {
    match &stage.from.name {
        Some(name) => name.to_ascii_lowercase(),
        None => index.to_string(),
    }
}
