//! Builds container images from Dockerfiles without a daemon.
//!
//! # The way of the data
//!
//! ```text
//! argv -> cli -> Request -+
//! Dockerfile -> ast ------+-> plan -> Plan (stages, steps, needs)      pure: no I/O
//!                                       |
//!          cache <- keys, all at once --+-- build: walks the plan
//!                                       v
//!       rootfs: begin -> sandbox runs the command -> commit -> Changeset
//!                                       v
//!          layer: tar -> sha256 -> compress -> sha256 -> store      beside the next step
//!                                       v
//!                  image -> output: registry, layouts, archives, files, digests
//! ```
//!
//! # The rooms
//!
//! A module imports only modules of lower rank; `tests/ranks.rs` reads the `use crate::` lines and
//! says which line broke it.
//!
//! | rank | module | one sentence |
//! |---|---|---|
//! | 0 | [`sys`] | raw Linux calls that no crate offers; the only `unsafe` |
//! | 0 | [`oci`] | nouns: digest, reference, platform, descriptor, manifest, config |
//! | 0 | [`dockerfile`] | text to AST with spans; word expansion; .dockerignore; build checks; no I/O |
//! | 1 | [`fs`] | path inside a root, metadata, `Toc`, `Tree`, parallel walk, safe unpack |
//! | 1 | [`progress`] | what a build reports while it runs, as plain events |
//! | 1 | [`request`] | what the caller asked for, validated, plain data |
//! | 1 | [`net`] | one HTTP client: TLS, proxies, retry, redaction |
//! | 2 | [`git`] | one commit of a remote repository, by gitoxide: fetched, checked out, kept |
//! | 2 | [`store`] | content-addressed blobs, unpacked layers and the caches of commands on disk: ingest, locks, taking away |
//! | 2 | [`plan`] | AST and request to stages and steps; config edits as pure functions |
//! | 2 | [`changeset`] | what a step changed: ordering, merging, comparing with a tree; the slow full walk |
//! | 2 | [`ssh`] | SSH agents for commands, keys in files and signing with them |
//! | 3 | [`context`] | contexts, here or fetched; what a COPY or ADD takes of them or of a tree, as a changeset |
//! | 3 | [`layer`] | changeset to blob, in a bounded pipeline; blob to verified files |
//! | 3 | [`registry`] | OCI distribution: credentials, pull, push |
//! | 4 | [`rootfs`] | the `Rootfs` trait and its strategies |
//! | 4 | [`cache`] | what steps made, by key: the store, registries, layouts, object stores |
//! | 4 | [`output`] | where an image goes, and OCI layouts as a source |
//! | 5 | [`sandbox`] | one command in one root: namespaces, mounts, user, capabilities, seccomp, reaping |
//! | 6 | [`build`] | drives the plan: schedules stages, runs steps, joins layers |
//! | 7 | [`cli`] | flags, progress, reports, exit codes; the only printer and the only reader of the environment |
//!
//! # What always holds
//!
//! 1. The tracker never misses: what [`rootfs`] says a step changed may be too much, never too
//!    little; [`changeset`] compares it with the [`fs::Tree`] and drops what is equal.
//! 2. Same inputs, same layers, whatever the thread count or the order in which parallel work ends:
//!    times come from the files, from SOURCE_DATE_EPOCH, or from the base's date. When the image was
//!    made is the clock's to say unless there is an epoch, as with BuildKit; with one the image's
//!    digest is the same too.
//! 3. A blob is in the [`store`] whole and verified, or not at all. Blobs are pushed before the
//!    config, the config before the manifest, so that a tag never points to something incomplete.
//!
//! # How it runs
//!
//! - The process takes a mount namespace of its own, where it may, and forks the helper that starts
//!   commands before there is any thread ([`sandbox`]): whatever kills it, no mount and no command
//!   outlives it. Where it may not do so as who it is, it first becomes root of a user namespace of its
//!   own; an owner that has no id there is known to tocs alone ([`fs::Ids`]). Where it may not
//!   mount, commands run in a chroot or where the builder is, with copies and moved directories for
//!   mounts, which are put back after every command.
//! - One thread a stage, a base and a layer in the making ([`build`]). A finished step's upper
//!   directory is frozen; its layer is made and pushed while the next step runs on a fresh one.
//! - Processor work runs on the one rayon pool, in which nothing waits for a channel; tokio is
//!   behind [`net`] alone. Permits for chunks bound the memory of all layers in the making together
//!   ([`layer::Permits`]); names and metadata are held, content never.
//! - The first error, or a signal, throws one switch ([`sys::Cancel`]), which everything that takes
//!   long looks at; then the threads unwind, and what they were making is thrown away.
//! - On FUSE the builder answers for its own root ([`rootfs::Fuse`]), on up to four threads a mount that
//!   take turns at the questions, and touch no mount of theirs and never the rayon pool. What a step has written is read from the files
//!   behind it, never through the mount; the threads end when the kernel lets the mount go.
//! - On a live root ([`rootfs::Live`]: a directory, or `/` itself) commands write to the files where
//!   they are. What a step changed is found by inotify and ctime and is read before the next one
//!   begins; in place, stages take turns and leave behind what later ones want.
//! - Which root works is found out by trying ([`rootfs::probe`]), before anything is asked for and with
//!   a command started in it; no fallback is silent.
//! - With a cache the keys of all steps are known and looked up before anything runs. What is found
//!   decides which stages are wanted, of which the files are, and of which only the tables of
//!   contents ([`fs::Tree`]). What of the cache turns out to be of no use costs another attempt without it.
//!   Far places are written to beside the build, by threads of their own that end last.
//! - Trouble with a place of the [`cache`] never is the build's: it is told once, and the place is asked
//!   nothing after that. Builds that share a [`store`] take turns at a step, and at sending a blob.
#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod build;
pub mod cache;
pub mod changeset;
pub mod cli;
pub mod context;
pub mod dockerfile;
pub mod fs;
pub mod git;
pub mod layer;
pub mod net;
pub mod oci;
pub mod output;
pub mod plan;
pub mod progress;
pub mod registry;
pub mod request;
pub mod rootfs;
pub mod sandbox;
pub mod ssh;
pub mod store;
pub mod sys;
