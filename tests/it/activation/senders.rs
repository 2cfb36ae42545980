//! Senders that number their records and go on until they are told to stop.

use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::harness::entry;
use crate::support::http::Client;
use crate::support::send;

/// A running sender. Its records are `NAME-0`, `NAME-1` and so on.
pub struct Sender {
    pub name: &'static str,
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: JoinHandle<Sent>,
}

/// What a sender has done.
#[derive(Debug, Clone, Default)]
pub struct Sent {
    pub records: u64,
    /// The numbers of records that were sent once more, on a new connection.
    pub resent: Vec<u64>,
}

impl Sender {
    fn spawn(
        name: &'static str,
        pause: Duration,
        mut send: impl FnMut(&[u8]) -> u64 + Send + 'static,
    ) -> Sender {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&sent));
        let thread = std::thread::spawn(move || {
            let mut done = Sent::default();
            let begin = Instant::now();
            while !stopped.load(Ordering::SeqCst) {
                let record = entry(&format!("{name}-{}", done.records), "read", "secret/data/a");
                for _ in 0..send(record.as_bytes()) {
                    done.resent.push(done.records);
                }
                done.records += 1;
                count.store(done.records, Ordering::SeqCst);
                // At a fixed rate: what was missed is made up for.
                let due = begin + pause * u32::try_from(done.records).unwrap_or(u32::MAX);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            done
        });
        Sender { name, stop, sent, thread }
    }

    /// How many records it has sent.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }

    pub fn stop(self) -> (&'static str, Sent) {
        self.stop.store(true, Ordering::SeqCst);
        (self.name, self.thread.join().expect("no sender fails"))
    }

    /// As the socket device of Vault: one write with a deadline, and on an error the whole record once more on a new connection.
    pub fn tcp(name: &'static str, port: u16, pause: Duration) -> Sender {
        let connect = move || {
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
            // As Go does. Without it, what waits for an acknowledgement in the sender's own buffer would go with a reset.
            stream.set_nodelay(true)?;
            stream.set_write_timeout(Some(Duration::from_secs(60)))?;
            Ok(stream)
        };
        Sender::spawn(name, pause, lines(connect))
    }

    /// The same on a Unix stream.
    pub fn unix(name: &'static str, path: PathBuf, pause: Duration) -> Sender {
        let connect = move || {
            let stream = UnixStream::connect(&path)?;
            stream.set_write_timeout(Some(Duration::from_secs(60)))?;
            Ok(stream)
        };
        Sender::spawn(name, pause, lines(connect))
    }

    /// Datagrams.
    pub fn udp(name: &'static str, port: u16, pause: Duration) -> Sender {
        let socket = send::udp(port);
        Sender::spawn(name, pause, move |record| {
            socket.send(record).expect("somebody holds the socket");
            0
        })
    }

    /// One kept-alive connection; what is not answered with 204 is sent again on a new one.
    pub fn http(name: &'static str, port: u16, pause: Duration) -> Sender {
        let mut client: Option<Client> = None;
        Sender::spawn(name, pause, move |record| {
            let mut resends = 0;
            loop {
                let mut one = client.take().map_or_else(|| Client::connect(port), Ok).expect("it listens");
                match one.post("/v1/audit", record) {
                    Ok(answer) => {
                        assert_eq!(answer.status, 204);
                        if answer.header("connection") != Some("close") {
                            client = Some(one);
                        }
                        return resends;
                    }
                    Err(_) => resends += 1,
                }
            }
        })
    }
}

fn lines<S: Write + Send>(connect: impl Fn() -> io::Result<S> + Send) -> impl FnMut(&[u8]) -> u64 + Send {
    let mut stream: Option<S> = None;
    move |record| {
        let line = [record, b"\n"].concat();
        let mut resends = 0;
        loop {
            let mut one = stream.take().map_or_else(&connect, Ok).expect("somebody listens");
            if one.write_all(&line).is_ok() {
                stream = Some(one);
                return resends;
            }
            resends += 1;
        }
    }
}
