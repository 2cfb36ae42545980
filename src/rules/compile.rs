//! Lowering: the checked and folded tree to the compiled form. Fields of the record become slots, so that a path costs
//! nothing when the rule runs.

use std::sync::Arc;

use memchr::memmem::Finder;

use super::Limits;
use super::ast::{BinaryOp, BuiltinCall, Kind, Literal, LogicOp, Node, UnaryOp};
use super::check::RegexBudget;
use super::check_builtins::{BUILTIN_NAMES, takes};
use super::code::{
    Body, Compare, Cond, CondKind, Equality, Ex, ExKind, FieldRead, Key, Loop, LoopName, Member, StrSet,
    StrTest,
};
use super::env::{EnvKind, Environment, RECORD};
use super::error::RuleError;
use super::methods;
use super::types::{Function, MapTy, Ty, TyKind};
use crate::record::FieldPlan;

type Lowered<T> = Result<T, RuleError>;

/// Lowers a tree; returns the code and how many variables it needs.
///
/// # Errors
/// A pattern that only folding made constant, and that is no regular expression.
pub(crate) fn lower(
    node: &Node,
    env: &Environment,
    plan: &mut FieldPlan,
    limits: &Limits,
) -> Lowered<(Ex, usize)> {
    let mut lowering =
        Lowering { env, plan, limits, scopes: Vec::new(), variables: 0, regexes: RegexBudget::default() };
    let code = lowering.ex(node)?;
    Ok((code, lowering.variables))
}

struct Lowering<'e, 'p> {
    env: &'e Environment,
    plan: &'p mut FieldPlan,
    limits: &'e Limits,
    scopes: Vec<(Box<str>, usize)>,
    variables: usize,
    regexes: RegexBudget,
}

/// A path of the record that is known when the rule is compiled.
struct Path {
    keys: Vec<Box<str>>,
    ty: Ty,
}

impl Lowering<'_, '_> {
    fn variable(&self, name: &str) -> Option<usize> {
        self.scopes.iter().rev().find(|(known, _)| **known == *name).map(|(_, index)| *index)
    }

    /// The path that a node names, if it is one: `Request.Path`, `record.request.data.x`, `$env.Type`.
    fn path(&self, node: &Node) -> Option<Path> {
        let EnvKind::Audit(root) = &*self.env.kind else { return None };
        let member = |base: Path, name: &str| match &base.ty {
            Ty::Struct(def) => def.field(name).map(|(_, field)| Path {
                keys: base.keys.iter().cloned().chain([field.json.clone()]).collect(),
                ty: field.ty.clone(),
            }),
            Ty::Json | Ty::Map(MapTy::StrAny { json: true }) => {
                Some(Path { keys: base.keys.iter().cloned().chain([name.into()]).collect(), ty: Ty::Json })
            }
            Ty::Map(map @ (MapTy::StrStr | MapTy::StrStrs)) => {
                Some(Path { keys: base.keys.iter().cloned().chain([name.into()]).collect(), ty: map.elem() })
            }
            _ => None,
        };
        match &node.kind {
            Kind::Ident(name) if self.variable(name).is_none() => match &**name {
                "$env" => Some(Path { keys: Vec::new(), ty: Ty::Struct(root.clone()) }),
                RECORD => Some(Path { keys: Vec::new(), ty: Ty::Map(MapTy::StrAny { json: true }) }),
                name => member(Path { keys: Vec::new(), ty: Ty::Struct(root.clone()) }, name),
            },
            Kind::Member { base, property, method: false, .. } => {
                let name = property.name()?;
                let base = self.path(base)?;
                if base.keys.is_empty() && name == RECORD && matches!(base.ty, Ty::Struct(_)) {
                    return Some(Path { keys: Vec::new(), ty: Ty::Map(MapTy::StrAny { json: true }) });
                }
                member(base, name)
            }
            // Without optional members that can be nil on the way, the end of the chain changes nothing.
            Kind::Chain(inner) => {
                self.path(inner).filter(|path| !matches!(path.ty, Ty::Array(..) | Ty::Map(_)))
            }
            _ => None,
        }
    }

    fn slot(&mut self, path: &Path) -> crate::record::SlotId {
        let keys: Vec<&str> = path.keys.iter().map(|key| &**key).collect();
        self.plan.want(&keys)
    }

