//! Text to AST with spans; word expansion; .dockerignore and patterns; build checks. No I/O.
//!
//! Reading goes in two steps, as in BuildKit: [`node`] cuts the file into instructions with flags,
//! words and heredocs and knows no instruction's meaning; [`parse()`] checks every instruction and
//! gives the typed [`ast`].

pub mod ast;
pub mod check;
pub mod csv;
mod directive;
mod duration;
mod flags;
mod heredoc;
pub mod ignore;
pub mod node;
mod parse;
pub mod spelling;
mod split;
pub mod words;

pub use directive::detect_syntax;
pub use heredoc::is_heredoc;
pub use parse::{Error, parse, parse_trigger};
