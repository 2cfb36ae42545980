//! Senders of newline-delimited streams and datagrams.

use std::io::Write;
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// A TCP connection to 127.0.0.1 as a socket audit device opens it.
pub fn tcp(port: u16) -> TcpStream {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the TCP listener takes connections");
    stream.set_nodelay(true).expect("nodelay");
    stream.set_write_timeout(Some(Duration::from_secs(60))).expect("write timeout");
    stream
}

/// A connection to a Unix stream socket.
pub fn unix(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).expect("the Unix listener takes connections");
    stream.set_write_timeout(Some(Duration::from_secs(60))).expect("write timeout");
    stream
}

/// A datagram socket connected to 127.0.0.1.
pub fn udp(port: u16) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a datagram socket");
    socket.connect((Ipv4Addr::LOCALHOST, port)).expect("connected");
    socket
}

/// Writes one record and its newline with one write, as the audit devices do.
pub fn line(stream: &mut impl Write, record: &[u8]) {
    let mut bytes = record.to_vec();
    bytes.push(b'\n');
    stream.write_all(&bytes).expect("the listener reads");
}
