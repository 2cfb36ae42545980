//! `GET /v1/tail`: matches as they come, one JSON object a line, until the client goes.
//!
//! tiny_http's pool is two threads, and an answer without an end would take one of them; so the edge hands these requests to one thread of their own,
//! which looks at all followers every 50 ms while there are any, and at nothing when there are none.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use serde_json::json;

use super::answer::Answer;
use super::edge::Whole;
use super::selection;
use super::tasks::time_text;
use crate::config;
use crate::service::Gateway;
use crate::tail::{FOLLOWERS_MAX, Follower, Match, Taps};

/// The route.
const PATH: &str = "/v1/tail";
/// How often followers are looked after.
const TICK: Duration = Duration::from_millis(50);
/// Bytes that are made ready for one follower at a time.
const PIECE_BYTES: usize = 256 << 10;
/// So many of them, then the others get their turn.
const PIECES_PER_TURN: usize = 8;
const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/x-ndjson\r\n\r\n";

/// Whether this is a request for matches; `bytes` begin with a head that the edge has made.
pub(super) fn is_wanted(bytes: &[u8]) -> bool {
    target(bytes).is_some_and(|target| target.split('?').next() == Some(PATH))
}

/// The target of a GET.
fn target(bytes: &[u8]) -> Option<&str> {
    let line = bytes.split(|b| *b == b'\r').next()?;
    std::str::from_utf8(line).ok()?.strip_prefix("GET ")?.split(' ').next()
}

/// A client that follows.
struct Client {
    stream: UnixStream,
    follower: Follower,
    /// What the socket has not taken yet.
    out: Vec<u8>,
}

/// Serves followers until the edge has gone.
pub(super) fn run(taps: &Arc<Taps>, gateway: &Gateway, requests: &Receiver<Whole>) {
    let mut clients: Vec<Client> = Vec::new();
    loop {
        let next = if clients.is_empty() {
            requests.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            requests.recv_timeout(TICK)
        };
        match next {
            Ok(whole) => clients.extend(welcome(whole, taps, gateway)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        clients.retain_mut(|client| client.pump().is_ok());
    }
}

fn welcome(Whole { mut stream, bytes }: Whole, taps: &Arc<Taps>, gateway: &Gateway) -> Option<Client> {
    let groups = target(&bytes).and_then(|target| target.split_once('?')).map_or("", |(_, query)| query);
    match follow(groups, taps, gateway) {
        Ok(follower) => Some(Client { stream, follower, out: HEAD.to_vec() }),
        Err(answer) => {
            let _ = stream.write(&answer.to_http());
            None
        }
    }
}

fn follow(query: &str, taps: &Arc<Taps>, gateway: &Gateway) -> Result<Follower, Answer> {
    let live = gateway.live();
    let names: Vec<&str> = live.pipeline.groups().iter().map(|group| &*group.name).collect();
    let mut groups = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = selection::decode(value).filter(|_| name == "group").ok_or_else(|| {
            let cure = "name groups with group=NAME, percent-encoded, or none for all of them";
            Answer::error(400, &format!("the parameter {name:?} is not understood"), cure)
        })?;
        if !names.contains(&value.as_str()) {
            let what = format!("no group is named {value:?}");
            return Err(Answer::error(404, &what, &config::group_name_cure(&value, &names)));
        }
        groups.push(value);
    }
    taps.follow(groups).ok_or_else(|| {
        let what = format!("{FOLLOWERS_MAX} follow already");
        Answer::error(503, &what, "end one of them first")
    })
}

impl Client {
    /// Writes what there is, as far as the socket takes it. An error: the client has gone.
    fn pump(&mut self) -> io::Result<()> {
        let mut byte = [0; 1];
        match self.stream.read(&mut byte) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Err(e) if e.kind() != ErrorKind::WouldBlock && e.kind() != ErrorKind::Interrupted => {
                return Err(e);
            }
            // What it says after its request is nobody's business.
            _ => {}
        }
        for _ in 0..PIECES_PER_TURN {
            if self.out.is_empty() {
                self.refill();
            }
            if self.out.is_empty() {
                return Ok(());
            }
            match self.stream.write(&self.out) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => drop(self.out.drain(..n)),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn refill(&mut self) {
        let lost = self.follower.take_lost();
        if lost > 0 {
            self.out.extend_from_slice(format!("{}\n", json!({ "lost": lost })).as_bytes());
        }
        while self.out.len() < PIECE_BYTES {
            let Some(found) = self.follower.next() else { return };
            push_line(&mut self.out, &found);
        }
    }
}

/// `{"at", "group", "listener", "record"}`, the record byte for byte, but for line ends between its parts.
fn push_line(out: &mut Vec<u8>, found: &Match) {
    let head =
        json!({ "at": time_text(found.at), "group": &*found.group, "listener": found.listener }).to_string();
    out.extend_from_slice(&head.as_bytes()[..head.len() - 1]);
    out.extend_from_slice(b",\"record\":");
    // Within a text JSON has no line ends of its own.
    out.extend(found.record.trim_ascii().iter().map(|b| if matches!(b, b'\n' | b'\r') { b' ' } else { *b }));
    out.extend_from_slice(b"}\n");
}
