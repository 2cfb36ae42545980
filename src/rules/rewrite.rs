//! Rewriting whose effects can be seen in the Go library (`optimizer` of expr-lang/expr 1.17): which element of a loop is
//! the first to fail, whether a budget is used up, which lookup a list of strings gets.

use super::ast::{BinaryOp, BuiltinCall, Kind, Literal, LogicOp, Node};
use super::types::{Ty, TyKind};

/// The pass before folding: `in` with a literal list of strings, or of integers where the left side is one.
pub(crate) fn sets(node: &mut Node) {
    node.kind.each_mut(&mut sets);
    let Kind::Binary(BinaryOp::In, left, right) = &mut node.kind else { return };
    let Kind::Array(nodes) = &right.kind else { return };
    let ints = left.ty.kind() == TyKind::Int && nodes.iter().all(|node| matches!(node.kind, Kind::Int(_)));
    let strs = nodes.iter().all(|node| matches!(node.kind, Kind::Str(_)));
    if nodes.is_empty() || !(ints || strs) {
        return;
    }
    let values: Vec<Literal> = nodes
        .iter()
        .filter_map(|node| match &node.kind {
            Kind::Int(value) => Some(Literal::Int(*value)),
            Kind::Str(value) => Some(Literal::Str(value.clone())),
            _ => None,
        })
        .collect();
    right.kind = Kind::Set(values.into());
}

/// The passes after folding, in Go's order.
pub(crate) fn loops(node: &mut Node) {
    for pass in [
        in_range,
        filter_map,
        filter_len,
        filter_ends,
        combine,
        sum_range,
        sum_array,
        sum_map,
        count_any,
        count_threshold,
    ] {
        walk(node, pass);
    }
}

fn walk(node: &mut Node, pass: fn(&mut Node)) {
    node.kind.each_mut(&mut |child| walk(child, pass));
    pass(node);
}

fn builtin<'n>(node: &'n mut Node, name: &str) -> Option<&'n mut BuiltinCall> {
    match &mut node.kind {
        Kind::Builtin(call) if call.name == name => Some(call),
        _ => None,
    }
}

fn is_builtin(node: &Node, name: &str) -> bool {
    matches!(&node.kind, Kind::Builtin(call) if call.name == name)
}

fn take(node: &mut Node) -> Node {
    std::mem::replace(node, Node::new(Kind::Nil, node.at, node.span))
}

fn call(name: &'static str, args: Vec<Node>) -> BuiltinCall {
    BuiltinCall { name, args, throws: false, map: None, threshold: None }
}

/// `x in 1..3` is `x >= 1 and x <= 3`.
fn in_range(node: &mut Node) {
    let Kind::Binary(BinaryOp::In, left, right) = &mut node.kind else { return };
    if left.ty.kind() != TyKind::Int {
        return;
    }
    let Kind::Binary(BinaryOp::Range, from, to) = &mut right.kind else { return };
    if !matches!((&from.kind, &to.kind), (Kind::Int(_), Kind::Int(_))) {
        return;
    }
    let (at, span) = (node.at, node.span);
    let compare = |op, left: Node, bound: &mut Node| {
        let mut node = Node::new(Kind::Binary(op, Box::new(left), Box::new(take(bound))), at, span);
        node.ty = Ty::Bool;
        node
    };
    let low = compare(BinaryOp::Ge, Node::clone(left), from);
    let high = compare(BinaryOp::Le, take(left), to);
    node.kind = Kind::Logic(LogicOp::And, vec![low, high]);
}

/// `map(filter(a, p), m)` is one loop.
fn filter_map(node: &mut Node) {
    let Some(map) = builtin(node, "map") else { return };
    if map.args.len() != 2
        || map.args[1].any(&|node| matches!(&node.kind, Kind::Pointer(name) if **name == *"index"))
    {
        return;
    }
    let mut args = std::mem::take(&mut map.args);
    match builtin(&mut args[0], "filter") {
        Some(filter) if filter.map.is_none() => {
            let mut fused = call("filter", std::mem::take(&mut filter.args));
            fused.map = args.pop().map(Box::new);
            *map = fused;
        }
        _ => map.args = args,
    }
}

/// `len(filter(a, p))` is `count(a, p)`.
fn filter_len(node: &mut Node) {
    let Some(len) = builtin(node, "len") else { return };
    if let [arg] = &mut len.args[..]
        && let Some(filter) = builtin(arg, "filter")
        && filter.args.len() == 2
    {
        *len = call("count", std::mem::take(&mut filter.args));
    }
}

