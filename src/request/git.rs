/// A git repository, or a directory of it, at one commit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GitSource {
    /// The repository's URL: https, http, ssh, git or file.
    pub remote: String,
    /// Branch, tag, full reference or commit; the remote's HEAD where there is none.
    pub reference: Option<String>,
    /// The directory of the repository that is meant, relative; the root where there is none.
    pub subdirectory: Option<String>,
    /// The commit, or the start of it, that `reference` must be.
    pub checksum: Option<String>,
}

impl GitSource {
    /// Reads `REMOTE[#[REFERENCE][:DIRECTORY]]`.
    pub fn parse(text: &str) -> Result<GitSource, String> {
        let (remote, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (reference, subdirectory) = fragment.split_once(':').unwrap_or((fragment, ""));
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Ok(GitSource {
            remote: remote.to_owned(),
            reference: given(reference),
            subdirectory: given(subdirectory),
            checksum: None,
        })
    }

    /// Tells whether a source of an ADD is a git repository, as BuildKit decides it.
    pub fn is_git(source: &str) -> bool {
        if ["git://", "git@", "ssh://"]
            .iter()
            .any(|scheme| source.starts_with(scheme))
        {
            return true;
        }
        let is_http = source.starts_with("http://") || source.starts_with("https://");
        let path = source.split(['#', '?']).next().unwrap_or_default();
        is_http && path.ends_with(".git")
    }
}
