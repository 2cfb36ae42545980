//! The evaluating threads: they take what was received and hand it to the service. The second one stands by, and takes part only while
//! the first one is held up.

use std::sync::Arc;

use super::WAIT;
use super::ring::{Datagrams, Ring, Taken};
use crate::clock;
use crate::listener::serve::guarded;
use crate::listener::{BadFrame, Heartbeat, OVERSIZE_HEAD_BYTES, Service, Source};
use crate::metrics::Counter;

/// Datagrams handed to the service at once.
const DATAGRAMS_PER_CALL: usize = 64;

pub(super) struct Evaluator<S: Service> {
    pub service: Arc<S>,
    pub worker: S::Worker,
    pub ring: Arc<Ring>,
    pub heartbeat: Heartbeat,
    pub panics: Arc<Counter>,
}

impl<S: Service> Evaluator<S> {
    pub(super) fn run(&mut self) {
        let mut taken = Datagrams::default();
        while self.take_what_comes(&mut taken) {}
    }

    /// The standby's life: called, it takes until nothing has come for a while.
    pub(super) fn stand_by(&mut self) {
        let mut taken = Datagrams::default();
        loop {
            self.heartbeat.beat();
            if self.ring.wait_for_call(WAIT, clock::now()) && !self.take_what_comes(&mut taken) {
                return;
            }
        }
    }

    /// Takes until nothing has come for a while. False: nothing more will come.
    fn take_what_comes(&mut self, taken: &mut Datagrams) -> bool {
        loop {
            self.heartbeat.beat();
            match self.ring.take(taken, WAIT, clock::now()) {
                Taken::Some => {
                    self.hand_over(taken);
                    taken.clear();
                }
                Taken::None => return true,
                Taken::End => return false,
            }
        }
    }

    fn hand_over(&mut self, datagrams: &Datagrams) {
        let mut frames: Vec<&[u8]> = Vec::with_capacity(DATAGRAMS_PER_CALL);
        for (datagram, cut) in datagrams.iter() {
            if cut {
                self.flush(&mut frames);
                let head = &datagram[..datagram.len().min(OVERSIZE_HEAD_BYTES)];
                self.call(|service, worker| {
                    service.bad_frame(Source::Udp, BadFrame::CutDatagram(head), worker);
                });
                continue;
            }
            frames.push(datagram);
            if frames.len() == DATAGRAMS_PER_CALL {
                self.flush(&mut frames);
                self.heartbeat.beat();
            }
        }
        self.flush(&mut frames);
        self.call(|service, worker| service.after_datagrams(worker));
    }

    /// A panic must not cost the other datagrams of the call, which may or may not have been written already: they are handed over
    /// once more, one by one. A line twice is better than none.
    fn flush(&mut self, frames: &mut Vec<&[u8]>) {
        if !frames.is_empty()
            && !self.call(|service, worker| service.datagrams(frames, worker))
            && frames.len() > 1
        {
            for frame in frames.iter() {
                self.call(|service, worker| service.datagrams(&[frame], worker));
            }
        }
        frames.clear();
    }

    /// False: the service panicked. That costs this call, not the thread.
    fn call(&mut self, call: impl FnOnce(&S, &mut S::Worker)) -> bool {
        guarded(&*self.service, &mut self.worker, &self.panics, Source::Udp, call).is_some()
    }
}
