//! The kernel's count of a socket's drops, read while nothing comes in: `SO_RXQ_OVFL` brings it with the next datagram only, and behind the
//! last one of a burst there may be none for hours.
//!
//! Source: the columns `inode` and `drops` of `/proc/net/udp` and `/proc/net/udp6` (proc(5), net/ipv4/udp.c).

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;

use nix::sys::stat::fstat;

/// Longest table that is read, in bytes: some 100,000 sockets.
const TABLE_BYTES_MAX: u64 = 16 << 20;

/// How many datagrams the kernel has dropped at `socket` so far, modulo 2^32; `None` where the system does not tell. Reads a table of all UDP
/// sockets.
pub(super) fn of(socket: impl AsFd) -> Option<u32> {
    let inode = fstat(socket).ok()?.st_ino;
    ["/proc/self/net/udp", "/proc/self/net/udp6"].iter().find_map(|path| in_table(&table(path).ok()?, inode))
}

#[allow(clippy::disallowed_methods, reason = "through a limit")]
fn table(path: &str) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(TABLE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// The last column of the line whose tenth column is `inode`.
fn in_table(table: &str, inode: u64) -> Option<u32> {
    table.lines().skip(1).find_map(|line| {
        let mut columns = line.split_ascii_whitespace();
        let found = columns.nth(9)?.parse() == Ok(inode);
        found.then(|| columns.last()?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    const TABLE: &str = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  382: 0100007F:A1B2 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0000000000000000 17
 1024: 00000000:0202 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4712 2 0000000000000000 4294967295
  short line
";

    #[test]
    fn the_line_of_the_socket_is_found() {
        assert_eq!(in_table(TABLE, 4711), Some(17));
        assert_eq!(in_table(TABLE, 4712), Some(u32::MAX));
        assert_eq!(in_table(TABLE, 2), None, "the column of the references");
        for cut in 0..TABLE.len() {
            let _ = in_table(&TABLE[..cut], 4711);
        }
    }

    #[test]
    fn a_socket_that_dropped_is_told_of_while_nothing_more_comes() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(socket) = UdpSocket::bind(address) else { continue };
            socket2::SockRef::from(&socket).set_recv_buffer_size(4096).expect("a small buffer");
            assert_eq!(of(&socket), Some(0));
            let sender = UdpSocket::bind(address).expect("as before");
            for _ in 0..100 {
                sender.send_to(&[0; 1000], socket.local_addr().expect("bound")).expect("sent");
            }
            let dropped = of(&socket).expect("known");
            assert!((80..100).contains(&dropped), "{dropped}");
        }
    }
}
