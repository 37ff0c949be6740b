//! What is parsed and cannot be carried out yet is refused here, by name and line. Every struct of
//! the AST is taken apart in full, so that an option which is added to it cannot be forgotten.

use super::Error;
use crate::dockerfile::ast::{Add, Copy, Instruction, Item, Kind, Run, Span};
use crate::request::GitSource;

/// Refuses an instruction that is about to be carried out and uses what is not supported yet.
pub(super) fn check(instruction: &Instruction) -> Result<(), Error> {
    let Instruction {
        span,
        text: _,
        kind,
    } = instruction;
    match kind {
        Kind::Run(run) => check_run(run, *span),
        Kind::Copy(copy) => check_copy(copy, *span),
        Kind::Add(add) => check_add(add, *span),
        // A trigger is kept, not carried out; it is checked where it fires.
        Kind::Onbuild(_, _)
        | Kind::Arg(_)
        | Kind::Env(_)
        | Kind::Label(_)
        | Kind::Cmd(_)
        | Kind::Entrypoint(_)
        | Kind::Shell(_)
        | Kind::Expose(_)
        | Kind::Volume(_)
        | Kind::User(_)
        | Kind::Workdir(_)
        | Kind::StopSignal(_)
        | Kind::Healthcheck(_)
        | Kind::Maintainer(_) => Ok(()),
    }
}

/// Refuses a source that is fetched from a network; `source` may hold variables still.
pub(super) fn check_source(
    instruction: &'static str,
    source: &str,
    span: Span,
) -> Result<(), Error> {
    let kind = if GitSource::is_git(source) {
        "a git repository"
    } else if source.starts_with("http://") || source.starts_with("https://") {
        "a URL"
    } else {
        return Ok(());
    };
    Err(match instruction {
        "COPY" => Error::at(span, format!("source can't be {kind} for COPY: {source}")),
        _ => refuse(span, &format!("ADD of {kind} ({source})")),
    })
}

fn check_run(run: &Run, span: Span) -> Result<(), Error> {
    let Run {
        command: _,
        heredocs: _,
        mounts,
        network,
        security,
        devices,
    } = run;
    if !mounts.is_empty() {
        return Err(refuse(span, "RUN --mount"));
    }
    if let Some(network) = network.as_deref().filter(|mode| *mode != "default") {
        return Err(refuse(span, &format!("RUN --network={network}")));
    }
    if let Some(security) = security.as_deref().filter(|mode| *mode != "sandbox") {
        return Err(refuse(span, &format!("RUN --security={security}")));
    }
    if !devices.is_empty() {
        return Err(refuse(span, "RUN --device"));
    }
    Ok(())
}

fn check_copy(copy: &Copy, span: Span) -> Result<(), Error> {
    let Copy {
        sources,
        dest: _,
        from: _,
        chown: _,
        chmod: _,
        link,
        parents,
        exclude,
    } = copy;
    if *link {
        return Err(refuse(span, "COPY --link"));
    }
    if *parents {
        return Err(refuse(span, "COPY --parents"));
    }
    if !exclude.is_empty() {
        return Err(refuse(span, "COPY --exclude"));
    }
    check_items("COPY", sources, span)
}

fn check_add(add: &Add, span: Span) -> Result<(), Error> {
    let Add {
        sources,
        dest: _,
        chown: _,
        chmod: _,
        link,
        exclude,
        checksum,
        keep_git_dir,
        unpack: _,
    } = add;
    if *link {
        return Err(refuse(span, "ADD --link"));
    }
    if !exclude.is_empty() {
        return Err(refuse(span, "ADD --exclude"));
    }
    if checksum.is_some() {
        return Err(refuse(span, "ADD --checksum"));
    }
    if keep_git_dir.is_some() {
        return Err(refuse(span, "ADD --keep-git-dir"));
    }
    check_items("ADD", sources, span)
}

fn check_items(instruction: &'static str, items: &[Item], span: Span) -> Result<(), Error> {
    items.iter().try_for_each(|item| match item {
        Item::Path(source) => check_source(instruction, source, span),
        Item::Inline(_) => Ok(()),
    })
}

fn refuse(span: Span, what: &str) -> Error {
    Error::at(span, format!("{what} is not supported yet"))
}
