//! The request's secrets: read when they are first wanted, kept in memory alone.

use super::Error;
use super::mask::Patterns;
use crate::build::wait::lock;
use crate::request::{Hidden, SecretSource};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::sync::{Arc, Mutex};

/// The most bytes a secret may have, as with BuildKit: 500 KiB.
const LIMIT: u64 = crate::sandbox::MEMORY_LIMIT as u64;

/// The secrets that commands of a build have asked for.
#[derive(Default)]
pub(in crate::build) struct Secrets(Mutex<Known>);

#[derive(Default)]
struct Known {
    values: BTreeMap<String, Hidden>,
    patterns: Arc<Patterns>,
}

impl Secrets {
    /// Gives a secret's value; `None` where the request has no such secret.
    pub(super) fn get(
        &self,
        id: &str,
        sources: &BTreeMap<String, SecretSource>,
    ) -> Result<Option<Hidden>, Error> {
        let mut known = lock(&self.0);
        if let Some(value) = known.values.get(id) {
            return Ok(Some(value.clone()));
        }
        let Some(source) = sources.get(id) else {
            return Ok(None);
        };
        let value = Hidden(read(id, source)?);
        known.values.insert(id.to_owned(), value.clone());
        let values = known.values.values().map(|value| value.0.as_slice());
        known.patterns = Arc::new(Patterns::of(values));
        Ok(Some(value))
    }

    /// Gives what must not be seen of any command's output: all secrets read so far, whoever
    /// asked for them, since one command may pass them on to the next.
    pub(super) fn patterns(&self) -> Arc<Patterns> {
        Arc::clone(&lock(&self.0).patterns)
    }
}

fn read(id: &str, source: &SecretSource) -> Result<Vec<u8>, Error> {
    let value = match source {
        SecretSource::Value(Hidden(value)) => value.clone(),
        SecretSource::File(path) => {
            let mut value = Vec::new();
            File::open(path)
                .and_then(|file| file.take(LIMIT + 1).read_to_end(&mut value))
                .map_err(|source| Error::ReadSecret {
                    id: id.to_owned(),
                    path: path.clone(),
                    source,
                })?;
            value
        }
    };
    match value.len() as u64 > LIMIT {
        true => Err(Error::LargeSecret(id.to_owned())),
        false => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_read_once_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("small"), b"s3cret\n").unwrap();
        std::fs::write(path("most"), vec![b'x'; 500 << 10]).unwrap();
        std::fs::write(path("large"), vec![b'x'; (500 << 10) + 1]).unwrap();
        let file = |name: &str| (name.to_owned(), SecretSource::File(path(name)));
        let value = |name: &str, size: usize| {
            let value = Hidden(vec![b'y'; size]);
            (name.to_owned(), SecretSource::Value(value))
        };
        let sources = BTreeMap::from([
            file("small"),
            file("most"),
            file("large"),
            file("absent"),
            value("value", 5),
            value("long", (500 << 10) + 1),
        ]);
        let secrets = Secrets::default();
        // Ids, and lengths or errors.
        let table: &[(&str, Result<Option<usize>, String>)] = &[
            ("small", Ok(Some(7))),
            ("most", Ok(Some(500 << 10))),
            ("value", Ok(Some(5))),
            ("unknown", Ok(None)),
            ("large", Err("secret large has more than 500 KiB".into())),
            ("long", Err("secret long has more than 500 KiB".into())),
            (
                "absent",
                Err(format!(
                    "read secret absent from {}",
                    path("absent").display()
                )),
            ),
        ];
        for (id, expected) in table {
            let got = secrets.get(id, &sources);
            let got = got.map(|value| value.map(|Hidden(value)| value.len()));
            assert_eq!(&got.map_err(|error| error.to_string()), expected, "{id}");
        }
        std::fs::remove_file(path("small")).unwrap();
        let again = secrets.get("small", &sources).unwrap();
        assert_eq!(again, Some(Hidden(b"s3cret\n".to_vec())));
    }
}
