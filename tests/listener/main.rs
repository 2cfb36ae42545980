//! The listeners on real sockets with a service of their own: framing, limits, deadlines, faults, shutdown.

#![allow(unreachable_pub, reason = "a test program has no outside")]

mod files;
mod harness;
mod hazards;
mod http;
mod life;
mod parked;
mod streams;
mod udp;
