//! Git repositories as they are written on command lines and in Dockerfiles.

use url::Url;

/// A git repository, or a directory of it, at one commit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GitSource {
    /// The repository's URL (https, http, ssh or git), or `user@host:path`, which is ssh too. It may
    /// hold a password.
    pub remote: String,
    /// Branch, tag, full reference or commit; the remote's HEAD where there is none.
    pub reference: Option<String>,
    /// The directory of the repository that is meant, relative; the root where there is none.
    pub subdirectory: Option<String>,
    /// The commit, or the start of it, that `reference` must be.
    pub checksum: Option<String>,
    /// Whether `.git` comes along, where the source itself says.
    pub keep_git_dir: Option<bool>,
    /// Whether submodules are fetched.
    pub submodules: Submodules,
    /// What the files' times are.
    pub times: CheckoutTimes,
}

/// Whether submodules are fetched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Submodules {
    /// They are, and theirs.
    #[default]
    Fetch,
    /// Their directories stay empty.
    Skip,
}

/// What the times of checked out files are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum CheckoutTimes {
    /// The commit's, so that the same commit gives the same layer.
    #[default]
    Commit,
    /// Those of the checkout.
    Checkout,
}

/// How the git contexts that have no scheme of their own are fetched (GIT_PULL_METHOD).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullMethod {
    /// Over https.
    #[default]
    Https,
    /// Over http.
    Http,
}

impl GitSource {
    /// Makes a source of a remote alone: its HEAD, whole, with submodules.
    pub fn new(remote: impl Into<String>) -> GitSource {
        GitSource {
            remote: remote.into(),
            reference: None,
            subdirectory: None,
            checksum: None,
            keep_git_dir: None,
            submodules: Submodules::default(),
            times: CheckoutTimes::default(),
        }
    }

    /// Tells whether a source of an ADD is a git repository, as BuildKit decides it: by the scheme,
    /// where that is http by the path's end, or as `user@host:path`.
    pub fn is_git(source: &str) -> bool {
        let end = source.find(['?', '#']).unwrap_or(source.len());
        match scheme(source).as_deref() {
            Some("git" | "ssh") => true,
            Some("http" | "https") => source[..end].ends_with(".git"),
            Some(_) => false,
            None => scp(source).is_some(),
        }
    }

    /// Tells whether a build context is a git repository: what `is_git` says, or `github.com/...`.
    pub fn is_git_context(source: &str) -> bool {
        source.starts_with("github.com/") || GitSource::is_git(source)
    }

    /// Reads a source as BuildKit does: `REMOTE[?QUERY][#[REFERENCE][:DIRECTORY]]`, where the query
    /// has `ref`, `branch`, `tag`, `subdir`, `checksum` (or `commit`), `keep-git-dir`, `submodules`,
    /// `mtime` and `fetch-by-commit`. Messages hold nothing of a remote, which may have a password.
    pub fn parse(text: &str) -> Result<GitSource, String> {
        let github = text.starts_with("github.com/");
        let (rest, fragment) = match text.split_once('#') {
            Some((rest, fragment)) => (rest, fragment),
            None => (text, ""),
        };
        let (remote, query) = match rest.split_once('?') {
            Some((remote, query)) => (remote, query),
            None => (rest, ""),
        };
        let is_url = github || scheme(text).is_some();
        if !is_url && scp(text).is_none() {
            return Err("it is neither a URL of https, http, ssh or git nor user@host:path".into());
        }
        if let Some(other) = scheme(text)
            .filter(|scheme| !matches!(scheme.as_str(), "https" | "http" | "ssh" | "git"))
        {
            return Err(format!(
                "git repositories are not fetched over `{other}`: https, http, ssh and git are"
            ));
        }
        let mut source = GitSource::new(if github {
            format!("https://{remote}")
        } else {
            remote.to_owned()
        });
        if is_url {
            let url = Url::parse(&source.remote).map_err(|e| format!("its URL: {e}"))?;
            if url.host_str().is_none_or(str::is_empty) {
                return Err("its URL has no host".into());
            }
        }
        // Go decodes the fragment of a URL; scp's form is taken as it is.
        let fragment = match is_url {
            true => unescaped(fragment).ok_or("invalid URL escape in the fragment")?,
            false => fragment.to_owned(),
        };
        let (reference, directory) = fragment.split_once(':').unwrap_or((&fragment, ""));
        source.reference = given(reference);
        source.subdirectory = given(directory);
        source.query(query)?;
        source.check()?;
        Ok(source)
    }

    /// Reads what stands after `git://` in a `--context` of kaniko: `HOST/PATH[#REFERENCE[#COMMIT]]`.
    pub fn parse_kaniko(text: &str, method: PullMethod) -> Result<GitSource, String> {
        let mut parts = text.split('#');
        let place = parts.next().unwrap_or_default();
        let scheme = match method {
            PullMethod::Https => "https",
            PullMethod::Http => "http",
        };
        let mut source = GitSource::new(format!("{scheme}://{place}"));
        let url = Url::parse(&source.remote).map_err(|e| format!("its URL: {e}"))?;
        if url.host_str().is_none_or(str::is_empty) || url.query().is_some() {
            return Err("HOST/PATH[#REFERENCE[#COMMIT]] is wanted".into());
        }
        let reference = parts.next().and_then(given);
        let commit = parts.next().and_then(given);
        if parts.next().is_some() {
            return Err("there is more than one commit".into());
        }
        source.reference = commit.or(reference);
        source.check()?;
        Ok(source)
    }

