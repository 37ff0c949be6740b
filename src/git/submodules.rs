//! .gitmodules (gitmodules(5)), which is written as git's configuration is.

use crate::fs::RelPath;
use gix_config::File;
use gix_config::file::Metadata;
use std::collections::BTreeMap;

/// The most submodules of one repository.
const MAX: usize = 10_000;

/// A submodule as .gitmodules describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Submodule {
    /// Its name: a path without `..`.
    pub name: RelPath,
    /// Where it belongs.
    pub path: Option<RelPath>,
    /// Where it comes from.
    pub url: Option<String>,
    /// Whether it is left out (`update = none`).
    pub is_left_out: bool,
}

/// Reads a .gitmodules; `Err` says what is wrong with it. Names and values that git refuses as an
/// attack are refused here, too.
pub fn submodules(text: &[u8]) -> Result<Vec<Submodule>, String> {
    let events = gix_config::parse::Events::from_bytes(text, None)
        .map_err(|error| format!("line {} cannot be read", error.line_number()))?;
    let config = File::from_parse_events_no_includes(events, Metadata::api());
    let mut out: BTreeMap<&[u8], Submodule> = BTreeMap::new();
    for section in config.sections_by_name("submodule").into_iter().flatten() {
        let Some(name) = section.header().subsection_name() else {
            continue;
        };
        let shown = name.escape_ascii();
        let checked = RelPath::checked(name)
            .filter(|name| !name.is_root())
            .ok_or_else(|| format!("the submodule name `{shown}` is suspicious"))?;
        let one = out.entry(name).or_insert_with(|| Submodule {
            name: checked,
            ..Submodule::default()
        });
        // A key without a value has an empty one.
        let value = |key| Some(section.body().value_implicit(key)?.unwrap_or_default());
        let suspicious = |key| format!("submodule `{shown}` has a suspicious {key}");
        if let Some(path) = value("path") {
            let path = Some(path.strip_suffix(b"/").unwrap_or(&path))
                .filter(|path| !path.starts_with(b"-"))
                .and_then(RelPath::checked)
                .filter(|path| !path.is_root());
            one.path = Some(path.ok_or_else(|| suspicious("path"))?);
        }
        if let Some(url) = value("url") {
            let url = String::from_utf8(url.into())
                .ok()
                .filter(|url| !url.starts_with('-') && !url.contains(char::is_control));
            one.url = Some(url.ok_or_else(|| suspicious("url"))?);
        }
        if let Some(update) = value("update") {
            one.is_left_out = match update.as_slice() {
                b"none" => true,
                b"checkout" | b"rebase" | b"merge" => false,
                _ => return Err(suspicious("update")),
            };
        }
        if out.len() > MAX {
            return Err(format!("there are more than {MAX} submodules"));
        }
    }
    Ok(out.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        match submodules(text.as_bytes()) {
            Err(why) => format!("!{why}"),
            Ok(all) => all
                .iter()
                .map(|one| {
                    format!(
                        "{} at {} from {}{}",
                        one.name,
                        one.path.as_ref().map_or("-".into(), RelPath::to_string),
                        one.url.as_deref().unwrap_or("-"),
                        if one.is_left_out { " not" } else { "" }
                    )
                })
                .collect::<Vec<_>>()
                .join(", "),
        }
    }

    #[test]
    fn modules_are_read() {
        let table = [
            ("", ""),
            (
                "[submodule \"a\"]\n\tpath = a\n\turl = ../a.git\n",
                "/a at /a from ../a.git",
            ),
            (
                "[submodule \"a/b\"]\npath=x/y/\nURL=\"https://h/#x\" ; why\n[core]\npath = z\n[submodule \"c\"]\nupdate = none\n",
                "/a/b at /x/y from https://h/#x, /c at - from - not",
            ),
            (
                "# x\n[submodule \"a\"] path = a\nurl = one\\\ntwo\n[submodule \"a\"]\nurl = three  \n",
                "/a at /a from three",
            ),
            (
                "[Submodule \"a\\\"b\"]\npath\nbranch = x\n",
                "!submodule `a\\\"b` has a suspicious path",
            ),
            (
                "[submodule \"../a\"]\npath = a\n",
                "!the submodule name `../a` is suspicious",
            ),
            (
                "[submodule \"a/../../b\"]\npath = a\n",
                "!the submodule name `a/../../b` is suspicious",
            ),
            (
                "[submodule \"\"]\npath = a\n",
                "!the submodule name `` is suspicious",
            ),
            (
                "[submodule \"a\"]\npath = ../a\n",
                "!submodule `a` has a suspicious path",
            ),
            (
                "[submodule \"a\"]\npath = /etc\n",
                "!submodule `a` has a suspicious path",
            ),
            (
                "[submodule \"a\"]\npath = -x\n",
                "!submodule `a` has a suspicious path",
            ),
            (
                "[submodule \"a\"]\nurl = -u./payload\n",
                "!submodule `a` has a suspicious url",
            ),
            (
                "[submodule \"a\"]\nurl = \"a\\nb\"\n",
                "!submodule `a` has a suspicious url",
            ),
            (
                "[submodule \"a\"]\nupdate = !rm -rf /\n",
                "!submodule `a` has a suspicious update",
            ),
            // As git has it: this says nothing of any submodule.
            ("path = a\n", ""),
            ("\n[submodule \"a\n", "!line 2 cannot be read"),
            ("[a]\nb = \"c\n", "!line 2 cannot be read"),
            ("[a]\n= c\n", "!line 2 cannot be read"),
            // Of no submodule, and so of no interest.
            ("[a]\nb c\n", ""),
            (
                "[submodule \"a\"]\npath c\n",
                "!submodule `a` has a suspicious path",
            ),
        ];
        for (text, want) in table {
            assert_eq!(read(text), want, "{text}");
        }
    }
}
