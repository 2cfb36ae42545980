//! Environments: which names a rule may use and what they are.

use std::sync::{Arc, LazyLock};

use super::types::{FieldDef, MapTy, Slice, StructDef, Ty};
use crate::record::schema::{AUDIT_LOG, StructType, Type};

/// The names that a rule may use.
///
/// [`Environment::audit`] is the one of the server. [`Environment::constants`] holds fixed values; tests of the
/// language use it.
#[derive(Debug, Clone)]
pub struct Environment {
    pub(crate) kind: Arc<EnvKind>,
}

#[derive(Debug)]
pub(crate) enum EnvKind {
    Audit(Arc<StructDef>),
    Constants(Vec<(Box<str>, Constant)>),
}

/// A fixed value of an environment made by [`Environment::constants`].
#[derive(Debug, Clone)]
pub enum Constant {
    /// nil.
    Nil,
    /// true or false.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A float.
    Float(f64),
    /// A string.
    Str(Box<str>),
    /// Go's `[]int`.
    Ints(Box<[i64]>),
    /// A struct; the values in the order of the fields.
    Struct(Arc<StructDef>, Box<[Constant]>),
    /// An array of structs of one type.
    Structs(Arc<StructDef>, Box<[Constant]>),
}

impl Constant {
    pub(crate) fn ty(&self) -> Ty {
        match self {
            Constant::Nil => Ty::Nil,
            Constant::Bool(_) => Ty::Bool,
            Constant::Int(_) => Ty::Int,
            Constant::Float(_) => Ty::Float,
            Constant::Str(_) => Ty::Str,
            Constant::Ints(_) => Ty::Array(Slice::Int, Arc::new(Ty::Int)),
            Constant::Struct(def, _) => Ty::Struct(def.clone()),
            Constant::Structs(def, _) => {
                Ty::Array(Slice::Struct(def.clone()), Arc::new(Ty::Struct(def.clone())))
            }
        }
    }
}

/// The untyped view of the whole entry.
pub(crate) const RECORD: &str = "record";

static AUDIT: LazyLock<Environment> = LazyLock::new(|| {
    let root = struct_def(&AUDIT_LOG, &mut Vec::new());
    Environment { kind: Arc::new(EnvKind::Audit(root)) }
});

impl Environment {
    /// The fields of an audit entry under the names of the predecessor and of the entry schema
    /// ([`crate::record::schema::AUDIT_LOG`]), and `record`, the whole entry as an untyped map.
    pub fn audit() -> Environment {
        AUDIT.clone()
    }

    /// Fixed values under names.
    pub fn constants(values: impl IntoIterator<Item = (&'static str, Constant)>) -> Environment {
        let values = values.into_iter().map(|(name, value)| (name.into(), value)).collect();
        Environment { kind: Arc::new(EnvKind::Constants(values)) }
    }

    /// A struct type of string fields for [`Constant::Struct`]; `shown_as` is what its method `String()` returns.
    pub fn struct_of_strings(name: &str, fields: &[&str], shown_as: Option<&str>) -> Arc<StructDef> {
        let fields = fields
            .iter()
            .map(|field| FieldDef { name: (*field).into(), json: (*field).into(), ty: Ty::Str })
            .collect();
        let fields: Vec<FieldDef> = fields;
        let shown = fields.len();
        Arc::new(StructDef { name: Some(name.into()), fields, shown, shown_as: shown_as.map(Into::into) })
    }

    pub(crate) fn get(&self, name: &str) -> Option<Ty> {
        match &*self.kind {
            EnvKind::Audit(root) => match root.field(name) {
                Some((_, field)) => Some(field.ty.clone()),
                None => (name == RECORD).then_some(Ty::Map(MapTy::StrAny { json: true })),
            },
            EnvKind::Constants(values) => {
                values.iter().find(|(known, _)| **known == *name).map(|(_, value)| value.ty())
            }
        }
    }

    pub(crate) fn names(&self) -> Vec<&str> {
        match &*self.kind {
            EnvKind::Audit(root) => root.fields.iter().map(|field| &*field.name).chain([RECORD]).collect(),
            EnvKind::Constants(values) => values.iter().map(|(name, _)| &**name).collect(),
        }
    }

    /// Where the field of a name may be found, for a suggestion.
    pub(crate) fn paths_ending_in(&self, name: &str) -> Vec<String> {
        let mut found = Vec::new();
        if let EnvKind::Audit(root) = &*self.kind {
            paths(root, "", name, &mut found);
        }
        found
    }
}

/// The package that `type()` shows before the names of the entry's types, as in the Go program the conformance rows come from.
const PACKAGE: &str = "main";

/// The last field of the predecessor in each type that has more now; the anonymous one is a granting policy.
const LAST_FIELDS: [(&str, &str); 5] = [
    ("AuditLog", "RemoteAddr"),
    ("Auth", "TokenIssueTime"),
    ("Request", "RemotePort"),
    ("Response", "Data"),
    ("", "Type"),
];

type Known = Vec<(*const StructType, Arc<StructDef>)>;

/// One definition for each schema type, so that values of one type can be compared.
fn struct_def(schema: &'static StructType, known: &mut Known) -> Arc<StructDef> {
    if let Some((_, def)) = known.iter().find(|(seen, _)| std::ptr::eq(*seen, schema)) {
        return def.clone();
    }
    let fields: Vec<FieldDef> = schema
        .fields
        .iter()
        .map(|field| FieldDef {
            name: field.name.into(),
            json: field.json.into(),
            ty: ty_of(field.ty, known),
        })
        .collect();
    let name = (!schema.name.is_empty()).then(|| format!("{PACKAGE}.{}", schema.name).into());
    let last = LAST_FIELDS.iter().filter(|(ty, _)| *ty == schema.name);
    let shown = last.filter_map(|(_, last)| fields.iter().position(|field| &*field.name == *last)).next();
    let shown = shown.map_or(fields.len(), |at| at + 1);
    let def = Arc::new(StructDef { name, fields, shown, shown_as: None });
    known.push((schema, def.clone()));
    def
}

fn ty_of(ty: Type, known: &mut Known) -> Ty {
    match ty {
        Type::Bool => Ty::Bool,
        Type::Int => Ty::Int,
        Type::Float => Ty::Float,
        Type::Str => Ty::Str,
        Type::Time => Ty::Time,
        Type::Any => Ty::Json,
        Type::List(elem) => {
            let elem = ty_of(*elem, known);
            let slice = match &elem {
                Ty::Str => Slice::Str,
                Ty::Int => Slice::Int,
                Ty::Float => Slice::Float,
                Ty::Struct(def) => Slice::Struct(def.clone()),
                _ => Slice::Any,
            };
            Ty::Array(slice, Arc::new(elem))
        }
        Type::Map(elem) => match elem {
            Type::Str => Ty::Map(MapTy::StrStr),
            Type::List(Type::Str) => Ty::Map(MapTy::StrStrs),
            _ => Ty::Map(MapTy::StrAny { json: true }),
        },
        Type::Struct(inner) => Ty::Struct(struct_def(inner, known)),
    }
}

fn paths(def: &StructDef, before: &str, name: &str, found: &mut Vec<String>) {
    for field in &def.fields {
        let path =
            if before.is_empty() { field.name.to_string() } else { format!("{before}.{}", field.name) };
        if field.name.eq_ignore_ascii_case(name) || field.json.eq_ignore_ascii_case(name) {
            found.push(path.clone());
        }
        if let Ty::Struct(inner) = &field.ty {
            paths(inner, &path, name, found);
        }
    }
}