    fn read(&mut self, path: &Path, node: &Node) -> FieldRead {
        FieldRead::new(self.slot(path), &path.keys, node.span)
    }

    fn ex(&mut self, node: &Node) -> Lowered<Ex> {
        let kind = self.ex_kind(node)?;
        Ok(Ex { kind, span: node.span })
    }

    fn boxed(&mut self, node: &Node) -> Lowered<Box<Ex>> {
        self.ex(node).map(Box::new)
    }

    fn all(&mut self, nodes: &[Node]) -> Lowered<Box<[Ex]>> {
        nodes.iter().map(|node| self.ex(node)).collect()
    }

    fn pair(&mut self, a: &Node, b: &Node) -> Lowered<Box<[Ex; 2]>> {
        Ok(Box::new([self.ex(a)?, self.ex(b)?]))
    }

    fn ex_kind(&mut self, node: &Node) -> Lowered<ExKind> {
        if !matches!(node.kind, Kind::Ident(ref name) if **name == *"$env")
            && let Some(path) = self.path(node)
        {
            let slot = self.slot(&path);
            return Ok(ExKind::Field(slot, path.ty));
        }
        Ok(match &node.kind {
            Kind::Nil => ExKind::Nil,
            Kind::Bool(value) => ExKind::Bool(*value),
            Kind::Int(value) => ExKind::Int(*value),
            Kind::Float(value) => ExKind::Float(*value),
            Kind::Str(value) => ExKind::Str(value.clone()),
            Kind::Bytes(value) => ExKind::Bytes(value.clone()),
            Kind::Constants(values) | Kind::Set(values) => ExKind::Constants(values.clone()),
            Kind::Ident(name) => self.identifier(name),
            Kind::Pointer(name) => match &**name {
                "index" => ExKind::Index,
                "acc" => ExKind::Acc,
                _ => ExKind::Item,
            },
            Kind::Unary(UnaryOp::Not, _) => ExKind::Cond(Box::new(self.cond(node)?)),
            Kind::Unary(op, operand) => ExKind::Sign(*op, self.boxed(operand)?),
            Kind::Logic(op, operands) => return self.logic(*op, operands, node),
            Kind::Binary(BinaryOp::Coalesce, left, right) => {
                // `??` looks through the end of a chain by itself.
                ExKind::Coalesce(self.pair(left, right)?)
            }
            Kind::Binary(
                op @ (BinaryOp::Range
                | BinaryOp::Add
                | BinaryOp::Sub
                | BinaryOp::Mul
                | BinaryOp::Div
                | BinaryOp::Rem
                | BinaryOp::Pow),
                left,
                right,
            ) => ExKind::Binary(*op, self.pair(left, right)?),
            Kind::Binary(..) => ExKind::Cond(Box::new(self.cond(node)?)),
            Kind::Chain(inner) => ExKind::Chain(self.boxed(inner)?),
            Kind::Member { base, property, optional, .. } => self.member(base, property, *optional)?,
            Kind::Slice { base, from, to } => {
                let base = self.ex(base)?;
                let from = from.as_ref().map(|node| self.ex(node)).transpose()?;
                let to = to.as_ref().map(|node| self.ex(node)).transpose()?;
                ExKind::Slice(Box::new([Some(base), from, to]))
            }
            Kind::Call { callee, args } => self.call(callee, args)?,
            Kind::Builtin(call) => match takes(call.name) {
                Some(_) => self.loop_ex(call, node)?,
                None => ExKind::Builtin(call.name, self.all(&call.args)?),
            },
            Kind::Let { name, value, body } => {
                let value = self.ex(value)?;
                let index = self.variables;
                self.variables += 1;
                self.scopes.push((name.clone(), index));
                let body = self.ex(body);
                self.scopes.pop();
                ExKind::Let(index, Box::new([value, body?]))
            }
            Kind::Sequence(nodes) => ExKind::Sequence(self.all(nodes)?),
            Kind::Conditional(nodes) => {
                let condition = Box::new(self.cond(&nodes[0])?);
                ExKind::If(condition, self.pair(&nodes[1], &nodes[2])?)
            }
            Kind::Array(nodes) => ExKind::Array(self.all(nodes)?),
            Kind::Map(pairs) => {
                let pairs: Lowered<Vec<(Ex, Ex)>> =
                    pairs.iter().map(|(key, value)| Ok((self.ex(key)?, self.ex(value)?))).collect();
                ExKind::Map(pairs?.into())
            }
        })
    }

