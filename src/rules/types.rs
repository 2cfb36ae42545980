//! Static types of rules, as the Go library's checker sees them (`checker/nature` of expr-lang/expr 1.17):
//! what may be compared, indexed and called follows from the Go type and, for arrays, a finer element type.

use std::fmt;
use std::sync::Arc;

/// A static type.
#[derive(Debug, Clone)]
pub(crate) enum Ty {
    /// Not known before the rule runs, and not even an interface type in Go's eyes.
    Unknown,
    /// Go's `any`.
    Any,
    /// Untyped content of the record: like `any`, but a member of nil is nil.
    Json,
    Nil,
    Bool,
    Int,
    /// An element of bytes or of a string.
    U8,
    Float,
    Str,
    Time,
    Duration,
    Month,
    Weekday,
    Location,
    /// The Go slice type and the type of the elements.
    Array(Slice, Arc<Ty>),
    Map(MapTy),
    Struct(Arc<StructDef>),
    /// A builtin without call, or a method.
    Function(Function),
}

/// The Go type of an array.
#[derive(Debug, Clone)]
pub(crate) enum Slice {
    Any,
    Str,
    Int,
    Float,
    /// `[]byte`.
    Bytes,
    Struct(Arc<StructDef>),
    /// `[][2]any`, what `toPairs` makes; known at run time only.
    Pairs,
    /// `[2]any`.
    Pair,
}

/// The Go type of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MapTy {
    /// `map[string]any`, and untyped objects of the record.
    StrAny { json: bool },
    /// `map[string]string`.
    StrStr,
    /// `map[string][]string`.
    StrStrs,
    /// `map[any]any`.
    AnyAny,
    /// `map[any][]any`, what `groupBy` makes.
    Groups,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Function {
    /// A builtin by name, with the Go type of its first signature.
    Builtin(&'static str),
    Method(Method),
}

/// A method of a time, a duration or another named value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Method {
    pub(crate) name: &'static str,
    pub(crate) params: &'static [Param],
    pub(crate) result: Param,
}

/// Types of parameters and results of methods and builtins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Param {
    Any,
    Bool,
    Int,
    Float,
    Str,
    Time,
    Duration,
    Month,
    Weekday,
    Location,
    Anys,
    Strs,
    Ints,
    Floats,
}

/// A struct: fields in order. Two are the same type when they are the same definition.
#[derive(Debug)]
pub struct StructDef {
    /// The name that `type()` shows; anonymous structs have none.
    pub(crate) name: Option<Box<str>>,
    pub(crate) fields: Vec<FieldDef>,
    /// How many of the fields, from the first, `string()` and `toJSON()` show: those of the predecessor, so that rules
    /// that compare such text keep their meaning.
    pub(crate) shown: usize,
    /// What the method `String()` returns, for structs that have one.
    pub(crate) shown_as: Option<Box<str>>,
}

#[derive(Debug)]
pub(crate) struct FieldDef {
    pub(crate) name: Box<str>,
    pub(crate) json: Box<str>,
    pub(crate) ty: Ty,
}

impl StructDef {
    pub(crate) fn field(&self, name: &str) -> Option<(usize, &FieldDef)> {
        self.fields.iter().enumerate().find(|(_, field)| &*field.name == name)
    }
}

/// Go's reflect kinds, as far as the rules need them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TyKind {
    Invalid,
    Interface,
    Bool,
    Int,
    Int64,
    Uint8,
    Float,
    Str,
    Struct,
    Pointer,
    Slice,
    Map,
    Func,
}

/// Groups of types that an operator accepts where the other side is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    Str,
    Integer,
    Number,
    Map,
    Array,
    Time,
    Duration,
}

impl Ty {
    pub(crate) fn array(elem: Ty) -> Ty {
        Ty::Array(Slice::Any, Arc::new(elem))
    }

    pub(crate) fn anys() -> Ty {
        Ty::array(Ty::Any)
    }

    pub(crate) fn strs() -> Ty {
        Ty::Array(Slice::Str, Arc::new(Ty::Str))
    }

    pub(crate) fn bytes() -> Ty {
        Ty::Array(Slice::Bytes, Arc::new(Ty::U8))
    }

    pub(crate) fn is_unknown(&self) -> bool {
        matches!(self, Ty::Unknown | Ty::Any | Ty::Json)
    }

    pub(crate) fn is_nil(&self) -> bool {
        matches!(self, Ty::Nil)
    }

    pub(crate) fn is_bool(&self) -> bool {
        matches!(self, Ty::Bool)
    }

    pub(crate) fn is_str(&self) -> bool {
        matches!(self, Ty::Str)
    }

