//! Word expansion: variables in all of BuildKit's forms, quotes, escapes.

/// Why a word cannot be expanded (a required variable that is not set, a bad modifier).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);

/// An expanded word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expanded {
    /// The text.
    pub text: String,
    /// Variables that were asked for and are not set.
    pub unset: Vec<String>,
}

/// Expands one word: quotes are processed and removed, nothing is split.
pub fn word(
    text: &str,
    escape: char,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Expanded, Error> {
    let _ = (text, escape, env);
    todo!()
}

/// Expands variables but keeps quotes and escapes (a heredoc's body).
pub fn raw(
    text: &str,
    escape: char,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Expanded, Error> {
    let _ = (text, escape, env);
    todo!()
}

/// Expands and splits at white space outside quotes (EXPOSE).
pub fn split(
    text: &str,
    escape: char,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<String>, Error> {
    let _ = (text, escape, env);
    todo!()
}
