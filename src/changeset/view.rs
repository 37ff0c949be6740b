use super::{Action, Changeset};
use crate::fs::{Content, LayerView, Node, Toc, TocEntry};

impl Changeset {
    /// Gives the bytes of all content together.
    pub fn content_size(&self) -> u64 {
        let sizes = self.changes.iter().map(|change| match &change.action {
            Action::Put {
                meta, link: None, ..
            } => meta.size,
            _ => 0,
        });
        sizes.sum()
    }

    /// Gives a settled changeset as a layer of a tree. Content ids are not known yet.
    pub fn view(&self) -> LayerView {
        let mut entries = Vec::with_capacity(self.changes.len());
        let mut sources = std::collections::HashMap::new();
        for change in &self.changes {
            let node = match &change.action {
                Action::Put { meta, source, link } => {
                    if let Some(source) = source {
                        sources.insert(change.path.clone(), source.clone());
                    }
                    Node::Put {
                        meta: meta.clone(),
                        content: None,
                        link: link.clone(),
                    }
                }
                Action::Opaque(meta) => Node::Opaque(meta.clone()),
                Action::Delete => Node::Delete,
            };
            entries.push(TocEntry {
                path: change.path.clone(),
                node,
            });
        }
        LayerView {
            toc: Toc::new(entries),
            content: Content::Each(sources),
        }
    }
}
