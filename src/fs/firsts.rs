use super::{FileId, RelPath};
use std::collections::HashMap;
use std::hash::Hash;

/// The first names of files with several: what hard links are tied together by.
///
/// Files are told apart by [`FileId`], or by whatever else numbers them.
#[derive(Clone, Debug)]
pub struct Firsts<Id = FileId>(HashMap<Id, RelPath>);

impl<Id> Default for Firsts<Id> {
    fn default() -> Firsts<Id> {
        Firsts(HashMap::new())
    }
}

impl<Id: Eq + Hash> Firsts<Id> {
    /// Takes one more name of a file; gives the first, `None` where this is it.
    pub fn tie(&mut self, file: Id, name: &RelPath) -> Option<RelPath> {
        let first = self.0.get(&file).cloned();
        if first.is_none() {
            self.0.insert(file, name.clone());
        }
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_further_name_leads_to_the_first() {
        let mut firsts = Firsts::default();
        for (file, name, first) in [
            (1, "a", None),
            (2, "b", None),
            (1, "c", Some("a")),
            (2, "0", Some("b")),
            (1, "d", Some("a")),
        ] {
            let path = |name: &str| RelPath::root().join(name.as_bytes());
            assert_eq!(firsts.tie(file, &path(name)), first.map(path), "{name}");
        }
    }
}
