//! Law: any text is read as a git source or refused, without a panic; a directory that it names lies in
//! the repository; a reference has no blank; a refusal says nothing of what may hold a password.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shutter::fs::RelPath;
use shutter::git::{shown, submodule_url};
use shutter::request::{GitSource, PullMethod};

/// A password that is in none of our words.
const PASSWORD: &str = "q7Zx0w";

fn look(read: Result<GitSource, String>) {
    let Ok(source) = read else { return };
    if let Some(directory) = &source.subdirectory {
        let path = RelPath::checked(directory.as_bytes()).expect("a path that leads nowhere else");
        assert!(!path.is_root() && path.as_bytes() == directory.as_bytes());
    }
    if let Some(reference) = &source.reference {
        assert!(!reference.is_empty() && reference.bytes().all(|c| c > b' ' && c != 0x7f));
    }
    if let Some(checksum) = &source.checksum {
        assert!(checksum.bytes().all(|c| c.is_ascii_hexdigit()));
    }
    shown(&source.remote);
}

fuzz_target!(|text: &str| {
    let is_git = GitSource::is_git(text);
    assert!(!is_git || GitSource::is_git_context(text));
    look(GitSource::parse(text));
    for method in [PullMethod::Https, PullMethod::Http] {
        look(GitSource::parse_kaniko(text, method));
    }
    let (outer, inner) = text.split_once('\n').unwrap_or(("https://h/a/b.git", text));
    if let Ok(url) = submodule_url(outer, inner) {
        shown(&url);
    }
    // What is between the scheme and the `@` is never said.
    if let Some((scheme, rest)) = text.split_once("://")
        && scheme.bytes().all(|c| c.is_ascii_alphanumeric())
        && !text.contains(PASSWORD)
    {
        let secret = format!("{scheme}://u:{PASSWORD}@{rest}");
        match GitSource::parse(&secret) {
            Ok(source) => assert!(!shown(&source.remote).contains(PASSWORD), "{secret}"),
            Err(said) => assert!(!said.contains(PASSWORD), "{secret}: {said}"),
        }
    }
});
