//! What systemd passes (sd_listen_fds(3)): listening sockets, and connections that the process before this one has left with it.
//!
//! A socket is assigned by its name (`FileDescriptorName=`), and without one of our names by its kind and address. What fits nothing in the
//! configuration is an error: a socket that nobody serves would swallow records.

use std::fmt;
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use listenfd::ListenFd;
use socket2::{Domain, Socket, Type};

use super::sockets::called;
use crate::config::{AuditProtocol, Config, Environment};
use crate::listener::{Established, Listener, Source, Stream};

/// Most sockets that are taken.
const SOCKETS_MAX: usize = 64 << 10;

/// Which listener a socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Http,
    Admin,
    Tcp,
    Udp,
    Unix,
    Control,
}

const ROLES: [(&str, Role); 6] = [
    ("http", Role::Http),
    ("admin", Role::Admin),
    ("tcp", Role::Tcp),
    ("udp", Role::Udp),
    ("unix", Role::Unix),
    ("control", Role::Control),
];

/// Connections bear these names.
const CONNECTIONS: [(&str, Source); 3] =
    [("http-connection", Source::Http), ("tcp-connection", Source::Tcp), ("unix-connection", Source::Unix)];

/// The name under which a connection is left with systemd; none where it is not left.
pub(super) fn connection_name(source: Source) -> Option<&'static str> {
    CONNECTIONS.iter().find(|(_, of)| *of == source).map(|(name, _)| *name)
}

impl Role {
    /// What kind of socket it takes.
    fn kind(self) -> Kind {
        match self {
            Role::Http | Role::Admin | Role::Tcp => Kind::Tcp,
            Role::Udp => Kind::Udp,
            Role::Unix | Role::Control => Kind::Unix,
        }
    }

    /// The address that the configuration has for it; an error says what to write so that it has one.
    fn configured(self, config: &Config) -> Result<String, &'static str> {
        let (vault, listen) = (&config.vault, &config.listen);
        let path = |path: &PathBuf| path.display().to_string();
        match self {
            Role::Http => listen.http_address.clone().ok_or("listen.http.address: 127.0.0.1:1270"),
            Role::Admin => listen.admin_address.clone().ok_or("listen.admin.address: 127.0.0.1:1271"),
            Role::Tcp if vault.audit_protocol == AuditProtocol::Tcp => Ok(vault.audit_address.clone()),
            Role::Tcp => Err("vault.audit_protocol: tcp"),
            Role::Udp if vault.audit_protocol == AuditProtocol::Udp => Ok(vault.audit_address.clone()),
            Role::Udp => Err("vault.audit_protocol: udp"),
            Role::Unix => listen.unix_path.as_ref().map(path).ok_or("listen.unix.path with its path"),
            Role::Control => config.control_path().as_ref().map(path).ok_or("control.socket with its path"),
        }
    }

    /// Its listener; none for the control API.
    fn source(self) -> Option<Source> {
        match self {
            Role::Http => Some(Source::Http),
            Role::Admin => Some(Source::Admin),
            Role::Tcp => Some(Source::Tcp),
            Role::Udp => Some(Source::Udp),
            Role::Unix => Some(Source::Unix),
            Role::Control => None,
        }
    }

    fn label(self, config: &Config) -> &'static str {
        self.source().map_or("control API", |source| called(source, config))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tcp,
    Udp,
    Unix,
    /// A connected stream.
    Connection,
}

impl Kind {
    /// What to write in the socket unit for it.
    fn directive(self) -> &'static str {
        match self {
            Kind::Udp => "ListenDatagram=",
            _ => "ListenStream=",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Address {
    Net(SocketAddr),
    Path(PathBuf),
    Unnamed,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Net(address) => address.fmt(f),
            Address::Path(path) => path.display().fmt(f),
            Address::Unnamed => f.write_str("an unnamed socket"),
        }
    }
}

/// A socket without the socket: what decides where it belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Traits {
    fd: usize,
    name: String,
    kind: Kind,
    address: Address,
}

impl fmt::Display for Traits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Tcp => "TCP, ",
            Kind::Udp => "UDP, ",
            Kind::Unix => "Unix stream, ",
            Kind::Connection => "a connection, ",
        };
        write!(f, "descriptor {} (named {:?}; {kind}{})", self.fd, self.name, self.address)
    }
}

impl Traits {
    /// The listener that it is for, or what to write instead.
    fn role(&self, config: &Config) -> Result<Role, String> {
        match ROLES.iter().find(|(name, _)| *name == self.name) {
            Some((_, role)) => self.check(*role, config).map(|()| *role),
            None => self.role_by_address(config),
        }
    }

