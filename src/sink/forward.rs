//! Forwarding: records as they came, to a UDP, TCP, Unix or HTTP endpoint.
//!
//! UDP is what the predecessor did: one datagram holds one record's bytes, and "delivered" means handed to the kernel. TCP and Unix streams
//! are newline-delimited and one-way as well: a peer that closes is noticed before the next record, but what it had not read yet is lost.
//! HTTP is acknowledged by a 2xx.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use socket2::{Domain, SockAddr, Socket, Type};

use super::client::{self, Endpoint, HttpClient};
use super::{Class, DeliveryError, Sink, webhook};
use crate::clock;
use crate::config::{ForwardProtocol, Forwarding};
use crate::secret::Secret;
use crate::side_effect::Task;

/// Most bytes of a UDP datagram over IPv4: 65,535 less the headers of IP and UDP.
const DATAGRAM_BYTES_MAX: usize = 65_507;
/// Kept stream connections of one sink; workers beyond that make a new one each time.
const CONNECTIONS_MAX: usize = 16;
/// Most bytes read and thrown away from a peer that talks back, before each record.
const CHATTER_BYTES_MAX: usize = 64 << 10;

/// Where records go.
pub(super) struct Forward {
    way: Way,
    client: HttpClient,
}

enum Way {
    Udp { address: String, v4: Mutex<Option<UdpSocket>>, v6: Mutex<Option<UdpSocket>> },
    Tcp { address: String, kept: Mutex<Vec<Stream>> },
    Unix { path: PathBuf, kept: Mutex<Vec<Stream>> },
    Http(Endpoint),
}

impl Forward {
    pub(super) fn new(config: &Forwarding, client: HttpClient) -> Result<Forward, &'static str> {
        let address = config.address.trim().to_owned();
        if address.is_empty() {
            return Err("the address is empty");
        }
        let host_port = || {
            client::split_host_port(&address).map(|_| address.clone()).ok_or("the address is not HOST:PORT")
        };
        let way = match config.protocol {
            ForwardProtocol::Udp => {
                Way::Udp { address: host_port()?, v4: Mutex::default(), v6: Mutex::default() }
            }
            ForwardProtocol::Tcp => Way::Tcp { address: host_port()?, kept: Mutex::default() },
            ForwardProtocol::Unix => Way::Unix { path: address.into(), kept: Mutex::default() },
            ForwardProtocol::Http => Way::Http(Endpoint::parse(&Secret::new(address))?),
        };
        Ok(Forward { way, client })
    }

    /// Equal for sinks that forward to one place.
    pub(super) fn destination(&self) -> String {
        match &self.way {
            Way::Udp { address, .. } => format!("udp {address}"),
            Way::Tcp { address, .. } => format!("tcp {address}"),
            Way::Unix { path, .. } => format!("unix {}", path.display()),
            Way::Http(endpoint) => endpoint.expose().to_owned(),
        }
    }
}

impl Sink for Forward {
    fn name(&self) -> &'static str {
        "forward"
    }

    fn deliver(&self, task: &Task, deadline: Instant) -> Result<(), DeliveryError> {
        match &self.way {
            Way::Udp { address, v4, v6 } => self.send_datagram(address, v4, v6, &task.record, deadline),
            Way::Tcp { address, kept } => {
                send_line(kept, address, &task.record, deadline, || self.connect_tcp(address, deadline))
            }
            Way::Unix { path, kept } => {
                let shown = path.display().to_string();
                send_line(kept, &shown, &task.record, deadline, || {
                    connect(&SockAddr::unix(path)?, Domain::UNIX, deadline).map(Stream::unix)
                })
            }
            Way::Http(endpoint) => {
                let (id, attempt) = (task.id.to_string(), task.attempt().to_string());
                let headers = [
                    ("content-type", "application/json"),
                    ("idempotency-key", &*id),
                    (webhook::ATTEMPT_HEADER, &*attempt),
                ];
                let answer = self.client.post(endpoint, &headers, &task.record, deadline)?;
                webhook::judge(endpoint, &answer)
            }
        }
    }

    fn abort(&self) {
        self.client.abort();
        if let Way::Tcp { kept, .. } | Way::Unix { kept, .. } = &self.way {
            kept.lock().clear();
        }
    }
}

impl Forward {
    fn send_datagram(
        &self,
        address: &str,
        v4: &Mutex<Option<UdpSocket>>,
        v6: &Mutex<Option<UdpSocket>>,
        record: &[u8],
        deadline: Instant,
    ) -> Result<(), DeliveryError> {
        if record.len() > DATAGRAM_BYTES_MAX {
            return Err(too_large(address, record.len()));
        }
        let found = client::addresses(self.client.resolver(), address, deadline)?;
        // Nobody answers a datagram to the wrong family; IPv4 is what the predecessor preferred, too.
        let to = found.iter().find(|a| a.is_ipv4()).or(found.first()).copied().ok_or_else(|| {
            DeliveryError::new(Class::Transient, format!("{address}: the name has no address"))
        })?;
        let (any, socket) = match to {
            SocketAddr::V4(_) => (IpAddr::from(Ipv4Addr::UNSPECIFIED), v4),
            SocketAddr::V6(_) => (IpAddr::from(Ipv6Addr::UNSPECIFIED), v6),
        };
        // Held for a system call that does not wait: the socket does not block.
        let mut socket = socket.lock();
        let bound = match &mut *socket {
            Some(bound) => bound,
            none => none.insert(bind_udp(any).map_err(|e| transient(address, &e))?),
        };
        match bound.send_to(record, to) {
            Ok(n) if n == record.len() => Ok(()),
            Ok(_) => Err(DeliveryError::new(Class::Transient, format!("{address}: datagram cut short"))),
            // EMSGSIZE has no kind of its own in std.
            Err(e) if e.raw_os_error() == Some(nix::libc::EMSGSIZE) => Err(too_large(address, record.len())),
            Err(e) => Err(transient(address, &e)),
        }
    }

