//! Constant folding, as far as its effects can be seen in the Go library (`optimizer/fold.go` of expr-lang/expr 1.17):
//! `x && false` is false although `x` fails, `1 % 0` does not compile, `"a" + "("` is a constant pattern.

use super::ast::{BinaryOp, BuiltinCall, Kind, Literal, LogicOp, Node, UnaryOp};
use super::error::RuleError;
use super::types::Ty;

/// Passes over the tree at most, as in Go.
const PASSES_MAX: usize = 1000;

/// Folds until nothing changes.
///
/// # Errors
/// A remainder by the constant zero.
pub(crate) fn fold(node: &mut Node) -> Result<(), RuleError> {
    for _ in 0..PASSES_MAX {
        let mut pass = Pass { applied: false, error: None };
        pass.visit(node);
        if let Some(error) = pass.error {
            return Err(error);
        }
        if !pass.applied {
            break;
        }
    }
    Ok(())
}

struct Pass {
    applied: bool,
    error: Option<RuleError>,
}

impl Pass {
    fn visit(&mut self, node: &mut Node) {
        node.kind.each_mut(&mut |child| self.visit(child));
        if let Some((kind, ty)) = self.folded(node) {
            self.applied = true;
            node.kind = kind;
            if let Some(ty) = ty {
                node.ty = ty;
            }
        }
    }

    /// What the node becomes, and its type where that changes.
    fn folded(&mut self, node: &mut Node) -> Option<(Kind, Option<Ty>)> {
        let span = node.span;
        match &mut node.kind {
            Kind::Unary(op, operand) => {
                let kind = match (op, &operand.kind) {
                    (UnaryOp::Minus, Kind::Int(value)) => Kind::Int(value.wrapping_neg()),
                    (UnaryOp::Minus, Kind::Float(value)) => Kind::Float(-value),
                    (UnaryOp::Plus, Kind::Int(value)) => Kind::Int(*value),
                    (UnaryOp::Plus, Kind::Float(value)) => Kind::Float(*value),
                    (UnaryOp::Not, Kind::Bool(value)) => Kind::Bool(!value),
                    _ => return None,
                };
                typed(kind)
            }
            Kind::Binary(BinaryOp::Rem, left, right) => match (&left.kind, &right.kind) {
                (Kind::Int(_), Kind::Int(0)) => {
                    self.error = Some(RuleError::new(span.range(), "the remainder of a division by zero"));
                    None
                }
                (Kind::Int(a), Kind::Int(b)) => typed(Kind::Int(a.wrapping_rem(*b))),
                _ => None,
            },
            Kind::Binary(op, left, right) => arithmetic(*op, &left.kind, &right.kind).and_then(typed),
            Kind::Logic(op, operands) => logic(*op, operands),
            Kind::Array(nodes) if !nodes.is_empty() => {
                let values: Option<Vec<Literal>> = nodes.iter().map(literal).collect();
                Some((Kind::Constants(values?.into()), None))
            }
            Kind::Builtin(call) => nested_filter(call).map(|kind| (kind, None)),
            _ => None,
        }
    }
}

fn typed(kind: Kind) -> Option<(Kind, Option<Ty>)> {
    let ty = match kind {
        Kind::Int(_) => Ty::Int,
        Kind::Float(_) => Ty::Float,
        Kind::Str(_) => Ty::Str,
        _ => Ty::Bool,
    };
    Some((kind, Some(ty)))
}

fn literal(node: &Node) -> Option<Literal> {
    Some(match &node.kind {
        Kind::Bool(value) => Literal::Bool(*value),
        Kind::Int(value) => Literal::Int(*value),
        Kind::Float(value) => Literal::Float(*value),
        Kind::Str(value) => Literal::Str(value.clone()),
        _ => return None,
    })
}

fn arithmetic(op: BinaryOp, left: &Kind, right: &Kind) -> Option<Kind> {
    use BinaryOp::*;
    Some(match (op, left, right) {
        (Add, Kind::Str(a), Kind::Str(b)) => Kind::Str([&a[..], &b[..]].concat().into()),
        (Eq, Kind::Str(a), Kind::Str(b)) => Kind::Bool(a == b),
        (Eq, Kind::Bool(a), Kind::Bool(b)) => Kind::Bool(a == b),
        (Eq, Kind::Int(a), Kind::Int(b)) => Kind::Bool(a == b),
        (Add, Kind::Int(a), Kind::Int(b)) => Kind::Int(a.wrapping_add(*b)),
        (Sub, Kind::Int(a), Kind::Int(b)) => Kind::Int(a.wrapping_sub(*b)),
        (Mul, Kind::Int(a), Kind::Int(b)) => Kind::Int(a.wrapping_mul(*b)),
        (Add | Sub | Mul | Div | Pow, a, b) => {
            let (a, b) = (float(a)?, float(b)?);
            Kind::Float(match op {
                Add => a + b,
                Sub => a - b,
                Mul => a * b,
                Div => a / b,
                _ => super::numbers::pow(a, b),
            })
        }
        _ => return None,
    })
}

fn float(kind: &Kind) -> Option<f64> {
    match kind {
        Kind::Int(value) => Some(*value as f64),
        Kind::Float(value) => Some(*value),
        _ => None,
    }
}

/// Folds a chain as the nested pairs that it stands for, from the left.
fn logic(op: LogicOp, operands: &mut Vec<Node>) -> Option<(Kind, Option<Ty>)> {
    // The operand that changes nothing, and the one that decides: true and false for `&&`.
    let neutral = op == LogicOp::And;
    if !operands.iter().any(|node| matches!(node.kind, Kind::Bool(_))) {
        return None;
    }
    let mut kept: Vec<Node> = Vec::new();
    for node in operands.drain(..) {
        let Some(left) = kept.last() else {
            kept.push(node);
            continue;
        };
        let single = kept.len() == 1;
        match (&left.kind, &node.kind) {
            (Kind::Bool(value), _) if single && *value == neutral => kept[0] = node,
            (_, Kind::Bool(value)) if *value == neutral => {}
            (Kind::Bool(_), _) if single => {}
            (_, Kind::Bool(_)) => kept = vec![node],
            _ => kept.push(node),
        }
    }
    if kept.len() > 1 {
        return Some((Kind::Logic(op, kept), None));
    }
    kept.pop().map(|node| match node.kind {
        Kind::Bool(value) => (Kind::Bool(value), Some(Ty::Bool)),
        kind => (kind, None),
    })
}

/// `filter(filter(a, p), q)` is `filter(a, p && q)`.
fn nested_filter(call: &mut BuiltinCall) -> Option<Kind> {
    if call.name != "filter" || call.args.len() != 2 {
        return None;
    }
    let Kind::Builtin(inner) = &mut call.args[0].kind else { return None };
    if inner.name != "filter" || inner.args.len() != 2 {
        return None;
    }
    let second = call.args.pop()?;
    let Kind::Builtin(inner) = call.args.pop()?.kind else { return None };
    let mut args = inner.args.into_iter();
    let (base, first) = (args.next()?, args.next()?);
    let span = first.span.to(second.span);
    let mut both = Node::new(Kind::Logic(LogicOp::And, vec![first, second]), span, span);
    both.ty = Ty::Bool;
    Some(Kind::Builtin(Box::new(BuiltinCall {
        name: "filter",
        args: vec![base, both],
        throws: false,
        map: None,
        threshold: None,
    })))
}
