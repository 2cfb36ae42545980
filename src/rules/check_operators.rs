//! The static types of operators.

use std::sync::Arc;

use super::ast::BinaryOp;
use super::types::{Check, Slice, Ty};

/// The result type of an operator, `None` where the operands do not fit.
pub(crate) fn binary_ty(op: BinaryOp, l: &Ty, r: &Ty) -> Option<Ty> {
    use BinaryOp::*;
    let numbers = l.is_number() && r.is_number();
    let maybe = |checks: &[Check]| l.maybe_compatible(r, checks);
    match op {
        Eq | Ne => l.comparable_to(r).then_some(Ty::Bool),
        Lt | Le | Gt | Ge => {
            let same =
                matches!((l, r), (Ty::Str, Ty::Str) | (Ty::Time, Ty::Time) | (Ty::Duration, Ty::Duration));
            let fits = numbers || same || maybe(&[Check::Number, Check::Str, Check::Time, Check::Duration]);
            fits.then_some(Ty::Bool)
        }
        Add | Sub | Mul => match (l, r) {
            _ if numbers => {
                Some(if matches!(l, Ty::Float) || matches!(r, Ty::Float) { Ty::Float } else { Ty::Int })
            }
            (Ty::Str, Ty::Str) if op == Add => Some(Ty::Str),
            (Ty::Time, Ty::Duration) if op != Mul => Some(Ty::Time),
            (Ty::Duration, Ty::Time) if op == Add => Some(Ty::Time),
            (Ty::Time, Ty::Time) if op == Sub => Some(Ty::Duration),
            (Ty::Duration, Ty::Duration) => Some(Ty::Duration),
            (Ty::Duration, n) | (n, Ty::Duration) if op == Mul && n.is_number() => Some(Ty::Duration),
            _ => {
                let checks: &[Check] = match op {
                    Add => &[Check::Number, Check::Str, Check::Time, Check::Duration],
                    Sub => &[Check::Number, Check::Time, Check::Duration],
                    _ => &[Check::Number, Check::Duration],
                };
                maybe(checks).then_some(Ty::Unknown)
            }
        },
        Div | Pow => (numbers || maybe(&[Check::Number])).then_some(Ty::Float),
        Rem => (l.is_integer() && r.is_integer() || maybe(&[Check::Integer])).then_some(Ty::Int),
        In => in_ty(l, r),
        Matches => ((l.is_str() || l.is_bytes()) && r.is_str() || maybe(&[Check::Str])).then_some(Ty::Bool),
        Contains | StartsWith | EndsWith => {
            (l.is_str() && r.is_str() || maybe(&[Check::Str])).then_some(Ty::Bool)
        }
        Range => (l.is_integer() && r.is_integer() || maybe(&[Check::Integer]))
            .then(|| Ty::Array(Slice::Any, Arc::new(Ty::Int))),
        Coalesce => Some(match (l.is_nil(), r.is_nil()) {
            (true, false) => r.clone(),
            (false, true) => l.clone(),
            (true, true) => Ty::Nil,
            (false, false) if r.assignable_to(l) => l.clone(),
            _ => Ty::Unknown,
        }),
    }
}

fn in_ty(l: &Ty, r: &Ty) -> Option<Ty> {
    let fits = match r {
        Ty::Map(map) => l.is_unknown() || l.assignable_to(&map.key()),
        Ty::Array(_, elem) => l.comparable_to(elem),
        _ if r.is_struct() => l.is_str() || l.is_unknown(),
        _ if r.is_unknown() => true,
        _ => l.is_unknown() && r.is_any_of(&[Check::Str, Check::Array, Check::Map]),
    };
    fits.then_some(Ty::Bool)
}