    fn query(&mut self, query: &str) -> Result<(), String> {
        let (mut tag, mut branch) = (None, None);
        let mut seen = Vec::new();
        let pairs = url::form_urlencoded::parse(query.as_bytes());
        for (name, value) in pairs {
            if seen.contains(&name) {
                return Err(format!("query \"{name}\" has multiple values"));
            }
            let flag = |default: bool| match value.as_ref() {
                "" => Ok(default),
                "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
                "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
                _ => Err(format!("invalid {name} value: \"{value}\"")),
            };
            match name.as_ref() {
                "keep-git-dir" => self.keep_git_dir = Some(flag(true)?),
                "submodules" => {
                    self.submodules = match flag(true)? {
                        true => Submodules::Fetch,
                        false => Submodules::Skip,
                    }
                }
                // What it asks for is what is always done: the commit that the reference was is
                // fetched, whatever the reference is by then.
                "fetch-by-commit" => drop(flag(true)?),
                _ if value.is_empty() => return Err(format!("query \"{name}\" has no value")),
                "ref" => agree("ref", &mut self.reference, &value)?,
                "subdir" => agree("subdir", &mut self.subdirectory, &value)?,
                "checksum" | "commit" => agree("checksum", &mut self.checksum, &value)?,
                "tag" => tag = Some(within("refs/tags/", &value)),
                "branch" => branch = Some(within("refs/heads/", &value)),
                "mtime" => {
                    self.times = match value.as_ref() {
                        "commit" => CheckoutTimes::Commit,
                        "checkout" => CheckoutTimes::Checkout,
                        _ => return Err(format!("invalid mtime value: \"{value}\"")),
                    }
                }
                _ => return Err(format!("unexpected query \"{name}\"")),
            }
            seen.push(name);
        }
        if tag.is_some() && branch.is_some() {
            return Err("branch conflicts with tag".into());
        }
        if let Some(reference) = tag.or(branch) {
            agree("ref", &mut self.reference, &reference)?;
        }
        if self.reference.is_none() {
            self.reference.clone_from(&self.checksum);
        }
        Ok(())
    }

    /// Looks at what nothing may be whatever way it was written.
    fn check(&mut self) -> Result<(), String> {
        if let Some(reference) = &self.reference
            && reference.bytes().any(|c| c <= b' ' || c == 0x7f)
        {
            return Err(format!("invalid ref {reference:?}"));
        }
        if let Some(checksum) = &self.checksum
            && (checksum.len() > 64 || !checksum.bytes().all(|c| c.is_ascii_hexdigit()))
        {
            return Err(format!(
                "invalid checksum {checksum} for Git URL, expected hex commit hash"
            ));
        }
        if let Some(directory) = &self.subdirectory {
            self.subdirectory = inside(directory)?;
        }
        Ok(())
    }
}

/// Gives the scheme of what begins like a URL, in lower case.
fn scheme(text: &str) -> Option<String> {
    let (scheme, _) = text.split_once("://")?;
    let is_scheme = !scheme.is_empty() && scheme.bytes().all(|c| c.is_ascii_alphanumeric());
    is_scheme.then(|| scheme.to_ascii_lowercase())
}

/// Splits `user@host:path`, which may go on with a query and a fragment.
fn scp(text: &str) -> Option<(&str, &str, &str)> {
    let (user, rest) = text.split_once('@')?;
    let (host, path) = rest.split_once(':')?;
    let word = |text: &str, more: &[u8]| {
        !text.is_empty()
            && text
                .bytes()
                .all(|c| c.is_ascii_alphanumeric() || more.contains(&c))
    };
    (word(user, b"-_") && word(host, b"-.") && !path.contains('\n')).then_some((user, host, path))
}

fn given(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn within(prefix: &str, name: &str) -> String {
    match name.starts_with(prefix) {
        true => name.to_owned(),
        false => format!("{prefix}{name}"),
    }
}

/// Sets what is not set yet; what was said twice must have been the same.
fn agree(what: &str, place: &mut Option<String>, value: &str) -> Result<(), String> {
    match place {
        Some(there) if there != value => {
            Err(format!("{what} conflicts: \"{there}\" vs \"{value}\""))
        }
        _ => {
            *place = Some(value.to_owned());
            Ok(())
        }
    }
}

/// Undoes `%XX` of a URL's part; `None` where that is no UTF-8, or an escape is none.
pub fn unescaped(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            out.push(*first);
            continue;
        }
        let byte = tail
            .get(..2)
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok())?;
        out.push(byte);
        rest = &tail[2..];
    }
    String::from_utf8(out).ok()
}

/// Cleans the path of a directory in a repository; none for the root.
fn inside(directory: &str) -> Result<Option<String>, String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in directory.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                if parts.pop().is_none() {
                    return Err(format!(
                        "subdir \"{directory}\" leads out of the repository"
                    ));
                }
            }
            name if name.contains('\0') => return Err("subdir has a NUL byte".into()),
            name => parts.push(name),
        }
    }
    Ok(given(&parts.join("/")))
}

#[cfg(test)]
#[path = "git_tests.rs"]
mod tests;
