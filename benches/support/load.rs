//! The load generator: closed loop (each connection sends as soon as it has its answer) and open loop (requests at fixed instants,
//! latency counted from the instant at which the request was due).

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use vault_audit_filter::clock;

/// What a run has shown.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    pub seconds: f64,
    /// Sorted latencies in nanoseconds.
    pub latencies_ns: Vec<u64>,
    /// Answers other than 204, and broken connections.
    pub errors: u64,
    /// Connections that had no answer in the second half of the run, or waited for one longer than the whole run.
    pub starved: usize,
    /// Connections whose last request had no answer within [`ANSWER_WAIT_MAX`] after the run.
    pub unanswered: usize,
}

impl Outcome {
    pub fn per_second(&self) -> f64 {
        self.latencies_ns.len() as f64 / self.seconds
    }

    /// A percentile in microseconds.
    pub fn percentile_us(&self, percent: f64) -> f64 {
        let last = self.latencies_ns.len().saturating_sub(1);
        let at = (last as f64 * percent / 100.0).round() as usize;
        self.latencies_ns.get(at).map_or(f64::NAN, |ns| *ns as f64 / 1000.0)
    }
}

const ANSWER: &[u8] = b"HTTP/1.1 204";

/// How long the answers to what was sent are waited for once nothing more is sent.
pub const ANSWER_WAIT_MAX: Duration = Duration::from_secs(3);

struct Flow {
    stream: TcpStream,
    sent_at: Instant,
    answered_at: Instant,
}

fn connect(to: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// `connections` connections, each with one request in flight, for `duration`; all on the calling thread. The requests are sent in
/// turn, over and over.
pub fn closed_loop(
    to: SocketAddr,
    connections: usize,
    requests: &[Vec<u8>],
    duration: Duration,
) -> std::io::Result<Outcome> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let start = clock::now();
    let mut requests = requests.iter().cycle();
    let mut next = || requests.next().map_or(&[][..], Vec::as_slice);
    let mut flows = Vec::new();
    for index in 0..connections {
        let mut stream = connect(to)?;
        epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, index as u64))?;
        stream.set_nonblocking(true)?;
        let sent_at = clock::now();
        stream.write_all(next())?;
        flows.push(Flow { stream, sent_at, answered_at: start });
    }
    let mut outcome = Outcome::default();
    let mut events = [EpollEvent::empty(); 64];
    let mut answer = [0; 4096];
    let end = start + duration;
    let mut now = start;
    while now < end {
        let ready = epoll.wait(&mut events, 10u16)?;
        now = clock::now();
        for event in &events[..ready] {
            let flow = &mut flows[event.data() as usize];
            let n = match flow.stream.read(&mut answer) {
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => continue,
                Err(_) => 0,
            };
            if !answer[..n].starts_with(ANSWER) {
                outcome.errors += 1;
                if n == 0 {
                    epoll.delete(&flow.stream)?;
                    continue;
                }
            }
            let answered_at = clock::now();
            outcome.latencies_ns.push((answered_at - flow.sent_at).as_nanos() as u64);
            flow.answered_at = answered_at;
            flow.sent_at = answered_at;
            if flow.stream.write_all(next()).is_err() {
                outcome.errors += 1;
                epoll.delete(&flow.stream)?;
            }
        }
    }
    outcome.seconds = (now - start).as_secs_f64();
    outcome.latencies_ns.sort_unstable();
    outcome.starved = flows.iter().filter(|f| f.answered_at < start + duration / 2).count();
    // Nobody is busy any more: who has no answer now was forgotten.
    let deadline = clock::now() + ANSWER_WAIT_MAX;
    for flow in &mut flows {
        let left = deadline.saturating_duration_since(clock::now()).max(Duration::from_millis(1));
        flow.stream.set_nonblocking(false)?;
        flow.stream.set_read_timeout(Some(left))?;
        match flow.stream.read(&mut answer) {
            Ok(n) if answer[..n].starts_with(ANSWER) => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => outcome.unanswered += 1,
            // A connection that broke was counted when it did.
            Ok(0) | Err(_) => {}
            Ok(_) => outcome.errors += 1,
        }
    }
    Ok(outcome)
}

/// `connections` connections that together send `per_second` requests, evenly spread; a thread for each connection. The
/// requests are sent in turn, over and over.
pub fn open_loop(
    to: SocketAddr,
    connections: usize,
    per_second: u32,
    requests: &[Vec<u8>],
    duration: Duration,
) -> std::io::Result<Outcome> {
    let step = Duration::from_secs(1) / per_second;
    let streams = (0..connections).map(|_| connect(to)).collect::<std::io::Result<Vec<_>>>()?;
    let start = clock::now() + Duration::from_millis(20);
    let parts: Vec<Outcome> = std::thread::scope(|scope| {
        let workers: Vec<_> = streams
            .into_iter()
            .enumerate()
            .map(|(n, stream)| {
                scope.spawn(move || {
                    let own = requests.iter().cycle().skip(n).step_by(connections);
                    one_flow(
                        stream,
                        start + step * n as u32,
                        step * connections as u32,
                        own,
                        start + duration,
                    )
                })
            })
            .collect();
        workers.into_iter().map(|w| w.join().unwrap_or_default()).collect()
    });
    let mut outcome = Outcome { seconds: duration.as_secs_f64(), ..Outcome::default() };
    for part in parts {
        outcome.latencies_ns.extend(part.latencies_ns);
        outcome.errors += part.errors;
        outcome.starved += part.starved;
        outcome.unanswered += part.unanswered;
    }
    outcome.latencies_ns.sort_unstable();
    Ok(outcome)
}

fn one_flow<'a>(
    mut stream: TcpStream,
    first: Instant,
    step: Duration,
    mut requests: impl Iterator<Item = &'a Vec<u8>>,
    end: Instant,
) -> Outcome {
    let mut outcome = Outcome::default();
    let mut answer = [0; 4096];
    let mut due = first;
    let run = end.saturating_duration_since(first);
    // A server that leaves a connection unanswered must not hold the run up for ever.
    let _ = stream.set_read_timeout(Some(run + ANSWER_WAIT_MAX));
    while due < end
        && let Some(request) = requests.next()
    {
        std::thread::sleep(due.saturating_duration_since(clock::now()));
        let answered = stream.write_all(request).and_then(|()| stream.read(&mut answer));
        match answered {
            Ok(n) if answer[..n].starts_with(ANSWER) => {
                let latency = clock::now() - due;
                outcome.latencies_ns.push(latency.as_nanos() as u64);
                outcome.starved |= usize::from(latency > run);
            }
            Ok(n) if n > 0 => outcome.errors += 1,
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                outcome.unanswered = 1;
                break;
            }
            _ => {
                outcome.errors += 1;
                break;
            }
        }
        due += step;
    }
    outcome
}
