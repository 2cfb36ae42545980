//! Tests of the store as a whole.

pub(crate) mod support;

mod admin;
mod busy;
mod corners;
mod crash;
mod faults;
mod flow;
mod promise;
mod reload;
mod threads;
