//! What of the language generated builds use, and which builder a build that uses it can be compared
//! with: a table, so that every gap is a line with its reason.

use std::collections::BTreeSet;

/// A builder, or another way to the same files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rival {
    /// None: Shutter is compared with itself.
    None,
    /// The BuildKit inside dockerd 20.10 (BuildKit 0.8, Dockerfile frontend 1.2).
    Docker,
    /// buildah 1.28.
    Buildah,
    /// The commands alone, in a chroot that nothing watches.
    Chroot,
}

/// Whether builds with a feature can be compared.
#[derive(Clone, Copy)]
pub enum Gate {
    Yes,
    No(&'static str),
}

use Gate::{No, Yes};

/// What a build may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feature {
    Stages,
    Copy,
    CopyFromImage,
    CopyFromRich,
    CopyFromStage,
    CopyWildcard,
    CopyWildcardDir,
    CopyChown,
    CopyChownName,
    CopyChmod,
    CopyChmodFile,
    CopyChmodSymbolic,
    CopyHeredoc,
    CopyLink,
    CopyParents,
    CopyExclude,
    CopyThroughLink,
    CopyDanglingLink,
    CopyMissing,
    Add,
    AddZstd,
    AddBroken,
    AddAttributes,
    AddUnpack,
    AddChown,
    ContextHardLinks,
    Ignore,
    IgnoreExceptions,
    Run,
    RunExec,
    RunHeredoc,
    RunNetwork,
    RunShell,
    RunUser,
    RunVariables,
    RunHardLinks,
    RunMoveDirs,
    RunFifo,
    RunOwnLinks,
    RunOddNames,
    RunDevices,
    RunLarge,
    MountBind,
    MountFromNumber,
    MountCache,
    MountTmpfs,
    MountSecret,
    MountNew,
    Arg,
    ArgFrom,
    ArgSeveral,
    Env,
    ExpandMore,
    Escape,
    Config,
    Label,
    Health,
    HealthStartInterval,
    Volume,
    Workdir,
    WorkdirUser,
    Onbuild,
    FromScratch,
    FromUpper,
    TriggerBase,
    RichBase,
    Target,
    TargetNumber,
}

const OLD: Gate = No("the frontend of dockerd 20.10 is older than it");
const MODEL: Gate = No("only commands run in the chroot");

const UNMOUNTED: Gate = No("it takes what was mounted over out of the image");

