use super::{Action, Change, Changeset};
use crate::fs::{Content, LayerView, Node, Toc, TocEntry};
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
    /// Gives the bytes of all content together.
    pub fn content_size(&self) -> u64 {
        content_size(&self.changes)
    }

    /// Gives a settled changeset as a layer of a tree. Content ids are not known yet.
    pub fn view(self: &Arc<Self>) -> LayerView {
        let mut entries = Vec::with_capacity(self.changes.len());
        for change in &self.changes {
            let node = match &change.action {
                Action::Put { meta, link, .. } => Node::Put {
                    meta: meta.clone(),
                    content: None,
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
        LayerView {
            toc: Toc::new(entries),
            content: Content::Of(Arc::new(move |path| match own.get(path) {
                Some(Action::Put { source, .. }) => source.clone(),
                _ => None,
            })),
        }
    }
}
