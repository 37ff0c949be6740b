use super::ast::{Dockerfile, Instruction, Span};

/// Why a Dockerfile cannot be read; the message is BuildKit's wording where BuildKit has one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Where; `None` for the file as a whole.
    pub span: Option<Span>,
    /// What is wrong.
    pub message: String,
    /// At most one hint: "did you mean FROM?".
    pub hint: Option<String>,
}

/// Parses a Dockerfile.
pub fn parse(text: &[u8]) -> Result<Dockerfile, Error> {
    let _ = text;
    todo!()
}

/// Parses one instruction by itself, as an ONBUILD trigger of a base image is kept.
pub fn parse_trigger(text: &str) -> Result<Instruction, Error> {
    let _ = text;
    todo!()
}
