//! Files of an image: paths inside a root, metadata, tables of contents, trees, safe unpacking.

pub mod archive;
mod firsts;
mod header;
mod ids;
mod levels;
mod meta;
pub mod mountinfo;
mod path;
mod pax;
mod place;
mod record;
mod source;
mod sparse;
mod stat;
pub mod tar;
mod toc;
mod tree;
mod walk;
mod xattr;

pub use firsts::Firsts;
pub use ids::{Ids, Range};
pub use levels::{Below, Levels};
pub use meta::{Kind, Meta, Time};
pub use path::RelPath;
pub use place::{DEVICE_NODES, Deletions, Dir, Placer, modified};
pub use source::{Seen, Source};
pub use sparse::Holes;
pub use stat::{FileId, Glance, Stamp, Stat, glance_at, kind_of, open_dir, stat, stat_at};
pub use toc::{ContentId, Node, Toc, TocEntry};
pub use tree::{Content, FindSource, Found, LastLink, LayerView, Tree};
pub use walk::{Visit, WalkError, names, walk};
pub use xattr::{Xattrs, is_kept};

#[cfg(test)]
mod tests;