/// `filter(a, p)[0]`, `first(filter(a, p))` and their counterparts from the end stop at the first hit.
fn filter_ends(node: &mut Node) {
    let (found, throws) = match &mut node.kind {
        Kind::Member { base, property, optional: false, .. } => {
            let name = match property.kind {
                Kind::Int(0) => "find",
                Kind::Int(-1) => "findLast",
                _ => return,
            };
            (builtin(base, "filter").map(|filter| (name, filter)), true)
        }
        Kind::Builtin(end) if end.args.len() == 1 => {
            let name = match end.name {
                "first" => "find",
                "last" => "findLast",
                _ => return,
            };
            (builtin(&mut end.args[0], "filter").map(|filter| (name, filter)), false)
        }
        _ => return,
    };
    let Some((name, filter)) = found else { return };
    if filter.args.len() != 2 {
        return;
    }
    let mut find = call(name, std::mem::take(&mut filter.args));
    find.map = filter.map.take();
    find.throws = throws;
    node.kind = Kind::Builtin(Box::new(find));
}

/// `all(x, A) && all(x, B)` is one loop; so are `none && none` and `any || any` over the same array.
fn combine(node: &mut Node) {
    let Kind::Logic(op, operands) = &mut node.kind else { return };
    let mut rest = std::mem::take(operands).into_iter();
    let mut kept: Vec<Node> = rest.next().into_iter().collect();
    for right in rest {
        let joined = match &mut kept[..] {
            [left] => joined(*op, left, &right),
            _ => None,
        };
        match joined {
            Some(inner) => {
                let Kind::Builtin(left) = &mut kept[0].kind else { continue };
                let Kind::Builtin(mut right) = right.kind else { continue };
                let (Some(b), Some(a)) = (right.args.pop(), left.args.pop()) else { continue };
                let span = a.span.to(b.span);
                let mut both = Node::new(Kind::Logic(inner, vec![a, b]), span, span);
                both.ty = Ty::Bool;
                combine(&mut both);
                left.args.push(both);
            }
            None => kept.push(right),
        }
    }
    match kept.pop() {
        Some(only) if kept.is_empty() => {
            node.kind = only.kind;
            node.ty = Ty::Bool;
        }
        Some(last) => {
            kept.push(last);
            if let Kind::Logic(_, operands) = &mut node.kind {
                *operands = kept;
            }
        }
        None => {}
    }
}

/// How the predicates of two loops are joined, where they can be.
fn joined(op: LogicOp, left: &Node, right: &Node) -> Option<LogicOp> {
    let (Kind::Builtin(left), Kind::Builtin(right)) = (&left.kind, &right.kind) else { return None };
    let inner = match (left.name, op) {
        ("all", LogicOp::And) => LogicOp::And,
        ("any", LogicOp::Or) | ("none", LogicOp::And) => LogicOp::Or,
        _ => return None,
    };
    (left.name == right.name && same(&left.args[0], &right.args[0])).then_some(inner)
}

/// The same expression: equal but for places and types.
fn same(a: &Node, b: &Node) -> bool {
    fn shape(node: &Node, out: &mut Vec<String>) {
        out.push(match &node.kind {
            Kind::Unary(op, _) => format!("{op:?}"),
            Kind::Binary(op, ..) => format!("{op:?}"),
            Kind::Logic(op, nodes) => format!("{op:?} {}", nodes.len()),
            Kind::Member { optional, method, .. } => format!("member {optional} {method}"),
            Kind::Slice { from, to, .. } => format!("slice {} {}", from.is_some(), to.is_some()),
            Kind::Call { args, .. } => format!("call {}", args.len()),
            Kind::Builtin(call) => {
                format!("{} {} {} {:?}", call.name, call.args.len(), call.throws, call.threshold)
            }
            Kind::Let { name, .. } => format!("let {name}"),
            Kind::Chain(_) => "chain".into(),
            Kind::Conditional(_) => "if".into(),
            Kind::Sequence(nodes) => format!("sequence {}", nodes.len()),
            Kind::Array(nodes) => format!("array {}", nodes.len()),
            Kind::Map(pairs) => format!("map {}", pairs.len()),
            leaf => format!("{leaf:?}"),
        });
        node.kind.each(&mut |child| shape(child, out));
    }
    let (mut left, mut right) = (Vec::new(), Vec::new());
    shape(a, &mut left);
    shape(b, &mut right);
    left == right
}

fn int_range(node: &Node) -> Option<(i64, i64)> {
    let Kind::Binary(BinaryOp::Range, from, to) = &node.kind else { return None };
    match (&from.kind, &to.kind) {
        (Kind::Int(from), Kind::Int(to)) if to >= from => Some((*from, *to)),
        _ => None,
    }
}

