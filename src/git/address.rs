//! Where a repository is, and where the submodules are that are named relative to it.

use super::{Error, Login};
use crate::net::{self, Url};
use crate::request::{Hidden, unescaped};

/// Where a repository is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    /// At an http or https URL, which has no user.
    Http(Url),
    /// At a git daemon.
    Daemon {
        host: String,
        port: u16,
        path: String,
    },
    /// Behind ssh.
    Ssh {
        user: Option<String>,
        host: String,
        port: Option<u16>,
        path: String,
    },
}

/// Gives a remote as it may be shown.
pub fn shown(remote: &str) -> String {
    match Url::parse(remote) {
        Ok(url) if remote.contains("://") => net::redacted(&url),
        // `user@host:path` has no room for a password.
        _ if remote.contains("://") => "(a URL that cannot be read)".into(),
        _ => remote.to_owned(),
    }
}

impl Address {
    /// Reads a remote; gives the user and password that an http URL holds, too.
    pub(super) fn parse(remote: &str) -> Result<(Address, Option<Login>), Error> {
        let wrong = |why: &str| Error::Address {
            remote: shown(remote),
            why: why.to_owned(),
        };
        if !remote.contains("://") {
            let (place, path) = remote
                .split_once(':')
                .ok_or_else(|| wrong("it is no URL"))?;
            let (user, host) = match place.split_once('@') {
                Some((user, host)) => (Some(user.to_owned()), host),
                None => (None, place),
            };
            return Address::ssh(user, host.to_owned(), None, path.to_owned())
                .map(|address| (address, None))
                .map_err(wrong);
        }
        let mut url = Url::parse(remote).map_err(|e| wrong(&e.to_string()))?;
        let host = url.host_str().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| wrong("it has no host"))?.to_owned();
        // Brackets belong to a URL, not to the address in them.
        let host = host.trim_matches(['[', ']']).to_owned();
        match url.scheme() {
            "http" | "https" => {
                let login = login(&url);
                // Neither fails for a URL that has a host.
                let _ = url.set_username("");
                let _ = url.set_password(None);
                url.set_fragment(None);
                Ok((Address::Http(url), login))
            }
            "git" => {
                let path = unescaped(url.path()).ok_or_else(|| wrong("its path is not UTF-8"))?;
                if path.contains('\0') {
                    return Err(wrong("its path has a NUL byte"));
                }
                let port = url.port().unwrap_or(9418);
                Ok((Address::Daemon { host, port, path }, None))
            }
            "ssh" => {
                let path = unescaped(url.path()).ok_or_else(|| wrong("its path is not UTF-8"))?;
                // `/~user/x` is what stands below a home directory.
                let path = match path.strip_prefix("/~") {
                    Some(rest) => format!("~{rest}"),
                    None => path,
                };
                let user = unescaped(url.username()).filter(|user| !user.is_empty());
                Address::ssh(user, host, url.port(), path)
                    .map(|address| (address, None))
                    .map_err(wrong)
            }
            other => Err(wrong(&format!(
                "git repositories are not fetched over `{other}`: https, http, ssh and git are"
            ))),
        }
    }

    /// Nothing that ssh is given may be taken for one of its options.
    fn ssh(
        user: Option<String>,
        host: String,
        port: Option<u16>,
        path: String,
    ) -> Result<Address, &'static str> {
        let odd = |text: &str| text.starts_with('-') || text.bytes().any(|c| c <= b' ');
        if host.is_empty() || odd(&host) || host.contains(['@', '/']) {
            return Err("its host is none");
        }
        if user
            .as_deref()
            .is_some_and(|user| user.is_empty() || odd(user))
        {
            return Err("its user is none");
        }
        if path.is_empty() || path.starts_with('-') || path.bytes().any(|c| c == 0 || c == b'\n') {
            return Err("its path is none");
        }
        Ok(Address::Ssh {
            user,
            host,
            port,
            path,
        })
    }
}

fn login(url: &Url) -> Option<Login> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let text = |text: &str| Hidden(unescaped(text).unwrap_or_default().into_bytes());
    Some(Login::Basic {
        user: text(url.username()),
        password: text(url.password().unwrap_or_default()),
    })
}

