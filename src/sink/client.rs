//! The HTTP client of all sinks: one configuration of `ureq`, chosen so that a destination can neither hold a worker longer than its
//! deadline, nor lead it elsewhere, nor fill the memory.
//!
//! No redirects (they would carry records and headers to another place), no proxy from the environment (settings come from the
//! configuration alone), no unbounded body, one lookup of a name a minute ([`super::resolver`]), certificates checked against the authorities that the system trusts ([`crate::trust`]).

use std::io::Read;
use std::time::{Duration, Instant};

use ureq::Agent;
use ureq::http::Uri;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::transport::DefaultConnector;

use super::resolver::{ResolveError, Resolver};
use super::{Class, DeliveryError};
use crate::clock;
use crate::secret::Secret;

/// Most bytes read of an answer's body.
pub(super) const BODY_BYTES_MAX: u64 = 64 << 10;
/// Idle connections kept in all, and for one host.
const IDLE_CONNECTIONS_MAX: usize = 16;
const IDLE_CONNECTIONS_PER_HOST_MAX: usize = 4;
/// How long an idle connection is used again: shorter than most servers keep theirs.
const IDLE_AGE_MAX: Duration = Duration::from_secs(4);
/// Buffers of one connection, in and out.
const BUFFER_BYTES: usize = 16 << 10;

/// A checked URL that can be shown without its secret parts.
#[derive(Clone)]
pub(super) struct Endpoint {
    url: Secret,
    shown: String,
}

impl Endpoint {
    /// Takes an absolute `http` or `https` URL.
    ///
    /// # Errors
    /// What is wrong with it, without showing it.
    pub(super) fn parse(url: &Secret) -> Result<Endpoint, &'static str> {
        let text = url.expose().trim();
        if text.is_empty() {
            return Err("the URL is empty");
        }
        let scheme = text.split_once("://").map_or(String::new(), |(scheme, _)| scheme.to_ascii_lowercase());
        if scheme != "http" && scheme != "https" {
            return Err("the URL must start with https:// or http://");
        }
        let uri: Uri = text.parse().map_err(|_| "not a URL; write https://HOST/PATH")?;
        let host = uri.host().filter(|h| !h.is_empty()).ok_or("the URL names no host")?;
        let port = uri.port_u16().map_or_else(String::new, |p| format!(":{p}"));
        Ok(Endpoint { shown: format!("{scheme}://{host}{port}"), url: Secret::new(text) })
    }

    /// Scheme, host and port.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// The whole URL, for keys that are never shown.
    pub(super) fn expose(&self) -> &str {
        self.url.expose()
    }
}

/// What a destination answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) retry_after: Option<Duration>,
    /// Lower case, without parameters.
    pub(super) content_type: String,
    /// At most [`BODY_BYTES_MAX`] bytes.
    pub(super) body: Vec<u8>,
    /// Whether the body came to its end.
    pub(super) complete: bool,
}

/// Makes the requests of all sinks. Cloning shares connections and the cache of names.
#[derive(Clone)]
pub struct HttpClient {
    pooled: Agent,
    /// Keeps no connections: for the second try after a pooled one turned out to be closed.
    fresh: Agent,
    resolver: Resolver,
}

impl Default for HttpClient {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HttpClient")
    }
}

impl HttpClient {
    /// A client with no connections yet, that trusts the public authorities built in.
    pub fn new() -> Self {
        Self::trusting(None)
    }

