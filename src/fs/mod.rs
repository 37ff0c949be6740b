//! Files of an image: paths inside a root, metadata, tables of contents, trees, safe unpacking.

mod meta;
mod path;
mod record;
mod source;
mod toc;
mod tree;

pub use meta::{Kind, Meta, Time};
pub use path::RelPath;
pub use source::Source;
pub use toc::{ContentId, Node, Toc, TocEntry};
pub use tree::{Content, Found, LastLink, LayerView, Tree};

#[cfg(test)]
mod tests;
