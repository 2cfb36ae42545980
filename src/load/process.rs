//! The receiver's process on this machine: which one owns the socket, and what it costs. From `/proc`, see proc(5).

use std::fs;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use super::Target;

/// The most that is read of a file of `/proc`: the tables of sockets have a line for each.
const BYTES_MAX: u64 = 64 << 20;
/// The unit of times in `/proc/PID/stat`: Linux shows them in hundredths of a second on every architecture that this runs on.
const TICKS_PER_S: u32 = 100;
/// State of a listening TCP socket, in hexadecimal.
const LISTENING: &str = "0A";

/// What a process has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Processor time, user and system, in steps of 10 ms.
    pub cpu: Duration,
    /// Resident memory.
    pub resident_bytes: u64,
}

impl Usage {
    /// Of a process; `None` when it has gone.
    pub fn of(pid: u32) -> Option<Usage> {
        let stat = read(Path::new(&format!("/proc/{pid}/stat"))).ok()?;
        // The name, in parentheses, may hold anything; utime and stime are the 12th and 13th words after it.
        let words: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks: u64 = words.get(11)?.parse::<u64>().ok()? + words.get(12)?.parse::<u64>().ok()?;
        let status = read(Path::new(&format!("/proc/{pid}/status"))).ok()?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = resident.split_whitespace().next()?.parse().ok()?;
        Some(Usage { cpu: Duration::from_secs(ticks) / TICKS_PER_S, resident_bytes: kib * 1024 })
    }
}

/// The process that receives at `target` on this machine; `None` when there is none, or this user may not look at it.
pub fn receiver_of(target: &Target) -> Option<u32> {
    let inodes = match target {
        Target::Http { address, .. } | Target::Tcp(address) => {
            inodes(["/proc/net/tcp", "/proc/net/tcp6"], *address, Some(LISTENING))
        }
        Target::Udp(address) => inodes(["/proc/net/udp", "/proc/net/udp6"], *address, None),
        Target::Unix(path) => unix_inodes(&read(Path::new("/proc/net/unix")).ok()?, path),
    };
    owner(&inodes)
}

/// The sockets that take what is sent to that address.
fn inodes(tables: [&str; 2], to: SocketAddr, state: Option<&str>) -> Vec<u64> {
    let tables = tables.map(|table| read(Path::new(table)).unwrap_or_default());
    let mut found: Vec<(bool, u64)> = tables.iter().flat_map(|table| inet_inodes(table, to, state)).collect();
    // A socket on the very address is preferred to one on every address.
    found.sort_unstable_by_key(|(is_wildcard, _)| *is_wildcard);
    found.into_iter().map(|(_, inode)| inode).collect()
}

fn inet_inodes(table: &str, to: SocketAddr, state: Option<&str>) -> Vec<(bool, u64)> {
    let rows = table.lines().skip(1).filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (local, remote) = (local_address(words.get(1)?)?, words.get(2)?);
        let is_state = state.is_none_or(|state| words.get(3) == Some(&state));
        // Connected sockets (our own are) take from one peer only.
        let is_open = remote.ends_with(":0000");
        let ip = local.ip().to_canonical();
        let is_there = ip == to.ip().to_canonical() || ip.is_unspecified() || to.ip().is_unspecified();
        let inode: u64 = words.get(9)?.parse().ok()?;
        (is_state && is_open && is_there && local.port() == to.port()).then_some((ip.is_unspecified(), inode))
    });
    rows.collect()
}

/// `0100007F:04F6`: each 32 bits of the address in the machine's order of bytes.
fn local_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word =
        |at: usize| u32::from_str_radix(address.get(at * 8..at * 8 + 8)?, 16).ok().map(u32::to_ne_bytes);
    let ip = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(words.concat()).ok()?))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// Sockets that listen at a path.
fn unix_inodes(table: &str, path: &Path) -> Vec<u64> {
    let rows = table.lines().skip(1).filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        // Flag 00010000: listens.
        let listens = u32::from_str_radix(words.get(3)?, 16).ok()? & 0x0001_0000 != 0;
        (listens && same_path(Path::new(words.get(7)?), path)).then(|| words.get(6)?.parse().ok())?
    });
    rows.collect()
}

fn same_path(one: &Path, other: &Path) -> bool {
    one == other || matches!((fs::canonicalize(one), fs::canonicalize(other)), (Ok(a), Ok(b)) if a == b)
}

/// The first process that holds one of these sockets, the earlier sockets first.
fn owner(inodes: &[u64]) -> Option<u32> {
    if inodes.is_empty() {
        return None;
    }
    let mut best: Option<(usize, u32)> = None;
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(descriptors) = fs::read_dir(entry.path().join("fd")) else { continue };
        for descriptor in descriptors.flatten() {
            let Ok(link) = fs::read_link(descriptor.path()) else { continue };
            let inode = link
                .to_str()
                .and_then(|l| l.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u64>().ok());
            let rank = inode.and_then(|inode| inodes.iter().position(|i| *i == inode));
            if let Some(rank) = rank.filter(|rank| best.is_none_or(|(best, _)| *rank < best)) {
                best = Some((rank, pid));
            }
        }
    }
    best.map(|(_, pid)| pid)
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = Vec::new();
    #[allow(clippy::disallowed_methods, reason = "read through a limit")]
    fs::File::open(path)?.take(BYTES_MAX).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn the_owner_of_a_socket_is_found() {
        let me = Some(std::process::id());
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = tcp.local_addr().expect("bound");
        let peer = TcpStream::connect(address).expect("connected");
        assert_eq!(receiver_of(&Target::Tcp(address)), me);
        let http = Target::Http { address, host: String::new(), path: String::new() };
        assert_eq!(receiver_of(&http), me);
        let of_peer = Target::Tcp(peer.local_addr().expect("bound"));
        assert_eq!(receiver_of(&of_peer), None, "connected, not listening");
        let udp = UdpSocket::bind("0.0.0.0:0").expect("a port");
        let port = udp.local_addr().expect("bound").port();
        assert_eq!(receiver_of(&Target::Udp(SocketAddr::from(([127, 0, 0, 1], port)))), me);
        let path = std::env::temp_dir().join(format!("vaf-load-{}.sock", std::process::id()));
        let unix = UnixListener::bind(&path).expect("bound");
        assert_eq!(receiver_of(&Target::Unix(path.clone())), me);
        drop(unix);
        fs::remove_file(&path).expect("removed");
        assert_eq!(receiver_of(&Target::Unix(path)), None);
    }

    #[test]
    fn addresses_of_the_tables() {
        if cfg!(target_endian = "little") {
            assert_eq!(local_address("0100007F:04F6"), Some("127.0.0.1:1270".parse().expect("an address")));
            let v6 = local_address("00000000000000000000000001000000:04F6");
            assert_eq!(v6, Some("[::1]:1270".parse().expect("an address")));
        }
        for wrong in ["", "0100007F", "0100007:04F6", "0100007X:04F6", "0100007F:x"] {
            assert_eq!(local_address(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn this_process_has_used_something() {
        let usage = Usage::of(std::process::id()).expect("it is there");
        assert!(usage.resident_bytes > 0);
        assert_eq!(Usage::of(u32::MAX), None);
    }
}
