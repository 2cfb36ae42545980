//! HTTP connections: requests out of reads, replies in order, one request in flight.

use std::sync::Arc;

use super::conn::{Broken, Conn, Next, ParkedReply, Protocol};
use super::core::Core;
use super::counters::CloseReason;
use super::http::{Request, Response};
use super::park::{self, Parking, answer};
use super::reply::{self, Form};
use super::serve::{COMPLAINT_PERIOD_MS, Hands, READS_PER_WAKE};
use super::slots::{ConnId, Slot};
use super::tls::Failure;
use super::{Reply, Service};
use crate::clock;
use crate::framing;
use crate::framing::http::{Refusal, Step, gunzip};

/// How many pipelined requests of one connection are served before the others come first.
const REQUESTS_PER_WAKE: usize = 16;

/// A decoding buffer larger than this is given back after the request.
const KEPT_BYTES_MAX: usize = 1 << 20;

const NO_ROOM: Refusal = Refusal { status: 503, reason: "too many bytes of unfinished requests, try again" };

impl<S: Service> Hands<S> {
    /// The connection can be read or written. An error says why it must be closed.
    pub(super) fn http_ready(
        &mut self,
        core: &Arc<Core>,
        slot: &Slot,
        id: ConnId,
        conn: &mut Conn,
    ) -> Result<Next, CloseReason> {
        if conn.has_output() {
            if !conn.flush() {
                return Ok(Next::Write);
            }
            conn.fresh = true;
            if let Some(next) = conn.after_reply() {
                return Ok(next);
            }
        }
        if !conn.input.is_empty()
            && let Some(next) = self.serve_kept(core, slot, id, conn)?
        {
            return Ok(next);
        }
        for _ in 0..READS_PER_WAKE {
            let n = match conn.receive(&mut self.scratch, &mut self.sealed) {
                Ok(None) => return Ok(conn.reading()),
                Ok(Some(n)) => n,
                Err(Broken::Gone) => return self.http_ended(core, conn),
                Err(Broken::Tls(failure)) => return self.tls_failed(core, conn, &failure),
            };
            if n == 0 {
                return self.http_ended(core, conn);
            }
            let next = if conn.input.is_empty() {
                self.serve_in_place(core, slot, id, conn, n)?
            } else {
                let cap_max = match &conn.protocol {
                    Protocol::Http(framer) => framer.input_bytes_max(&core.bounds().http),
                    Protocol::Lines(_) => 0,
                };
                framing::append(&mut conn.input, &self.scratch[..n], cap_max);
                self.serve_kept(core, slot, id, conn)?
            };
            if let Some(next) = next {
                return Ok(next);
            }
            if n < self.scratch.len() && !conn.is_ended() {
                return Ok(conn.reading());
            }
        }
        Ok(Next::Again)
    }

    /// Serves from the read buffer; only what no request has used up is kept.
    fn serve_in_place(
        &mut self,
        core: &Arc<Core>,
        slot: &Slot,
        id: ConnId,
        conn: &mut Conn,
        n: usize,
    ) -> Result<Option<Next>, CloseReason> {
        let scratch = std::mem::take(&mut self.scratch);
        let outcome = self.serve_requests(core, slot, id, conn, &scratch[..n]);
        if let Ok((used, _)) = outcome
            && used < n
        {
            conn.input = scratch[used..n].to_vec();
        }
        self.scratch = scratch;
        outcome.map(|(_, next)| next)
    }

    /// Serves from the connection's own buffer.
    fn serve_kept(
        &mut self,
        core: &Arc<Core>,
        slot: &Slot,
        id: ConnId,
        conn: &mut Conn,
    ) -> Result<Option<Next>, CloseReason> {
        let input = std::mem::take(&mut conn.input);
        let (used, next) = self.serve_requests(core, slot, id, conn, &input)?;
        if used == 0 {
            conn.input = input;
        } else if used < input.len() {
            conn.input = input[used..].to_vec();
        }
        Ok(next)
    }

    /// Serves the requests at the start of `input`. Returns how many bytes they took and what to wait for, if not for more input.
    fn serve_requests(
        &mut self,
        core: &Arc<Core>,
        slot: &Slot,
        id: ConnId,
        conn: &mut Conn,
        input: &[u8],
    ) -> Result<(usize, Option<Next>), CloseReason> {
        let mut used = 0;
        for _ in 0..REQUESTS_PER_WAKE {
            if used == input.len() {
                return Ok((used, None));
            }
            let Protocol::Http(framer) = &mut conn.protocol else { return Err(CloseReason::Peer) };
            match framer.advance(&input[used..], &core.bounds().http) {
                Err(refusal) => {
                    let next = self.refuse(core, conn, refusal);
                    return Ok((input.len(), next));
                }
                Ok(Step::NeedMore { consumed }) => {
                    used += consumed;
                    let next = self.want_more(core, conn, input.len() - used)?;
                    let used = if conn.closing { input.len() } else { used };
                    return Ok((used, next));
                }
                Ok(Step::Complete { consumed }) => {
                    let request = &input[used..used + consumed];
                    used += consumed;
                    let next = self.serve_one(core, slot, id, conn, request)?;
                    if let Protocol::Http(framer) = &mut conn.protocol {
                        framer.reset();
                    }
                    if next.is_some() {
                        return Ok((if conn.closing { input.len() } else { used }, next));
                    }
                }
            }
        }
        Ok((used, Some(Next::Again)))
    }

