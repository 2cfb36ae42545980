//! Tests of one field against something known when the rule is compiled: what most rules consist of.

use super::ast::BinaryOp;
use super::code::{Cond, CondKind, FieldRead, LoopName, StrTest};
use super::error::EvalErrorKind;
use super::eval::located;
use super::value::{Fault, fault_of};
use crate::record::{Record, Slot, json};

/// One field against a constant.
#[inline]
pub(crate) fn leaf(cond: &Cond, record: &Record<'_>) -> Result<bool, Fault> {
    match &cond.kind {
        CondKind::Str(field, test) => match record.slot(field.slot) {
            Slot::Str(text) => Ok(test.hits(text.as_bytes())),
            Slot::Absent | Slot::Unreached | Slot::Null => Ok(test.hits(b"")),
            _ => Err(mistyped("a string", field)),
        },
        CondKind::Bool(field) => match record.slot(field.slot) {
            Slot::Bool(value) => Ok(value),
            Slot::Absent | Slot::Unreached | Slot::Null => Ok(false),
            _ => Err(mistyped("true or false", field)),
        },
        CondKind::Int(field, op, wanted) => {
            int(record, field, *op, *wanted).ok_or_else(|| mistyped("an integer", field))
        }
        CondKind::List(field, quantifier, test) => {
            list(record, field, *quantifier, test).ok_or_else(|| mistyped("an array of strings", field))
        }
        _ => Ok(false),
    }
}

pub(crate) fn int(record: &Record<'_>, field: &FieldRead, op: BinaryOp, wanted: i64) -> Option<bool> {
    let found = match record.slot(field.slot) {
        Slot::Number(text) => json::int(text)?,
        Slot::Absent | Slot::Unreached | Slot::Null => 0,
        _ => return None,
    };
    Some(match op {
        BinaryOp::Eq => found == wanted,
        BinaryOp::Ne => found != wanted,
        BinaryOp::Lt => found < wanted,
        BinaryOp::Le => found <= wanted,
        BinaryOp::Gt => found > wanted,
        _ => found >= wanted,
    })
}

/// Looks at every element: an array that is mistyped fails wherever the hit stands.
pub(crate) fn list(
    record: &Record<'_>,
    field: &FieldRead,
    quantifier: LoopName,
    test: &StrTest,
) -> Option<bool> {
    let (mut hits, mut count) = (0, 0);
    match record.slot(field.slot) {
        Slot::Json(text) if text.first() == Some(&b'[') => {
            for node in json::elements(text) {
                count += 1;
                hits += usize::from(match node {
                    json::Node::Str(text) if !text.is_escaped() => test.hits(text.raw()),
                    json::Node::Str(text) => test.hits(text.to_cow().as_bytes()),
                    json::Node::Null => test.hits(b""),
                    _ => return None,
                });
            }
        }
        Slot::Absent | Slot::Unreached | Slot::Null => {}
        _ => return None,
    }
    Some(match quantifier {
        LoopName::All => hits == count,
        LoopName::None => hits == 0,
        LoopName::One => hits == 1,
        _ => hits > 0,
    })
}

#[cold]
fn mistyped(wanted: &str, field: &FieldRead) -> Fault {
    let fault = fault_of(EvalErrorKind::MistypedField, format!("the field is not {wanted} in this record"));
    located(fault, field.span.range())
}
