//! Where the records go, and whether that is this machine.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use nix::ifaddrs::getifaddrs;

/// A receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// POST to `path`, with `host` in the `Host` header.
    Http {
        /// The address.
        address: SocketAddr,
        /// As it was named.
        host: String,
        /// Begins with a slash.
        path: String,
    },
    /// Newline-delimited over TCP.
    Tcp(SocketAddr),
    /// One datagram a record.
    Udp(SocketAddr),
    /// Newline-delimited over a Unix stream socket.
    Unix(PathBuf),
}

impl Target {
    /// The receiver's name for its listener, as in the label `listener` of its counters.
    pub fn listener(&self) -> &'static str {
        match self {
            Target::Http { .. } => "http",
            Target::Tcp(_) => "tcp",
            Target::Udp(_) => "udp",
            Target::Unix(_) => "unix",
        }
    }

    /// The network address; `None` for a Unix socket.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Target::Http { address, .. } | Target::Tcp(address) | Target::Udp(address) => Some(*address),
            Target::Unix(_) => None,
        }
    }
}

/// The addresses of `text` (`HOST:PORT`), those that take a TCP connection first where `connects` is given; never none.
/// Blocks for the resolver, and for the time limit for each address that does not answer.
///
/// # Errors
///
/// A text that is no address, or a name without one.
pub fn resolve(text: &str, connects: Option<Duration>) -> io::Result<Vec<SocketAddr>> {
    let mut found: Vec<SocketAddr> = text.to_socket_addrs()?.collect();
    if found.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    // `localhost` is often ::1 first, and receivers are usually on 127.0.0.1.
    found.sort_by_key(|address| !address.is_ipv4());
    if let Some(timeout) = connects
        && found.len() > 1
        && found.iter().all(|address| is_of_this_machine(address.ip()))
    {
        found.sort_by_key(|address| TcpStream::connect_timeout(address, timeout).is_err());
    }
    Ok(found)
}

/// Whether packets to that address stay on this machine: loopback, or an address of one of its interfaces. When the
/// interfaces cannot be listed, only loopback is.
pub fn is_of_this_machine(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    // Connecting to the unspecified address reaches this machine.
    if ip.is_loopback() || ip.is_unspecified() {
        return true;
    }
    let own = getifaddrs().into_iter().flatten().filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
    });
    own.into_iter().any(|own| own.to_canonical() == ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_and_own_addresses_are_of_this_machine() {
        for own in ["127.0.0.1", "127.8.9.1", "::1", "0.0.0.0", "::", "::ffff:127.0.0.1"] {
            assert!(is_of_this_machine(own.parse().expect("an address")), "{own}");
        }
        // Documentation, multicast and broadcast addresses, which no interface has.
        for other in
            ["192.0.2.1", "198.51.100.7", "2001:db8::1", "224.0.0.1", "255.255.255.255", "::ffff:192.0.2.1"]
        {
            assert!(!is_of_this_machine(other.parse().expect("an address")), "{other}");
        }
        let interfaces = getifaddrs().expect("interfaces").filter_map(|i| i.address);
        for v4 in interfaces.filter_map(|address| address.as_sockaddr_in().map(|a| a.ip())) {
            assert!(is_of_this_machine(IpAddr::V4(v4)), "{v4}");
        }
    }

    #[test]
    fn names_are_resolved_and_those_that_answer_come_first() {
        for wrong in ["", "nowhere", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:99999"] {
            assert!(resolve(wrong, None).is_err(), "{wrong}");
        }
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let found = resolve(&format!("localhost:{port}"), Some(Duration::from_secs(1))).expect("resolved");
        assert_eq!(found[0], listener.local_addr().expect("bound"));
    }
}