    fn connect_tcp(&self, address: &str, deadline: Instant) -> io::Result<Stream> {
        let found = client::addresses(self.client.resolver(), address, deadline)
            .map_err(|e| io::Error::new(ErrorKind::NotFound, e.message().to_owned()))?;
        let mut last = io::Error::from(ErrorKind::AddrNotAvailable);
        for to in found {
            match TcpStream::connect_timeout(&to, left(deadline)?) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(Stream::Tcp(stream));
                }
                Err(e) => last = e,
            }
        }
        Err(last)
    }
}

fn bind_udp(any: IpAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn too_large(address: &str, bytes: usize) -> DeliveryError {
    let what = format!(
        "{address}: a record of {bytes} bytes does not fit into a datagram ({DATAGRAM_BYTES_MAX}); use protocol: tcp"
    );
    DeliveryError::new(Class::Permanent, what)
}

fn transient(address: &str, error: &io::Error) -> DeliveryError {
    DeliveryError::new(Class::Transient, format!("{address}: {error}"))
}

/// Connects with a time-out, which std does not offer for Unix sockets.
fn connect(to: &SockAddr, domain: Domain, deadline: Instant) -> io::Result<UnixStream> {
    let socket = Socket::new(domain, Type::STREAM, None)?;
    socket.set_write_timeout(Some(left(deadline)?))?;
    socket.connect(to)?;
    Ok(socket.into())
}

/// The time left; an error when there is none.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(clock::now());
    if left.is_zero() { Err(io::Error::new(ErrorKind::TimedOut, "no time left")) } else { Ok(left) }
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn unix(stream: UnixStream) -> Stream {
        Stream::Unix(stream)
    }

    fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        match self {
            Stream::Tcp(s) => s.set_nonblocking(on),
            Stream::Unix(s) => s.set_nonblocking(on),
        }
    }

    fn set_write_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Stream::Tcp(s) => s.set_write_timeout(Some(timeout)),
            Stream::Unix(s) => s.set_write_timeout(Some(timeout)),
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(s) => s.read(buffer),
            Stream::Unix(s) => s.read(buffer),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(s) => s.write(bytes),
            Stream::Unix(s) => s.write(bytes),
        }
    }

    /// Whether the peer still has its end open, as far as that is known here. What it says is thrown away.
    fn is_open(&mut self) -> bool {
        let mut chatter = [0; 4096];
        let mut read = 0;
        let open = self.set_nonblocking(true).is_ok()
            && loop {
                match self.read(&mut chatter) {
                    Ok(0) => break false,
                    Ok(n) => read += n,
                    Err(e) if e.kind() == ErrorKind::Interrupted => {}
                    Err(e) => break e.kind() == ErrorKind::WouldBlock,
                }
                if read > CHATTER_BYTES_MAX {
                    break false;
                }
            };
        open && self.set_nonblocking(false).is_ok()
    }

    /// Writes all of `bytes` by `deadline`, however slowly the peer takes them.
    fn write_all(&mut self, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
        while !bytes.is_empty() {
            self.set_write_timeout(left(deadline)?)?;
            match self.write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => bytes = &bytes[n..],
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    return Err(io::Error::new(ErrorKind::TimedOut, "the peer takes nothing"));
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// Writes one line on a kept connection or a new one. A connection on which anything went wrong is closed, since a part of the line may
/// have gone out; the next attempt starts a line of its own on another one.
fn send_line(
    kept: &Mutex<Vec<Stream>>,
    address: &str,
    record: &[u8],
    deadline: Instant,
    connect: impl Fn() -> io::Result<Stream>,
) -> Result<(), DeliveryError> {
    let old = loop {
        // A statement of its own: the lock must not be held while the connection is looked at.
        let next = kept.lock().pop();
        match next {
            Some(mut stream) => {
                if stream.is_open() {
                    break Some(stream);
                }
            }
            None => break None,
        }
    };
    let mut stream = match old {
        Some(stream) => stream,
        None => connect().map_err(|e| transient(address, &e))?,
    };
    stream.write_all(&one_line(record), deadline).map_err(|e| transient(address, &e))?;
    let mut kept = kept.lock();
    if kept.len() < CONNECTIONS_MAX {
        kept.push(stream);
    }
    Ok(())
}

/// The record with exactly one newline, at its end. Within JSON, line breaks stand between values only, so a space does as well.
fn one_line(record: &[u8]) -> Vec<u8> {
    let mut line = record.trim_ascii_end().to_vec();
    if let Some(at) = memchr::memchr2(b'\n', b'\r', &line) {
        // Few records have any.
        line[at..].iter_mut().filter(|b| matches!(b, b'\n' | b'\r')).for_each(|b| *b = b' ');
    }
    line.push(b'\n');
    line
}
