//! The table: every flag of every command, in the order of the help.

use super::{Flag, Group, Status, Takes};
use Group::{Check, Explain, Image, Output, Registry, Run, Show, Source, Store};
use Takes::{
    Choice, Chosen, CommaList, List, Map, NoChoice, NoSwitch, NoText, Number, Path, Switch, Text,
};

const fn works(
    group: Group,
    long: &'static str,
    value: &'static str,
    takes: Takes,
    help: &'static str,
) -> Flag {
    Flag {
        long,
        short: None,
        aliases: &[],
        takes,
        value,
        help,
        group,
        status: Status::Works,
    }
}

const fn always(group: Group, long: &'static str, takes: Takes, why: &'static str) -> Flag {
    Flag {
        long,
        short: None,
        aliases: &[],
        takes,
        value: "",
        help: "",
        group,
        status: Status::Always(why),
    }
}

const fn not_yet(
    group: Group,
    long: &'static str,
    takes: Takes,
    unless: &'static [&'static str],
) -> Flag {
    Flag {
        long,
        short: None,
        aliases: &[],
        takes,
        value: "",
        help: "",
        group,
        status: Status::NotYet(unless),
    }
}

/// Every flag there is.
pub(in crate::cli) const FLAGS: &[Flag] = &[
    works(
        Source,
        "context",
        "PATH",
        Path(|t| &mut t.context),
        "Build context: a directory (also dir://PATH), an archive (tar://PATH, tar://stdin or `-`, \
         https://HOST/FILE), a repository (git://, https://HOST/NAME.git#REF:DIR) (default: `.`; \
         /workspace/ as executor)",
    )
    .short('c'),
    works(
        Source,
        "context-sub-path",
        "PATH",
        Path(|t| &mut t.context_sub_path),
        "Use this directory of the context as the context",
    ),
    works(
        Source,
        "dockerfile",
        "PATH",
        Path(|t| &mut t.dockerfile),
        "Dockerfile, looked up as given, then in the context, or http(s)://; `-` is standard input \
         (default: Dockerfile)",
    )
    .short('f'),
    works(
        Source,
        "target",
        "STAGE",
        CommaList(|t| &mut t.targets),
        "Stage to build, by name or number (default: the last)",
    ),
    works(
        Source,
        "build-arg",
        "NAME[=VALUE]",
        List(|t| &mut t.build_args),
        "Value of an ARG; without a value it is taken from the environment",
    ),
    works(
        Source,
        "build-context",
        "NAME=SOURCE",
        Map(|t| &mut t.build_contexts),
        "What FROM and --from know by this name: a directory, tar://, git:// or https://, \
         docker-image://IMAGE, oci-layout://DIR[:TAG][@DIGEST]",
    ),
    works(
        Source,
        "git",
        "KEY=VALUE",
        List(|t| &mut t.git),
        "For a context in git: branch=NAME; single-branch, depth and recurse-submodules change \
         nothing, since one commit is fetched, with its submodules",
    ),
    works(
        Source,
        "secret",
        "id=ID[,src=FILE|,env=NAME]",
        List(|t| &mut t.secrets),
        "Secret for RUN --mount=type=secret; by default the variable ID where it is set, else the \
         file ID",
    ),
    works(
        Source,
        "ssh",
        "ID[=SOCKET|=KEY[,KEY]]",
        List(|t| &mut t.ssh),
        "SSH agent for RUN --mount=type=ssh, or keys to be one with (default: SSH_AUTH_SOCK)",
    ),
    works(
        Source,
        "custom-platform",
        "OS/ARCH",
        Text(|t| &mut t.custom_platform),
        "Platform of the image (default: this machine's); commands for another one need its emulator \
         in binfmt_misc",
    )
    .aliases(&["customPlatform"]),
    works(
        Output,
        "destination",
        "IMAGE",
        List(|t| &mut t.destinations),
        "Image reference to push to",
    )
    .short('d'),
    works(
        Output,
        "no-push",
        "",
        Switch(|t| &mut t.no_push),
        "Push nothing (KANIKO_NO_PUSH, where set, wins)",
    ),
    works(
        Output,
        "output",
        "SPEC",
        List(|t| &mut t.outputs),
        "Write the image: type=docker or oci (archives; oci,tar=false a layout), local or tar (its \
         files), image or registry (with name=IMAGE, pushed with push=true), cacheonly (nothing); \
         dest=PATH, `-` for standard output. PATH alone is type=local, `-` alone type=tar",
    )
    .short('o'),
    works(
        Output,
        "tar-path",
        "FILE",
        Path(|t| &mut t.tar_path),
        "Write a docker-archive that `docker load` takes",
    )
    .aliases(&["tarPath"]),
    works(
        Output,
        "oci-layout-path",
        "DIR",
        Path(|t| &mut t.oci_layout_path),
        "Write an OCI layout, or add to one",
    ),
    works(
        Output,
        "digest-file",
        "FILE",
        Path(|t| &mut t.digest_file),
        "Write the digest of the image's manifest",
    ),
    works(
        Output,
        "image-name-with-digest-file",
        "FILE",
        Path(|t| &mut t.image_name_with_digest_file),
        "Write a line repository@digest for each destination",
    ),
    works(
        Output,
        "image-name-tag-with-digest-file",
        "FILE",
        Path(|t| &mut t.image_name_tag_with_digest_file),
        "Write a line repository:tag@digest for each destination",
    ),
    works(
        Output,
        "metadata-file",
        "FILE",
        Path(|t| &mut t.metadata_file),
        "Write digests and names of the image as JSON",
    ),
    works(
        Image,
        "label",
        "NAME=VALUE",
        List(|t| &mut t.labels),
        "Add a label",
    ),
    works(
        Image,
        "image-format",
        "FORMAT",
        Choice(&["docker", "oci"], |t| &mut t.image_format),
        "Media types of the image (default: those of the base; oci from scratch or with zstd)",
    ),
    works(
        Image,
        "compression",
        "NAME",
        Choice(&["gzip", "zstd"], |t| &mut t.compression),
        "Compression of layers; zstd goes with the oci format alone (default: gzip)",
    ),
    works(
        Image,
        "compression-level",
        "N",
        Number(|t| &mut t.compression_level),
        "1 to 9 for gzip (default 1), 1 to 22 for zstd (default 3); below 1 means the default",
    ),
    works(
        Image,
        "single-snapshot",
        "",
        Switch(|t| &mut t.single_snapshot),
        "Make one layer of everything above the base",
    ),
    works(
        Image,
        "reproducible",
        "",
        Switch(|t| &mut t.reproducible),
        "Same inputs, same digest: every time in the image is SOURCE_DATE_EPOCH, or 0",
    ),
    works(
        Registry,
        "insecure",
        "",
        Switch(|t| &mut t.insecure),
        "Push by plain HTTP",
    ),
    works(
        Registry,
        "insecure-pull",
        "",
        Switch(|t| &mut t.insecure_pull),
        "Pull by plain HTTP",
    ),
    works(
        Registry,
        "insecure-registry",
        "HOST",
        List(|t| &mut t.insecure_registries),
        "Talk plain HTTP to this registry",
    ),
    works(
        Registry,
        "skip-tls-verify",
        "",
        Switch(|t| &mut t.skip_tls_verify),
        "Check no certificate when pushing",
    ),
    works(
        Registry,
        "skip-tls-verify-pull",
        "",
        Switch(|t| &mut t.skip_tls_verify_pull),
        "Check no certificate when pulling",
    ),
    works(
        Registry,
        "skip-tls-verify-registry",
        "HOST",
        List(|t| &mut t.skip_tls_verify_registries),
        "Check no certificate of this registry",
    ),
    works(
        Registry,
        "registry-certificate",
        "HOST=FILE",
        Map(|t| &mut t.registry_certificates),
        "Trust the certificate authorities in a PEM file for this registry",
    ),
    works(
        Registry,
        "registry-client-cert",
        "HOST=CERT,KEY",
        Map(|t| &mut t.registry_client_certs),
        "Show this registry a client certificate, PEM files",
    ),
    works(
        Registry,
        "push-retry",
        "N",
        Number(|t| &mut t.push_retry),
        "Try a failed push again so often (default: 0)",
    ),
    works(
        Registry,
        "skip-push-permission-check",
        "",
        Switch(|t| &mut t.skip_push_permission_check),
        "Do not ask destinations for permission before the build",
    ),
    works(
        Run,
        "store",
        "DIR",
        Path(|t| &mut t.store),
        "Where the store of blobs, unpacked layers and caches lies (default: as for --cache-dir)",
    ),
    works(
        Run,
        "cache",
        "",
        Switch(|t| &mut t.cache),
        "Look every step up before it is carried out, in the store and in --cache-repo, and keep what \
         it makes there",
    ),
    works(
        Run,
        "cache-repo",
        "PLACE",
        Text(|t| &mut t.cache_repo),
        "Where steps are looked up and kept: a repository, oci:DIR, s3://BUCKET/PREFIX, gs://..., \
         azblob://... (default: the first destination's repository, with /cache)",
    ),
    works(
        Run,
        "cache-from",
        "PLACE",
        List(|t| &mut t.cache_from),
        "Another place where steps are only looked up; may be repeated",
    ),
    works(
        Run,
        "cache-ttl",
        "TIME",
        Text(|t| &mut t.cache_ttl),
        "How old what is looked up may be, such as 6h or 1h30m (default 336h)",
    ),
    works(
        Run,
        "cache-copy-layers",
        "",
        Chosen(|t| &mut t.cache_copy_layers),
        "Look COPY and ADD up too (default true: it costs nothing here)",
    ),
    works(
        Run,
        "cache-run-layers",
        "",
        Chosen(|t| &mut t.cache_run_layers),
        "Look RUN and WORKDIR up (default true)",
    ),
    works(
        Run,
        "cache-mounts",
        "",
        Switch(|t| &mut t.cache_mounts),
        "Restore the caches of RUN --mount=type=cache from where steps are looked up, where the store \
         has none, and save them to --cache-repo after the build",
    ),
    works(
        Run,
        "no-push-cache",
        "",
        Switch(|t| &mut t.no_push_cache),
        "Keep what steps make in the store alone, and push nothing to --cache-repo",
    ),
    works(
        Run,
        "cache-dir",
        "DIR",
        Path(|t| &mut t.cache_dir),
        "A store of images that `warmer` filled, which is only read where --store names another one or \
         where nothing can be written to it; else the store lies there (default, in a container: /cache \
         where a volume is mounted there, else store/ in the executor's own directory; else /cache as \
         executor, /.shutter in place, $XDG_CACHE_HOME/shutter, /var/cache/shutter for root)",
    ),
    works(
        Run,
        "kaniko-dir",
        "DIR",
        Path(|t| &mut t.kaniko_dir),
        "The builder's own directory, which a build in place leaves alone and where the store may lie \
         (default: KANIKO_DIR as executor, /kaniko where the program lies there)",
    ),
    works(
        Run,
        "rootfs",
        "NAME",
        Text(|t| &mut t.rootfs),
        "What commands run on: overlay, fuse, inplace (this container's own root directory, whose files \
         are replaced) or chroot; auto takes the first that works, inplace only in the executor's own \
         image (default: auto)",
    ),
    works(
        Run,
        "allow",
        "WHAT",
        CommaList(|t| &mut t.allow),
        "Let a RUN have security.insecure (network.host it has in any case)",
    ),
    works(
        Run,
        "threads",
        "N",
        Number(|t| &mut t.threads),
        "Threads for hashing and compression (default: one a processor)",
    ),
    works(
        Run,
        "force",
        "",
        Switch(|t| &mut t.force),
        "As executor, or with --rootfs=inplace, run outside a container too",
    ),
    works(
        Show,
        "verbosity",
        "LEVEL",
        Choice(
            &["trace", "debug", "info", "warn", "error", "fatal", "panic"],
            |t| &mut t.verbosity,
        ),
        "How much is logged (default: info)",
    )
    .short('v'),
    works(
        Show,
        "log-format",
        "FORMAT",
        Choice(&["text", "color", "json"], |t| &mut t.log_format),
        "How it is logged (default: a live view on a terminal, else color as executor, else text)",
    ),
    works(
        Show,
        "log-timestamp",
        "",
        Switch(|t| &mut t.log_timestamp),
        "Log the time of day, not the seconds since the start",
    ),
    works(
        Show,
        "timeline",
        "FILE",
        Path(|t| &mut t.timeline),
        "Write an HTML page that shows what the build spent its time on",
    ),
    works(Show, "help", "", Switch(|t| &mut t.help), "Show this help").short('h'),
    works(
        Check,
        "format",
        "FORMAT",
        Choice(&["text", "json"], |t| &mut t.check_format),
        "How findings are printed (default: text)",
    ),
    works(
        Check,
        "error",
        "",
        Switch(|t| &mut t.check_error),
        "End with exit code 1 where there are findings, whatever the Dockerfile says",
    ),
    works(
        Explain,
        "step",
        "STEP",
        Text(|t| &mut t.step),
        "Tell of one step alone: its number, or some of its text (default: of all)",
    ),
    works(
        Store,
        "max-size",
        "SIZE",
        Text(|t| &mut t.max_size),
        "Leave no more than this: 500m, 10g, 1.5GB (thousands), 10GiB (1024s), or bytes",
    ),
    works(
        Store,
        "max-age",
        "TIME",
        Text(|t| &mut t.max_age),
        "Leave nothing that no build has wanted for so long: 7d, 24h, 1h30m",
    ),
    works(
        Store,
        "dry-run",
        "",
        Switch(|t| &mut t.dry_run),
        "Only say what would go",
    ),
    works(
        Store,
        "repair",
        "",
        Switch(|t| &mut t.repair),
        "Drop what is wrong; builds make or fetch it again",
    ),
    works(
        Store,
        "image",
        "IMAGE",
        List(|t| &mut t.images),
        "Image to fetch",
    )
    .short('i'),
    works(
        Store,
        "unpack",
        "",
        Switch(|t| &mut t.unpack),
        "Unpack the layers too; builds that can only read the store use them where they lie",
    ),
    works(
        Explain,
        "json",
        "",
        Switch(|t| &mut t.json),
        "Print one object",
    ),
    works(
        Run,
        "cleanup",
        "",
        Switch(|t| &mut t.cleanup),
        "In place, remove the image's files from the root at the end; nothing is left anywhere else",
    ),
    works(
        Run,
        "ignore-path",
        "PATH",
        List(|t| &mut t.ignore_paths),
        "Leave PATH of the image as the base has it, whatever a step does there; in place keep it",
    ),
    works(
        Run,
        "ignore-var-run",
        "",
        Switch(|t| &mut t.ignore_var_run),
        "The same for /var/run (default: it goes into the image, as with BuildKit)",
    )
    .aliases(&["whitelist-var-run"]),
    always(
        Run,
        "pre-cleanup",
        NoSwitch,
        "a build's root always starts with its base alone, whatever lies in the file system it runs on",
    ),
    always(
        Run,
        "preserve-context",
        NoSwitch,
        "a build's context is left as it is wherever the build runs, so nothing has to be put back",
    ),
    always(
        Run,
        "snapshot-mode",
        NoChoice(&["full", "redo", "time"]),
        "what a step wrote is always known exactly, by metadata and content; no mode finds more",
    )
    .aliases(&["snapshotMode"]),
    always(
        Run,
        "use-new-run",
        NoSwitch,
        "what a step wrote is tracked while it is written; nothing is searched before or after",
    ),
    always(
        Run,
        "skip-unused-stages",
        NoSwitch,
        "a stage that the target does not need is never built; kaniko ignores the flag too",
    ),
    always(
        Run,
        "force-build-metadata",
        NoSwitch,
        "steps that change metadata alone are always in the config and history; kaniko ignores the flag too",
    ),
    always(
        Run,
        "compressed-caching",
        NoSwitch,
        "memory does not grow with a layer's size, so there is nothing to trade",
    ),
    not_yet(Source, "bucket", NoText, &[""]).short('b'),
    not_yet(Run, "image-fs-extract-retry", NoText, &["0"]),
    not_yet(Run, "image-download-retry", NoText, &["0"]),
    not_yet(Run, "materialize", NoSwitch, &[]),
    not_yet(Run, "dryrun", NoSwitch, &[]),
    not_yet(Image, "annotation", NoText, &[]),
    not_yet(Registry, "registry-map", NoText, &[""]),
    not_yet(Registry, "registry-mirror", NoText, &[""]),
    not_yet(Registry, "skip-default-registry-fallback", NoSwitch, &[]),
    not_yet(Registry, "push-ignore-immutable-tag-errors", NoSwitch, &[]),
    // Empty means none of the built-in helpers, and there are none.
    not_yet(Registry, "credential-helpers", NoText, &[""]),
    not_yet(Registry, "azure-container-registry-config", NoText, &[""]),
];
