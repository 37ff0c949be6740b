use super::{Base, Error, Plan, Stage, args, check, support};
use crate::dockerfile::ast::{self, Dockerfile, Instruction, Kind, Span};
use crate::dockerfile::check::Finding;
use crate::dockerfile::words;
use crate::oci::{Platform, Reference};
use crate::request::Request;
use std::collections::{BTreeSet, HashMap};

/// A stage before pruning; places are those in the Dockerfile.
struct Draft<'a> {
    stage: &'a ast::Stage,
    base: Base,
    platform: Platform,
    /// The instructions to carry out; none where a named context took the stage's place.
    instructions: &'a [Instruction],
    needs: BTreeSet<usize>,
}

/// Which stages are planned.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Those that the target needs.
    Target,
    /// All, where no target is named.
    All,
}

/// Makes the stage graph: expands FROM lines with the global ARGs, finds stages by name or number,
/// prunes to the target, finds circles and unknown names, refuses by name and line what is not
/// supported yet.
pub fn graph(dockerfile: &Dockerfile, request: &Request) -> Result<Plan, Error> {
    graph_of(dockerfile, request, Reach::Target)
}

pub(super) fn graph_of(
    dockerfile: &Dockerfile,
    request: &Request,
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
        Some(target) if !target.is_empty() => target.to_ascii_lowercase(),
        _ => last.from.name.clone().unwrap_or_default(),
    };
    let target_name = if target_name.is_empty() {
        "default".to_owned()
    } else {
        target_name
    };
    let automatic = args::automatic(request, &target_name);
    check::default_bases(dockerfile, &automatic, &mut findings);
    let globals = args::globals(declared, automatic, *escape, &request.build_args)?;

    let names = Names::of(stages);
    let mut drafts: Vec<Draft> = Vec::with_capacity(stages.len());
    for stage in stages {
        let draft = draft(stage, &drafts, *escape, &globals, request, &mut findings)?;
        drafts.push(draft);
    }
    for index in 0..drafts.len() {
        let needs = needs(index, &drafts, &names, request)?;
        drafts[index].needs = needs;
    }
    refuse_circles(&drafts)?;
    refuse_later(&drafts)?;

    let target = match &request.target {
        Some(target) if !target.is_empty() => find_target(target, &names, stages)?,
        _ => drafts.len() - 1,
    };
    let kept = match reach {
        Reach::All if request.target.as_deref().is_none_or(str::is_empty) => {
            (0..drafts.len()).collect()
        }
        _ => reachable(target, &drafts),
    };
    for &index in &kept {
        for instruction in drafts[index].instructions {
            support::check(instruction)?;
        }
        for trigger in triggers(index, &drafts) {
            support::check(&at(trigger, drafts[index].stage.span))?;
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
                needs: draft.needs.iter().map(|other| place[other]).collect(),
            }
        })
        .collect();
    Ok(Plan {
        stages,
        target: place[&target],
        globals,
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

fn draft<'a>(
    stage: &'a ast::Stage,
    earlier: &[Draft<'a>],
    escape: char,
    globals: &[(String, Option<String>)],
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
        return Err(Error::at(
            span,
            format!("base name ({base}) should not be blank"),
        ));
    }
    let platform = match platform {
        None => None,
        Some(written) => {
            let word = expand(written)?;
            let expanded = &word.text;
            if expanded.is_empty() {
                return Err(Error::at(
                    span,
                    format!("empty platform value from expression {written}"),
                ));
            }
            let parsed = parse_platform(expanded).map_err(|error| {
                Error::at(span, format!("failed to parse platform {written}: {error}"))
            })?;
            word.platform(written, &parsed, name.as_deref(), globals, span, findings);
            Some(parsed)
        }
    };

    let as_context = name.as_deref().and_then(|name| layout(request, name));
    let base_stage = earlier.iter().rposition(|other| {
        let name = other.stage.from.name.as_deref();
        name.is_some_and(|name| name.eq_ignore_ascii_case(&expanded))
    });
    // A name that only a later stage has is an image's: `FROM alpine AS base` and then
    // `FROM base AS alpine` is no circle.
    let (base, instructions) = match (as_context, base_stage) {
        (Some(context), _) => (Base::Layout(context), &instructions[..0]),
        (None, Some(other)) => (Base::Stage(other), &instructions[..]),
        (None, None) => (image(&expanded, request), &instructions[..]),
    };
    let inherited = match &base {
        Base::Stage(other) => Some(earlier[*other].platform.clone()),
        _ => None,
    };
    Ok(Draft {
        stage,
        base,
        platform: inherited
            .or(platform)
            .unwrap_or_else(|| request.platform.clone()),
        instructions,
        needs: BTreeSet::new(),
    })
}

/// Gives what a name is where it is no stage.
fn image(name: &str, request: &Request) -> Base {
    if name == "scratch" {
        return Base::Scratch;
    }
    match layout(request, name) {
        Some(context) => Base::Layout(context),
        None => Base::Image(name.to_owned()),
    }
}

/// Gives the named context that stands for a name: of the same name, or of a name that means the
/// same image.
fn layout(request: &Request, name: &str) -> Option<String> {
    if name.eq_ignore_ascii_case("scratch") || name.eq_ignore_ascii_case("context") {
        return None;
    }
    if request.contexts.contains_key(name) {
        return Some(name.to_owned());
    }
    let wanted: Reference = name.parse().ok()?;
    request
        .contexts
        .keys()
        .find(|key| key.parse::<Reference>().is_ok_and(|key| key == wanted))
        .cloned()
}

/// Reads a platform; an architecture by itself means Linux.
fn parse_platform(text: &str) -> Result<Platform, String> {
    match text.parse() {
        Err(_) if !text.contains('/') && text != "linux" => format!("linux/{text}").parse(),
        Err(_) if text == "linux" => Ok(Platform {
            os: "linux".into(),
            ..Platform::host()
        }),
        parsed => parsed,
    }
}

/// Gives the instructions that a stage leaves to those that start from it, as they fire in `index`.
fn triggers<'a>(index: usize, drafts: &[Draft<'a>]) -> impl Iterator<Item = &'a Instruction> {
    let base = match &drafts[index].base {
        Base::Stage(other) => drafts[*other].instructions,
        _ => &[],
    };
    base.iter()
        .filter_map(|instruction| match &instruction.kind {
            Kind::Onbuild(trigger, _) => Some(&**trigger),
            _ => None,
        })
}

