//! The type check: what the Go library's checker refuses is refused (`checker/checker.go` of expr-lang/expr 1.17),
//! with messages of our own. It writes the static type into every node.

use super::Limits;
use super::ast::{BinaryOp, Kind, Node, Span, UnaryOp};
use super::check_builtins::{BUILTIN_NAMES, check_params};
use super::check_messages::{mismatch, no_member, path_names, path_text};
use super::check_operators::binary_ty;
use super::env::{EnvKind, Environment};
use super::error::{RuleError, nearest};
use super::go_regex::{GoRegex, GoRegexError, RegexLimits};
use super::methods;
use super::types::{Function, Ty, TyKind};

pub(crate) type Checked = Result<Ty, RuleError>;

/// Checks and types the tree.
///
/// # Errors
/// The first thing that the language refuses.
pub(crate) fn check(node: &mut Node, env: &Environment, limits: &Limits) -> Checked {
    Checker { env, limits, scopes: Vec::new(), variables: Vec::new(), regexes: RegexBudget::default() }
        .visit(node)
}

pub(crate) struct Checker<'e> {
    pub(crate) env: &'e Environment,
    limits: &'e Limits,
    scopes: Vec<Scope>,
    variables: Vec<(Box<str>, Ty)>,
    regexes: RegexBudget,
}

/// An open predicate.
pub(crate) struct Scope {
    pub(crate) collection: Ty,
    pub(crate) index: bool,
    pub(crate) acc: bool,
}

