//! Messages of the type check: the types found and wanted, and what to type instead.

use super::ast::{BinaryOp, Kind, Node, Span};
use super::error::RuleError;
use super::lexer::is_name;
use super::types::Ty;

/// The names of a path such as `Request.Path`.
pub(crate) fn path_names(node: &Node) -> Option<Vec<&str>> {
    match &node.kind {
        Kind::Ident(name) => Some(vec![name]),
        Kind::Member { base, property, .. } => {
            let mut names = path_names(base)?;
            names.push(property.name()?);
            Some(names)
        }
        Kind::Chain(inner) => path_names(inner),
        _ => None,
    }
}

/// The path as text.
pub(crate) fn path_text(node: &Node) -> Option<String> {
    path_names(node).filter(|names| names.iter().all(|name| is_name(name))).map(|names| names.join("."))
}

/// A member that the type does not have.
pub(crate) fn no_member(ty: &Ty, name: Option<&str>, prop: &Ty, method: bool, at: Span) -> RuleError {
    match name {
        Some(name) if method => RuleError::new(at.range(), format!("{ty} has no method `{name}`")),
        Some(name) => RuleError::new(at.range(), format!("{ty} has no field `{name}`")),
        None if ty.is_str() => {
            RuleError::new(at.range(), "a string has no index").help("cut it with `text[0:1]`")
        }
        None => RuleError::new(at.range(), format!("{ty} cannot be indexed by {prop}")),
    }
}

/// Operands that do not fit the operator.
pub(crate) fn mismatch(op: BinaryOp, left: &Node, right: &Node, at: Span) -> RuleError {
    use BinaryOp::*;
    let (l, r) = (&left.ty, &right.ty);
    let text = op.text();
    let wanted = match op {
        Eq | Ne => "two values of one type",
        Lt | Le | Gt | Ge => "two numbers, two strings, two times or two durations",
        Add => "two numbers, two strings, or times and durations",
        Sub | Mul => "two numbers, or times and durations",
        Div | Pow => "two numbers",
        Rem | Range => "two ints",
        In => "an array of values of the same type, a map or an object on the right",
        _ => "two strings",
    };
    let error = RuleError::new(at.range(), format!("`{text}` wants {wanted}, found {l} and {r}"));
    match (op, l, r) {
        (Contains, Ty::Array(..), Ty::Str) => {
            error.help(format!("for an element of an array write `{} in ...`", literal_text(right)))
        }
        (Matches | StartsWith | EndsWith, Ty::Array(..), Ty::Str) => {
            error.help(format!("for elements of an array write `any(..., # {text} {})`", literal_text(right)))
        }
        (Eq | Ne, Ty::Array(..), Ty::Str) => {
            error.help(format!("for an element of an array write `{} in ...`", literal_text(right)))
        }
        (Eq | Ne | Lt | Le | Gt | Ge, Ty::Int | Ty::Float, Ty::Str) if matches!(right.kind, Kind::Str(_)) => {
            error.help("write the number without quotes")
        }
        (Eq | Ne, Ty::Bool, Ty::Str) if matches!(right.kind, Kind::Str(_)) => {
            error.help("write `true` or `false` without quotes")
        }
        (In, Ty::Str, Ty::Str) => error.help("for a part of a string write `... contains ...`"),
        (Gt | Ge | Lt | Le, Ty::Time, Ty::Str) => error.help("make a time of it: `date(...)`"),
        (Eq | Ne, Ty::Month | Ty::Weekday, Ty::Int) => error.help("make a number of it: `int(...)`"),
        _ => error,
    }
}

fn literal_text(node: &Node) -> String {
    match node.name() {
        Some(text) => format!("{text:?}"),
        None => "...".into(),
    }
}
