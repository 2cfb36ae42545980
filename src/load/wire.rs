//! The socket of an HTTP connection, with TLS or without it.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::SLICE;
use crate::clock;

/// Whom to believe, and who the receiver must be. Sessions are not resumed: each connection costs what a first one costs.
#[derive(Clone)]
pub struct ClientTls {
    settings: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientTls({:?})", self.name)
    }
}

impl ClientTls {
    /// Believes these authorities about a receiver of that name or address.
    ///
    /// # Errors
    /// A name that is none, or a certificate that cannot be an authority's, in words.
    pub fn new(
        name: &str,
        authorities: impl IntoIterator<Item = CertificateDer<'static>>,
    ) -> Result<ClientTls, String> {
        let name = ServerName::try_from(name.to_owned()).map_err(|e| format!("{name:?}: {e}"))?;
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(authorities);
        if roots.is_empty() {
            return Err("no certificate of an authority".to_owned());
        }
        let mut settings = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        settings.resumption = rustls::client::Resumption::disabled();
        settings.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(ClientTls { settings: Arc::new(settings), name })
    }
}

/// A connected socket whose reads and writes end after [`SLICE`] with `WouldBlock`.
pub(super) enum Wire {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Wire {
    /// Connects, and makes the handshake. Blocks for `timeout` at most for each.
    pub(super) fn connect(
        address: SocketAddr,
        tls: Option<&ClientTls>,
        timeout: Duration,
    ) -> io::Result<Wire> {
        let mut stream = TcpStream::connect_timeout(&address, timeout)?;
        stream.set_nodelay(true)?;
        // Short, so that an end of the run is noticed; the whole wait is counted from a deadline.
        stream.set_read_timeout(Some(SLICE))?;
        stream.set_write_timeout(Some(SLICE))?;
        let Some(tls) = tls else { return Ok(Wire::Plain(stream)) };
        let mut session =
            ClientConnection::new(Arc::clone(&tls.settings), tls.name.clone()).map_err(io::Error::other)?;
        let deadline: Instant = clock::now() + timeout;
        while session.is_handshaking() {
            match session.complete_io(&mut stream) {
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && clock::now() < deadline => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Err(io::ErrorKind::TimedOut.into()),
                Err(e) => return Err(e),
            }
        }
        Ok(Wire::Tls(Box::new(StreamOwned::new(session, stream))))
    }
}

impl Read for Wire {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Wire::Plain(stream) => stream.read(buf),
            Wire::Tls(stream) => stream.read(buf),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Wire::Plain(stream) => stream.write(buf),
            Wire::Tls(stream) => stream.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Wire::Plain(stream) => stream.flush(),
            Wire::Tls(stream) => stream.flush(),
        }
    }
}