/// Gives a submodule's remote, which may be relative to that of the repository it is in (`./`,
/// `../`), as git does; `Err` says why it is none.
pub fn submodule_url(remote: &str, url: &str) -> Result<String, String> {
    if !url.starts_with("./") && !url.starts_with("../") {
        let absolute =
            url.contains("://") || url.split_once(':').is_some_and(|(p, _)| p.contains('@'));
        return match absolute {
            true if !url.starts_with('-') => Ok(url.to_owned()),
            _ => Err("it is neither a URL nor relative".into()),
        };
    }
    let out = || "it leads above the host".to_owned();
    // What is before the path, and the path.
    let (head, path) = match remote.split_once("://") {
        Some((scheme, rest)) => {
            let at = rest.find('/').unwrap_or(rest.len());
            remote.split_at(scheme.len() + 3 + at)
        }
        None => {
            let at = remote.find(':').ok_or("its repository is at no URL")?;
            remote.split_at(at + 1)
        }
    };
    let mut parts: Vec<&str> = path.trim_end_matches('/').split('/').collect();
    let mut rest = url;
    loop {
        if let Some(below) = rest.strip_prefix("./") {
            rest = below;
        } else if let Some(below) = rest.strip_prefix("../") {
            rest = below;
            // The first part of an absolute path is empty: it is the root.
            let gone = parts.pop().ok_or_else(out)?;
            if gone.is_empty() {
                return Err(out());
            }
        } else {
            break;
        }
    }
    let above = parts.join("/");
    let slash = match head.ends_with(':') && above.is_empty() {
        true => "",
        false => "/",
    };
    Ok(format!(
        "{head}{above}{slash}{}",
        rest.trim_end_matches('/')
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remotes_are_read() {
        let table = [
            ("https://h/a.git", "Http(https://h/a.git)"),
            (
                "https://u:p%40@h:8443/a.git",
                "Http(https://h:8443/a.git) u p@",
            ),
            ("https://tok@h/a", "Http(https://h/a) tok "),
            ("git://h/a%20b", "Daemon(h 9418 /a b)"),
            ("git://[::1]:99/a", "Daemon(::1 99 /a)"),
            ("ssh://git@h:22/a", "Ssh(git h 22 /a)"),
            ("ssh://h/~me/a", "Ssh(- h - ~me/a)"),
            ("git@h:a/b.git", "Ssh(git h - a/b.git)"),
            ("git@-oProxyCommand=x:a", "!its host is none"),
            ("ssh://-oProxyCommand=x/a", "!"),
            ("ssh://-oX@h/a", "!its user is none"),
            ("git@h:-a", "!its path is none"),
            ("git@h:", "!its path is none"),
            ("file:///etc", "!it has no host"),
            (
                "ftp://h/a",
                "!git repositories are not fetched over `ftp`: https, http, ssh and git are",
            ),
            ("/etc", "!it is no URL"),
        ];
        for (remote, want) in table {
            let got = match Address::parse(remote) {
                Err(Error::Address { why, .. }) => format!("!{why}"),
                Err(other) => panic!("{other}"),
                Ok((Address::Http(url), None)) => format!("Http({url})"),
                Ok((Address::Http(url), Some(Login::Basic { user, password }))) => {
                    let text = |h: &Hidden| String::from_utf8_lossy(&h.0).into_owned();
                    format!("Http({url}) {} {}", text(&user), text(&password))
                }
                Ok((Address::Daemon { host, port, path }, _)) => {
                    format!("Daemon({host} {port} {path})")
                }
                Ok((
                    Address::Ssh {
                        user,
                        host,
                        port,
                        path,
                    },
                    _,
                )) => format!(
                    "Ssh({} {host} {} {path})",
                    user.unwrap_or("-".into()),
                    port.map_or("-".into(), |port| port.to_string())
                ),
                Ok(other) => panic!("{other:?}"),
            };
            match want {
                "!" => assert!(got.starts_with('!'), "{remote}: {got}"),
                want => assert_eq!(got, want, "{remote}"),
            }
        }
    }

    #[test]
    fn submodules_are_found_from_their_repository() {
        let table = [
            ("https://h/a/b.git", "../c.git", "https://h/a/c.git"),
            ("https://h/a/b.git/", "../c.git/", "https://h/a/c.git"),
            ("https://h/a/b.git", "./c", "https://h/a/b.git/c"),
            ("https://h/a/b.git", "../../c", "https://h/c"),
            ("https://h/a/b.git", ".././../c", "https://h/c"),
            (
                "https://h/a/b.git",
                "../../../c",
                "!it leads above the host",
            ),
            ("https://h", "../c", "!it leads above the host"),
            ("git@h:a/b", "../c", "git@h:a/c"),
            ("git@h:a", "../c", "git@h:c"),
            ("git@h:a", "../../c", "!it leads above the host"),
            ("git@h:/a/b", "../c", "git@h:/a/c"),
            ("https://h/a", "https://x/y", "https://x/y"),
            ("https://h/a", "git@x:y", "git@x:y"),
            ("https://h/a", "-u./x", "!it is neither a URL nor relative"),
            ("https://h/a", "/etc", "!it is neither a URL nor relative"),
            ("https://h/a", "../-x", "https://h/-x"),
        ];
        for (remote, url, want) in table {
            let got = submodule_url(remote, url).unwrap_or_else(|why| format!("!{why}"));
            assert_eq!(got, want, "{remote} {url}");
        }
    }

    #[test]
    fn no_password_is_shown() {
        assert_eq!(
            shown("https://u:s3cret@h/a?token=s3cret"),
            "https://REDACTED@h/a?token=REDACTED"
        );
        assert_eq!(shown("https://u:s3cret@"), "(a URL that cannot be read)");
        assert_eq!(shown("git@h:a"), "git@h:a");
    }
}