fn is_pointer(node: &Node, wanted: &str) -> bool {
    matches!(&node.kind, Kind::Pointer(name) if **name == *wanted)
}

/// Sums over a literal range are known: no budget is used up.
fn sum_range(node: &mut Node) {
    let Kind::Builtin(call) = &node.kind else { return };
    let Some((from, to)) = call.args.first().and_then(int_range) else { return };
    let count = to.wrapping_sub(from).wrapping_add(1);
    let sum = count.wrapping_mul(from.wrapping_add(to)) / 2;
    let value = match (call.name, &call.args[1..]) {
        ("sum", []) => Some(sum),
        ("sum", [predicate]) => sum_with(predicate, sum, count),
        ("reduce", [predicate]) if is_sum_step(predicate) => Some(sum),
        ("reduce", [predicate, start]) if is_sum_step(predicate) => match start.kind {
            Kind::Int(start) => Some(start.wrapping_add(sum)),
            _ => None,
        },
        _ => None,
    };
    if let Some(value) = value {
        node.kind = Kind::Int(value);
        node.ty = Ty::Int;
    }
}

fn is_sum_step(node: &Node) -> bool {
    let Kind::Binary(BinaryOp::Add, left, right) = &node.kind else { return false };
    is_pointer(left, "") && is_pointer(right, "acc") || is_pointer(left, "acc") && is_pointer(right, "")
}

fn sum_with(predicate: &Node, sum: i64, count: i64) -> Option<i64> {
    if is_pointer(predicate, "") {
        return Some(sum);
    }
    let Kind::Binary(op, left, right) = &predicate.kind else { return None };
    let (constant, pointer_left) = match (&left.kind, &right.kind) {
        (_, Kind::Int(value)) if is_pointer(left, "") => (*value, true),
        (Kind::Int(value), _) if is_pointer(right, "") => (*value, false),
        _ => return None,
    };
    let all = count.wrapping_mul(constant);
    match op {
        BinaryOp::Mul => Some(constant.wrapping_mul(sum)),
        BinaryOp::Add => Some(sum.wrapping_add(all)),
        BinaryOp::Sub if pointer_left => Some(sum.wrapping_sub(all)),
        BinaryOp::Sub => Some(all.wrapping_sub(sum)),
        _ => None,
    }
}

/// `sum([a, b])` is `a + b`, for strings too.
fn sum_array(node: &mut Node) {
    let (at, span) = (node.at, node.span);
    let Some(sum) = builtin(node, "sum") else { return };
    let [arg] = &mut sum.args[..] else { return };
    let Kind::Array(nodes) = &mut arg.kind else { return };
    if nodes.len() < 2 || nodes.len() > 100 {
        return;
    }
    let mut result: Option<Node> = None;
    for left in std::mem::take(nodes).into_iter().rev() {
        result = Some(match result {
            None => left,
            Some(right) => Node::new(Kind::Binary(BinaryOp::Add, Box::new(left), Box::new(right)), at, span),
        });
    }
    if let Some(result) = result {
        node.kind = result.kind;
    }
}

/// `sum(map(a, m))` is `sum(a, m)`.
fn sum_map(node: &mut Node) {
    let Some(sum) = builtin(node, "sum") else { return };
    if let [arg] = &mut sum.args[..]
        && let Some(map) = builtin(arg, "map")
        && map.args.len() == 2
    {
        sum.args = std::mem::take(&mut map.args);
    }
}

/// `count(a, p) > 0` is `any(a, p)`.
fn count_any(node: &mut Node) {
    let Kind::Binary(op, left, right) = &mut node.kind else { return };
    if !matches!((&*op, &right.kind), (BinaryOp::Gt, Kind::Int(0)) | (BinaryOp::Ge, Kind::Int(1))) {
        return;
    }
    if let Some(count) = builtin(left, "count")
        && count.args.len() == 2
    {
        let args = std::mem::take(&mut count.args);
        node.kind = Kind::Builtin(Box::new(call("any", args)));
    }
}

/// `count(a, p) > 3` stops counting at four.
fn count_threshold(node: &mut Node) {
    let Kind::Binary(op, left, right) = &mut node.kind else { return };
    let Kind::Int(bound) = right.kind else { return };
    let threshold = match op {
        BinaryOp::Gt | BinaryOp::Le => bound.wrapping_add(1),
        BinaryOp::Ge | BinaryOp::Lt => bound,
        _ => return,
    };
    if bound < 0 || threshold <= 1 {
        return;
    }
    if is_builtin(left, "count")
        && let Some(count) = builtin(left, "count")
        && count.args.len() == 2
    {
        count.threshold = Some(threshold);
    }
}
