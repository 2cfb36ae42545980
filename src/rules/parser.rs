//! Tokens to the syntax tree. Model: the parser of expr-lang/expr 1.17 (`parser/parser.go`, precedences in
//! `parser/operator`); what it accepts is accepted, what it refuses is refused.

use super::Limits;
use super::ast::{BinaryOp, Kind, LogicOp, Node, Span, UnaryOp};
use super::error::RuleError;
use super::lexer::{Token, lex};

pub(super) type Parsed = Result<Node, RuleError>;

/// Parses a whole rule.
///
/// # Errors
/// The first thing that is not of the language, or a limit.
pub(crate) fn parse(source: &str, limits: &Limits) -> Parsed {
    if source.len() > limits.source_bytes_max {
        return Err(RuleError::new(
            0..0,
            format!("the rule has {} bytes, the limit is {}", source.len(), limits.source_bytes_max),
        ));
    }
    let mut parser =
        Parser { tokens: lex(source)?, at: 0, predicates: 0, depth: 0, nodes: 0, copies: 0, limits };
    let node = parser.sequence()?;
    if parser.current() != &Token::Eof {
        return Err(parser.unexpected("an operator or the end of the rule"));
    }
    Ok(node)
}

pub(super) struct Parser<'l> {
    tokens: Vec<(Token, Span)>,
    at: usize,
    /// How many predicates are open: `#` and `.field` are known inside only.
    pub(super) predicates: u32,
    depth: usize,
    pub(super) nodes: usize,
    /// Nodes that exist twice because the language evaluates them twice (`a < b < c`, `a ?: b`).
    copies: usize,
    limits: &'l Limits,
}

#[derive(Clone, Copy, PartialEq)]
enum Infix {
    Pipe,
    Logic(LogicOp),
    Binary(BinaryOp),
}

/// Precedence and meaning of a binary operator; all but `**` are left-associative.
fn infix(token: &Token) -> Option<(u32, Infix)> {
    let Token::Op(op) = token else { return None };
    use BinaryOp::*;
    Some(match *op {
        "|" => (0, Infix::Pipe),
        "or" | "||" => (10, Infix::Logic(LogicOp::Or)),
        "and" | "&&" => (15, Infix::Logic(LogicOp::And)),
        "==" => (20, Infix::Binary(Eq)),
        "!=" => (20, Infix::Binary(Ne)),
        "<" => (20, Infix::Binary(Lt)),
        ">" => (20, Infix::Binary(Gt)),
        ">=" => (20, Infix::Binary(Ge)),
        "<=" => (20, Infix::Binary(Le)),
        "in" => (20, Infix::Binary(In)),
        "matches" => (20, Infix::Binary(Matches)),
        "contains" => (20, Infix::Binary(Contains)),
        "startsWith" => (20, Infix::Binary(StartsWith)),
        "endsWith" => (20, Infix::Binary(EndsWith)),
        ".." => (25, Infix::Binary(Range)),
        "+" => (30, Infix::Binary(Add)),
        "-" => (30, Infix::Binary(Sub)),
        "*" => (60, Infix::Binary(Mul)),
        "/" => (60, Infix::Binary(Div)),
        "%" => (60, Infix::Binary(Rem)),
        "**" | "^" => (100, Infix::Binary(Pow)),
        "??" => (500, Infix::Binary(Coalesce)),
        _ => return None,
    })
}

fn is_comparison(op: Infix) -> bool {
    matches!(op, Infix::Binary(BinaryOp::Lt | BinaryOp::Le | BinaryOp::Gt | BinaryOp::Ge))
}

