//! The pure modules under test without the rest of the program: built for fuzzing, with every branch instrumented, the program's
//! servers and clients would take most of the time, and no target runs them.

#[path = "../src/framing/mod.rs"]
pub mod framing;
#[path = "../src/record/mod.rs"]
pub mod record;
#[path = "../src/rules/mod.rs"]
pub mod rules;
