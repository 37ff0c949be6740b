//! What is known of the content of files from earlier builds.

use crate::changeset::content_hash;
use crate::context::Context;
use crate::fs::{ContentId, Source};
use crate::store::{Contents, Store};
use std::io;
use std::os::fd::AsFd;

/// Content ids by what tells whether a file is still the same.
#[derive(Default)]
pub(in crate::build) struct Seen(Option<Contents>);

impl Seen {
    /// Opens what is known of a context.
    pub(in crate::build) fn open(store: &Store, context: &Context) -> Seen {
        Seen(Some(store.contents(context.dir.as_fd())))
    }

    /// Gives the BLAKE3 of a file's content, without reading it where that is known.
    pub(in crate::build) fn identify(&self, source: &Source) -> io::Result<ContentId> {
        let (Source::Seen(seen), Some(contents)) = (source, &self.0) else {
            return content_hash(source);
        };
        if let Some(id) = contents.get(&seen.stamp) {
            return Ok(id);
        }
        let id = content_hash(source)?;
        contents.note(&seen.stamp, &id);
        Ok(id)
    }

    /// Keeps what was learnt for the next build.
    pub(in crate::build) fn keep(&self, store: &Store) {
        // Without it files are read once more.
        let _ = self
            .0
            .as_ref()
            .map(|contents| store.keep_contents(contents));
    }
}
