//! SSH private keys in files, for which the builder is the agent: reading them and signing.
//!
//! The formats are OpenSSH's own (`PROTOCOL.key`), PKCS#1 and PKCS#8; the cryptography is ring's.

use super::Error;
use super::number::{less_one, remainder, strip};
use super::wire::{Reader, string};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::rsa::{KeyPairComponents, PublicKeyComponents};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RsaKeyPair,
};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The most bytes a key file may have.
const LIMIT: u64 = 100 << 10;
/// Asks for SHA-256 with RSA.
const RSA_SHA2_256: u32 = 2;
/// Asks for SHA-512 with RSA.
const RSA_SHA2_512: u32 = 4;

/// A private key.
pub struct Key {
    /// The public half as SSH writes it.
    pub public: Vec<u8>,
    /// What people call it.
    pub comment: Vec<u8>,
    pair: Pair,
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    Rsa(Box<RsaKeyPair>),
    Ecdsa(Curve, Box<EcdsaKeyPair>),
}

#[derive(Clone, Copy)]
enum Curve {
    P256,
    P384,
}

impl Curve {
    const ALL: [Curve; 2] = [Curve::P256, Curve::P384];

    fn name(self) -> &'static str {
        match self {
            Curve::P256 => "nistp256",
            Curve::P384 => "nistp384",
        }
    }

    fn algorithm(self) -> &'static EcdsaSigningAlgorithm {
        match self {
            Curve::P256 => &ECDSA_P256_SHA256_FIXED_SIGNING,
            Curve::P384 => &ECDSA_P384_SHA384_FIXED_SIGNING,
        }
    }

    /// How many bytes a number of the curve has.
    fn width(self) -> usize {
        match self {
            Curve::P256 => 32,
            Curve::P384 => 48,
        }
    }
}

/// Why a file holds no key that can be used, with the remedy.
#[derive(Debug)]
pub struct Unusable(pub String);

impl From<&str> for Unusable {
    fn from(why: &str) -> Unusable {
        Unusable(why.to_owned())
    }
}

/// Reads a private key.
pub(super) fn read(path: &Path) -> Result<Key, Error> {
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LIMIT + 1).read_to_end(&mut text))
        .map_err(|source| Error::ReadKey {
            path: path.to_owned(),
            source,
        })?;
    let parsed = match text.len() as u64 > LIMIT {
        true => Err("it is too large for a private key".into()),
        false => parse(&text),
    };
    parsed.map_err(|Unusable(why)| Error::Key {
        path: path.to_owned(),
        why,
    })
}

/// Reads a private key from a file's content.
pub fn parse(text: &[u8]) -> Result<Key, Unusable> {
    let text = std::str::from_utf8(text).map_err(|_| "it is no private key")?;
    let (label, headers, body) = armor(text).ok_or("it is no private key in PEM form")?;
    let encrypted = headers.contains("ENCRYPTED") || label == "ENCRYPTED PRIVATE KEY";
    if encrypted {
        return Err(ENCRYPTED.into());
    }
    let bytes = STANDARD
        .decode(body)
        .map_err(|_| "what is between its first and last line is not base64")?;
    match label {
        "OPENSSH PRIVATE KEY" => openssh(&bytes),
        "RSA PRIVATE KEY" => {
            let pair = RsaKeyPair::from_der(&bytes).map_err(rejected)?;
            Ok(rsa(pair))
        }
        "PRIVATE KEY" => pkcs8(&bytes),
        _ => Err(Unusable(format!(
            "keys of the form `{label}` are not read; `ssh-keygen -p -f FILE` writes it in \
             OpenSSH's own"
        ))),
    }
}

/// The bytes of the longest number of an RSA key that is used.
const LONGEST: usize = 4096 / 8;

const USABLE: &str = "Ed25519, ECDSA with P-256 or P-384, and RSA of 2048 to 4096 bits can";

const ENCRYPTED: &str = "it is encrypted with a passphrase, which nobody can be asked for here; \
                         load it into an SSH agent and give the agent's socket";

/// Takes a PEM file apart: label, headers, and what is in base64.
fn armor(text: &str) -> Option<(&str, String, String)> {
    let (_, rest) = text.split_once("-----BEGIN ")?;
    let (label, rest) = rest.split_once("-----")?;
    let (inner, _) = rest.split_once("-----END ")?;
    let (mut headers, mut body) = (String::new(), String::new());
    for line in inner.lines() {
        // Only headers have a colon.
        match line.contains(':') {
            true => headers.push_str(line),
            false => body.push_str(line.trim()),
        }
    }
    Some((label, headers, body))
}