    fn identifier(&self, name: &str) -> ExKind {
        if let Some(index) = self.variable(name) {
            return ExKind::Var(index);
        }
        if name == "$env" {
            return ExKind::Env(self.env.clone());
        }
        match &*self.env.kind {
            EnvKind::Constants(values) => match values.iter().position(|(known, _)| **known == *name) {
                Some(index) => ExKind::Constant(self.env.clone(), index),
                // As Go: a function without call, or a name that was not checked, is looked up in the map, where it is not.
                None => ExKind::Nil,
            },
            EnvKind::Audit(_) if BUILTIN_NAMES.contains(&name) => {
                ExKind::Fail(format!("the function `{name}` is no value").into())
            }
            EnvKind::Audit(_) => ExKind::Fail(format!("there is no field `{name}`").into()),
        }
    }

    /// Each operand is lowered once: twice would double the work at each level.
    fn logic(&mut self, op: LogicOp, operands: &[Node], node: &Node) -> Lowered<ExKind> {
        let mut conds = self.conds(operands)?.into_vec();
        match conds.pop() {
            // A last operand that may be no bool is the result as it is.
            Some(Cond { kind: CondKind::Value(last), .. }) => Ok(ExKind::Logic(op, conds.into(), last)),
            last => {
                conds.extend(last);
                let kind = match op {
                    LogicOp::And => CondKind::All(conds.into()),
                    LogicOp::Or => CondKind::AnyOf(conds.into()),
                };
                Ok(ExKind::Cond(Box::new(Cond { kind, span: node.span })))
            }
        }
    }

    fn member(&mut self, base: &Node, property: &Node, optional: bool) -> Lowered<ExKind> {
        let json = matches!(base.ty, Ty::Json | Ty::Map(MapTy::StrAny { json: true }));
        let key = match (&base.ty, property.name()) {
            (Ty::Struct(def), Some(name)) if methods::find(&base.ty, name).is_none() => match def.field(name)
            {
                Some((index, _)) => Key::Field(index),
                None => Key::Name(name.into()),
            },
            (_, Some(name)) => Key::Name(name.into()),
            (_, None) => Key::Value(self.ex(property)?),
        };
        let base = self.ex(base)?;
        Ok(ExKind::Member(Box::new(Member { base, key, optional, json })))
    }

    fn call(&mut self, callee: &Node, args: &[Node]) -> Lowered<ExKind> {
        let args = self.all(args)?;
        // As Go: a method that is known is not looked up, so that `?.` before it has no effect.
        if let (Kind::Member { base, .. }, Ty::Function(Function::Method(method))) =
            (&callee.kind, &callee.ty)
        {
            return Ok(ExKind::CallMethod(self.boxed(base)?, *method, args));
        }
        Ok(ExKind::CallValue(self.boxed(callee)?, args))
    }

    fn loop_ex(&mut self, call: &BuiltinCall, node: &Node) -> Lowered<ExKind> {
        Ok(match call.name {
            "all" | "none" | "any" | "one" => {
                ExKind::Cond(Box::new(Cond { kind: self.quantified(call)?, span: node.span }))
            }
            _ => ExKind::Loop(Box::new(self.looped(call)?)),
        })
    }

    fn looped(&mut self, call: &BuiltinCall) -> Lowered<Loop> {
        use LoopName::*;
        let name = match call.name {
            "all" => All,
            "none" => None,
            "any" => Any,
            "one" => One,
            "filter" => Filter,
            "map" => Map,
            "find" => Find,
            "findIndex" => FindIndex,
            "findLast" => FindLast,
            "findLastIndex" => FindLastIndex,
            "count" => Count,
            "sum" => Sum,
            "groupBy" => GroupBy,
            "sortBy" => SortBy,
            _ => Reduce,
        };
        let collection = self.ex(&call.args[0])?;
        let body = match call.args.get(1) {
            Option::None => Body::Item,
            Some(node) if matches!(name, Map | Sum | GroupBy | SortBy | Reduce) => {
                Body::Value(self.ex(node)?)
            }
            Some(node) => Body::Cond(self.cond(node)?),
        };
        let third = call.args.get(2).map(|node| self.ex(node)).transpose()?;
        let map = call.map.as_ref().map(|node| self.ex(node)).transpose()?;
        Ok(Loop { name, collection, body, third, map, throws: call.throws, threshold: call.threshold })
    }

