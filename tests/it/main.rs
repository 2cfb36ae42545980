//! End-to-end tests: the real executable, real sockets, real files, a real OpenBao where there is one.
#![allow(
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "one program, nothing to reach from outside; tests read whole answers, start plain threads and look at the clock"
)]

mod activation;
mod bench;
mod commands;
mod docs;
mod durable;
mod evidence;
mod harness;
mod hostile;
mod hung;
mod life;
mod log_file;
mod openbao;
mod options;
mod page;
mod pipeline;
mod queue;
mod receive;
mod reload;
mod replay;
mod side_effects;
#[path = "../support/mod.rs"]
mod support;
mod tail;
mod tls;
mod units;
mod watching;
mod wrong;