impl Checker<'_> {
    pub(crate) fn visit(&mut self, node: &mut Node) -> Checked {
        let ty = self.ty_of(node)?;
        node.ty = ty.clone();
        Ok(ty)
    }

    pub(crate) fn in_scope(&mut self, scope: Scope, node: &mut Node) -> Checked {
        self.scopes.push(scope);
        let ty = self.visit(node);
        self.scopes.pop();
        ty
    }

    fn ty_of(&mut self, node: &mut Node) -> Checked {
        let (at, span) = (node.at, node.span);
        match &mut node.kind {
            Kind::Nil => Ok(Ty::Nil),
            Kind::Bool(_) => Ok(Ty::Bool),
            Kind::Int(_) => Ok(Ty::Int),
            Kind::Float(_) => Ok(Ty::Float),
            Kind::Str(_) => Ok(Ty::Str),
            Kind::Bytes(_) => Ok(Ty::bytes()),
            Kind::Constants(_) | Kind::Set(_) => Ok(Ty::anys()),
            Kind::Ident(name) => self.identifier(name, at),
            Kind::Pointer(name) => self.pointer(name, at),
            Kind::Unary(op, operand) => self.unary(*op, operand, at),
            Kind::Logic(_, operands) => self.logic(operands),
            Kind::Binary(op, left, right) => self.binary(*op, left, right, at),
            Kind::Chain(inner) => self.visit(inner),
            Kind::Member { .. } => self.member(node),
            Kind::Slice { base, from, to } => self.slice(base, from.as_deref_mut(), to.as_deref_mut()),
            Kind::Call { callee, args } => self.call(callee, args, at),
            Kind::Builtin(call) => self.builtin(call, at, span),
            Kind::Let { name, value, body } => self.declaration(name, value, body, at),
            Kind::Sequence(nodes) => {
                let mut last = Ty::Nil;
                for node in nodes {
                    last = self.visit(node)?;
                }
                Ok(last)
            }
            Kind::Conditional(nodes) => self.conditional(nodes),
            Kind::Array(nodes) => self.array(nodes),
            Kind::Map(pairs) => {
                for (key, value) in pairs {
                    self.visit(key)?;
                    self.visit(value)?;
                }
                Ok(Ty::Map(super::types::MapTy::StrAny { json: false }))
            }
        }
    }

    fn identifier(&mut self, name: &str, at: Span) -> Checked {
        if let Some((_, ty)) = self.variables.iter().rev().find(|(known, _)| **known == *name) {
            return Ok(ty.clone());
        }
        if name == "$env" {
            return Ok(Ty::Unknown);
        }
        if let Some(ty) = self.env.get(name) {
            return Ok(ty);
        }
        if let Some(builtin) = BUILTIN_NAMES.iter().find(|builtin| **builtin == name) {
            return Ok(Ty::Function(Function::Builtin(builtin)));
        }
        Err(self.unknown_name(name, at))
    }

    fn unknown_name(&self, name: &str, at: Span) -> RuleError {
        let error = RuleError::new(at.range(), format!("there is no field `{name}`"));
        let variables = self.variables.iter().map(|(name, _)| &**name);
        if let Some(found) = nearest(name, self.env.names().into_iter().chain(variables)) {
            return error.help(format!("did you mean `{found}`?"));
        }
        let paths = self.env.paths_ending_in(name);
        if !paths.is_empty() {
            let paths: Vec<String> = paths.iter().take(3).map(|path| format!("`{path}`")).collect();
            return error.help(format!("did you mean {}?", paths.join(" or ")));
        }
        error.help(format!("the fields are {}", self.env.names().join(", ")))
    }

    fn pointer(&mut self, name: &str, at: Span) -> Checked {
        let Some(scope) = self.scopes.last() else {
            return Err(RuleError::new(at.range(), "`#` is known inside a predicate only"));
        };
        match name {
            "" if scope.collection.is_unknown() => Ok(scope.collection.member_of_unknown()),
            "" => Ok(scope.collection.elem()),
            "index" if scope.index => Ok(Ty::Int),
            "acc" if scope.acc => Ok(Ty::Unknown),
            "index" => Err(RuleError::new(at.range(), "`#index` is known in `map` and `reduce` only")),
            "acc" => Err(RuleError::new(at.range(), "`#acc` is known in `reduce` only")),
            _ => {
                let error = RuleError::new(at.range(), format!("there is no `#{name}`"));
                Err(error.help(format!("a field of the element is `.{name}` or `#.{name}`")))
            }
        }
    }

    fn unary(&mut self, op: UnaryOp, operand: &mut Node, at: Span) -> Checked {
        let ty = self.visit(operand)?;
        match op {
            UnaryOp::Not if ty.is_bool() || ty.is_unknown() => Ok(Ty::Bool),
            UnaryOp::Not => {
                let error =
                    RuleError::new(operand.span.to(at).range(), format!("`not` wants a bool, found {ty}"));
                let note = matches!(operand.kind, Kind::Str(_) | Kind::Ident(_) | Kind::Member { .. });
                Err(if note {
                    error.help("`not` binds tighter than `in` and `==`: write `x not in y` or `not (x == y)`")
                } else {
                    error
                })
            }
            _ if ty.is_number() => Ok(ty),
            _ if ty.is_unknown() => Ok(ty.member_of_unknown()),
            _ => Err(RuleError::new(operand.span.range(), format!("a sign wants a number, found {ty}"))),
        }
    }

    fn logic(&mut self, operands: &mut [Node]) -> Checked {
        let mut left: Option<Ty> = None;
        for operand in operands {
            let ty = self.visit(operand)?;
            let fits = |ty: &Ty| ty.is_bool() || ty.is_unknown();
            if !fits(&ty) {
                return Err(self.not_bool(operand, &ty));
            }
            left = Some(ty);
        }
        left.map(|_| Ty::Bool).ok_or_else(|| RuleError::new(0..0, "a logical operator wants operands"))
    }

    fn not_bool(&self, operand: &Node, ty: &Ty) -> RuleError {
        let error = RuleError::new(
            operand.span.range(),
            format!("a logical operator wants bool on both sides, found {ty}"),
        );
        match ty {
            Ty::Str => error.help("compare it: `... == \"...\"` or `... != \"\"`"),
            Ty::Int | Ty::Float => error.help("compare it: `... != 0`"),
            Ty::Array(..) | Ty::Map(_) => error.help("test it: `len(...) > 0` or `\"...\" in ...`"),
            _ => error,
        }
    }

    fn binary(&mut self, op: BinaryOp, left: &mut Node, right: &mut Node, at: Span) -> Checked {
        let l = self.visit(left)?;
        let r = self.visit(right)?;
        if op == BinaryOp::Matches
            && let Kind::Str(pattern) = &right.kind
        {
            self.regexes.check(pattern, right.span, self.limits)?;
        }
        match binary_ty(op, &l, &r) {
            Some(ty) => Ok(ty),
            None => Err(mismatch(op, left, right, at)),
        }
    }

    /// A member of the environment by name: `$env.Name`.
    fn member_of_env(&self, name: &str, optional: bool, at: Span) -> Checked {
        match self.env.get(name) {
            Some(ty) => Ok(ty),
            None if optional => Ok(Ty::Unknown),
            None => Err(self.unknown_name(name, at)),
        }
    }

    fn member(&mut self, node: &mut Node) -> Checked {
        let at = node.at;
        let Kind::Member { base, property, optional, method } = &mut node.kind else {
            return Ok(Ty::Unknown);
        };
        let (optional, method) = (*optional, *method);
        if matches!(&base.kind, Kind::Ident(name) if **name == *"$env") {
            return match property.name() {
                Some(name) => self.member_of_env(name, optional, at),
                // As Go: a computed name is not checked; what is wrong in it fails at run time.
                None => Ok(Ty::Unknown),
            };
        }
        if let Err(error) = self.visit(base) {
            return Err(self.with_full_path(error, base, property));
        }
        let prop = self.visit(property)?;
        if base.ty.is_unknown() {
            return Ok(base.ty.member_of_unknown());
        }
        let name = property.name().map(str::to_owned);
        if let Some(name) = &name {
            if base.ty.is_nil() {
                return Err(RuleError::new(at.range(), format!("nil has no field `{name}`")));
            }
            if let Some(method) = methods::find(&base.ty, name) {
                return Ok(Ty::Function(Function::Method(method)));
            }
        }
        match &base.ty {
            Ty::Map(map) => {
                if prop.assignable_to(&map.key()) || prop.is_unknown() {
                    return Ok(map.elem());
                }
                Err(RuleError::new(
                    property.span.range(),
                    format!("the key of a map is a string, found {prop}"),
                ))
            }
            Ty::Array(..) if name.is_none() || !method => {
                if prop.is_integer() || prop.is_unknown() {
                    return Ok(base.ty.elem());
                }
                let error = RuleError::new(
                    property.span.range(),
                    format!("an array is indexed by an int, found {prop}"),
                );
                Err(match name {
                    Some(name) => error.help(format!("for the field of the elements write `map(..., .{name})` or `any(..., .{name} == ...)`")),
                    None => error,
                })
            }
            Ty::Struct(def) if name.is_some() => match name.as_deref().and_then(|name| def.field(name)) {
                Some((_, field)) => Ok(field.ty.clone()),
                None => Err(self.no_field(base, name.as_deref().unwrap_or(""), at)),
            },
            ty => Err(no_member(ty, name.as_deref(), &prop, method, node.at)),
        }
    }

    fn no_field(&self, base: &Node, name: &str, at: Span) -> RuleError {
        let Ty::Struct(def) = &base.ty else { return RuleError::new(at.range(), "not an object") };
        let error = RuleError::new(at.range(), format!("{} has no field `{name}`", base.ty));
        let before = path_text(base).map(|path| format!("{path}.")).unwrap_or_default();
        if let Some(found) = nearest(name, def.fields.iter().map(|field| &*field.name)) {
            return error.help(format!("did you mean `{before}{found}`?"));
        }
        if let Some(path) = self.env.paths_ending_in(name).first() {
            return error.help(format!("did you mean `{path}`?"));
        }
        let names: Vec<&str> = def.fields.iter().map(|field| &*field.name).collect();
        error.help(format!("its fields are {}", names.join(", ")))
    }

    /// Where the base of a path is misspelt, the suggestion is the whole path: `Request.Path` for `request.path`.
    fn with_full_path(&self, error: RuleError, base: &Node, property: &Node) -> RuleError {
        let (Some(base), Some(name)) = (path_names(base), property.name()) else { return error };
        let EnvKind::Audit(root) = &*self.env.kind else { return error };
        let mut ty = Ty::Struct(root.clone());
        let mut path: Vec<String> = Vec::new();
        for wanted in base.iter().copied().chain([name]) {
            let Ty::Struct(def) = &ty else { return error };
            let Some(found) = nearest(wanted, def.fields.iter().map(|field| &*field.name)) else {
                return error;
            };
            path.push(found.to_owned());
            let Some((_, field)) = def.field(found) else { return error };
            ty = field.ty.clone();
        }
        error.help(format!("did you mean `{}`?", path.join(".")))
    }

    fn slice(&mut self, base: &mut Node, from: Option<&mut Node>, to: Option<&mut Node>) -> Checked {
        let ty = self.visit(base)?;
        if ty.is_unknown() {
            // As Go: the bounds are not checked; what is wrong in them fails at run time.
            return Ok(ty.member_of_unknown());
        }
        if !ty.is_str() && !ty.is_array() {
            return Err(RuleError::new(
                base.span.range(),
                format!("only a string or an array can be cut, found {ty}"),
            ));
        }
        for bound in from.into_iter().chain(to) {
            let index = self.visit(bound)?;
            if !index.is_integer() && !index.is_unknown() {
                return Err(RuleError::new(
                    bound.span.range(),
                    format!("the bound of a slice is an int, found {index}"),
                ));
            }
        }
        Ok(ty)
    }

    fn call(&mut self, callee: &mut Node, args: &mut [Node], at: Span) -> Checked {
        if matches!(&callee.kind, Kind::Ident(name) if **name == *"$env") {
            return Err(RuleError::new(at.range(), "`$env` is not a function"));
        }
        if let Kind::Ident(name) = &callee.kind
            && self.variables.iter().all(|(known, _)| known != name)
            && self.env.get(name).is_none()
            && name.as_ref() != "$env"
            && !BUILTIN_NAMES.contains(&name.as_ref())
        {
            let error = RuleError::new(at.range(), format!("there is no function `{name}`"));
            return Err(match nearest(name, BUILTIN_NAMES.iter().copied()) {
                Some(found) => error.help(format!("did you mean `{found}`?")),
                None => error,
            });
        }
        let ty = self.visit(callee)?;
        match ty {
            ty if ty.is_unknown() => {
                // As Go: arguments of an unknown function are not checked; what is wrong in them fails at run time.
                Ok(Ty::Unknown)
            }
            Ty::Function(Function::Method(method)) => {
                for arg in args.iter_mut() {
                    self.visit(arg)?;
                }
                check_params(method.name, &[method.params], args, at)?;
                Ok(method.result.ty())
            }
            Ty::Function(Function::Builtin(name)) => self.function(name, args, at),
            ty => Err(RuleError::new(at.range(), format!("{ty} is not a function"))),
        }
    }

    fn declaration(&mut self, name: &str, value: &mut Node, body: &mut Node, at: Span) -> Checked {
        let taken = if self.env.get(name).is_some() {
            Some("a field")
        } else if BUILTIN_NAMES.contains(&name) {
            Some("a function")
        } else if self.variables.iter().any(|(known, _)| **known == *name) {
            Some("a variable")
        } else {
            None
        };
        if let Some(taken) = taken {
            return Err(
                RuleError::new(at.range(), format!("`{name}` is already {taken}")).help("take another name")
            );
        }
        let ty = self.visit(value)?;
        self.variables.push((name.into(), ty));
        let body = self.visit(body);
        self.variables.pop();
        body
    }

    fn conditional(&mut self, nodes: &mut [Node; 3]) -> Checked {
        let condition = self.visit(&mut nodes[0])?;
        if !condition.is_bool() && !condition.is_unknown() {
            return Err(RuleError::new(
                nodes[0].span.range(),
                format!("a condition is a bool, found {condition}"),
            ));
        }
        let then = self.visit(&mut nodes[1])?;
        let otherwise = self.visit(&mut nodes[2])?;
        Ok(match (then.is_nil(), otherwise.is_nil()) {
            (true, _) => otherwise,
            (false, true) => then,
            (false, false) if then.assignable_to(&otherwise) => {
                if then.is_array() && otherwise.is_array() {
                    let (a, b) = (then.elem(), otherwise.elem());
                    if !a.assignable_to(&b) || !b.assignable_to(&a) {
                        return Ok(Ty::anys());
                    }
                }
                then
            }
            _ => Ty::Unknown,
        })
    }

    fn array(&mut self, nodes: &mut [Node]) -> Checked {
        let mut previous: Option<Ty> = None;
        let mut same = true;
        for node in nodes {
            let ty = self.visit(node)?;
            same &= previous.is_none_or(|previous: Ty| previous.kind() == ty.kind());
            previous = Some(ty);
        }
        Ok(if same { Ty::array(previous.unwrap_or(Ty::Unknown)) } else { Ty::anys() })
    }
}

