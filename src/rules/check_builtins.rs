//! Types of the builtin functions. Model: `builtin/builtin.go` and the builtin part of `checker/checker.go` of
//! expr-lang/expr 1.17.

use super::ast::{BuiltinCall, Kind, Node, Span};
use super::check::{Checked, Checker, Scope, is_pointer_like};
use super::error::RuleError;
use super::types::{MapTy, Param, Ty, TyKind};

/// All builtin functions.
pub(crate) const BUILTIN_NAMES: [&str; 71] = [
    "all",
    "none",
    "any",
    "one",
    "filter",
    "map",
    "find",
    "findIndex",
    "findLast",
    "findLastIndex",
    "count",
    "sum",
    "groupBy",
    "sortBy",
    "reduce",
    "len",
    "type",
    "abs",
    "ceil",
    "floor",
    "round",
    "int",
    "float",
    "string",
    "trim",
    "trimPrefix",
    "trimSuffix",
    "upper",
    "lower",
    "split",
    "splitAfter",
    "replace",
    "repeat",
    "join",
    "indexOf",
    "lastIndexOf",
    "hasPrefix",
    "hasSuffix",
    "max",
    "min",
    "mean",
    "median",
    "toJSON",
    "fromJSON",
    "toBase64",
    "fromBase64",
    "now",
    "duration",
    "date",
    "timezone",
    "first",
    "last",
    "get",
    "take",
    "keys",
    "values",
    "toPairs",
    "fromPairs",
    "reverse",
    "uniq",
    "concat",
    "flatten",
    "sort",
    "bitand",
    "bitor",
    "bitxor",
    "bitnand",
    "bitshl",
    "bitshr",
    "bitushr",
    "bitnot",
];

/// What a predicate builtin takes, argument by argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    Value,
    Predicate,
    OptionalPredicate,
    OptionalValue,
}

/// The arguments of builtins with predicates, `None` for the others.
pub(crate) fn takes(name: &str) -> Option<&'static [Takes]> {
    Some(match name {
        "all" | "none" | "any" | "one" | "filter" | "map" | "find" | "findIndex" | "findLast"
        | "findLastIndex" | "groupBy" => &[Takes::Value, Takes::Predicate],
        "count" | "sum" => &[Takes::Value, Takes::OptionalPredicate],
        "sortBy" | "reduce" => &[Takes::Value, Takes::Predicate, Takes::OptionalValue],
        _ => return None,
    })
}

impl Checker<'_> {
    pub(crate) fn builtin(&mut self, call: &mut BuiltinCall, at: Span, span: Span) -> Checked {
        match takes(call.name) {
            Some(_) => self.predicate_builtin(call),
            None if call.name == "get" => self.get(&mut call.args, at, span),
            None => self.function(call.name, &mut call.args, at),
        }
    }

    fn predicate_builtin(&mut self, call: &mut BuiltinCall) -> Checked {
        let name = call.name;
        let collection = self.visit(&mut call.args[0])?;
        if !collection.is_array() && !collection.is_unknown() {
            let error = RuleError::new(
                call.args[0].span.range(),
                format!("`{name}` wants an array, found {collection}"),
            );
            return Err(if collection.is_str() {
                error.help("cut it first: `split(..., \"/\")`")
            } else {
                error
            });
        }
        let mut out = Ty::Unknown;
        if let Some(predicate) = call.args.get_mut(1) {
            let scope = Scope {
                collection: collection.clone(),
                index: matches!(name, "map" | "reduce"),
                acc: name == "reduce",
            };
            out = self.in_scope(scope, predicate)?;
            if out.is_nil() {
                return Err(RuleError::new(predicate.span.range(), "a predicate that is nil has no use"));
            }
            let bool_wanted = !matches!(name, "map" | "sum" | "groupBy" | "sortBy" | "reduce");
            if bool_wanted && !out.is_bool() && !out.is_unknown() {
                let message = format!("the predicate of `{name}` is a bool, found {out}");
                return Err(RuleError::new(predicate.span.range(), message));
            }
        }
        if let Some(third) = call.args.get_mut(2) {
            let ty = self.visit(third)?;
            if name == "sortBy" && !ty.is_str() && !ty.is_unknown() {
                let error = RuleError::new(
                    third.span.range(),
                    format!("the order of `sortBy` is a string, found {ty}"),
                );
                return Err(error.help("write \"asc\" or \"desc\""));
            }
        }
        let elem = if collection.is_unknown() { collection.member_of_unknown() } else { collection.elem() };
        Ok(match name {
            "all" | "none" | "any" | "one" => Ty::Bool,
            "filter" if matches!(collection, Ty::Unknown | Ty::Any) => Ty::anys(),
            "filter" => Ty::array(elem),
            "map" => Ty::array(out),
            "count" | "findIndex" | "findLastIndex" => Ty::Int,
            "sum" if call.args.len() == 2 => out.reflected(),
            "sum" | "find" | "findLast" => elem,
            "groupBy" => Ty::Map(MapTy::Groups),
            "sortBy" => collection,
            _ => out,
        })
    }

    fn get(&mut self, args: &mut [Node], at: Span, span: Span) -> Checked {
        if args.len() != 2 {
            return Err(count_error("get", "2", args.len(), span));
        }
        let base = self.visit(&mut args[0])?;
        let prop = self.visit(&mut args[1])?;
        if matches!(&args[0].kind, Kind::Ident(name) if **name == *"$env") {
            return Ok(args[1].name().and_then(|name| self.env.get(name)).unwrap_or(Ty::Unknown));
        }
        match &base {
            ty if ty.is_unknown() => Ok(ty.member_of_unknown()),
            Ty::Array(..) if prop.is_integer() || prop.is_unknown() => Ok(base.elem()),
            Ty::Array(..) => Err(RuleError::new(
                args[1].span.range(),
                format!("an array is indexed by an int, found {prop}"),
            )),
            Ty::Map(map) if prop.assignable_to(&map.key()) || prop.is_unknown() => Ok(map.elem()),
            Ty::Map(_) => Err(RuleError::new(
                args[1].span.range(),
                format!("the key of a map is a string, found {prop}"),
            )),
            ty => Err(RuleError::new(at.range(), format!("`get` wants an array or a map, found {ty}"))),
        }
    }

    /// A builtin without predicate.
    pub(crate) fn function(&mut self, name: &'static str, args: &mut [Node], at: Span) -> Checked {
        for arg in args.iter_mut() {
            self.visit(arg)?;
        }
        if let Some((overloads, result)) = signatures(name) {
            check_params(name, overloads, args, at)?;
            return Ok(result.ty());
        }
        validate(name, args, at)
    }
}

