//! From a reference to the pack with its commit.

use super::pack::{Pack, receive};
use super::protocol::{Depth, Ref, Session};
use super::{Error, Oid, Remote, shown};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// Which commit is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Branch, tag, full reference or commit; the remote's HEAD where there is none.
    pub reference: Option<&'a str>,
    /// The commit, or the start of it, that it must be.
    pub checksum: Option<&'a str>,
}

/// A commit that is here.
pub struct Fetched {
    /// The objects.
    pub pack: Pack,
    /// The commit, or the tag that leads to it.
    pub oid: Oid,
    /// The full name of the reference that it was found by.
    pub reference: Option<String>,
}

/// Fetches one commit into files below `dir`: alone where the remote gives it alone, else with all of
/// the history. Temporary trouble is met with further attempts. `moved` is told of bytes as they come.
pub fn fetch(
    remote: &Remote<'_>,
    wanted: &Wanted<'_>,
    dir: &Path,
    moved: &dyn Fn(u64),
) -> Result<Fetched, Error> {
    remote.client.retry(0, |_| once(remote, wanted, dir, moved))
}

fn once(
    remote: &Remote<'_>,
    wanted: &Wanted<'_>,
    dir: &Path,
    moved: &dyn Fn(u64),
) -> Result<Fetched, Error> {
    let mut session = Session::open(remote)?;
    let (oid, reference) = match wanted.reference.and_then(Oid::parse) {
        Some(oid) => {
            check(remote, wanted.checksum, &oid, None)?;
            if oid.format() != session.format() {
                return Err(Error::NotGiven {
                    remote: shown(remote.url),
                    commit: oid,
                    message: format!("its objects have {} names", session.format().name()),
                });
            }
            (oid, None)
        }
        None => {
            let found = find(&mut session, remote, wanted.reference)?;
            check(remote, wanted.checksum, &found.oid, found.peeled.as_ref())?;
            (found.oid, Some(found.target.unwrap_or(found.name)))
        }
    };
    let pack = objects(session, remote, &oid, dir, moved)?;
    Ok(Fetched {
        pack,
        oid,
        reference,
    })
}

/// Finds what a reference means: in full, else a branch, else a tag, as BuildKit does.
fn find(session: &mut Session<'_>, remote: &Remote<'_>, name: Option<&str>) -> Result<Ref, Error> {
    let no = |reference: &str, hint| Error::NoReference {
        remote: shown(remote.url),
        reference: reference.to_owned(),
        hint,
    };
    let Some(name) = name else {
        let heads = session.refs(&["HEAD"])?;
        return heads
            .into_iter()
            .find(|one| one.name == "HEAD")
            .ok_or_else(|| no("HEAD", "; it may be empty"));
    };
    let full = |prefix: &str| format!("{prefix}{}", name.strip_prefix(prefix).unwrap_or(name));
    let names = [full("refs/"), full("refs/heads/"), full("refs/tags/")];
    let prefixes: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut refs = session.refs(&prefixes)?;
    for name in &names {
        if let Some(at) = refs.iter().position(|one| one.name == *name) {
            return Ok(refs.swap_remove(at));
        }
    }
    let is_short = (4..40).contains(&name.len()) && name.bytes().all(|c| c.is_ascii_hexdigit());
    Err(no(
        name,
        match is_short {
            true => "; a commit is wanted with all of its digits",
            false => "",
        },
    ))
}

/// Compares with the commit that is wanted, or with the tag of it.
fn check(
    remote: &Remote<'_>,
    wanted: Option<&str>,
    oid: &Oid,
    peeled: Option<&Oid>,
) -> Result<(), Error> {
    let Some(wanted) = wanted else {
        return Ok(());
    };
    let all: Vec<String> = [Some(oid), peeled]
        .into_iter()
        .flatten()
        .map(Oid::to_string)
        .collect();
    if all.iter().any(|own| own.starts_with(wanted)) {
        return Ok(());
    }
    Err(Error::Checksum {
        remote: shown(remote.url),
        wanted: wanted.to_owned(),
        got: all.join(" or "),
    })
}

fn objects(
    mut session: Session<'_>,
    remote: &Remote<'_>,
    oid: &Oid,
    dir: &Path,
    moved: &dyn Fn(u64),
) -> Result<Pack, Error> {
    let format = session.format();
    let take = |session: &mut Session<'_>, wants: &[Oid], depth| {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("pack-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let file = dir.join(name);
        let pack = session.fetch(wants, depth).and_then(|mut pack| {
            receive(&mut pack, remote.url, &file, format, remote.cancel, moved)
        });
        if pack.is_err() {
            let _ = std::fs::remove_file(&file);
        }
        pack
    };
    let refused = if session.refuses(oid) {
        "no reference points to it".to_owned()
    } else {
        match take(&mut session, &[*oid], Depth::One) {
            Err(Error::NotGiven { message, .. }) => message,
            other => return other,
        }
    };
    // A server that does not give what no reference points to may give what leads there.
    drop(session);
    let mut session = Session::open(remote)?;
    let refs = session.refs(&["refs/heads/", "refs/tags/"])?;
    let mut wants: Vec<Oid> = refs.iter().map(|one| one.oid).collect();
    wants.sort_unstable();
    wants.dedup();
    let not_given = |message| Error::NotGiven {
        remote: shown(remote.url),
        commit: *oid,
        message,
    };
    if wants.is_empty() {
        return Err(not_given(refused));
    }
    let pack = take(&mut session, &wants, Depth::All)?;
    match pack.kind(oid) {
        Some(_) => Ok(pack),
        None => Err(not_given("no branch and no tag leads to it".into())),
    }
}
