//! The locks of the hand-off; `tests/loom.rs` has another module in this one's place.

pub(crate) use std::sync::{Arc, Condvar, Mutex, MutexGuard};
