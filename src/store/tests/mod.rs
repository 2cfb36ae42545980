//! Tests of the store as a whole.

mod support;

mod admin;
mod crash;
mod flow;
