//! The durable store of side effects.

pub mod disk;
pub mod journal;
