use super::Error;
use std::collections::BTreeMap;
use std::net::IpAddr;
use url::{Host, Url};

/// Which proxy a request goes through, by the rules that curl and Go's HTTP client share.
#[derive(Clone, Debug, Default)]
pub(super) struct Proxies {
    http: Option<String>,
    https: Option<String>,
    except: Vec<Except>,
}

#[derive(Clone, Debug)]
enum Except {
    Everything,
    /// A domain with everything below it, or only what is below it where it was written with a dot.
    Domain {
        name: String,
        itself: bool,
        port: Option<u16>,
    },
    Address(IpAddr, Option<u16>),
    Network(IpAddr, u32),
}

impl Proxies {
    pub(super) fn new(variables: &BTreeMap<String, String>) -> Result<Proxies, Error> {
        let get = |name: &str| {
            variables
                .get(name)
                .or_else(|| variables.get("all_proxy"))
                .map(|text| text.trim())
                .filter(|text| !text.is_empty())
                .map(address)
                .transpose()
        };
        Ok(Proxies {
            http: get("http_proxy")?,
            https: get("https_proxy")?,
            except: variables
                .get("no_proxy")
                .map(|list| {
                    list.split([',', ' '])
                        .map(str::trim)
                        .filter(|entry| !entry.is_empty())
                        .map(except)
                        .collect()
                })
                .unwrap_or_default(),
        })
    }

    /// Gives the proxy for a URL; loopback is always talked to directly.
    pub(super) fn of(&self, url: &Url) -> Option<&str> {
        let proxy = match url.scheme() {
            "https" => self.https.as_deref()?,
            _ => self.http.as_deref()?,
        };
        let port = url.port_or_known_default();
        let direct = match url.host()? {
            Host::Domain(name) => {
                name == "localhost" || self.except.iter().any(|e| e.has_name(name, port))
            }
            Host::Ipv4(ip) => self.is_direct(ip.into(), port),
            Host::Ipv6(ip) => self.is_direct(ip.into(), port),
        };
        (!direct).then_some(proxy)
    }

    fn is_direct(&self, ip: IpAddr, port: Option<u16>) -> bool {
        ip.is_loopback() || self.except.iter().any(|e| e.has_address(ip, port))
    }
}

/// Reads a proxy's address; one without a scheme is an HTTP proxy.
fn address(text: &str) -> Result<String, Error> {
    let full = if text.contains("://") {
        text.to_owned()
    } else {
        format!("http://{text}")
    };
    let wrong = |proxy: String, why: String| Err(Error::Proxy { proxy, why });
    match Url::parse(&full) {
        // The text itself stays out of the message: it may hold a password.
        Err(e) => wrong("(not shown)".into(), e.to_string()),
        Ok(url) if !matches!(url.scheme(), "http" | "https") => wrong(
            super::redacted(&url),
            format!(
                "a {} proxy is not supported, http or https is",
                url.scheme()
            ),
        ),
        Ok(_) => Ok(full),
    }
}

fn except(entry: &str) -> Except {
    if entry == "*" {
        return Except::Everything;
    }
    if let Some((net, bits)) = entry.split_once('/')
        && let (Ok(net), Ok(bits)) = (net.parse::<IpAddr>(), bits.parse())
    {
        return Except::Network(net, bits);
    }
    if let Ok(ip) = entry.trim_matches(['[', ']']).parse() {
        return Except::Address(ip, None);
    }
    let (host, port) = match entry.rsplit_once(':') {
        Some((host, port)) => match port.parse() {
            Ok(port) => (host, Some(port)),
            Err(_) => (entry, None),
        },
        None => (entry, None),
    };
    if let Ok(ip) = host.trim_matches(['[', ']']).parse() {
        return Except::Address(ip, port);
    }
    let name = host.strip_prefix('*').unwrap_or(host);
    Except::Domain {
        itself: !name.starts_with('.'),
        name: name.trim_start_matches('.').to_ascii_lowercase(),
        port,
    }
}

impl Except {
    fn has_name(&self, host: &str, at: Option<u16>) -> bool {
        match self {
            Except::Everything => true,
            Except::Domain { name, itself, port } => {
                (port.is_none() || *port == at)
                    && host.strip_suffix(name.as_str()).is_some_and(|rest| {
                        if rest.is_empty() {
                            *itself
                        } else {
                            rest.ends_with('.')
                        }
                    })
            }
            _ => false,
        }
    }

    fn has_address(&self, ip: IpAddr, at: Option<u16>) -> bool {
        match self {
            Except::Everything => true,
            Except::Address(own, port) => *own == ip && (port.is_none() || *port == at),
            Except::Network(net, bits) => match (net, ip) {
                (IpAddr::V4(a), IpAddr::V4(b)) => {
                    *bits <= 32
                        && (a.to_bits() ^ b.to_bits())
                            .checked_shr(32 - bits)
                            .is_none_or(|rest| rest == 0)
                }
                (IpAddr::V6(a), IpAddr::V6(b)) => {
                    *bits <= 128
                        && (a.to_bits() ^ b.to_bits())
                            .checked_shr(128 - bits)
                            .is_none_or(|rest| rest == 0)
                }
                _ => false,
            },
            Except::Domain { .. } => false,
        }
    }
}