    /// `any(Auth.Policies, # == "x")` and the like test the field's elements in place.
    fn quantified(&mut self, call: &BuiltinCall) -> Lowered<CondKind> {
        let looped = self.looped(call)?;
        let ExKind::Field(slot, Ty::Array(super::types::Slice::Str, _)) = looped.collection.kind else {
            return Ok(CondKind::Loop(Box::new(looped)));
        };
        let field = FieldRead { slot, span: looped.collection.span, few_values: false };
        match looped.body {
            Body::Cond(Cond { kind: CondKind::Text(item, test), .. })
                if matches!(item.kind, ExKind::Item) =>
            {
                Ok(CondKind::List(field, looped.name, test))
            }
            body => Ok(CondKind::Loop(Box::new(Loop { body, ..looped }))),
        }
    }

    fn conds(&mut self, nodes: &[Node]) -> Lowered<Box<[Cond]>> {
        nodes.iter().map(|node| self.cond(node)).collect()
    }

    fn cond(&mut self, node: &Node) -> Lowered<Cond> {
        let kind = match &node.kind {
            Kind::Bool(value) => CondKind::Const(*value),
            Kind::Unary(UnaryOp::Not, operand) => CondKind::Not(Box::new(self.cond(operand)?)),
            Kind::Logic(LogicOp::And, operands) => CondKind::All(self.conds(operands)?),
            Kind::Logic(LogicOp::Or, operands) => CondKind::AnyOf(self.conds(operands)?),
            Kind::Binary(op, left, right) => match op {
                BinaryOp::Coalesce
                | BinaryOp::Range
                | BinaryOp::Add
                | BinaryOp::Sub
                | BinaryOp::Mul
                | BinaryOp::Div
                | BinaryOp::Rem
                | BinaryOp::Pow => CondKind::Value(self.boxed(node)?),
                _ => self.comparison(*op, left, right, node)?,
            },
            Kind::Builtin(call) if matches!(call.name, "all" | "none" | "any" | "one") => {
                self.quantified(call)?
            }
            Kind::Builtin(call) if matches!(call.name, "hasPrefix" | "hasSuffix") && call.args.len() == 2 => {
                let op = if call.name == "hasPrefix" { BinaryOp::StartsWith } else { BinaryOp::EndsWith };
                match (&call.args[0].kind, &call.args[1].kind) {
                    // Only where neither side can be nil: the functions fail on nil, the operators do not.
                    (_, Kind::Str(text)) if self.path(&call.args[0]).is_some_and(|path| path.ty.is_str()) => {
                        self.str_test(&call.args[0], str_test(op, text))?
                    }
                    _ => CondKind::Value(self.boxed(node)?),
                }
            }
            _ => match self.path(node) {
                Some(path) if path.ty.is_bool() => CondKind::Bool(self.read(&path, node)),
                _ => CondKind::Value(self.boxed(node)?),
            },
        };
        Ok(Cond { kind, span: node.span })
    }

    /// A test of the string that `node` yields.
    fn str_test(&mut self, node: &Node, test: StrTest) -> Lowered<CondKind> {
        match self.path(node) {
            Some(path) if path.ty.is_str() => Ok(CondKind::Str(self.read(&path, node), test)),
            _ => Ok(CondKind::Text(self.boxed(node)?, test)),
        }
    }

