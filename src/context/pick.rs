use super::Error;
use crate::dockerfile::ignore::{Above, Ignore, Verdict};

/// What of a directory's content is copied: `--parents` takes what a pattern matches, `--exclude`
/// leaves out what one matches. Paths are as seen from the directory that is copied, which is itself
/// not asked about.
pub(super) struct Pick<'a> {
    only: Option<Ignore>,
    without: &'a Ignore,
}

/// What the patterns made of a directory, for what is in it.
pub(super) struct Place {
    only: Above,
    without: Above,
}

/// What becomes of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// It is copied.
    Take,
    /// It is there for what may be copied out of it.
    Look,
    /// It is left out with everything in it.
    Leave,
}

/// Compiles the patterns of `--exclude`.
pub(super) fn without(patterns: &[String]) -> Result<Ignore, Error> {
    Ignore::compile(patterns).map_err(|source| Error::Pattern {
        pattern: patterns.join(", "),
        source,
    })
}

impl<'a> Pick<'a> {
    /// Takes all but what these patterns leave out.
    pub(super) fn all(without: &'a Ignore) -> Pick<'a> {
        let only = None;
        Pick { only, without }
    }

    /// Takes what a pattern matches.
    pub(super) fn only(pattern: &str, without: &'a Ignore) -> Result<Pick<'a>, Error> {
        let only = Ignore::compile(&[pattern.to_owned()]).map_err(|source| Error::Pattern {
            pattern: pattern.to_owned(),
            source,
        })?;
        let only = Some(only);
        Ok(Pick { only, without })
    }

    /// Gives the place that the directory is which is copied.
    pub(super) fn top(&self) -> Place {
        let above = |patterns: &Ignore| patterns.above(b"");
        Place {
            only: self.only.as_ref().map(above).unwrap_or_default(),
            without: above(self.without),
        }
    }

    /// Tells whether a file is copied.
    pub(super) fn takes(&self, place: &Place, path: &[u8]) -> bool {
        let only = self.only.as_ref();
        only.is_none_or(|only| only.matches_in(&place.only, path))
            && !self.without.matches_in(&place.without, path)
    }

    /// Tells what becomes of a directory.
    pub(super) fn enter(&self, place: &Place, path: &[u8]) -> (Choice, Place) {
        let (out, without) = self.without.enter(&place.without, path);
        let Some(only) = &self.only else {
            let choice = match out {
                Verdict::Keep => Choice::Take,
                Verdict::LeaveOutButLook => Choice::Look,
                Verdict::Prune => Choice::Leave,
            };
            let only = Above::default();
            return (choice, Place { only, without });
        };
        // A pattern that matches a directory matches what is in it, unless it is taken back.
        let (matched, only_here) = only.enter(&place.only, path);
        let choice = match (matched, out) {
            (_, Verdict::Prune) => Choice::Leave,
            (Verdict::Keep, _) if !only.may_match_below(path) => Choice::Leave,
            (Verdict::Keep, _) | (_, Verdict::LeaveOutButLook) => Choice::Look,
            (_, Verdict::Keep) => Choice::Take,
        };
        let only = only_here;
        (choice, Place { only, without })
    }
}
