//! Records: decoding an audit entry. Only the fields that some rule or template names are extracted, in one validating pass
//! over the bytes; everything borrows from the frame.
//!
//! Pure: no I/O, no clock, no threads.

//!
//! [`schema`] names the fields, [`FieldPlan`] collects those that are wanted, [`Decoder`] finds them in a frame, [`json`] reads on
//! inside the objects and arrays that it leaves as text.

mod decode;
mod found;
pub mod json;
mod plan;
mod quick;
mod quotes;
mod scan;
pub mod schema;
#[cfg(test)]
mod tests;
mod tree;
mod walk;

pub use decode::{DEPTH_MAX, DecodeError, DecodeScratch, Decoder, LooksLike, Record};
pub use json::{Elements, Members, Node, RawStr, Token, Tokens};
pub use plan::FieldPlan;

/// Number of an extracted field; made by [`FieldPlan::want`](plan::FieldPlan::want).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotId(pub u32);

/// The state of one wanted field in one record.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Slot<'s> {
    /// An ancestor is missing or null.
    Unreached,
    /// An ancestor is there and is neither an object nor null.
    Misplaced,
    /// The parent is an object without this key.
    Absent,
    /// JSON null.
    Null,
    /// true or false.
    Bool(bool),
    /// The number's text.
    Number(&'s str),
    /// A string, unescaped.
    Str(&'s str),
    /// An object or array: its valid JSON text.
    Json(&'s [u8]),
}

impl Slot<'_> {
    /// Whether nothing is there: a rule reads it as its type's zero value.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Slot::Absent | Slot::Unreached | Slot::Null)
    }
}