    /// A request is unfinished and `kept` bytes of it are about to be kept.
    fn want_more(&mut self, core: &Core, conn: &mut Conn, kept: usize) -> Result<Option<Next>, CloseReason> {
        let Protocol::Http(framer) = &mut conn.protocol else { return Err(CloseReason::Peer) };
        let first = conn.charged_bytes == 0;
        let wanted = if first && framer.head().is_some() {
            framer.input_bytes_max(&core.bounds().http)
        } else {
            (kept + framer.heap_bytes()).saturating_sub(conn.charged_bytes)
        };
        if !core.has_room(wanted) {
            return Ok(self.refuse(core, conn, NO_ROOM));
        }
        if framer.take_expect_continue() {
            conn.send(reply::CONTINUE);
        }
        Ok(conn.has_output().then_some(Next::Write))
    }

    /// One whole request.
    fn serve_one(
        &mut self,
        core: &Arc<Core>,
        slot: &Slot,
        id: ConnId,
        conn: &mut Conn,
        input: &[u8],
    ) -> Result<Option<Next>, CloseReason> {
        let since = clock::now();
        let Protocol::Http(framer) = &conn.protocol else { return Err(CloseReason::Peer) };
        let (Some(head), Some(parts)) = (framer.head(), framer.parts(input)) else {
            return Err(CloseReason::Refused);
        };
        let form = Form::of(head);
        let mut decoded = std::mem::take(&mut self.decoded);
        let mut body = parts.body;
        if head.gzip && !body.is_empty() {
            if let Err(refusal) = gunzip(body, core.bounds().http.body_bytes_max, &mut decoded) {
                return Ok(self.refuse(core, conn, refusal));
            }
            body = &decoded;
        }
        let request = Request {
            method: parts.method,
            path: parts.path,
            query: parts.query,
            authorization: parts.authorization,
            body,
        };
        let (source, listener) = (conn.source, conn.listener);
        let parking = Parking::new(core, slot, id);
        let reply =
            self.guarded(core, listener, |service, worker| service.http(source, &request, worker, &parking));
        let asked = parking.asked();
        if decoded.capacity() <= KEPT_BYTES_MAX {
            self.decoded = decoded;
        }
        let response = match (reply, asked) {
            (Some(Reply::Now(response)), _) => {
                park::forget_if(slot, asked);
                response
            }
            (Some(Reply::Parked), true) => match park::settle(slot) {
                Some(status) => park::response(status),
                None => {
                    conn.parked = Some(ParkedReply { form: Some(form), since });
                    return Ok(Some(Next::Parked));
                }
            },
            (Some(Reply::Parked), false) => {
                log::error!("listener {}: a reply was parked without a ticket", source.label());
                Response { close: true, ..Response::text(500, "internal error\n") }
            }
            (None, _) => {
                park::forget_if(slot, asked);
                Response { close: true, ..Response::text(500, "internal error\n") }
            }
        };
        answer(core, conn, &response, form, Some(since), &mut self.out);
        Ok(conn.after_reply())
    }

    /// Answers what cannot be taken; the connection is closed after it.
    pub(super) fn refuse(&mut self, core: &Core, conn: &mut Conn, refusal: Refusal) -> Option<Next> {
        let source = conn.source;
        self.guarded(core, conn.listener, |service, _| service.http_refused(source, refusal.status));
        core.listeners[conn.listener].counters.count_close(CloseReason::Refused);
        let mut response = Response::text(refusal.status, format!("{}\n", refusal.reason));
        if refusal.status == 503 {
            response.headers = &[("Retry-After", "1")];
        }
        answer(core, conn, &response, Form::REFUSED, None, &mut self.out);
        conn.after_reply()
    }

    /// The TLS session cannot go on: says why, now and then, and lets the peer close. A sender without TLS is told.
    fn tls_failed(&mut self, core: &Core, conn: &mut Conn, failure: &Failure) -> Result<Next, CloseReason> {
        let state = &core.listeners[conn.listener];
        if state.tls_complaints.allow(core.now_ms(), COMPLAINT_PERIOD_MS) {
            let peer = conn.stream.peer().map_or_else(String::new, |peer| format!(" with {peer}"));
            log::warn!(
                "listener {}: a TLS connection{peer} has failed: {failure}; for the next {} s further ones are only counted",
                state.source.label(),
                COMPLAINT_PERIOD_MS / 1000
            );
        }
        match failure {
            Failure::Gone => return Err(CloseReason::Tls),
            Failure::PlainHttp => {
                state.counters.count_status(400);
                let response =
                    Response::text(400, "TLS is spoken on this port; write https:// in the address\n");
                self.out.clear();
                reply::encode(&response, Form::REFUSED, &mut self.out);
            }
            // An alert, if there is one to send, is out already.
            Failure::NoTls | Failure::Fruitless | Failure::Protocol(_) => self.out.clear(),
        }
        state.counters.count_close(CloseReason::Tls);
        Ok(conn.give_up(&self.out))
    }

    /// The peer has closed or is gone. What was received of an unfinished request is no request.
    fn http_ended(&mut self, core: &Core, conn: &mut Conn) -> Result<Next, CloseReason> {
        let Protocol::Http(framer) = &conn.protocol else { return Err(CloseReason::Peer) };
        if framer.head().is_none() && conn.input.is_empty() {
            return Err(CloseReason::Peer);
        }
        let source = conn.source;
        self.guarded(core, conn.listener, |service, _| service.http_refused(source, 400));
        let response = Response::text(400, "the connection ended within the request\n");
        // It may have closed its sending side only, and still listen.
        answer(core, conn, &response, Form::REFUSED, None, &mut self.out);
        Err(CloseReason::Truncated)
    }
}