/// Finds a list of parameters that the arguments, typed already, fit.
pub(crate) fn check_params(
    name: &str,
    overloads: &[&[Param]],
    args: &[Node],
    at: Span,
) -> Result<(), RuleError> {
    let mut first = None;
    for params in overloads.iter().filter(|params| params.len() == args.len()) {
        match fits(name, params, args) {
            Ok(()) => return Ok(()),
            Err(error) => first = first.or(Some(error)),
        }
    }
    Err(first.unwrap_or_else(|| {
        let mut counts: Vec<usize> = overloads.iter().map(|params| params.len()).collect();
        counts.sort_unstable();
        counts.dedup();
        let counts: Vec<String> = counts.iter().map(usize::to_string).collect();
        count_error(name, &counts.join(" or "), args.len(), at)
    }))
}

fn fits(name: &str, params: &[Param], args: &[Node]) -> Result<(), RuleError> {
    for (i, (param, arg)) in params.iter().zip(args).enumerate() {
        let wanted = param.ty();
        let fits = if wanted.is_integer() && arg.ty.is_integer() {
            true
        } else if arg.ty.is_nil() {
            is_pointer_like(&wanted)
        } else {
            arg.ty.assignable_to(&wanted) || arg.ty.is_unknown()
        };
        if !fits {
            let message = format!("argument {} of `{name}` is {}, found {}", i + 1, article(&wanted), arg.ty);
            return Err(RuleError::new(arg.span.range(), message));
        }
    }
    Ok(())
}

fn article(ty: &Ty) -> String {
    let text = ty.to_string();
    let vowel = text.starts_with(['a', 'e', 'i', 'o', 'u']);
    match text.as_str() {
        _ if text.starts_with("a ") => text,
        _ if vowel => format!("an {text}"),
        _ => format!("a {text}"),
    }
}

fn count_error(name: &str, wanted: &str, found: usize, at: Span) -> RuleError {
    let plural = if wanted == "1" { "" } else { "s" };
    RuleError::new(at.range(), format!("`{name}` takes {wanted} argument{plural}, found {found}"))
}

type Overloads = &'static [&'static [Param]];

/// Builtins with plain signatures.
fn signatures(name: &str) -> Option<(Overloads, Param)> {
    use Param::*;
    Some(match name {
        "type" | "string" | "toJSON" => (&[&[Any]], Str),
        "trim" | "trimPrefix" | "trimSuffix" => (&[&[Str], &[Str, Str]], Str),
        "upper" | "lower" | "toBase64" | "fromBase64" => (&[&[Str]], Str),
        "split" | "splitAfter" => (&[&[Str, Str], &[Str, Str, Int]], Strs),
        "replace" => (&[&[Str, Str, Str, Int], &[Str, Str, Str]], Str),
        "repeat" => (&[&[Str, Int]], Str),
        "join" => (&[&[Strs, Str], &[Anys, Str], &[Anys], &[Strs]], Str),
        "indexOf" | "lastIndexOf" => (&[&[Str, Str]], Int),
        "hasPrefix" | "hasSuffix" => (&[&[Str, Str]], Bool),
        "fromJSON" => (&[&[Str]], Any),
        "duration" => (&[&[Str]], Duration),
        "timezone" => (&[&[Str]], Location),
        "sort" => (
            &[&[Anys, Str], &[Ints, Str], &[Floats, Str], &[Strs, Str], &[Anys], &[Floats], &[Strs], &[Ints]],
            Anys,
        ),
        "bitand" | "bitor" | "bitxor" | "bitnand" | "bitshl" | "bitshr" | "bitushr" => (&[&[Int, Int]], Int),
        "bitnot" => (&[&[Int]], Int),
        _ => return None,
    })
}

