use url::Url;

/// Query parameters whose values say nothing secret; every other value is hidden, because each
/// object store has names of its own for a signature.
const HARMLESS: &[&str] = &["service", "scope", "mount", "from", "digest", "ns"];

/// Gives a URL as it may be shown: no user and password, and no values of query parameters but
/// those known to be harmless.
pub fn redacted(url: &Url) -> String {
    let mut shown = url.clone();
    shown.set_fragment(None);
    if !shown.username().is_empty() || shown.password().is_some() {
        // Neither fails for a URL that has a user.
        let _ = shown.set_username("REDACTED");
        let _ = shown.set_password(None);
    }
    if url.query().is_some() {
        shown.set_query(None);
        let mut query = String::new();
        for (name, value) in url.query_pairs() {
            query.push(if query.is_empty() { '?' } else { '&' });
            query.push_str(&name);
            if !value.is_empty() {
                query.push('=');
                if HARMLESS.contains(&name.as_ref()) {
                    query.push_str(&value);
                } else {
                    query.push_str("REDACTED");
                }
            }
        }
        return format!("{shown}{query}");
    }
    shown.into()
}