    /// A client with no connections yet, that trusts `authorities`; `None`: the public ones built in.
    pub fn trusting(authorities: Option<&[Certificate<'static>]>) -> Self {
        let tls = authorities.map_or_else(TlsConfig::default, |authorities| {
            TlsConfig::builder().root_certs(RootCerts::new_with_certs(authorities)).build()
        });
        let resolver = Resolver::new();
        let agent = |idle: usize, idle_per_host: usize| {
            let config = Agent::config_builder()
                .http_status_as_error(false)
                .max_redirects(0)
                .max_redirects_will_error(false)
                .proxy(None)
                .tls_config(tls.clone())
                .user_agent(concat!("vault-audit-filter/", env!("CARGO_PKG_VERSION")))
                .max_idle_connections(idle)
                .max_idle_connections_per_host(idle_per_host)
                .max_idle_age(IDLE_AGE_MAX)
                .max_response_header_size(32 << 10)
                .input_buffer_size(BUFFER_BYTES)
                .output_buffer_size(BUFFER_BYTES)
                .build();
            Agent::with_parts(config, DefaultConnector::default(), resolver.clone())
        };
        HttpClient {
            pooled: agent(IDLE_CONNECTIONS_MAX, IDLE_CONNECTIONS_PER_HOST_MAX),
            fresh: agent(0, 0),
            resolver: resolver.clone(),
        }
    }

    /// The cache of names, for destinations that are not HTTP.
    pub(super) fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    /// Ends all requests that are under way.
    pub(super) fn abort(&self) {
        self.pooled.clone().shutdown();
        self.fresh.clone().shutdown();
    }

    /// Posts `body` and reads the answer, whatever its status, by `deadline`.
    ///
    /// A kept connection that the destination has closed meanwhile is no failure: the request is made once more on a new one, within the
    /// same attempt. The destination may then have seen it twice; the task's id in it tells.
    pub(super) fn post(
        &self,
        endpoint: &Endpoint,
        headers: &[(&str, &str)],
        body: &[u8],
        deadline: Instant,
    ) -> Result<Answer, DeliveryError> {
        let first = post_once(&self.pooled, endpoint, headers, body, deadline);
        let answer = match first {
            Err(error) if was_stale(&error) => post_once(&self.fresh, endpoint, headers, body, deadline),
            other => other,
        };
        answer.map_err(|error| judge(&error, endpoint))
    }
}

fn post_once(
    agent: &Agent,
    endpoint: &Endpoint,
    headers: &[(&str, &str)],
    body: &[u8],
    deadline: Instant,
) -> Result<Answer, ureq::Error> {
    let left = deadline.saturating_duration_since(clock::now());
    if left.is_zero() {
        return Err(ureq::Error::Timeout(ureq::Timeout::Global));
    }
    let mut request = agent.post(endpoint.url.expose());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut response = request.config().timeout_global(Some(left)).build().send(body)?;
    let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let content_type =
        header("content-type").split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let retry_after = parse_retry_after(header("retry-after"));
    let status = response.status().as_u16();
    let (body, complete) = read_body(response.body_mut());
    Ok(Answer { status, retry_after, content_type, body, complete })
}

/// The first bytes of a body, and whether it ended within them. An error while reading is an early end: the status has come.
fn read_body(body: &mut ureq::Body) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    let mut reader = body.as_reader().take(BODY_BYTES_MAX + 1);
    let mut chunk = [0; 4096];
    loop {
        match reader.read(&mut chunk) {
            Ok(0) => break,
            Ok(n) => bytes.extend_from_slice(&chunk[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return (bytes, false),
        }
    }
    let complete = bytes.len() as u64 <= BODY_BYTES_MAX;
    bytes.truncate(BODY_BYTES_MAX as usize);
    (bytes, complete)
}

/// Whether the failure looks like a kept connection that the peer had closed before it saw the request.
fn was_stale(error: &ureq::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error, ureq::Error::Io(e) if matches!(e.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof))
}

/// A failure without an answer. All are transient but two: what is wrong with a certificate or with the request's own bytes does not pass by itself.
fn judge(error: &ureq::Error, endpoint: &Endpoint) -> DeliveryError {
    let at = endpoint.shown();
    let (class, what) = match error {
        ureq::Error::Timeout(which) => (Class::Transient, format!("no answer in time ({which})")),
        ureq::Error::Io(e) if is_certificate(&e.to_string()) => (Class::Blocked, e.to_string()),
        ureq::Error::Io(e) => (Class::Transient, e.to_string()),
        ureq::Error::HostNotFound => (Class::Transient, "the host's name has no address".into()),
        ureq::Error::ConnectionFailed => (Class::Transient, "no connection".into()),
        ureq::Error::Protocol(_) | ureq::Error::LargeResponseHeader(..) | ureq::Error::BodyStalled => {
            (Class::Transient, "the answer is not HTTP".into())
        }
        ureq::Error::Rustls(e) if is_certificate(&e.to_string()) => (Class::Blocked, e.to_string()),
        ureq::Error::Rustls(e) => (Class::Transient, format!("TLS: {e}")),
        ureq::Error::Tls(e) => (Class::Transient, format!("TLS: {e}")),
        // Their texts can hold parts of the request.
        ureq::Error::Http(_) | ureq::Error::BadUri(_) => {
            (Class::Blocked, "URL or token hold characters that HTTP does not allow".into())
        }
        _ => (Class::Transient, "the request failed".into()),
    };
    DeliveryError::new(class, format!("{at}: {what}"))
}

fn is_certificate(text: &str) -> bool {
    text.contains("certificate")
}

/// `Retry-After` as RFC 9110, 10.2.3 has it: seconds or a date. Anything else is no pause.
pub(super) fn parse_retry_after(value: &str) -> Option<Duration> {
    let value = value.trim();
    if value.is_empty() {
        return None;
    }
    if value.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        // Some services send fractions.
        return value
            .parse::<f64>()
            .ok()
            .and_then(|s| Duration::try_from_secs_f64(s).ok().or(Some(Duration::MAX)));
    }
    let at = jiff::fmt::rfc2822::parse(value).ok()?.timestamp();
    let now = jiff::Timestamp::try_from(clock::wall()).ok()?;
    Some(Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO))
}

/// Resolves and connects one address after the other, by `deadline`.
pub(super) fn addresses(
    resolver: &Resolver,
    address: &str,
    deadline: Instant,
) -> Result<Vec<std::net::SocketAddr>, DeliveryError> {
    let (host, port) = split_host_port(address)
        .ok_or_else(|| DeliveryError::new(Class::Permanent, "the address is not HOST:PORT"))?;
    resolver.resolve(host, port, deadline).map_err(|e| match e {
        ResolveError::Failed(why) => {
            DeliveryError::new(Class::Transient, format!("{address}: name not resolved: {why}"))
        }
        ResolveError::TimedOut => {
            DeliveryError::new(Class::Transient, format!("{address}: name not resolved in time"))
        }
    })
}

/// `HOST:PORT` in its two halves; an IPv6 address stands in brackets.
pub(super) fn split_host_port(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let bracketed = host.starts_with('[') && host.ends_with(']');
    if host.is_empty() || (host.contains(':') && !bracketed) {
        return None;
    }
    Some((host, port.parse().ok()?))
}
