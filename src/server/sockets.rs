//! The sockets of a server: bound or passed, and what becomes of its connections at a stop where systemd keeps them for the next one.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;

use super::notify;
use super::passed::{self, Assigned};
use crate::config::{Config, Environment};
use crate::listener::{self, Endpoint, Established, Listener, Listening, Pool, Source, TlsSettings};
use crate::service::Gateway;

/// How long connections of senders may take to come between two frames, so that systemd can keep them for the next server; and how long
/// the others are still served where their senders' next connection waits for that one.
pub(super) const HAND_OVER_MAX: Duration = Duration::from_secs(1);

/// Descriptors in one message to systemd; the kernel takes 253.
const FDS_PER_MESSAGE: usize = 200;

/// What is known of the sockets while they are served.
pub(super) struct Sockets {
    /// Where each listener of the configuration is.
    pub(super) listening: Vec<Listening>,
    /// Those that were passed.
    passed: Vec<Source>,
    /// All sockets of senders that connect were: who connects after the end waits for the next server.
    pub(super) all_passed: bool,
    /// Where the HTTP listener speaks TLS.
    pub(super) tls: Option<Arc<TlsSettings>>,
    /// A passed HTTP socket that other machines reach, whatever the configuration says.
    pub(super) exposed: Option<SocketAddr>,
}

/// What a listener is called in the diagnostics.
pub(super) fn called(source: Source, config: &Config) -> &'static str {
    match source {
        Source::Http if config.listen.http_tls.is_some() => "HTTPS",
        Source::Http => "HTTP",
        Source::Admin => "admin",
        Source::Tcp => "TCP",
        Source::Udp => "UDP",
        Source::Unix => "Unix stream",
    }
}

/// A sender connects to it.
fn is_connected_to(source: Source) -> bool {
    matches!(source, Source::Http | Source::Tcp | Source::Unix)
}

impl Sockets {
    /// Says what listens where.
    pub(super) fn announce(&self, config: &Config) {
        for Listening { source, address } in &self.listening {
            let passed = if self.passed.contains(source) { " (passed)" } else { "" };
            log::info!("listening: {} on {address}{passed}", called(*source, config));
        }
    }

    /// Leaves the connections of senders with systemd where it keeps them for the next server: they notice nothing. Those for which there is
    /// no room stay with the pool, to be drained. Returns how many are left.
    pub(super) fn hand_over(&self, pool: &Pool<Gateway>, timeout: Duration) -> usize {
        let room = fd_store_room(&Environment::of_process());
        if !self.passed.iter().any(|source| is_connected_to(*source)) || room == 0 {
            return 0;
        }
        let connections = pool.hand_over(timeout.min(HAND_OVER_MAX), room);
        let (mut left, mut failed) = (0, Vec::new());
        for source in [Source::Http, Source::Tcp, Source::Unix] {
            let Some(name) = passed::connection_name(source) else { continue };
            let of_it = connections.iter().filter(|connection| connection.source == source);
            let fds: Vec<BorrowedFd<'_>> = of_it.map(|connection| connection.stream.as_fd()).collect();
            // systemd is not to drop one whose peer has gone: what that has written before is still to be read.
            let states = [NotifyState::FdStore, NotifyState::FdName(name), NotifyState::Custom("FDPOLL=0")];
            match fds.chunks(FDS_PER_MESSAGE).try_for_each(|fds| sd_notify::notify_with_fds(&states, fds)) {
                Ok(()) => left += fds.len(),
                Err(e) => {
                    log::warn!("cannot leave {name}s with systemd, they are drained and closed: {e}");
                    // Those that it has already must not be read by two.
                    notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)]);
                    failed.push(source);
                }
            }
        }
        pool.adopt(connections.into_iter().filter(|c| failed.contains(&c.source)).collect());
        left
    }
}

/// Serves the connections that systemd has kept, and has it forget them.
pub(super) fn adopt(pool: &Pool<Gateway>, connections: Vec<Established>) {
    if connections.is_empty() {
        return;
    }
    let count = connections.len();
    let served = pool.adopt(connections);
    for source in [Source::Http, Source::Tcp, Source::Unix] {
        if let Some(name) = passed::connection_name(source) {
            notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)]);
        }
    }
    log::info!("{served} of {count} connections that the last server has left go on");
}

/// How many descriptors systemd keeps for this service: it says so itself from version 254 on, before that the unit does.
fn fd_store_room(environment: &Environment) -> usize {
    let told = environment.get("NOTIFY_SOCKET").and_then(|_| environment.get("FDSTORE"));
    told.and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// The rule of `listen.http.address` for a socket that was passed.
pub(super) fn needs_tokens(exposed: Option<SocketAddr>, config: &Config) -> Result<(), String> {
    let listen = &config.listen;
    match exposed {
        Some(address) if listen.http_tokens.is_empty() && !listen.http_insecure_allow_unauthenticated => {
            Err(format!(
                "the passed HTTP socket on {address} is reached from other machines and no token is set: set \
                 listen.http.tokens_file, or write ListenStream=127.0.0.1:{} in its socket unit, or set \
                 listen.http.insecure_allow_unauthenticated: true",
                address.port()
            ))
        }
        _ => Ok(()),
    }
}

/// The sockets, not yet served.
pub(super) struct Bound {
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) udp: Option<UdpSocket>,
    pub(super) control: Option<UnixListener>,
    pub(super) connections: Vec<Established>,
    pub(super) sockets: Sockets,
}

impl Bound {
    /// Binds what was not passed; the error names every address that could not be had.
    pub(super) fn bind(config: &Config, passed: Assigned) -> Result<Bound, String> {
        let tls =
            config.listen.http_tls.as_ref().map(|tls| Arc::new(TlsSettings::new(tls.identity.settings())));
        let endpoint = |source, listener, is_passed| {
            let tls = tls.clone().filter(|_| source == Source::Http);
            Endpoint { source, listener, tls, is_passed }
        };
        let (mut listening, mut of_passed, mut errors) = (Vec::new(), Vec::new(), Vec::new());
        let mut udp = passed.udp;
        let mut endpoints: Vec<Endpoint> =
            passed.listeners.into_iter().map(|(source, listener)| endpoint(source, listener, true)).collect();
        for Listening { source, address } in listener::configured(config) {
            let given = passed.addresses.iter().filter(|(of, _)| *of == source);
            let given: Vec<&str> = given.map(|(_, address)| address.as_str()).collect();
            if !given.is_empty() {
                of_passed.push(source);
                listening.push(Listening { source, address: given.join(", ") });
                continue;
            }
            let bound = match source {
                Source::Udp => listener::bind_udp(&address).map(|socket| udp = Some(socket)),
                Source::Unix => listener::bind_unix(address.as_ref())
                    .map(|listener| endpoints.push(endpoint(source, listener, false))),
                _ => listener::bind_tcp(&address)
                    .map(|socket| endpoints.push(endpoint(source, Listener::Tcp(socket), false))),
            };
            errors.extend(bound.err().map(|e| e.to_string()));
            listening.push(Listening { source, address });
        }
        if !errors.is_empty() {
            return Err(errors.join("\n"));
        }
        let mut of_senders =
            listening.iter().map(|listening| listening.source).filter(|s| is_connected_to(*s)).peekable();
        let all_passed = of_senders.peek().is_some() && of_senders.all(|source| of_passed.contains(&source));
        let sockets = Sockets { listening, passed: of_passed, all_passed, tls, exposed: passed.exposed };
        Ok(Bound { endpoints, udp, control: passed.control, connections: passed.connections, sockets })
    }
}