fn openssh(bytes: &[u8]) -> Result<Key, Unusable> {
    let damaged = || Unusable::from("it is damaged");
    let rest = bytes
        .strip_prefix(b"openssh-key-v1\0")
        .ok_or_else(damaged)?;
    let mut reader = Reader(rest);
    let mut next = || reader.string();
    let (cipher, _kdf, _options) = (next(), next(), next());
    if cipher.ok_or_else(damaged)? != b"none" {
        return Err(ENCRYPTED.into());
    }
    if reader.number().ok_or_else(damaged)? != 1 {
        return Err("it holds several keys".into());
    }
    let _public = reader.string();
    let mut reader = Reader(reader.string().ok_or_else(damaged)?);
    let check = (reader.number(), reader.number());
    if check.0.is_none() || check.0 != check.1 {
        return Err(damaged());
    }
    let kind = reader.string().ok_or_else(damaged)?;
    let mut key = private(kind, &mut reader)?;
    key.comment = reader.string().ok_or_else(damaged)?.to_vec();
    Ok(key)
}

/// Reads the private half of a key in OpenSSH's form.
fn private(kind: &[u8], reader: &mut Reader<'_>) -> Result<Key, Unusable> {
    let mut next = || reader.string().ok_or(Unusable::from("it is damaged"));
    if kind == b"ssh-ed25519" {
        let (public, private) = (next()?, next()?);
        let seed = private.get(..32).unwrap_or_default();
        let pair = Ed25519KeyPair::from_seed_and_public_key(seed, public).map_err(rejected)?;
        return Ok(ed25519(pair));
    }
    if kind == b"ssh-rsa" {
        let mut next = || next().map(strip);
        let (n, e, d) = (next()?, next()?, next()?);
        let (inverse, p, q) = (next()?, next()?, next()?);
        // Ring refuses them too, but after the divisions, which take long for long numbers.
        if [n, d, p, q].iter().any(|number| number.len() > LONGEST) {
            return Err(Unusable(format!("it cannot be used (TooLarge); {USABLE}")));
        }
        let components = KeyPairComponents {
            public_key: PublicKeyComponents { n, e },
            d,
            p,
            q,
            dP: &*less_one(p).map(|p| remainder(d, &p)).unwrap_or_default(),
            dQ: &*less_one(q).map(|q| remainder(d, &q)).unwrap_or_default(),
            qInv: inverse,
        };
        let pair = RsaKeyPair::from_components(&components).map_err(rejected)?;
        return Ok(rsa(pair));
    }
    for curve in Curve::ALL {
        if kind == format!("ecdsa-sha2-{}", curve.name()).as_bytes() {
            let (_curve, public, number) = (next()?, next()?, strip(next()?));
            let missing = curve.width().saturating_sub(number.len());
            let number = [&vec![0; missing][..], number].concat();
            let random = SystemRandom::new();
            let pair = EcdsaKeyPair::from_private_key_and_public_key(
                curve.algorithm(),
                &number,
                public,
                &random,
            );
            return Ok(ecdsa(curve, pair.map_err(rejected)?));
        }
    }
    Err(Unusable(format!(
        "keys of the kind {} are not used; load it into an SSH agent and give the agent's socket",
        String::from_utf8_lossy(kind)
    )))
}

fn pkcs8(bytes: &[u8]) -> Result<Key, Unusable> {
    if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes) {
        return Ok(ed25519(pair));
    }
    for curve in Curve::ALL {
        let random = SystemRandom::new();
        if let Ok(pair) = EcdsaKeyPair::from_pkcs8(curve.algorithm(), bytes, &random) {
            return Ok(ecdsa(curve, pair));
        }
    }
    RsaKeyPair::from_pkcs8(bytes).map(rsa).map_err(rejected)
}

fn rejected(why: ring::error::KeyRejected) -> Unusable {
    Unusable(format!("it cannot be used ({why}); {USABLE}"))
}

fn ed25519(pair: Ed25519KeyPair) -> Key {
    let mut public = Vec::new();
    string(&mut public, b"ssh-ed25519");
    string(&mut public, pair.public_key().as_ref());
    Key::new(public, Pair::Ed25519(pair))
}

