use std::collections::BTreeMap;

use serde_json::Value;

use crate::record::schema::{AUDIT_LOG, StructType, Type};

/// The names of a struct that the predecessor knows, in its order.
const PREDECESSOR: [(&str, &str); 6] = [
    ("", "Type Time Auth Request Response Error RemoteAddr"),
    (
        "Auth",
        "ClientToken Accessor DisplayName Policies TokenPolicies PolicyResults TokenType TokenIssueTime",
    ),
    ("Auth.PolicyResults", "Allowed GrantingPolicies"),
    ("Auth.PolicyResults.GrantingPolicies", "Name NamespaceID Type"),
    (
        "Request",
        "ID ClientID Operation MountPoint MountType MountAccessor MountRunningVersion MountClass ClientToken \
         ClientTokenAccessor Path RemoteAddress RemotePort",
    ),
    (
        "Response.Data",
        "CasRequired CreatedTime CurrentVersion DeleteVersionAfter MaxVersions OldestVersion UpdatedTime",
    ),
];

/// The struct that a dotted name leads to, through lists.
fn named(path: &str) -> &'static StructType {
    path.split('.').filter(|name| !name.is_empty()).fold(&AUDIT_LOG, |ty, name| {
        match ty.field(name).unwrap_or_else(|| panic!("no {name} in {path}")).ty {
            Type::Struct(ty) | Type::List(&Type::Struct(ty)) => ty,
            other => panic!("{path} is {other:?}"),
        }
    })
}

#[test]
fn the_predecessors_names_come_first_in_its_order() {
    for (path, names) in PREDECESSOR {
        let want: Vec<&str> = names.split(' ').collect();
        let got: Vec<&str> = named(path).fields.iter().map(|field| field.name).take(want.len()).collect();
        assert_eq!(got, want, "{path}");
    }
    assert_eq!(named("Response.Data").fields.len(), 7);
    assert_eq!(
        ["", "Auth", "Request", "Response"].map(|path| named(path).name),
        ["AuditLog", "Auth", "Request", "Response"]
    );
    assert_eq!(AUDIT_LOG.field("RemoteAddr").unwrap().json, "remote_addr");
    assert_eq!(named("Auth").field("TokenIssueTime").unwrap().ty, Type::Time);
    assert_eq!(AUDIT_LOG.field("request"), None);
}

/// Calls `visit` with every struct of the schema.
fn every_struct(ty: &'static StructType, visit: &mut impl FnMut(&'static StructType)) {
    visit(ty);
    for field in ty.fields {
        if let Type::Struct(inner) | Type::List(&Type::Struct(inner)) = field.ty {
            every_struct(inner, visit);
        }
    }
}

#[test]
fn names_and_keys_are_unique_and_belong_together() {
    every_struct(&AUDIT_LOG, &mut |ty| {
        let mut keys = BTreeMap::new();
        for field in ty.fields {
            assert_eq!(ty.field(field.name), Some(field), "{} twice", field.name);
            assert_eq!(keys.insert(field.json, field.name), None, "{} twice", field.json);
            assert_eq!(field.json.replace('_', ""), field.name.to_lowercase());
            assert!(!field.doc.is_empty() && !field.doc.ends_with('.'), "{}: {}", field.name, field.doc);
        }
    });
}

/// Complains about every part of `value` that the schema does not know or knows as something else.
fn check(path: &str, value: &Value, ty: &Type, problems: &mut BTreeMap<String, usize>) {
    let fits = match (ty, value) {
        (Type::Any, _) | (_, Value::Null) => true,
        (Type::Bool, Value::Bool(_)) | (Type::Str | Type::Time, Value::String(_)) => true,
        (Type::Int, Value::Number(number)) => number.is_i64(),
        (Type::Float, Value::Number(_)) => true,
        (Type::List(inner), Value::Array(values)) => {
            values.iter().for_each(|value| check(&format!("{path}[]"), value, inner, problems));
            true
        }
        (Type::Map(inner), Value::Object(values)) => {
            values.values().for_each(|value| check(&format!("{path}.*"), value, inner, problems));
            true
        }
        (Type::Struct(ty), Value::Object(values)) => {
            for (key, value) in values {
                let path = format!("{path}.{key}");
                match ty.fields.iter().find(|field| field.json == key) {
                    Some(field) => check(&path, value, &field.ty, problems),
                    // Free-form: the schema names a few keys of it only.
                    None if path.starts_with(".response.data.") => {}
                    None => *problems.entry(format!("{path} is not in the schema")).or_default() += 1,
                }
            }
            true
        }
        _ => false,
    };
    if !fits {
        *problems.entry(format!("{path} is no {ty:?} but {value}")).or_default() += 1;
    }
}

#[test]
fn real_records_hold_what_the_schema_says() {
    let mut problems = BTreeMap::new();
    for text in super::records() {
        let record: Value = serde_json::from_str(text).unwrap();
        check("", &record, &Type::Struct(&AUDIT_LOG), &mut problems);
    }
    assert_eq!(problems, BTreeMap::new());
}
