//! Which names stand for this machine alone: where we listen, and what a browser may call us.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{Error, Result};

/// The address to listen on for a host that the user names; refused unless it is loopback.
pub(crate) fn loopback(host: &str) -> Result<IpAddr> {
    if host.eq_ignore_ascii_case("localhost") {
        return Ok(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    match bare.parse::<IpAddr>() {
        Ok(address) if address.is_loopback() => Ok(address),
        _ => Err(Error::NotLoopback { host: host.chars().take(100).collect() }),
    }
}

/// Whether the `Host` of a request names this machine. A page of the web whose name was made to point to 127.0.0.1 sends its
/// own name here, and must not be answered. Any port will do: a tunnel may have another one.
pub(crate) fn is_ours(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((name, "")) => return name.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback()),
            Some((name, port)) if is_port(port.strip_prefix(':').unwrap_or_default()) => {
                return name.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback());
            }
            _ => return false,
        },
        None => match host.split_once(':') {
            Some((name, port)) if is_port(port) => name,
            Some(_) => return false,
            None => host,
        },
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_ours() {
        for host in ["localhost", "LocalHost:8471", "127.0.0.1", "127.0.0.1:1", "127.8.9.1:80", "[::1]", "[::1]:8471"] {
            assert!(is_ours(host), "{host}");
        }
        let foreign = [
            "",
            "evil.example",
            "evil.example:8471",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "0.0.0.0",
            "192.168.1.2:8471",
            "[::2]",
            "[::1]x",
            "[::1",
            "localhost:",
            "localhost:80:80",
            "user@localhost",
            "[::1]:",
        ];
        for host in foreign {
            assert!(!is_ours(host), "{host}");
        }
    }

    #[test]
    fn other_hosts_are_refused_with_a_remedy() {
        for host in ["localhost", "127.0.0.1", "::1", "[::1]"] {
            assert!(loopback(host).expect("is loopback").is_loopback());
        }
        for host in ["0.0.0.0", "192.168.1.2", "::", "example.org", ""] {
            let error = loopback(host).expect_err("is seen from elsewhere").to_string();
            assert!(error.contains("use `127.0.0.1`") && error.contains("ssh -L"), "{error}");
        }
    }
}