/// Feature; Shutter; dockerd's BuildKit; buildah; the chroot.
pub const TABLE: &[(Feature, Gate, Gate, Gate, Gate)] = {
    use Feature::*;
    &[
        (Stages, Yes, Yes, Yes, MODEL),
        (Copy, Yes, Yes, Yes, MODEL),
        (CopyFromImage, Yes, Yes, Yes, MODEL),
        (
            CopyFromRich,
            Yes,
            No("it leaves named pipes out of a copied directory"),
            Yes,
            MODEL,
        ),
        (CopyFromStage, Yes, Yes, Yes, MODEL),
        (CopyWildcard, Yes, Yes, Yes, MODEL),
        (
            CopyWildcardDir,
            Yes,
            No("its client looks below links to files, and fails"),
            Yes,
            MODEL,
        ),
        (CopyChown, Yes, Yes, Yes, MODEL),
        (CopyChownName, Yes, Yes, Yes, MODEL),
        (
            CopyChmod,
            Yes,
            No("it leaves directories alone, those that it makes too"),
            No("it leaves the directories alone that it makes"),
            MODEL,
        ),
        (CopyChmodFile, Yes, Yes, Yes, MODEL),
        (
            CopyChmodSymbolic,
            Yes,
            OLD,
            No("it takes octal modes alone"),
            MODEL,
        ),
        (
            CopyHeredoc,
            Yes,
            OLD,
            No("it has no heredocs before 1.33"),
            MODEL,
        ),
        (CopyLink, Yes, OLD, No("it passes over --link"), MODEL),
        (CopyParents, Yes, OLD, No("it has no --parents"), MODEL),
        (CopyExclude, Yes, OLD, No("it has no --exclude"), MODEL),
        (CopyThroughLink, Yes, Yes, Yes, MODEL),
        (CopyDanglingLink, Yes, Yes, Yes, MODEL),
        (CopyMissing, Yes, Yes, Yes, MODEL),
        (Add, Yes, Yes, Yes, MODEL),
        (AddZstd, Yes, OLD, Yes, MODEL),
        (AddBroken, Yes, Yes, Yes, MODEL),
        (
            AddAttributes,
            Yes,
            No("of attributes its layers keep security.capability alone"),
            Yes,
            MODEL,
        ),
        (
            AddChown,
            Yes,
            No("what it unpacks keeps the archive's owners"),
            Yes,
            MODEL,
        ),
        (AddUnpack, Yes, OLD, No("it has no --unpack"), MODEL),
        (ContextHardLinks, Yes, Yes, Yes, MODEL),
        (Ignore, Yes, Yes, Yes, MODEL),
        (
            IgnoreExceptions,
            Yes,
            No("every pattern is asked for the parents too, exceptions as well"),
            Yes,
            MODEL,
        ),
        (Run, Yes, Yes, Yes, Yes),
        (RunExec, Yes, Yes, Yes, Yes),
        (
            RunHeredoc,
            Yes,
            OLD,
            No("it has no heredocs before 1.33"),
            Yes,
        ),
        (RunNetwork, Yes, OLD, No("it passes over --network"), MODEL),
        (RunShell, Yes, Yes, Yes, MODEL),
        (RunUser, Yes, Yes, Yes, MODEL),
        (RunVariables, Yes, Yes, Yes, MODEL),
        (
            RunHardLinks,
            Yes,
            Yes,
            Yes,
            No("overlay breaks hard links between layers"),
        ),
        (RunMoveDirs, Yes, Yes, Yes, Yes),
        (RunFifo, Yes, Yes, Yes, Yes),
        (RunOwnLinks, Yes, Yes, Yes, Yes),
        (RunOddNames, Yes, Yes, Yes, Yes),
        (
            RunDevices,
            Yes,
            No("it makes files of the devices that it copies"),
            Yes,
            Yes,
        ),
        (RunLarge, Yes, Yes, Yes, Yes),
        (MountBind, Yes, Yes, UNMOUNTED, MODEL),
        (
            MountFromNumber,
            Yes,
            No("it takes a number for the name of an image"),
            UNMOUNTED,
            MODEL,
        ),
        (MountCache, Yes, Yes, UNMOUNTED, MODEL),
        (
            MountTmpfs,
            Yes,
            No("it leaves the place that it made for a mount"),
            UNMOUNTED,
            MODEL,
        ),
        (MountSecret, Yes, Yes, UNMOUNTED, MODEL),
        (
            MountNew,
            Yes,
            No("it leaves the mount points behind that it makes"),
            No("it leaves the mount points behind that it makes"),
            MODEL,
        ),
        (Arg, Yes, Yes, Yes, MODEL),
        (ArgFrom, Yes, Yes, Yes, MODEL),
        (
            ArgSeveral,
            Yes,
            No("it expands a whole line before it sets the first"),
            Yes,
            MODEL,
        ),
        (Env, Yes, Yes, Yes, MODEL),
        (ExpandMore, Yes, OLD, No("it knows :- and :+ alone"), MODEL),
        (Escape, Yes, Yes, Yes, MODEL),
        (Config, Yes, Yes, Yes, MODEL),
        (Label, Yes, Yes, Yes, MODEL),
        (Health, Yes, Yes, Yes, MODEL),
        (
            HealthStartInterval,
            Yes,
            OLD,
            No("it has no --start-interval"),
            MODEL,
        ),
        (Volume, Yes, Yes, Yes, MODEL),
        (Workdir, Yes, Yes, Yes, MODEL),
        (WorkdirUser, Yes, OLD, Yes, MODEL),
        (Onbuild, Yes, Yes, Yes, MODEL),
        (FromScratch, Yes, Yes, Yes, MODEL),
        (
            FromUpper,
            Yes,
            No("FROM knows stages in small letters alone, though COPY knows them in all"),
            Yes,
            MODEL,
        ),
        (TriggerBase, Yes, Yes, Yes, MODEL),
        (
            RichBase,
            Yes,
            Yes,
            Yes,
            No("it has hard links, which overlay breaks where they are written to"),
        ),
        (Target, Yes, Yes, Yes, MODEL),
        (
            TargetNumber,
            Yes,
            No("it finds no stage by its number"),
            Yes,
            MODEL,
        ),
    ]
};

/// The features that builds for one rival may use.
pub struct Allowed(BTreeSet<Feature>);

impl Allowed {
    /// Gives what Shutter and a rival both have.
    pub fn with(rival: Rival) -> Allowed {
        let open = |gate: &Gate| matches!(gate, Yes);
        let rows = TABLE.iter().filter(|(_, own, docker, buildah, chroot)| {
            open(own)
                && match rival {
                    Rival::None => true,
                    Rival::Docker => open(docker),
                    Rival::Buildah => open(buildah),
                    Rival::Chroot => open(chroot),
                }
        });
        Allowed(rows.map(|row| row.0).collect())
    }

    pub fn has(&self, feature: Feature) -> bool {
        self.0.contains(&feature)
    }

    /// Takes a feature away for one build.
    pub fn without(&mut self, feature: Feature) {
        self.0.remove(&feature);
    }
}

/// Every feature is in the table once.
#[test]
fn the_table_is_whole() {
    let all: BTreeSet<Feature> = TABLE.iter().map(|row| row.0).collect();
    assert_eq!(all.len(), TABLE.len());
    assert_eq!(TABLE.last().map(|row| row.0), Some(Feature::TargetNumber));
    assert_eq!(TABLE.len(), Feature::TargetNumber as usize + 1);
    for (feature, own, docker, buildah, chroot) in TABLE {
        for gate in [own, docker, buildah, chroot] {
            assert!(
                !matches!(gate, No("")),
                "{feature:?} is closed without a reason"
            );
        }
    }
}