    fn check(&self, role: Role, config: &Config) -> Result<(), String> {
        let name = &self.name;
        if role.kind() != self.kind {
            let (what, directive) = match role.kind() {
                Kind::Tcp => ("a listening TCP socket", "ListenStream=127.0.0.1:PORT"),
                Kind::Udp => ("a UDP socket", "ListenDatagram=127.0.0.1:PORT"),
                _ => ("a listening Unix stream socket", "ListenStream=/run/NAME"),
            };
            return Err(format!(
                "{self} is not what {name:?} is for: that is {what}; write {directive} beside FileDescriptorName={name} in the \
                 socket unit"
            ));
        }
        let configured = role.configured(config).map_err(|key| {
            format!(
                "{self} was passed, and the configuration has no such listener: write {key}, or disable the socket unit with \
                 FileDescriptorName={name}"
            )
        })?;
        // The commands look for it where the configuration says.
        if role == Role::Control && configured != self.address.to_string() {
            return Err(format!("{self} is not where control.socket says: write {} there", self.address));
        }
        Ok(())
    }

    fn role_by_address(&self, config: &Config) -> Result<Role, String> {
        let fits = |role: &Role| {
            role.kind() == self.kind && role.configured(config).is_ok_and(|address| self.address.is(&address))
        };
        let mut roles = ROLES.iter().map(|(_, role)| *role);
        roles.find(fits).ok_or_else(|| {
            let names: Vec<&str> =
                ROLES.iter().filter(|(_, role)| role.kind() == self.kind).map(|(name, _)| *name).collect();
            format!(
                "{self} is no listener of the configuration: write FileDescriptorName={} in its socket unit, or give that listener \
                 this address in the configuration, or remove its {}",
                names.join(" or "),
                self.kind.directive()
            )
        })
    }
}

impl Address {
    /// Whether a configuration means it by `text`.
    fn is(&self, text: &str) -> bool {
        match self {
            Address::Net(address) => text.to_socket_addrs().is_ok_and(|mut all| {
                all.any(|one| {
                    // systemd binds [::] where a port alone is written.
                    let everywhere = one.ip().is_unspecified() && address.ip().is_unspecified();
                    one.port() == address.port() && (everywhere || one.ip() == address.ip())
                })
            }),
            Address::Path(path) => path.as_os_str() == text,
            Address::Unnamed => false,
        }
    }
}

/// All that was passed.
#[derive(Debug, Default)]
pub(super) struct Passed {
    sockets: Vec<(Traits, Socket)>,
    connections: Vec<Established>,
}

