//! Tests of the store as a whole.

pub(crate) mod support;

mod admin;
mod crash;
mod faults;
mod flow;
mod threads;