/// Gives a trigger with the place of the FROM that makes it fire.
fn at(trigger: &Instruction, span: Span) -> Instruction {
    Instruction {
        span,
        ..trigger.clone()
    }
}

/// Gives the stages that must be there before one ends.
fn needs(
    index: usize,
    drafts: &[Draft],
    names: &Names,
    request: &Request,
) -> Result<BTreeSet<usize>, Error> {
    let mut out = BTreeSet::new();
    if let Base::Stage(other) = drafts[index].base {
        out.insert(other);
    }
    let own = drafts[index].instructions.iter().cloned();
    let fired = triggers(index, drafts).map(|trigger| at(trigger, drafts[index].stage.span));
    for instruction in own.chain(fired) {
        if let Kind::Copy(copy) = &instruction.kind
            && let Some(from) = &copy.from
        {
            let find = |name: &str| match name.parse::<usize>() {
                Ok(number) if number < drafts.len() => Found::Stage(number),
                Ok(_) => Found::NoSuchNumber,
                Err(_) => names.get(name).map_or(Found::NoStage, Found::Stage),
            };
            if let Base::Stage(other) = copy_from(from, instruction.span, request, find)? {
                out.insert(other);
            }
        }
    }
    Ok(out)
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

/// Gives what `COPY --from=` names.
pub(super) fn copy_from(
    from: &str,
    span: Span,
    request: &Request,
    find: impl Fn(&str) -> Found,
) -> Result<Base, Error> {
    let plain = words::word(from, '\\', &|_| None).map_err(|e| Error::at(span, e.to_string()))?;
    if plain.text != from {
        return Err(Error::at(
            span,
            "variable expansion is not supported for --from, define a new stage with FROM using \
             ARG from global scope as a workaround",
        ));
    }
    match find(from) {
        Found::Stage(place) => Ok(Base::Stage(place)),
        Found::NoSuchNumber => Err(Error::at(span, format!("invalid stage index {from}"))),
        Found::NoStage => Ok(image(from, request)),
    }
}

/// Finds a stage that needs itself, be it through others.
fn refuse_circles(drafts: &[Draft]) -> Result<(), Error> {
    fn visit(index: usize, drafts: &[Draft], state: &mut [u8]) -> Option<usize> {
        match state[index] {
            0 => {}
            1 => return Some(index),
            _ => return None,
        }
        state[index] = 1;
        let found = (drafts[index].needs.iter()).find_map(|&other| visit(other, drafts, state));
        state[index] = 2;
        found
    }
    let mut state = vec![0; drafts.len()];
    for index in 0..drafts.len() {
        if let Some(found) = visit(index, drafts, &mut state) {
            let stage = drafts[found].stage;
            return Err(Error::at(
                stage.span,
                format!(
                    "circular dependency detected on stage: {}",
                    name_of(found, stage)
                ),
            ));
        }
    }
    Ok(())
}

/// Finds a COPY from a stage that is not there yet.
fn refuse_later(drafts: &[Draft]) -> Result<(), Error> {
    for (index, draft) in drafts.iter().enumerate() {
        if let Some(&later) = draft.needs.iter().find(|&&other| other >= index) {
            let message = format!(
                "cannot copy from stage \"{}\", it needs to be defined before current stage \"{}\"",
                name_of(later, drafts[later].stage),
                name_of(index, draft.stage),
            );
            return Err(Error::at(draft.stage.span, message));
        }
    }
    Ok(())
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
    let nearest = stages
        .iter()
        .filter_map(|stage| stage.from.name.as_deref())
        .map(|name| (distance(&target.to_ascii_lowercase(), name), name))
        .filter(|(distance, name)| *distance <= name.len().max(target.len()) / 2)
        .min();
    Err(Error {
        span: None,
        message: format!("target stage \"{target}\" could not be found"),
        hint: nearest.map(|(_, name)| format!("did you mean {name}?")),
    })
}

/// Gives the number of letters to change, add or take away to make one text of the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(128).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(128).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

fn reachable(target: usize, drafts: &[Draft]) -> BTreeSet<usize> {
    let mut out = BTreeSet::new();
    let mut open = vec![target];
    while let Some(index) = open.pop() {
        if out.insert(index) {
            open.extend(&drafts[index].needs);
        }
    }
    out
}

fn name_of(index: usize, stage: &ast::Stage) -> String {
    match &stage.from.name {
        Some(name) => name.to_ascii_lowercase(),
        None => index.to_string(),
    }
}
