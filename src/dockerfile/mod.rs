//! Text to AST with spans; word expansion; .dockerignore and patterns. No I/O.

pub mod ast;
pub mod ignore;
mod parse;
pub mod words;

pub use parse::{Error, parse, parse_trigger};
