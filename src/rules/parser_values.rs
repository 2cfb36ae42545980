//! Calls, literals of arrays and maps, and what may follow a value: members, indexes, slices.

use super::ast::{BuiltinCall, Kind, Node, Span};
use super::check_builtins::{BUILTIN_NAMES, Takes, takes};
use super::error::{RuleError, nearest};
use super::lexer::{Token, is_name};
use super::parser::{Parsed, Parser};

impl Parser<'_> {
    /// A call by name; the name is read, `piped` is the first argument of a pipe.
    pub(super) fn call(&mut self, name: &str, at: Span, piped: Option<Node>) -> Parsed {
        let start = piped.as_ref().map_or(at, |node| node.span);
        let builtin = BUILTIN_NAMES.iter().find(|builtin| **builtin == name);
        let kind = match builtin {
            Some(name) => {
                let args = match takes(name) {
                    Some(takes) => self.predicate_args(name, takes, piped)?,
                    None => self.args(piped)?,
                };
                Kind::Builtin(Box::new(BuiltinCall { name, args, throws: false, map: None, threshold: None }))
            }
            None => {
                let callee = Box::new(self.node(Kind::Ident(name.into()), at, at)?);
                if !self.is_bracket('(') {
                    return Err(unknown_function(name, at));
                }
                Kind::Call { callee, args: self.args(piped)? }
            }
        };
        let span = start.to(self.last_span());
        self.node(kind, at, span)
    }

    fn predicate_args(
        &mut self,
        name: &str,
        takes: &[Takes],
        piped: Option<Node>,
    ) -> Result<Vec<Node>, RuleError> {
        self.expect_bracket('(')?;
        let mut args: Vec<Node> = piped.into_iter().collect();
        let from = args.len();
        for (i, takes) in takes[from..].iter().enumerate() {
            if self.is_bracket(')') {
                if matches!(takes, Takes::OptionalValue | Takes::OptionalPredicate) {
                    break;
                }
                let wanted = if matches!(takes, Takes::Predicate) { "a predicate" } else { "an array" };
                return Err(self.error(format!("`{name}` needs {wanted}")));
            }
            if i > 0 {
                self.expect(",")?;
                if self.is_bracket(')') && matches!(takes, Takes::OptionalValue | Takes::OptionalPredicate) {
                    // As the Go parser: after a comma an argument must follow here.
                    return Err(self.unexpected("an argument"));
                }
            }
            args.push(match takes {
                Takes::Value | Takes::OptionalValue => self.expression(0)?,
                Takes::Predicate | Takes::OptionalPredicate => self.predicate()?,
            });
        }
        if self.is(",") {
            self.next();
        }
        self.expect_bracket(')')?;
        Ok(args)
    }

    fn args(&mut self, piped: Option<Node>) -> Result<Vec<Node>, RuleError> {
        let mut args: Vec<Node> = piped.into_iter().collect();
        let from = args.len();
        self.expect_bracket('(')?;
        while !self.is_bracket(')') {
            if args.len() > from {
                if !self.is(",") {
                    return Err(self.unexpected("`,` or `)`"));
                }
                self.next();
                if self.is_bracket(')') {
                    break;
                }
            }
            args.push(self.expression(0)?);
        }
        self.next();
        Ok(args)
    }

    fn predicate(&mut self) -> Parsed {
        // A predicate is a node of its own in the Go tree: it counts.
        self.nodes += 1;
        self.predicates += 1;
        let node = if self.is_bracket('{') {
            self.block()?
        } else {
            let node = self.expression(0)?;
            if self.is(";") {
                return Err(self.error("a predicate of several expressions needs `{` and `}`"));
            }
            node
        };
        self.predicates -= 1;
        Ok(node)
    }

    pub(super) fn array(&mut self, at: Span) -> Parsed {
        self.next();
        let mut nodes = Vec::new();
        while !self.is_bracket(']') {
            if !nodes.is_empty() {
                if !self.is(",") {
                    return Err(self.unexpected("`,` or `]`"));
                }
                self.next();
                if self.is_bracket(']') {
                    break;
                }
            }
            nodes.push(self.expression(0)?);
        }
        self.next();
        let span = at.to(self.last_span());
        self.node(Kind::Array(nodes), span, span)
    }

    pub(super) fn map(&mut self, at: Span) -> Parsed {
        self.next();
        let mut pairs = Vec::new();
        while !self.is_bracket('}') {
            if !pairs.is_empty() {
                if !self.is(",") {
                    return Err(self.unexpected("`,` or `}`"));
                }
                self.next();
                if self.is_bracket('}') {
                    break;
                }
            }
            let key_at = self.span();
            let key = match self.current().clone() {
                Token::Ident(text) | Token::Number(text) => Some(text.as_bytes().into()),
                Token::Str(text) => Some(text),
                _ => None,
            };
            let key = match key {
                Some(text) => {
                    self.next();
                    self.node(Kind::Str(text), key_at, key_at)?
                }
                None if self.is_bracket('(') => self.expression(0)?,
                None => {
                    return Err(
                        self.unexpected("a key: a name, a string, a number or an expression in parentheses")
                    );
                }
            };
            self.expect(":")?;
            let value = self.expression(0)?;
            self.nodes += 1;
            pairs.push((key, value));
        }
        self.next();
        let span = at.to(self.last_span());
        self.node(Kind::Map(pairs), span, span)
    }

    pub(super) fn postfix(&mut self, mut node: Node) -> Parsed {
        loop {
            match self.current() {
                Token::Op(op @ ("." | "?.")) => {
                    let optional = *op == "?.";
                    self.next();
                    if optional && self.is_bracket('[') {
                        node = self.index(node, true)?;
                    } else {
                        node = self.member(node, optional)?;
                    }
                }
                Token::Bracket('[') => node = self.index(node, false)?,
                _ => return Ok(node),
            }
        }
    }

    fn member(&mut self, node: Node, optional: bool) -> Parsed {
        let at = self.span();
        let name: Box<str> = match self.current() {
            Token::Ident(name) => name.clone(),
            Token::Op(word) if is_name(word) => (*word).into(),
            _ => return Err(self.unexpected("the name of a field after the dot")),
        };
        self.next();
        let property = Box::new(self.node(Kind::Str(name.as_bytes().into()), at, at)?);
        let (base, chained) = match node.kind {
            Kind::Chain(inner) => (inner, true),
            kind => (Box::new(Node { kind, ..node }), false),
        };
        let method = self.is_bracket('(');
        let span = base.span.to(at);
        let mut result = self.node(Kind::Member { base, property, optional, method }, at, span)?;
        if method {
            let args = self.args(None)?;
            let span = span.to(self.last_span());
            result = self.node(Kind::Call { callee: Box::new(result), args }, at, span)?;
        }
        if chained || optional {
            let span = result.span;
            result = self.node(Kind::Chain(Box::new(result)), at, span)?;
        }
        Ok(result)
    }

    /// `[index]` or `[from:to]`; the bracket is the current token.
    fn index(&mut self, node: Node, optional: bool) -> Parsed {
        let at = self.span();
        self.next();
        let base = Box::new(node);
        let from = if self.is(":") { None } else { Some(Box::new(self.expression(0)?)) };
        let slice = self.is(":");
        let mut to = None;
        if slice {
            self.next();
            if !self.is_bracket(']') {
                to = Some(Box::new(self.expression(0)?));
            }
        }
        if !self.is_bracket(']') {
            return Err(self.unexpected("`]`"));
        }
        self.next();
        let span = base.span.to(self.last_span());
        let at = at.to(self.last_span());
        match from {
            Some(property) if !slice => {
                let node = self.node(Kind::Member { base, property, optional, method: false }, at, span)?;
                if optional { self.node(Kind::Chain(Box::new(node)), at, span) } else { Ok(node) }
            }
            from => self.node(Kind::Slice { base, from, to }, at, span),
        }
    }
}

fn unknown_function(name: &str, at: Span) -> RuleError {
    let error = RuleError::new(at.range(), format!("there is no function `{name}`"));
    match nearest(name, BUILTIN_NAMES.iter().copied()) {
        Some(found) => error.help(format!("did you mean `{found}`?")),
        None => error,
    }
}
