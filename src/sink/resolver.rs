//! Name resolution with a memory.
//!
//! `getaddrinfo` cannot be given a deadline nor be cancelled, so each lookup runs on a thread of its own and its caller waits no
//! longer than it may. The answers are kept for [`TTL`] (the system's resolver does not tell the records' own), so a busy sink costs one
//! lookup a minute and not one a message; when a lookup fails, an old answer is better than none. IP literals cost nothing.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::{clock, threads};

/// How long an answer is used.
const TTL: Duration = Duration::from_secs(60);
/// How long a failure is remembered.
const FAILURE_TTL: Duration = Duration::from_secs(1);
/// How long an old answer may stand in for a failing lookup.
const STALE_MAX: Duration = Duration::from_secs(24 * 3600);
/// Names that are remembered.
const NAMES_MAX: usize = 64;
/// Lookups under way at once.
const LOOKUPS_MAX: usize = 4;
/// Addresses kept of one name.
const ADDRESSES_MAX: usize = 16;

/// What looks names up: `getaddrinfo`, or a test's own.
type Lookup = dyn Fn(&str, u16) -> std::io::Result<Vec<SocketAddr>> + Send + Sync;

#[derive(Default)]
struct Entry {
    addresses: Vec<SocketAddr>,
    fetched_at: Option<Instant>,
    failed: Option<(Instant, String)>,
    pending: bool,
}

#[derive(Default)]
struct State {
    names: HashMap<(String, u16), Entry>,
    lookups: usize,
}

struct Inner {
    state: Mutex<State>,
    changed: Condvar,
    lookup: Box<Lookup>,
}

/// A bounded cache in front of the system's resolver. Cloning shares it.
#[derive(Clone)]
pub(super) struct Resolver {
    inner: Arc<Inner>,
}

/// Why a name has no address.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ResolveError {
    /// The resolver's words.
    Failed(String),
    /// It did not answer in time.
    TimedOut,
}

impl Resolver {
    pub(super) fn new() -> Self {
        Self::with_lookup(|host, port| Ok((host, port).to_socket_addrs()?.collect()))
    }

    pub(super) fn with_lookup(
        lookup: impl Fn(&str, u16) -> std::io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Self {
        let inner = Inner { state: Mutex::default(), changed: Condvar::new(), lookup: Box::new(lookup) };
        Resolver { inner: Arc::new(inner) }
    }

    /// The addresses of `host` (at least one), by `deadline`. Blocks for a lookup only.
    pub(super) fn resolve(
        &self,
        host: &str,
        port: u16,
        deadline: Instant,
    ) -> Result<Vec<SocketAddr>, ResolveError> {
        let literal = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        if let Ok(ip) = literal.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        let key = (host.to_ascii_lowercase(), port);
        let mut state = self.inner.state.lock();
        forget_some(&mut state.names, &key);
        loop {
            let now = clock::now();
            let entry = state.names.entry(key.clone()).or_default();
            let age = entry.fetched_at.map(|at| now.saturating_duration_since(at));
            if age.is_some_and(|age| age < TTL) {
                return Ok(entry.addresses.clone());
            }
            if let Some((at, message)) = &entry.failed
                && now.saturating_duration_since(*at) < FAILURE_TTL
            {
                return match age {
                    Some(age) if age < STALE_MAX => Ok(entry.addresses.clone()),
                    _ => Err(ResolveError::Failed(message.clone())),
                };
            }
            if now >= deadline {
                return match age {
                    Some(age) if age < STALE_MAX => Ok(entry.addresses.clone()),
                    _ => Err(ResolveError::TimedOut),
                };
            }
            if !entry.pending && state.lookups < LOOKUPS_MAX {
                self.start(&mut state, &key).map_err(|e| ResolveError::Failed(e.to_string()))?;
            }
            self.inner.changed.wait_until(&mut state, deadline);
        }
    }

    fn start(&self, state: &mut State, key: &(String, u16)) -> std::io::Result<()> {
        let (inner, (host, port)) = (Arc::clone(&self.inner), key.clone());
        // Not joined: nobody can end a lookup early, and it touches nothing but the cache.
        threads::spawn("resolve", move || {
            let found = (inner.lookup)(&host, port);
            let mut state = inner.state.lock();
            let entry = state.names.entry((host, port)).or_default();
            entry.pending = false;
            let now = clock::now();
            match found {
                Ok(mut addresses) if !addresses.is_empty() => {
                    addresses.truncate(ADDRESSES_MAX);
                    *entry = Entry { addresses, fetched_at: Some(now), ..Entry::default() };
                }
                Ok(_) => entry.failed = Some((now, "the name has no address".into())),
                Err(e) => entry.failed = Some((now, e.to_string())),
            }
            state.lookups -= 1;
            drop(state);
            inner.changed.notify_all();
        })?;
        state.lookups += 1;
        state.names.entry(key.clone()).or_default().pending = true;
        Ok(())
    }
}

/// Keeps the number of names within its bound: the oldest answers go first, those being looked up stay.
fn forget_some(names: &mut HashMap<(String, u16), Entry>, keep: &(String, u16)) {
    while names.len() > NAMES_MAX {
        let idle = names.iter().filter(|(name, entry)| !entry.pending && *name != keep);
        let Some(oldest) = idle.min_by_key(|(_, entry)| entry.fetched_at).map(|(name, _)| name.clone())
        else {
            return;
        };
        names.remove(&oldest);
    }
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Resolver")
    }
}

impl ureq::unversioned::resolver::Resolver for Resolver {
    fn resolve(
        &self,
        uri: &ureq::http::Uri,
        config: &ureq::config::Config,
        timeout: ureq::unversioned::transport::NextTimeout,
    ) -> Result<ureq::unversioned::resolver::ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().ok_or(ureq::Error::HostNotFound)?;
        let default_port = if uri.scheme_str() == Some("https") { 443 } else { 80 };
        let port = uri.port_u16().unwrap_or(default_port);
        let wait = (*timeout.after).min(Duration::from_secs(3600));
        let found = self.resolve(host, port, clock::now() + wait).map_err(|e| match e {
            ResolveError::TimedOut => ureq::Error::Timeout(timeout.reason),
            ResolveError::Failed(message) => ureq::Error::Io(std::io::Error::new(
                std::io::ErrorKind::NotFound,
                format!("name not resolved: {message}"),
            )),
        })?;
        let mut addresses = self.empty();
        for address in config.ip_family().keep_wanted(found.into_iter()).take(ADDRESSES_MAX) {
            addresses.push(address);
        }
        if addresses.is_empty() { Err(ureq::Error::HostNotFound) } else { Ok(addresses) }
    }
}

#[cfg(test)]
#[path = "resolver_tests.rs"]
mod tests;
