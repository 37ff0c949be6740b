//! The rules that want nothing but the text.

use super::super::ast::Span;
use super::super::directive::check_comment;
use super::super::node::{Node, Tree};
use super::super::spelling::quote;
use super::super::split;
use super::{Finding, Options, Rule};
use std::collections::HashSet;

/// Names that mean something else than a stage.
const RESERVED: [&str; 2] = ["context", "scratch"];

/// Looks through a file that was parsed.
pub(in crate::dockerfile) fn findings(tree: &Tree) -> Vec<Finding> {
    let mut out = tree.findings.clone();
    let mut names = HashSet::new();
    for node in &tree.nodes {
        match node.name.to_ascii_uppercase().as_str() {
            "FROM" => from(node, &mut names, &mut out),
            "ARG" => {
                let keys: Vec<&str> = node.words.iter().map(|word| key(word)).collect();
                description("ARG", node, &keys, &mut out);
            }
            "MAINTAINER" => out.push(Finding::new(
                Rule::MaintainerDeprecated,
                node.span,
                "Maintainer instruction is deprecated in favor of using label",
            )),
            _ => {}
        }
    }
    casing(&tree.nodes, &mut out);
    out
}

/// Gives what comments right above instructions say of the checks, with the instructions' lines.
pub(in crate::dockerfile) fn exceptions(tree: &Tree) -> Vec<(Span, Options)> {
    let said = |node: &Node| {
        // A comment that only looks like one is a comment.
        let said = node.comments.iter().find_map(|text| check_comment(text))?;
        Some((node.span, Options::parse_comment(said).ok()?))
    };
    tree.nodes.iter().filter_map(said).collect()
}

/// Tells whether ENV or LABEL has the old form `name value`.
pub(crate) fn is_legacy(text: &str, escape: char) -> bool {
    let (_, _, rest) = split::command(text);
    let first = split::words(rest, escape).into_iter().next();
    first.is_some_and(|word| !word.contains('='))
}

/// Gives an instruction's name as it is written.
pub(crate) fn name(text: &str) -> &str {
    split::command(text).0
}

fn from(node: &Node, names: &mut HashSet<String>, out: &mut Vec<Finding>) {
    let [_, keyword, name] = node.words.as_slice() else {
        return;
    };
    let mut find = |rule, message: String| out.push(Finding::new(rule, node.span, message));
    let lower = name.to_lowercase();
    if *name != lower {
        find(
            Rule::StageNameCasing,
            format!("Stage name '{name}' should be lowercase"),
        );
    }
    let agrees = match Case::of(&node.name) {
        Some(Case::Lower) => *keyword == keyword.to_lowercase(),
        Some(Case::Upper) => *keyword == keyword.to_uppercase(),
        // Another rule's business.
        None => true,
    };
    if !agrees {
        find(
            Rule::FromAsCasing,
            format!(
                "'{keyword}' and '{}' keywords' casing do not match",
                node.name
            ),
        );
    }
    if RESERVED.contains(&lower.as_str()) {
        find(
            Rule::ReservedStageName,
            format!(
                "Stage name should not use the same name as reserved stage {}",
                quote(&lower)
            ),
        );
    }
    if !names.insert(lower.clone()) {
        find(
            Rule::DuplicateStageName,
            format!(
                "Duplicate stage name {}, stage names should be unique",
                quote(&lower)
            ),
        );
    }
    description("FROM", node, &[&lower, name], out);
}

/// Looks whether the comment right above begins with one of these names.
fn description(instruction: &str, node: &Node, names: &[&str], out: &mut Vec<Finding>) {
    let mut comments = node.comments.iter();
    let Some(last) = comments.rfind(|text| check_comment(text).is_none()) else {
        return;
    };
    let first = last.split(' ').next().unwrap_or_default();
    if names.contains(&first) {
        return;
    }
    let example = match (instruction, names) {
        ("FROM", [name, ..]) | (_, [name]) => name,
        _ => "<arg_key>",
    };
    out.push(Finding::new(
        Rule::InvalidDefinitionDescription,
        node.span,
        format!("Comment for {instruction} should follow the format: `# {example} <description>`"),
    ));
}

/// Gives the name of `name=value`.
fn key(word: &str) -> &str {
    word.split('=').next().unwrap_or(word)
}

/// How a word is written that is written in one way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Case {
    Lower,
    Upper,
}

impl Case {
    fn of(word: &str) -> Option<Case> {
        if word == word.to_lowercase() {
            Some(Case::Lower)
        } else if word == word.to_uppercase() {
            Some(Case::Upper)
        } else {
            None
        }
    }
}

/// Compares the names of the stages' instructions with how most of them are written; where as many
/// are in lower case as in upper, upper it is. ARGs before the first FROM do not count.
fn casing(nodes: &[Node], out: &mut Vec<Finding>) {
    let is_from = |node: &&Node| node.name.eq_ignore_ascii_case("FROM");
    let nodes = || nodes.iter().skip_while(|node| !is_from(node));
    let count = |case| {
        nodes()
            .filter(|node| Case::of(&node.name) == Some(case))
            .count()
    };
    let (wanted, word) = if count(Case::Lower) > count(Case::Upper) {
        (Case::Lower, "lowercase")
    } else {
        (Case::Upper, "uppercase")
    };
    for node in nodes() {
        if Case::of(&node.name) != Some(wanted) {
            out.push(Finding::new(
                Rule::ConsistentInstructionCasing,
                node.span,
                format!(
                    "Command '{}' should match the case of the command majority ({word})",
                    node.name
                ),
            ));
        }
    }
}