impl Passed {
    /// Takes the sockets over. Must be called before threads are started and before files are opened: the environment is changed, and
    /// the descriptors are those that were open at the start.
    ///
    /// # Errors
    /// What is no socket, or does not fit its description.
    pub(super) fn take(environment: &Environment) -> Result<Passed, String> {
        let own = std::process::id().to_string();
        // They may be meant for the process that has started this one.
        if environment.get("LISTEN_PID") != Some(&own) {
            return Ok(Passed::default());
        }
        let mut fds = ListenFd::from_env();
        let count = fds.len();
        if count > SOCKETS_MAX {
            return Err(format!("LISTEN_FDS is {count}: at most {SOCKETS_MAX} sockets can be passed"));
        }
        let names = names(environment.get("LISTEN_FDNAMES"), count)?;
        let mut passed = Passed::default();
        let mut errors = Vec::new();
        for (index, name) in names.into_iter().enumerate() {
            match one(&mut fds, index, name) {
                Ok((traits, socket)) => passed.put(traits, socket, &mut errors),
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() { Ok(passed) } else { Err(errors.join("\n")) }
    }

    fn put(&mut self, traits: Traits, socket: Socket, errors: &mut Vec<String>) {
        let of_connection = CONNECTIONS.iter().find(|(name, _)| *name == traits.name);
        match (of_connection, traits.kind) {
            (Some((_, source)), Kind::Connection) => {
                let unix = *source == Source::Unix;
                let stream = if unix {
                    Stream::Unix(UnixStream::from(socket))
                } else {
                    Stream::Tcp(TcpStream::from(socket))
                };
                self.connections.push(Established { source: *source, stream });
            }
            (None, Kind::Connection) => errors.push(format!(
                "{traits} does not listen: write Accept=no in its socket unit, which must pass the listening socket"
            )),
            _ => self.sockets.push((traits, socket)),
        }
    }

    /// Gives each socket to its listener; what is wrong with all of them is told at once.
    ///
    /// # Errors
    /// What fits nothing in the configuration, and what to write instead.
    pub(super) fn assign(self, config: &Config) -> Result<Assigned, String> {
        let mut assigned = Assigned { connections: self.connections, ..Assigned::default() };
        let mut errors = Vec::new();
        for (traits, socket) in self.sockets {
            let outcome = traits.role(config).and_then(|role| assigned.put(role, &traits, socket, config));
            errors.extend(outcome.err());
        }
        if errors.is_empty() { Ok(assigned) } else { Err(errors.join("\n")) }
    }
}

/// Sockets in the place of those that the configuration would have bound.
#[derive(Debug, Default)]
pub(super) struct Assigned {
    pub(super) listeners: Vec<(Source, Listener)>,
    pub(super) udp: Option<UdpSocket>,
    pub(super) control: Option<UnixListener>,
    pub(super) connections: Vec<Established>,
    /// Where each is.
    pub(super) addresses: Vec<(Source, String)>,
    /// An HTTP listener that other machines reach.
    pub(super) exposed: Option<SocketAddr>,
}

impl Assigned {
    fn put(&mut self, role: Role, traits: &Traits, socket: Socket, config: &Config) -> Result<(), String> {
        let twice =
            (role == Role::Udp && self.udp.is_some()) || (role == Role::Control && self.control.is_some());
        if twice {
            return Err(format!("{traits}: there is one of its kind already; pass one of them only"));
        }
        let address = traits.address.to_string();
        if let Ok(configured) = role.configured(config)
            && !traits.address.is(&configured)
        {
            log::warn!(
                "{}: the passed socket is on {address}, not on {configured} as the configuration says, and is what counts",
                role.label(config)
            );
        }
        if let (Role::Http, Address::Net(address)) = (role, &traits.address)
            && !address.ip().to_canonical().is_loopback()
        {
            self.exposed = Some(*address);
        }
        match (role, role.source()) {
            (_, None) => self.control = Some(UnixListener::from(socket)),
            (Role::Udp, _) => self.udp = Some(UdpSocket::from(socket)),
            (Role::Unix, Some(source)) => {
                // Its file is not ours.
                self.listeners.push((source, Listener::Unix(UnixListener::from(socket), None)));
            }
            (_, Some(source)) => self.listeners.push((source, Listener::Tcp(TcpListener::from(socket)))),
        }
        // The control socket says so itself.
        self.addresses.extend(role.source().map(|source| (source, address)));
        Ok(())
    }
}

/// A name for each socket; empty ones where there are none.
fn names(text: Option<&str>, count: usize) -> Result<Vec<String>, String> {
    let Some(text) = text else { return Ok(vec![String::new(); count]) };
    let names: Vec<String> = text.split(':').map(str::to_owned).collect();
    if count > 0 && names.len() != count {
        return Err(format!(
            "LISTEN_FDNAMES has {} names for the {count} sockets of LISTEN_FDS: give as many, or none",
            names.len()
        ));
    }
    Ok(if count == 0 { Vec::new() } else { names })
}

/// Takes one socket of the kinds that there are listeners for.
fn one(fds: &mut ListenFd, index: usize, name: String) -> Result<(Traits, Socket), String> {
    let kinds = [(Domain::IPV4, Type::STREAM), (Domain::IPV4, Type::DGRAM), (Domain::UNIX, Type::STREAM)];
    let fd = index + 3;
    let taken = kinds.iter().find_map(|(domain, of)| {
        // AF_INET stands for AF_INET6 as well.
        fds.take_custom::<Socket>(index, (*domain).into(), (*of).into(), "socket").ok().flatten()
    });
    let socket = taken.ok_or_else(|| {
        format!(
            "descriptor {fd} (named {name:?}) is no TCP, UDP or Unix stream socket: pass sockets of ListenStream= and \
             ListenDatagram= only"
        )
    })?;
    let failed = |e| format!("descriptor {fd} (named {name:?}): {e}");
    let local = socket.local_addr().map_err(failed)?;
    let listens = socket.is_listener().map_err(failed)?;
    let is_stream = socket.r#type().map_err(failed)? == Type::STREAM;
    let kind = match (is_stream, listens) {
        (false, _) => Kind::Udp,
        (true, false) => Kind::Connection,
        (true, true) if local.is_unix() => Kind::Unix,
        (true, true) => Kind::Tcp,
    };
    let address = match (local.as_socket(), local.as_pathname()) {
        (Some(address), _) => Address::Net(address),
        (None, Some(path)) => Address::Path(path.to_owned()),
        (None, None) => Address::Unnamed,
    };
    Ok((Traits { fd, name, kind, address }, socket))
}

#[cfg(test)]
#[path = "passed_tests.rs"]
mod tests;
