//! Keys: one framed, versioned hash per step over exactly what can change its result.
//!
//! ```text
//! key = BLAKE3 in key-derivation mode, context FORMAT, of for each part:
//!       length of the name (8 bytes, little-endian), the name,
//!       BLAKE3 of the value (32 bytes)
//! ```
//!
//! Two different lists of parts never make the same bytes. An entry keeps names and hashes of the
//! parts and no value, so that it can be said which of them differs and no argument of a build is
//! written down.

use std::fmt;
use std::str::FromStr;

/// What a key is derived for: the format's name and version. Another way to make keys must have
/// another one, or entries would be found under keys that meant something else.
const FORMAT: &str = "shutter 2026-11-22 cache key of a step, version 1";

/// What a step, or a chain of steps, is known by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(pub [u8; 32]);

/// One thing that a key is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// What it is, such as `arg` or `env PATH`.
    pub name: String,
    /// The hash of its value.
    pub value: [u8; 32],
}

/// Why a text is no key.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is no key: 64 hexadecimal digits are wanted")]
pub struct KeyError(String);

/// The parts that a key is made of, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recipe {
    parts: Vec<Part>,
}

impl Recipe {
    /// Starts a recipe with what kind of thing it is for.
    pub fn of(kind: &str) -> Recipe {
        let mut recipe = Recipe::default();
        recipe.add("kind", kind);
        recipe
    }

    /// Adds a part.
    pub fn add(&mut self, name: impl Into<String>, value: impl AsRef<[u8]>) {
        let value = *blake3::hash(value.as_ref()).as_bytes();
        self.add_hash(name, value);
    }

    /// Adds a part by the hash of its value.
    pub fn add_hash(&mut self, name: impl Into<String>, value: [u8; 32]) {
        let name = name.into();
        self.parts.push(Part { name, value });
    }

    /// Adds a part that may be missing, which is not the same as an empty one.
    pub fn add_optional(&mut self, name: &str, value: Option<impl AsRef<[u8]>>) {
        match value {
            Some(value) => self.add(name, value),
            None => self.add(format!("no {name}"), ""),
        }
    }

    /// Gives the parts.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Gives the key.
    pub fn key(&self) -> Key {
        let mut hasher = blake3::Hasher::new_derive_key(FORMAT);
        for Part { name, value } in &self.parts {
            hasher.update(&(name.len() as u64).to_le_bytes());
            hasher.update(name.as_bytes());
            hasher.update(value);
        }
        Key(*hasher.finalize().as_bytes())
    }
}

impl Key {
    /// Gives 64 hexadecimal digits: the entry's name in every place.
    pub fn hex(&self) -> String {
        blake3::Hash::from_bytes(self.0).to_hex().to_string()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Key {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Key, KeyError> {
        let is_lower = text.bytes().all(|c| !c.is_ascii_uppercase());
        let hash = blake3::Hash::from_hex(text).ok().filter(|_| is_lower);
        let hash = hash.ok_or_else(|| KeyError(text.to_owned()))?;
        Ok(Key(*hash.as_bytes()))
    }
}

impl serde::Serialize for Key {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Key {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Key, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl serde::Serialize for Part {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        (&self.name, Key(self.value)).serialize(s)
    }
}

impl<'de> serde::Deserialize<'de> for Part {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Part, D::Error> {
        let (name, Key(value)) = <(String, Key)>::deserialize(d)?;
        Ok(Part { name, value })
    }
}

#[cfg(test)]
mod tests {
    use super::{Key, Recipe};

    /// A change of the format must be seen: entries of an older one would be taken for these.
    #[test]
    fn the_format_is_what_it_was() {
        let mut recipe = Recipe::of("run");
        recipe.add("arg", "/bin/sh");
        recipe.add("arg", b"-c");
        recipe.add_optional("script", None::<&str>);
        recipe.add_optional("hostname", Some("host"));
        recipe.add_hash("content", [7; 32]);
        let key = recipe.key();
        assert_eq!(
            key.hex(),
            "e00ec25680368079b0e6c04ed4f84f8094e28b85d77825cb18cc7469300666c1"
        );
        assert_eq!(key.hex().parse(), Ok(key));
    }

    #[test]
    fn parts_are_framed() {
        let key = |parts: &[(&str, &str)]| {
            let mut recipe = Recipe::default();
            for (name, value) in parts {
                recipe.add(*name, value);
            }
            recipe.key()
        };
        let all = [
            key(&[]),
            key(&[("", "")]),
            key(&[("a", "b")]),
            key(&[("ab", "")]),
            key(&[("a", ""), ("b", "")]),
            key(&[("b", ""), ("a", "")]),
            key(&[("a", "b"), ("", "")]),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[at + 1..].contains(one), "{at}");
        }
    }

    #[test]
    fn what_is_no_key() {
        let hex = "0123456789abcdef".repeat(4);
        assert!(hex.parse::<Key>().is_ok());
        for text in [
            "",
            "01",
            &hex[1..],
            &format!("{hex}0"),
            &hex.to_uppercase(),
            &hex.replace('0', "g"),
        ] {
            assert!(text.parse::<Key>().is_err(), "{text}");
        }
    }
}