    pub(crate) fn is_integer(&self) -> bool {
        matches!(self, Ty::Int | Ty::U8)
    }

    pub(crate) fn is_number(&self) -> bool {
        matches!(self, Ty::Int | Ty::U8 | Ty::Float)
    }

    pub(crate) fn is_array(&self) -> bool {
        matches!(self, Ty::Array(..))
    }

    pub(crate) fn is_map(&self) -> bool {
        matches!(self, Ty::Map(_))
    }

    /// A time is a struct too.
    pub(crate) fn is_struct(&self) -> bool {
        matches!(self, Ty::Struct(_) | Ty::Time)
    }

    pub(crate) fn is_bytes(&self) -> bool {
        matches!(self, Ty::Array(Slice::Bytes, _))
    }

    pub(crate) fn kind(&self) -> TyKind {
        match self {
            Ty::Unknown | Ty::Nil => TyKind::Invalid,
            Ty::Any | Ty::Json => TyKind::Interface,
            Ty::Bool => TyKind::Bool,
            Ty::Int | Ty::Month | Ty::Weekday => TyKind::Int,
            Ty::Duration => TyKind::Int64,
            Ty::U8 => TyKind::Uint8,
            Ty::Float => TyKind::Float,
            Ty::Str => TyKind::Str,
            Ty::Time | Ty::Struct(_) => TyKind::Struct,
            Ty::Location => TyKind::Pointer,
            Ty::Array(Slice::Pair, _) => TyKind::Slice,
            Ty::Array(..) => TyKind::Slice,
            Ty::Map(_) => TyKind::Map,
            Ty::Function(_) => TyKind::Func,
        }
    }

    /// The element type of an array, the value type of a map.
    pub(crate) fn elem(&self) -> Ty {
        match self {
            Ty::Array(_, elem) => Ty::clone(elem),
            Ty::Map(map) => map.elem(),
            _ => Ty::Unknown,
        }
    }

    /// The type after a round trip through Go's `reflect.Type`: finer element types are lost.
    pub(crate) fn reflected(&self) -> Ty {
        match self {
            Ty::Array(Slice::Any, _) => Ty::anys(),
            Ty::Unknown => Ty::Any,
            other => other.clone(),
        }
    }

    /// Go's `reflect.Type.AssignableTo`, with nil for what can be nil.
    pub(crate) fn assignable_to(&self, to: &Ty) -> bool {
        if self.is_nil() {
            return matches!(
                to.kind(),
                TyKind::Pointer | TyKind::Interface | TyKind::Func | TyKind::Map | TyKind::Slice
            );
        }
        match (self, to) {
            (Ty::Unknown, _) | (_, Ty::Unknown | Ty::Nil) => false,
            (_, Ty::Any | Ty::Json) => true,
            (Ty::Any | Ty::Json, _) => false,
            (Ty::Array(a, _), Ty::Array(b, _)) => a.same(b),
            (Ty::Map(a), Ty::Map(b)) => a.same(*b),
            (Ty::Struct(a), Ty::Struct(b)) => Arc::ptr_eq(a, b),
            (Ty::Function(a), Ty::Function(b)) => a.same(b),
            (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
        }
    }

    pub(crate) fn comparable_to(&self, other: &Ty) -> bool {
        self.is_unknown()
            || other.is_unknown()
            || self.is_nil()
            || other.is_nil()
            || self.is_number() && other.is_number()
            || self.is_array() && other.is_array()
            || self.assignable_to(other)
    }

    pub(crate) fn is_any_of(&self, checks: &[Check]) -> bool {
        checks.iter().any(|check| match check {
            Check::Str => self.is_str(),
            Check::Integer => self.is_integer(),
            Check::Number => self.is_number(),
            Check::Map => self.is_map(),
            Check::Array => self.is_array(),
            Check::Time => matches!(self, Ty::Time),
            Check::Duration => matches!(self, Ty::Duration),
        })
    }

    /// At least one side is not known, and the other one would do.
    pub(crate) fn maybe_compatible(&self, other: &Ty, checks: &[Check]) -> bool {
        match (self.is_unknown(), other.is_unknown()) {
            (true, true) => true,
            (true, false) => other.is_any_of(checks),
            (false, true) => self.is_any_of(checks),
            (false, false) => false,
        }
    }

    /// The type of an untyped member: what came from the record stays recognisable.
    pub(crate) fn member_of_unknown(&self) -> Ty {
        if matches!(self, Ty::Json) { Ty::Json } else { Ty::Unknown }
    }
}

impl MapTy {
    pub(crate) fn elem(self) -> Ty {
        match self {
            MapTy::StrAny { json: true } => Ty::Json,
            MapTy::StrAny { json: false } | MapTy::AnyAny => Ty::Any,
            MapTy::StrStr => Ty::Str,
            MapTy::StrStrs => Ty::strs(),
            MapTy::Groups => Ty::anys(),
        }
    }