    fn comparison(&mut self, op: BinaryOp, left: &Node, right: &Node, node: &Node) -> Lowered<CondKind> {
        match (op, &right.kind) {
            (BinaryOp::Matches, Kind::Str(pattern)) => {
                let regex = self.regexes.compile(pattern, right.span, self.limits)?;
                return self.str_test(left, StrTest::Matches(Arc::new(regex)));
            }
            (BinaryOp::Contains | BinaryOp::StartsWith | BinaryOp::EndsWith, Kind::Str(text)) => {
                return self.str_test(left, str_test(op, text));
            }
            (BinaryOp::In, Kind::Set(values)) => return self.in_set(left, values),
            (BinaryOp::In, Kind::Constants(values)) => {
                let ex = ExKind::InLiterals(self.boxed(left)?, values.clone());
                return Ok(CondKind::Value(Box::new(Ex { kind: ex, span: node.span })));
            }
            (BinaryOp::In, _) => {
                if let (Kind::Str(text), Some(path)) = (&left.kind, self.path(right))
                    && matches!(path.ty, Ty::Array(super::types::Slice::Str, _))
                {
                    return Ok(CondKind::List(
                        self.read(&path, right),
                        LoopName::Any,
                        StrTest::Eq(text.clone()),
                    ));
                }
            }
            (BinaryOp::Eq | BinaryOp::Ne, _) => {
                if let Some(kind) = self.equals_text(left, right)? {
                    return Ok(negated(op == BinaryOp::Ne, kind, node));
                }
            }
            _ => {}
        }
        if let Some(kind) = self.int_comparison(op, left, right) {
            return Ok(kind);
        }
        let mode = match (left.ty.kind(), right.ty.kind()) {
            (TyKind::Int, TyKind::Int) if is_plain(&left.ty) && is_plain(&right.ty) => Equality::Ints,
            (TyKind::Str, TyKind::Str) => Equality::Strs,
            _ => Equality::General,
        };
        let (left, right) = (self.ex(left)?, self.ex(right)?);
        Ok(CondKind::Compare(Box::new(Compare { op, left, right, mode })))
    }

    /// `field == "text"` or `"text" == field`, and the same for computed strings.
    fn equals_text(&mut self, left: &Node, right: &Node) -> Lowered<Option<CondKind>> {
        let (value, text) = match (&left.kind, &right.kind) {
            (_, Kind::Str(text)) => (left, text),
            (Kind::Str(text), _) => (right, text),
            _ => return Ok(None),
        };
        if !value.ty.is_str() || matches!(value.kind, Kind::Str(_)) {
            return Ok(None);
        }
        self.str_test(value, StrTest::Eq(text.clone())).map(Some)
    }

    fn int_comparison(&mut self, op: BinaryOp, left: &Node, right: &Node) -> Option<CondKind> {
        use BinaryOp::*;
        let (field, value, op) = match (&left.kind, &right.kind) {
            (_, Kind::Int(value)) => (left, *value, op),
            (Kind::Int(value), _) => {
                let mirrored = match op {
                    Lt => Gt,
                    Le => Ge,
                    Gt => Lt,
                    Ge => Le,
                    same => same,
                };
                (right, *value, mirrored)
            }
            _ => return None,
        };
        if !matches!(op, Eq | Ne | Lt | Le | Gt | Ge) {
            return None;
        }
        let path = self.path(field).filter(|path| matches!(path.ty, Ty::Int))?;
        Some(CondKind::Int(self.read(&path, field), op, value))
    }

    fn in_set(&mut self, left: &Node, values: &[Literal]) -> Lowered<CondKind> {
        if values.iter().all(|value| matches!(value, Literal::Str(_))) {
            let texts = values
                .iter()
                .filter_map(|value| match value {
                    Literal::Str(text) => Some(text.clone()),
                    _ => None,
                })
                .collect();
            return self.str_test(left, StrTest::In(StrSet::new(texts)));
        }
        let ints: Vec<i64> = values
            .iter()
            .filter_map(|value| match value {
                Literal::Int(value) => Some(*value),
                _ => None,
            })
            .collect();
        let ex = Ex { kind: ExKind::InInts(self.boxed(left)?, ints.into()), span: left.span };
        Ok(CondKind::Value(Box::new(ex)))
    }
}

fn is_plain(ty: &Ty) -> bool {
    !matches!(ty, Ty::Month | Ty::Weekday)
}

fn negated(negate: bool, kind: CondKind, node: &Node) -> CondKind {
    if negate { CondKind::Not(Box::new(Cond { kind, span: node.span })) } else { kind }
}

fn str_test(op: BinaryOp, text: &[u8]) -> StrTest {
    match op {
        BinaryOp::StartsWith => StrTest::Prefix(text.into()),
        BinaryOp::EndsWith => StrTest::Suffix(text.into()),
        _ => StrTest::Contains(Arc::new(Finder::new(text).into_owned())),
    }
}
