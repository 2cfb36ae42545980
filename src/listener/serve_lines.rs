//! Streams: lines out of reads. Nothing is ever written to the peer.

use std::sync::Arc;

use super::conn::{Conn, Next, ParkedReply, Protocol};
use super::core::{Core, HandOver, Stage};
use super::counters::CloseReason;
use super::park::{self, Parking};
use super::serve::Hands;
use super::slots::{ConnId, Slot};
use super::{BadFrame, LineReply, Service, Source};
use crate::clock;
use crate::framing::line::Piece;

/// While so much is evaluated a busy sender writes more: it is looked for at once.
const PLENTY_BYTES: usize = 16 << 10;

impl<S: Service> Hands<S> {
    /// The connection can be read. An error says why it must be closed.
    pub(super) fn lines_ready(
        &mut self,
        core: &Arc<Core>,
        slot: &Slot,
        id: ConnId,
        conn: &mut Conn,
    ) -> Result<Next, CloseReason> {
        if !conn.input.is_empty() {
            let input = std::mem::take(&mut conn.input);
            let used = self.feed(core, slot, id, conn, &input);
            conn.input = input[used..].to_vec();
            if conn.parked.is_some() {
                return Ok(Next::Parked);
            }
        }
        if core.hands_over() == HandOver::AtOnce {
            return self.finish_line(core, slot, id, conn);
        }
        if !core.has_room(self.scratch.len()) {
            return Ok(Next::Paused);
        }
        let n = match conn.stream.read(&mut self.scratch) {
            Ok(None) => return Ok(Next::Read),
            Ok(Some(n)) if n > 0 => n,
            _ => return Err(self.lines_ended(core, conn)),
        };
        self.feed_read(core, slot, id, conn, n);
        // Before a close it is read until nothing is left: what comes while these lines are evaluated would be lost with it.
        let is_read = n < PLENTY_BYTES && core.stage() < Stage::Closing;
        Ok(match conn.parked {
            Some(_) => Next::Parked,
            None if is_read => Next::Read,
            None => Next::Again,
        })
    }

    /// The connection is to be handed over and is within a line: reads to the end of that one, and no byte further.
    fn finish_line(
        &mut self,
        core: &Arc<Core>,
        slot: &Slot,
        id: ConnId,
        conn: &mut Conn,
    ) -> Result<Next, CloseReason> {
        let n = match conn.stream.peek(&mut self.scratch) {
            Ok(None) => return Ok(Next::Read),
            Ok(Some(n)) if n > 0 => n,
            _ => return Err(self.lines_ended(core, conn)),
        };
        let newline = memchr::memchr(b'\n', &self.scratch[..n]);
        let wanted = newline.map_or(n, |at| at + 1);
        // All of it is there: it has been seen.
        let Ok(Some(n)) = conn.stream.read(&mut self.scratch[..wanted]) else {
            return Err(self.lines_ended(core, conn));
        };
        self.feed_read(core, slot, id, conn, n);
        Ok(match newline {
            _ if conn.parked.is_some() => Next::Parked,
            Some(_) => Next::Read,
            None => Next::Again,
        })
    }

    /// [`Hands::feed`] with the `n` bytes in the read buffer; what is not used is kept with the connection.
    fn feed_read(&mut self, core: &Arc<Core>, slot: &Slot, id: ConnId, conn: &mut Conn, n: usize) {
        let scratch = std::mem::take(&mut self.scratch);
        let used = self.feed(core, slot, id, conn, &scratch[..n]);
        conn.input = scratch[used..n].to_vec();
        self.scratch = scratch;
        core.recharge(conn);
    }

    /// Hands the lines in `input` to the service until one is parked. Returns how many bytes were used.
    fn feed(&mut self, core: &Arc<Core>, slot: &Slot, id: ConnId, conn: &mut Conn, input: &[u8]) -> usize {
        let (source, listener) = (conn.source, conn.listener);
        let Protocol::Lines(framer) = &mut conn.protocol else { return input.len() };
        let mut parked = false;
        let mut fresh = false;
        let used = framer.feed(input, &core.bounds().lines, |piece| {
            fresh = true;
            match piece {
                Piece::Oversize(head) => {
                    let bad = BadFrame::Oversize(head);
                    self.guarded(core, listener, |service, worker| service.bad_frame(source, bad, worker));
                }
                Piece::Lines(lines) => parked = self.hand_over(core, slot, id, (source, listener), lines),
            }
            !parked
        });
        conn.fresh |= fresh;
        if parked {
            conn.parked = Some(ParkedReply { form: None, since: clock::now() });
        }
        used
    }

    /// Hands lines to the service. True: the connection waits for a ticket.
    fn hand_over(
        &mut self,
        core: &Arc<Core>,
        slot: &Slot,
        id: ConnId,
        from: (Source, usize),
        lines: &[&[u8]],
    ) -> bool {
        let (source, listener) = from;
        let parking = Parking::new(core, slot, id);
        let mut reply =
            self.guarded(core, listener, |service, worker| service.lines(source, lines, worker, &parking));
        if reply.is_none() && lines.len() > 1 {
            // A panic must not cost the other lines, which may or may not have been written already: a line twice is better than none.
            for line in lines {
                let one = self.guarded(core, listener, |service, worker| {
                    service.lines(source, &[line], worker, &parking)
                });
                if one == Some(LineReply::Parked) {
                    reply = one;
                }
            }
        }
        let asked = parking.asked();
        if reply == Some(LineReply::Parked) && asked {
            return park::settle(slot).is_none();
        }
        park::forget_if(slot, asked);
        false
    }

    /// The stream has ended, or is about to be: an unfinished line is counted and not evaluated; its sender sends it again whole.
    pub(super) fn lines_ended(&mut self, core: &Core, conn: &mut Conn) -> CloseReason {
        let Protocol::Lines(framer) = &mut conn.protocol else { return CloseReason::Peer };
        // Input behind a parked line has not been looked at; it is lost with the rest.
        let unseen = std::mem::take(&mut conn.input).len() as u64;
        let bytes = framer.finish().unwrap_or(0) + unseen;
        if bytes == 0 {
            return CloseReason::Peer;
        }
        let source = conn.source;
        let bad = BadFrame::Truncated(bytes);
        self.guarded(core, conn.listener, |service, worker| service.bad_frame(source, bad, worker));
        CloseReason::Truncated
    }
}
