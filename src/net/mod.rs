//! One HTTP client: TLS, proxies, retry, redaction.
