//! The syntax tree. The parser makes it, the checker types it, `fold` and `rewrite` change it, `compile` lowers it.

use std::ops::Range;

use super::types::Ty;

/// A place in the source, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Span {
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Span {
    pub(crate) fn new(start: usize, end: usize) -> Span {
        Span { start: start as u32, end: end as u32 }
    }

    pub(crate) fn to(self, other: Span) -> Span {
        Span { start: self.start.min(other.start), end: self.end.max(other.end) }
    }

    pub(crate) fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// A node with its place and, after the check, its static type.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    /// The place that messages point at: the operator of a binary node, the name of a member.
    pub(crate) at: Span,
    /// All of the node.
    pub(crate) span: Span,
    pub(crate) ty: Ty,
    /// Height of the tree below, to bound every recursion over it.
    pub(crate) depth: u16,
}

#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(Box<[u8]>),
    Bytes(Box<[u8]>),
    /// An array of literals; made by folding.
    Constants(Box<[Literal]>),
    /// The right side of `in`, all strings or all integers; made by rewriting.
    Set(Box<[Literal]>),
    Ident(Box<str>),
    /// `#`, `#index`, `#acc`; the name is empty for `#` and for the base of `.field`.
    Pointer(Box<str>),
    Unary(UnaryOp, Box<Node>),
    /// Everything but the logical operators.
    Binary(BinaryOp, Box<Node>, Box<Node>),
    /// A chain of one logical operator, left to right: at least two operands. Flat, so that long chains are not deep.
    Logic(LogicOp, Vec<Node>),
    /// The end of a chain of `?.`: nil of any type becomes plain nil here.
    Chain(Box<Node>),
    Member {
        base: Box<Node>,
        property: Box<Node>,
        optional: bool,
        method: bool,
    },
    Slice {
        base: Box<Node>,
        from: Option<Box<Node>>,
        to: Option<Box<Node>>,
    },
    Call {
        callee: Box<Node>,
        args: Vec<Node>,
    },
    Builtin(Box<BuiltinCall>),
    Let {
        name: Box<str>,
        value: Box<Node>,
        body: Box<Node>,
    },
    Sequence(Vec<Node>),
    Conditional(Box<[Node; 3]>),
    Array(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

/// A call of a builtin function. Predicates are plain nodes in `args`; which ones, the name says.
#[derive(Debug, Clone)]
pub(crate) struct BuiltinCall {
    pub(crate) name: &'static str,
    pub(crate) args: Vec<Node>,
    /// `find` made of `filter(..)[0]`: an error instead of nil.
    pub(crate) throws: bool,
    /// What is returned for a hit instead of the element (`filter`, `find`), made of `map(filter(..), ..)`.
    pub(crate) map: Option<Box<Node>>,
    /// `count` stops here.
    pub(crate) threshold: Option<i64>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Literal {
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(Box<[u8]>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnaryOp {
    Not,
    Minus,
    Plus,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogicOp {
    And,
    Or,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BinaryOp {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    In,
    Matches,
    Contains,
    StartsWith,
    EndsWith,
    Range,
    Add,
    Sub,
    Mul,
    Div,
    Rem,
    Pow,
    Coalesce,
}

impl BinaryOp {
    pub(crate) fn text(self) -> &'static str {
        match self {
            BinaryOp::Eq => "==",
            BinaryOp::Ne => "!=",
            BinaryOp::Lt => "<",
            BinaryOp::Le => "<=",
            BinaryOp::Gt => ">",
            BinaryOp::Ge => ">=",
            BinaryOp::In => "in",
            BinaryOp::Matches => "matches",
            BinaryOp::Contains => "contains",
            BinaryOp::StartsWith => "startsWith",
            BinaryOp::EndsWith => "endsWith",
            BinaryOp::Range => "..",
            BinaryOp::Add => "+",
            BinaryOp::Sub => "-",
            BinaryOp::Mul => "*",
            BinaryOp::Div => "/",
            BinaryOp::Rem => "%",
            BinaryOp::Pow => "**",
            BinaryOp::Coalesce => "??",
        }
    }
}

impl Node {
    pub(crate) fn new(kind: Kind, at: Span, span: Span) -> Node {
        let mut depth = 0;
        kind.each(&mut |child| depth = depth.max(child.depth));
        Node { kind, at, span, ty: Ty::Unknown, depth: depth.saturating_add(1) }
    }

    /// The number of nodes in the tree.
    pub(crate) fn count(&self) -> usize {
        let mut count = 1;
        self.kind.each(&mut |child| count += child.count());
        count
    }

    pub(crate) fn any(&self, test: &impl Fn(&Node) -> bool) -> bool {
        let mut found = test(self);
        self.kind.each(&mut |child| found = found || child.any(test));
        found
    }

    /// The name where the node is a string literal.
    pub(crate) fn name(&self) -> Option<&str> {
        match &self.kind {
            Kind::Str(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }
}

/// The two ways to visit the children of a node, left to right, out of one list of what they are.
macro_rules! visit_children {
    ($kind:expr, $visit:expr, $iter:ident) => {
        match $kind {
            Kind::Nil
            | Kind::Bool(_)
            | Kind::Int(_)
            | Kind::Float(_)
            | Kind::Str(_)
            | Kind::Bytes(_)
            | Kind::Constants(_)
            | Kind::Set(_)
            | Kind::Ident(_)
            | Kind::Pointer(_) => {}
            Kind::Unary(_, node) | Kind::Chain(node) => $visit(node),
            Kind::Binary(_, left, right) => {
                $visit(left);
                $visit(right);
            }
            Kind::Logic(_, nodes) | Kind::Sequence(nodes) | Kind::Array(nodes) => {
                nodes.$iter().for_each($visit)
            }
            Kind::Member { base, property, .. } => {
                $visit(base);
                $visit(property);
            }
            Kind::Slice { base, from, to } => {
                $visit(base);
                from.$iter().chain(to.$iter()).for_each(|node| $visit(node));
            }
            Kind::Call { callee, args } => {
                $visit(callee);
                args.$iter().for_each($visit);
            }
            Kind::Builtin(call) => {
                call.args.$iter().for_each(&mut *$visit);
                call.map.$iter().for_each(|node| $visit(node));
            }
            Kind::Let { value, body, .. } => {
                $visit(value);
                $visit(body);
            }
            Kind::Conditional(nodes) => nodes.$iter().for_each($visit),
            Kind::Map(pairs) => pairs.$iter().for_each(|(key, value)| {
                $visit(key);
                $visit(value);
            }),
        }
    };
}

impl Kind {
    /// Calls `visit` for each child, left to right.
    pub(crate) fn each<'n>(&'n self, visit: &mut dyn FnMut(&'n Node)) {
        visit_children!(self, visit, iter);
    }

    /// Calls `visit` for each child, left to right.
    pub(crate) fn each_mut(&mut self, visit: &mut dyn FnMut(&mut Node)) {
        visit_children!(self, visit, iter_mut);
    }
}