/// Builtins that look at their arguments themselves.
fn validate(name: &'static str, args: &[Node], at: Span) -> Checked {
    // Go hands over the reflected type; nil has none and fits nowhere.
    let types: Vec<Ty> = args.iter().map(|arg| arg.ty.reflected()).collect();
    let exactly = |wanted: usize| match types.len() {
        found if found == wanted => Ok(()),
        found => Err(count_error(name, &wanted.to_string(), found, at)),
    };
    let refuse = |i: usize, wanted: &str| {
        let message = format!("`{name}` wants {wanted}, found {}", args[i].ty);
        Err(RuleError::new(args[i].span.range(), message))
    };
    let kind = |i: usize| types[i].kind();
    let number = |i: usize| matches!(kind(i), TyKind::Int | TyKind::Int64 | TyKind::Uint8 | TyKind::Float);
    let open = |i: usize| kind(i) == TyKind::Interface;
    let list = |i: usize| kind(i) == TyKind::Slice || open(i);
    match name {
        "len" => {
            exactly(1)?;
            if list(0) || matches!(kind(0), TyKind::Map | TyKind::Str) {
                Ok(Ty::Int)
            } else {
                refuse(0, "a string, an array or a map")
            }
        }
        "abs" => {
            exactly(1)?;
            if number(0) || open(0) { Ok(types[0].clone()) } else { refuse(0, "a number") }
        }
        "ceil" | "floor" | "round" => {
            exactly(1)?;
            if number(0) || open(0) { Ok(Ty::Float) } else { refuse(0, "a number") }
        }
        "int" | "float" => {
            exactly(1)?;
            let result = if name == "int" { Ty::Int } else { Ty::Float };
            if number(0) || open(0) || kind(0) == TyKind::Str {
                Ok(result)
            } else {
                refuse(0, "a number or a string")
            }
        }
        "max" | "min" | "mean" | "median" => {
            if types.is_empty() {
                return Err(count_error(name, "1 or more", 0, at));
            }
            for i in 0..types.len() {
                if list(i) {
                    return Ok(Ty::Any);
                }
                if !number(i) {
                    return refuse(i, "numbers or arrays of numbers");
                }
            }
            Ok(types[0].clone())
        }
        "first" | "last" => {
            exactly(1)?;
            match &types[0] {
                Ty::Json => Ok(Ty::Json),
                ty if ty.is_array() => Ok(ty.elem()),
                _ if open(0) => Ok(Ty::Any),
                _ => refuse(0, "an array"),
            }
        }
        "take" => {
            exactly(2)?;
            if !list(0) {
                return refuse(0, "an array");
            }
            if !open(1) && !matches!(kind(1), TyKind::Int | TyKind::Int64) {
                return refuse(1, "an int");
            }
            Ok(types[0].clone())
        }
        "keys" | "values" | "toPairs" => {
            exactly(1)?;
            if open(0) || kind(0) == TyKind::Map { Ok(Ty::anys()) } else { refuse(0, "a map") }
        }
        "fromPairs" => {
            exactly(1)?;
            if list(0) { Ok(Ty::Map(MapTy::AnyAny)) } else { refuse(0, "an array of pairs") }
        }
        "reverse" | "uniq" | "flatten" => {
            exactly(1)?;
            if list(0) { Ok(Ty::anys()) } else { refuse(0, "an array") }
        }
        "concat" => {
            if types.is_empty() {
                return Err(count_error(name, "1 or more", 0, at));
            }
            match (0..types.len()).find(|i| !list(*i)) {
                Some(i) => refuse(i, "arrays"),
                None => Ok(Ty::anys()),
            }
        }
        "now" => match &types[..] {
            [] | [Ty::Location] => Ok(Ty::Time),
            [_] => refuse(0, "a timezone"),
            _ => Err(count_error(name, "at most 1", types.len(), at)),
        },
        "date" => {
            let rest =
                if matches!(types.first(), Some(Ty::Location)) { types.len() - 1 } else { types.len() };
            match rest {
                _ if types.is_empty() => Err(count_error(name, "1 to 3", 0, at)),
                0..=3 => Ok(Ty::Time),
                _ => Err(count_error(name, "1 to 3", rest, at)),
            }
        }
        _ => Err(RuleError::new(at.range(), format!("`{name}` is not supported yet"))),
    }
}