fn rsa(pair: RsaKeyPair) -> Key {
    let mut public = Vec::new();
    string(&mut public, b"ssh-rsa");
    let half: PublicKeyComponents<Vec<u8>> = pair.public().into();
    integer(&mut public, &half.e);
    integer(&mut public, &half.n);
    Key::new(public, Pair::Rsa(Box::new(pair)))
}

fn ecdsa(curve: Curve, pair: EcdsaKeyPair) -> Key {
    let mut public = Vec::new();
    string(
        &mut public,
        format!("ecdsa-sha2-{}", curve.name()).as_bytes(),
    );
    string(&mut public, curve.name().as_bytes());
    string(&mut public, pair.public_key().as_ref());
    Key::new(public, Pair::Ecdsa(curve, Box::new(pair)))
}

impl Key {
    fn new(public: Vec<u8>, pair: Pair) -> Key {
        Key {
            public,
            comment: Vec::new(),
            pair,
        }
    }

    /// Signs, and gives the signature as SSH writes it; `None` where that is not done: RSA with
    /// SHA-1, which servers have not taken for years.
    pub fn sign(&self, message: &[u8], flags: u32) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        let (name, signature) = match &self.pair {
            Pair::Ed25519(pair) => ("ssh-ed25519".into(), pair.sign(message).as_ref().to_vec()),
            Pair::Rsa(pair) => {
                let (name, scheme) = if flags & RSA_SHA2_512 != 0 {
                    ("rsa-sha2-512", &RSA_PKCS1_SHA512)
                } else if flags & RSA_SHA2_256 != 0 {
                    ("rsa-sha2-256", &RSA_PKCS1_SHA256)
                } else {
                    return None;
                };
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(scheme, &random, message, &mut signature).ok()?;
                (name.to_owned(), signature)
            }
            Pair::Ecdsa(curve, pair) => {
                let fixed = pair.sign(&random, message).ok()?;
                let (r, s) = fixed.as_ref().split_at_checked(curve.width())?;
                let mut numbers = Vec::new();
                integer(&mut numbers, r);
                integer(&mut numbers, s);
                (format!("ecdsa-sha2-{}", curve.name()), numbers)
            }
        };
        let mut out = Vec::new();
        string(&mut out, name.as_bytes());
        string(&mut out, &signature);
        Some(out)
    }
}

/// Writes a number that is not negative as SSH does: without zeroes in front, but for one where
/// the number would look negative.
fn integer(out: &mut Vec<u8>, number: &[u8]) {
    let number = strip(number);
    match number.first() {
        Some(first) if first & 0x80 != 0 => string(out, &[&[0], number].concat()),
        _ => string(out, number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_hold_no_usable_key_say_why() {
        let begin = "-----BEGIN";
        // What is in the file, and a part of what is said.
        let table: &[(String, &str)] = &[
            (String::new(), "no private key in PEM form"),
            ("ssh-ed25519 AAAA me".into(), "no private key in PEM form"),
            (
                format!(
                    "{begin} ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"
                ),
                "encrypted with a passphrase",
            ),
            (
                format!(
                    "{begin} RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n\
                     AAAA\n-----END RSA PRIVATE KEY-----\n"
                ),
                "encrypted with a passphrase",
            ),
            (
                format!("{begin} EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n"),
                "`ssh-keygen -p -f FILE`",
            ),
            (
                format!(
                    "{begin} OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"
                ),
                "damaged",
            ),
            (
                format!("{begin} PRIVATE KEY-----\n!\n-----END PRIVATE KEY-----\n"),
                "not base64",
            ),
            (
                format!("{begin} PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
                "cannot be used",
            ),
        ];
        for (text, said) in table {
            let why = parse(text.as_bytes()).err().map(|Unusable(why)| why);
            assert!(
                why.as_deref().is_some_and(|why| why.contains(said)),
                "{text}: {why:?}"
            );
        }
    }

    /// Numbers that no key has end before anything is computed with them.
    #[test]
    fn long_numbers_cost_nothing() {
        let mut private = [0; 8].to_vec();
        string(&mut private, b"ssh-rsa");
        for _ in 0..6 {
            string(&mut private, &[0xff; 10_000]);
        }
        let mut bytes = b"openssh-key-v1\0".to_vec();
        string(&mut bytes, b"none");
        string(&mut bytes, b"none");
        string(&mut bytes, b"");
        bytes.extend([0, 0, 0, 1]);
        string(&mut bytes, b"");
        string(&mut bytes, &private);
        let why = openssh(&bytes).err().map(|Unusable(why)| why);
        assert!(why.is_some_and(|why| why.contains("TooLarge")));
    }
}