impl Parser<'_> {
    pub(super) fn current(&self) -> &Token {
        &self.tokens[self.at].0
    }

    pub(super) fn span(&self) -> Span {
        self.tokens[self.at].1
    }

    /// The end of the token before the current one.
    pub(super) fn last_span(&self) -> Span {
        self.tokens[self.at.saturating_sub(1)].1
    }

    pub(super) fn next(&mut self) {
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
    }

    pub(super) fn is(&self, op: &str) -> bool {
        matches!(self.current(), Token::Op(found) if *found == op)
    }

    pub(super) fn is_bracket(&self, bracket: char) -> bool {
        self.current() == &Token::Bracket(bracket)
    }

    pub(super) fn error(&self, message: impl Into<String>) -> RuleError {
        RuleError::new(self.span().range(), message)
    }

    pub(super) fn unexpected(&self, wanted: &str) -> RuleError {
        let error = self.error(format!("unexpected {}, wanted {wanted}", self.current().describe()));
        match self.current() {
            Token::Op("=") => error.help("equality is `==`"),
            Token::Op("&") => error.help("write `&&` or `and`"),
            Token::Op("=~" | "=*") => error.help("write `matches`"),
            Token::Op("#") => error.help("comments are `// ...` and `/* ... */`"),
            Token::Ident(name) => match name.to_lowercase().as_str() {
                "startswith" => error.help("did you mean `startsWith`?"),
                "endswith" => error.help("did you mean `endsWith`?"),
                "match" | "like" | "regex" => error.help("did you mean `matches`?"),
                "contain" | "includes" => error.help("did you mean `contains`?"),
                "and" | "or" | "not" | "in" | "matches" | "contains" => {
                    error.help(format!("did you mean `{}`?", name.to_lowercase()))
                }
                _ => error,
            },
            _ => error,
        }
    }

    pub(super) fn expect(&mut self, op: &'static str) -> Result<(), RuleError> {
        if !self.is(op) {
            return Err(self.unexpected(&format!("`{op}`")));
        }
        self.next();
        Ok(())
    }

    pub(super) fn expect_bracket(&mut self, bracket: char) -> Result<(), RuleError> {
        if !self.is_bracket(bracket) {
            return Err(self.unexpected(&format!("`{bracket}`")));
        }
        self.next();
        Ok(())
    }

    pub(super) fn node(&mut self, kind: Kind, at: Span, span: Span) -> Parsed {
        self.nodes += 1;
        if self.nodes > self.limits.nodes_max || self.copies > self.limits.nodes_max.saturating_mul(4) {
            let message = format!("the rule is too large: the limit is {} parts", self.limits.nodes_max);
            return Err(RuleError::new(at.range(), message));
        }
        let node = Node::new(kind, at, span);
        if usize::from(node.depth) > self.limits.depth_max {
            return Err(self.too_deep(at));
        }
        Ok(node)
    }

    fn too_deep(&self, at: Span) -> RuleError {
        RuleError::new(
            at.range(),
            format!("the rule is nested too deeply: the limit is {} levels", self.limits.depth_max),
        )
    }

    fn copy(&mut self, node: &Node) -> Node {
        self.copies = self.copies.saturating_add(node.count());
        node.clone()
    }

    fn sequence(&mut self) -> Parsed {
        let first = self.expression(0)?;
        if !self.is(";") {
            return Ok(first);
        }
        let mut nodes = vec![first];
        while self.is(";") {
            self.next();
            if self.current() == &Token::Eof {
                break;
            }
            nodes.push(self.expression(0)?);
        }
        if nodes.len() == 1 {
            return Ok(nodes.swap_remove(0));
        }
        let span = nodes[0].span.to(nodes[nodes.len() - 1].span);
        self.node(Kind::Sequence(nodes), span, span)
    }

    pub(super) fn expression(&mut self, precedence: u32) -> Parsed {
        self.depth += 1;
        if self.depth > self.limits.depth_max {
            return Err(self.too_deep(self.span()));
        }
        let node = if precedence == 0 && self.is("let") {
            self.declaration()
        } else if precedence == 0 && self.is("if") {
            self.conditional_if()
        } else {
            let primary = self.primary()?;
            let node = self.binary(primary, precedence)?;
            if precedence == 0 { self.ternary(node) } else { Ok(node) }
        };
        self.depth -= 1;
        node
    }

    fn binary(&mut self, mut left: Node, precedence: u32) -> Parsed {
        let mut previous = None;
        loop {
            let start = self.at;
            let negated = self.is("not");
            let not_at = self.span();
            if negated {
                self.next();
                if !matches!(
                    self.current(),
                    Token::Op("in" | "matches" | "contains" | "startsWith" | "endsWith")
                ) {
                    return Err(self
                        .unexpected("`in`, `matches`, `contains`, `startsWith` or `endsWith` after `not`"));
                }
            }
            let Some((level, op)) = infix(self.current()).filter(|(level, _)| *level >= precedence) else {
                self.at = start;
                return Ok(left);
            };
            let at = self.span();
            if previous == Some(Infix::Binary(BinaryOp::Coalesce))
                && op != Infix::Binary(BinaryOp::Coalesce)
                && op != Infix::Pipe
            {
                return Err(self.mixed_coalesce());
            }
            self.next();
            left = match op {
                Infix::Pipe => self.pipe(left)?,
                op if is_comparison(op) => self.comparison(left, op, at, level)?,
                Infix::Logic(op) => {
                    let right = self.expression(level + 1)?;
                    self.logic(op, left, right, at)?
                }
                Infix::Binary(op) => {
                    let right = self.expression(if op == BinaryOp::Pow { level } else { level + 1 })?;
                    let span = left.span.to(right.span);
                    self.node(Kind::Binary(op, Box::new(left), Box::new(right)), at, span)?
                }
            };
            if negated {
                let span = left.span;
                left = self.node(Kind::Unary(UnaryOp::Not, Box::new(left)), not_at, span)?;
            }
            previous = Some(op);
        }
    }

    fn mixed_coalesce(&self) -> RuleError {
        let op = self.current().describe();
        self.error(format!("{op} and `??` cannot be mixed without parentheses"))
            .help("write `(a ?? b)` in parentheses")
    }

    /// Joins two operands; a left operand with the same operator is made longer instead of deeper.
    fn logic(&mut self, op: LogicOp, left: Node, right: Node, at: Span) -> Parsed {
        let span = left.span.to(right.span);
        let operands = match left.kind {
            Kind::Logic(same, mut operands) if same == op => {
                operands.push(right);
                operands
            }
            kind => vec![Node { kind, ..left }, right],
        };
        self.node(Kind::Logic(op, operands), at, span)
    }

    fn pipe(&mut self, left: Node) -> Parsed {
        let at = self.span();
        let Token::Ident(name) = self.current().clone() else {
            return Err(self.unexpected("the name of a function after `|`"));
        };
        self.next();
        self.call(&name, at, Some(left))
    }

    /// `a < b < c` means `a < b && b < c`.
    fn comparison(&mut self, mut left: Node, mut op: Infix, mut at: Span, level: u32) -> Parsed {
        let mut root: Option<Node> = None;
        loop {
            let right = self.expression(level + 1)?;
            let chained = infix(self.current()).filter(|(_, op)| is_comparison(*op)).map(|(_, op)| op);
            let next_left = chained.map(|_| self.copy(&right));
            let Infix::Binary(binary) = op else { return Err(self.unexpected("a comparison")) };
            let span = left.span.to(right.span);
            let node = self.node(Kind::Binary(binary, Box::new(left), Box::new(right)), at, span)?;
            let joined = match root.take() {
                None => node,
                Some(before) => self.logic(LogicOp::And, before, node, at)?,
            };
            let (Some(next), Some(copied)) = (chained, next_left) else { return Ok(joined) };
            root = Some(joined);
            left = copied;
            op = next;
            at = self.span();
            self.next();
        }
    }

    fn declaration(&mut self) -> Parsed {
        let start = self.span();
        self.next();
        let at = self.span();
        let Token::Ident(name) = self.current().clone() else {
            return Err(self.unexpected("a name after `let`"));
        };
        self.next();
        self.expect("=")?;
        let value = self.expression(0)?;
        if !self.is(";") {
            return Err(self.unexpected("`;` and the expression that uses the name"));
        }
        self.next();
        let body = self.sequence()?;
        let span = start.to(body.span);
        self.node(Kind::Let { name, value: Box::new(value), body: Box::new(body) }, at, span)
    }

    fn conditional_if(&mut self) -> Parsed {
        self.depth += 1;
        if self.depth > self.limits.depth_max {
            return Err(self.too_deep(self.span()));
        }
        let start = self.span();
        self.next();
        let condition = self.expression(0)?;
        let then = self.block()?;
        self.expect("else")?;
        let otherwise = if self.is("if") { self.conditional_if()? } else { self.block()? };
        self.depth -= 1;
        let span = start.to(self.last_span());
        self.node(Kind::Conditional(Box::new([condition, then, otherwise])), start, span)
    }

    pub(super) fn block(&mut self) -> Parsed {
        self.expect_bracket('{')?;
        let node = self.sequence()?;
        self.expect_bracket('}')?;
        Ok(node)
    }

    fn ternary(&mut self, mut node: Node) -> Parsed {
        while self.is("?") {
            let at = self.span();
            self.next();
            let (then, otherwise) = if self.is(":") {
                self.next();
                (self.copy(&node), self.expression(0)?)
            } else {
                let then = self.expression(0)?;
                if !self.is(":") {
                    return Err(self.unexpected("`:` and the other value"));
                }
                self.next();
                (then, self.expression(0)?)
            };
            let span = node.span.to(otherwise.span);
            node = self.node(Kind::Conditional(Box::new([node, then, otherwise])), at, span)?;
        }
        Ok(node)
    }

    fn primary(&mut self) -> Parsed {
        let at = self.span();
        match self.current() {
            Token::Op(op @ ("not" | "!" | "-" | "+")) => {
                let (op, level) = match *op {
                    "-" => (UnaryOp::Minus, 90),
                    "+" => (UnaryOp::Plus, 90),
                    _ => (UnaryOp::Not, 50),
                };
                self.next();
                let operand = self.expression(level)?;
                let span = at.to(operand.span);
                let node = self.node(Kind::Unary(op, Box::new(operand)), at, span)?;
                self.postfix(node)
            }
            Token::Bracket('(') => {
                self.next();
                let mut node = self.sequence()?;
                if !self.is_bracket(')') {
                    return Err(self.unexpected("`)`"));
                }
                self.next();
                node.span = at.to(self.last_span());
                self.postfix(node)
            }
            Token::Op(op @ ("#" | ".")) if self.predicates > 0 => {
                let mut name = Box::from("");
                if *op == "#" {
                    self.next();
                    if let Token::Ident(found) = self.current().clone() {
                        name = found;
                        self.next();
                    }
                }
                let span = if *name == *"" { at } else { at.to(self.last_span()) };
                let node = self.node(Kind::Pointer(name), span, span)?;
                self.postfix(node)
            }
            Token::Op("::") => {
                self.next();
                let at = self.span();
                let Token::Ident(name) = self.current().clone() else {
                    return Err(self.unexpected("the name of a builtin after `::`"));
                };
                self.next();
                let node = self.call(&name, at, None)?;
                self.postfix(node)
            }
            _ => self.secondary(at),
        }
    }

    fn secondary(&mut self, at: Span) -> Parsed {
        let node = match self.current().clone() {
            Token::Ident(name) => {
                self.next();
                match &*name {
                    "true" => return self.node(Kind::Bool(true), at, at),
                    "false" => return self.node(Kind::Bool(false), at, at),
                    "nil" => return self.node(Kind::Nil, at, at),
                    _ if self.is_bracket('(') => self.call(&name, at, None)?,
                    _ => self.node(Kind::Ident(name), at, at)?,
                }
            }
            Token::Number(text) => {
                self.next();
                let kind = number(&text, at)?;
                return self.node(kind, at, at);
            }
            Token::Str(value) => {
                self.next();
                self.node(Kind::Str(value), at, at)?
            }
            Token::Bytes(value) => {
                self.next();
                self.node(Kind::Bytes(value), at, at)?
            }
            Token::Bracket('[') => self.array(at)?,
            Token::Bracket('{') => self.map(at)?,
            Token::Op("#" | ".") => {
                let error = self.unexpected("a value");
                return Err(if error.help.is_some() {
                    error
                } else {
                    error.help("`.field` and `#` are known inside a predicate only")
                });
            }
            _ => return Err(self.unexpected("a value")),
        };
        self.postfix(node)
    }
}

fn number(text: &str, at: Span) -> Result<Kind, RuleError> {
    let plain: String = text.chars().filter(|c| *c != '_').collect::<String>().to_ascii_lowercase();
    let bad = |what: &str| RuleError::new(at.range(), format!("`{text}` {what}"));
    let integer = |digits: &str, radix| match i64::from_str_radix(digits, radix) {
        Ok(value) => Ok(Kind::Int(value)),
        Err(_) if digits.is_empty() => Err(bad("is not a number")),
        Err(_) => Err(bad("does not fit into 64 bits").help("the largest integer is 9223372036854775807")),
    };
    if let Some(digits) = plain.strip_prefix("0x") {
        if digits.contains(['.', '+', '-']) {
            return Err(bad("is not a number"));
        }
        return integer(digits, 16);
    }
    if plain.contains(['.', 'e']) {
        let value: f64 = plain.parse().map_err(|_| bad("is not a number"))?;
        return if value.is_finite() { Ok(Kind::Float(value)) } else { Err(bad("is too large")) };
    }
    match (plain.strip_prefix("0b"), plain.strip_prefix("0o")) {
        (Some(digits), _) => integer(digits, 2),
        (_, Some(digits)) => integer(digits, 8),
        _ => integer(&plain, 10),
    }
}
