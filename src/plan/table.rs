use std::collections::HashMap;

/// Values by name, in the order in which the names were first set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table<V> {
    entries: Vec<(String, V)>,
    places: HashMap<String, usize>,
}

impl<V> Default for Table<V> {
    fn default() -> Table<V> {
        Table {
            entries: Vec::new(),
            places: HashMap::new(),
        }
    }
}

impl<V> Table<V> {
    pub(super) fn get(&self, name: &str) -> Option<&V> {
        let place = *self.places.get(name)?;
        self.entries.get(place).map(|(_, value)| value)
    }

    /// Sets a value: in its place where the name has one, else at the end.
    pub(super) fn set(&mut self, name: &str, value: V) {
        if let Some(&place) = self.places.get(name) {
            self.entries[place].1 = value;
        } else {
            self.places.insert(name.to_owned(), self.entries.len());
            self.entries.push((name.to_owned(), value));
        }
    }

    pub(super) fn entries(&self) -> &[(String, V)] {
        &self.entries
    }
}

impl<V> FromIterator<(String, V)> for Table<V> {
    fn from_iter<I: IntoIterator<Item = (String, V)>>(pairs: I) -> Table<V> {
        let mut table = Table::default();
        for (name, value) in pairs {
            table.set(&name, value);
        }
        table
    }
}