    pub(crate) fn key(self) -> Ty {
        match self {
            MapTy::StrAny { .. } | MapTy::StrStr | MapTy::StrStrs => Ty::Str,
            MapTy::AnyAny | MapTy::Groups => Ty::Any,
        }
    }

    pub(crate) fn same(self, other: MapTy) -> bool {
        match (self, other) {
            (MapTy::StrAny { .. }, MapTy::StrAny { .. }) => true,
            (a, b) => a == b,
        }
    }
}

impl Slice {
    pub(crate) fn same(&self, other: &Slice) -> bool {
        match (self, other) {
            (Slice::Struct(a), Slice::Struct(b)) => Arc::ptr_eq(a, b),
            (Slice::Struct(_), _) | (_, Slice::Struct(_)) => false,
            (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
        }
    }
}

impl Function {
    /// The same Go function type. Builtins that check their arguments themselves are all `func(...any) (any, error)`.
    fn same(&self, other: &Function) -> bool {
        match (self, other) {
            (Function::Builtin(a), Function::Builtin(b)) => signature(a) == signature(b),
            (a, b) => a == b,
        }
    }
}

fn signature(name: &'static str) -> &'static str {
    match name {
        "all" | "none" | "any" | "one" => "func([]any, func(any) bool) bool",
        "count" | "sum" | "findIndex" | "findLastIndex" => "func([]any, func(any) bool) int",
        "find" | "findLast" => "func([]any, func(any) bool) any",
        "trim" | "upper" | "lower" | "toBase64" | "fromBase64" => "func(string) string",
        "trimPrefix" | "trimSuffix" => "func(string, string) string",
        "split" | "splitAfter" => "func(string, string) []string",
        "indexOf" | "lastIndexOf" => "func(string, string) int",
        "hasPrefix" | "hasSuffix" => "func(string, string) bool",
        "type" | "string" | "toJSON" => "func(any) string",
        "bitand" | "bitor" | "bitxor" | "bitnand" | "bitshl" | "bitshr" | "bitushr" => "func(int, int) int",
        "filter" | "map" | "groupBy" | "sortBy" | "reduce" | "replace" | "repeat" | "join" | "fromJSON"
        | "duration" | "timezone" | "sort" | "bitnot" => name,
        _ => "func(...any) (any, error)",
    }
}

impl Param {
    pub(crate) fn ty(self) -> Ty {
        match self {
            Param::Any => Ty::Any,
            Param::Bool => Ty::Bool,
            Param::Int => Ty::Int,
            Param::Float => Ty::Float,
            Param::Str => Ty::Str,
            Param::Time => Ty::Time,
            Param::Duration => Ty::Duration,
            Param::Month => Ty::Month,
            Param::Weekday => Ty::Weekday,
            Param::Location => Ty::Location,
            Param::Anys => Ty::anys(),
            Param::Strs => Ty::strs(),
            Param::Ints => Ty::Array(Slice::Int, Arc::new(Ty::Int)),
            Param::Floats => Ty::Array(Slice::Float, Arc::new(Ty::Float)),
        }
    }
}

/// The type as messages name it.
impl fmt::Display for Ty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ty::Unknown | Ty::Any | Ty::Json => f.write_str("a value of unknown type"),
            Ty::Nil => f.write_str("nil"),
            Ty::Bool => f.write_str("bool"),
            Ty::Int => f.write_str("int"),
            Ty::U8 => f.write_str("byte"),
            Ty::Float => f.write_str("float"),
            Ty::Str => f.write_str("string"),
            Ty::Time => f.write_str("time"),
            Ty::Duration => f.write_str("duration"),
            Ty::Month => f.write_str("month"),
            Ty::Weekday => f.write_str("weekday"),
            Ty::Location => f.write_str("timezone"),
            Ty::Array(Slice::Bytes, _) => f.write_str("bytes"),
            Ty::Array(_, elem) if elem.is_unknown() || elem.is_nil() => f.write_str("array"),
            Ty::Array(_, elem) => write!(f, "array of {elem}"),
            Ty::Map(MapTy::StrStr) => f.write_str("map of strings"),
            Ty::Map(MapTy::StrStrs) => f.write_str("map of arrays of strings"),
            Ty::Map(_) => f.write_str("map"),
            Ty::Struct(def) => match &def.name {
                Some(name) => write!(f, "object {}", name.rsplit('.').next().unwrap_or(name)),
                None => f.write_str("object"),
            },
            Ty::Function(_) => f.write_str("function"),
        }
    }
}
