//! The port specifications of EXPOSE: `[[ip:]host:]port[-port][/protocol]`.

use std::net::IpAddr;

/// Gives the ports a specification names, each as `port/protocol`.
pub(super) fn parse(spec: &str) -> Result<Vec<String>, String> {
    let mut parts = spec.rsplitn(3, ':');
    let container = parts.next().unwrap_or_default();
    let host = parts.next().unwrap_or_default();
    let ip = parts.next().unwrap_or_default();
    let (range, protocol) = match container.split_once('/') {
        Some((range, protocol)) => (range, protocol.to_ascii_lowercase()),
        None => (container, String::new()),
    };
    if range.is_empty() {
        return Err(format!("no port specified: {spec}<empty>"));
    }
    let protocol = match protocol.as_str() {
        "" => "tcp",
        "tcp" | "udp" | "sctp" => &protocol,
        other => return Err(format!("invalid proto: {other}")),
    };
    if !ip.is_empty() {
        let bare = ip
            .strip_prefix('[')
            .and_then(|ip| ip.strip_suffix(']'))
            .unwrap_or(ip);
        if bare.parse::<IpAddr>().is_err() {
            return Err(format!("invalid IP address: {ip}"));
        }
    }
    let (first, last) = bounds(range).ok_or_else(|| format!("invalid containerPort: {range}"))?;
    if !host.is_empty() {
        let (from, to) = bounds(host).ok_or_else(|| format!("invalid hostPort: {host}"))?;
        if first != last && last - first != to - from {
            return Err(format!(
                "invalid ranges specified for container and host Ports: {range} and {host}"
            ));
        }
    }
    Ok((first..=last)
        .map(|port| format!("{port}/{protocol}"))
        .collect())
}

fn bounds(range: &str) -> Option<(u16, u16)> {
    let number = |text: &str| {
        // Rust takes a leading `+`, a port does not.
        text.bytes()
            .all(|c| c.is_ascii_digit())
            .then(|| text.parse::<u16>().ok())
            .flatten()
    };
    match range.split_once('-') {
        None => number(range).map(|port| (port, port)),
        Some((first, last)) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some((first, last))
        }
    }
}