/// What the regular expressions of a rule take so far, in bytes of their programs.
#[derive(Debug, Default)]
pub(crate) struct RegexBudget {
    used_bytes: usize,
}

impl RegexBudget {
    /// Judges a pattern that is known when the rule is compiled, and pays for it. Builds nothing.
    pub(crate) fn check(&mut self, pattern: &[u8], span: Span, limits: &Limits) -> Result<(), RuleError> {
        let text = String::from_utf8_lossy(pattern);
        if text.len() > limits.regex_bytes_max {
            let message =
                format!("the pattern has {} bytes, the limit is {}", text.len(), limits.regex_bytes_max);
            return Err(RuleError::new(span.range(), message));
        }
        let bytes =
            GoRegex::check(&text, &RegexLimits::default()).map_err(|error| bad_regex(&error, span))?;
        self.used_bytes = self.used_bytes.saturating_add(bytes);
        if self.used_bytes > limits.regex_programs_bytes_max {
            let message = format!(
                "the regular expressions up to this one take {} bytes, the limit for a rule is {}",
                self.used_bytes, limits.regex_programs_bytes_max
            );
            return Err(RuleError::new(span.range(), message)
                .help("use lower repeat counts or smaller character classes, or several rules"));
        }
        Ok(())
    }

    /// As [`RegexBudget::check`], and compiles the pattern.
    pub(crate) fn compile(
        &mut self,
        pattern: &[u8],
        span: Span,
        limits: &Limits,
    ) -> Result<GoRegex, RuleError> {
        self.check(pattern, span, limits)?;
        GoRegex::new(&String::from_utf8_lossy(pattern)).map_err(|error| bad_regex(&error, span))
    }
}

fn bad_regex(error: &GoRegexError, span: Span) -> RuleError {
    RuleError::new(span.range(), format!("bad regular expression: {}: `{}`", error.message, error.fragment))
}

/// Only named for its use in messages about arguments.
pub(crate) fn is_pointer_like(ty: &Ty) -> bool {
    matches!(ty.kind(), TyKind::Pointer | TyKind::Interface)
}
