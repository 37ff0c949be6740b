use super::compare::content_id;
use super::{Action, Change, Changeset, Error, State};
use crate::fs::{Content, ContentId, Kind, LayerView, Node, RelPath, Source, Toc, TocEntry};
use rayon::prelude::*;
use std::sync::Arc;

/// Gives the bytes of all content together.
pub fn content_size(changes: &[Change]) -> u64 {
    let sizes = changes.iter().map(|change| match &change.action {
        Action::Put {
            meta, link: None, ..
        } => meta.size,
        _ => 0,
    });
    sizes.sum()
}

impl Changeset {
    /// Gives an unpacked layer that stands for itself as what it changes.
    pub fn of_layer(layer: &LayerView) -> Changeset {
        let source = |path: &RelPath| match &layer.content {
            Content::Dir(dir) => Some(Source::File {
                dir: Arc::clone(dir),
                path: path.clone(),
            }),
            Content::Each(sources) => sources.get(path).cloned(),
            Content::Of(find) => find(path),
        };
        let change = |entry: TocEntry| Change {
            action: match entry.node {
                Node::Put { meta, link, .. } => Action::Put {
                    source: match (meta.kind, &link) {
                        (Kind::File, None) => source(&entry.path),
                        _ => None,
                    },
                    meta,
                    link,
                },
                Node::Delete => Action::Delete,
                Node::Opaque(meta) => Action::Opaque(meta),
            },
            path: entry.path,
        };
        Changeset {
            changes: layer.toc.iter().map(change).collect(),
            state: State::Frozen,
        }
    }

    /// Counts what is more than a directory.
    pub fn files(&self) -> usize {
        let is_dir = |change: &&Change| match &change.action {
            Action::Put { meta, .. } => meta.kind == Kind::Dir,
            Action::Opaque(_) => true,
            Action::Delete => false,
        };
        self.changes.len() - self.changes.iter().filter(is_dir).count()
    }

    /// Gives the bytes of all content together.
    pub fn content_size(&self) -> u64 {
        content_size(&self.changes)
    }

    /// Gives a settled changeset as a layer of a tree. What is frozen can be compared with later; of
    /// what is live the content ids are taken now, in parallel on the rayon pool, since a later step
    /// may write there.
    pub fn view(self: &Arc<Self>) -> Result<LayerView, Error> {
        let ids = match self.state {
            State::Frozen => vec![None; self.changes.len()],
            State::Live => {
                let ids = self.changes.par_iter().with_min_len(8);
                let ids = ids.map(|change| self.id(change));
                ids.collect::<Result<Vec<_>, Error>>()?
            }
        };
        let mut entries = Vec::with_capacity(self.changes.len());
        for (change, content) in self.changes.iter().zip(ids) {
            let node = match &change.action {
                Action::Put { meta, link, .. } => Node::Put {
                    meta: meta.clone(),
                    content,
                    link: link.clone(),
                },
                Action::Opaque(meta) => Node::Opaque(meta.clone()),
                Action::Delete => Node::Delete,
            };
            entries.push(TocEntry {
                path: change.path.clone(),
                node,
            });
        }
        let own = Arc::clone(self);
        Ok(LayerView {
            toc: Toc::new(entries),
            content: Content::Of(Arc::new(move |path| own.source(path))),
        })
    }

    /// Gives where a file's content lies.
    fn source(&self, path: &RelPath) -> Option<Source> {
        match self.get(path)? {
            Action::Put {
                link: Some(first), ..
            } => Some(self.source(first)?.by(path)),
            Action::Put { source, .. } => source.clone(),
            _ => None,
        }
    }

    fn id(&self, change: &Change) -> Result<Option<ContentId>, Error> {
        match self.source(&change.path) {
            Some(source) => content_id(&change.path, &source).map(Some),
            None => Ok(None),
        }
    }
}
