use proptest::prelude::*;
use serde_json::Value;

use crate::record::json::{self, Node, RawStr, Token};

/// Reads a whole value with the lazy reader.
fn value(node: Node<'_>) -> Value {
    match node {
        Node::Null => Value::Null,
        Node::Bool(value) => Value::Bool(value),
        Node::Number(text) => serde_json::from_str(text).unwrap(),
        Node::Str(text) => Value::String(text.to_cow().into_owned()),
        Node::Array(text) => Value::Array(json::elements(text).map(value).collect()),
        Node::Object(text) => Value::Object(
            json::members(text).map(|(key, node)| (key.to_cow().into_owned(), value(node))).collect(),
        ),
    }
}

/// Builds a value from its pieces.
fn rebuild(text: &[u8]) -> Value {
    let mut open: Vec<(Option<String>, Value)> = Vec::new();
    let mut key = None;
    for token in json::tokens(text) {
        let value = match token {
            Token::Key(text) => {
                key = Some(text.to_cow().into_owned());
                continue;
            }
            Token::ArrayStart | Token::ObjectStart => {
                let empty = if token == Token::ArrayStart {
                    Value::from(Vec::<Value>::new())
                } else {
                    serde_json::json!({})
                };
                open.push((key.take(), empty));
                continue;
            }
            Token::ArrayEnd | Token::ObjectEnd => {
                let (outer_key, value) = open.pop().unwrap();
                assert_eq!(value.is_array(), token == Token::ArrayEnd);
                key = outer_key;
                value
            }
            Token::Scalar(node) => value(node),
        };
        match open.last_mut() {
            Some((_, Value::Array(values))) => values.push(value),
            Some((_, Value::Object(members))) => _ = members.insert(key.take().unwrap(), value),
            _ => return value,
        }
    }
    panic!("no value");
}

#[test]
fn real_records_read_as_serde_json_reads_them() {
    for text in super::records() {
        let want: Value = serde_json::from_str(text).unwrap();
        assert_eq!(value(json::node(text.as_bytes())), want, "{text}");
        assert_eq!(rebuild(text.as_bytes()), want, "{text}");
        let spaced = serde_json::to_string_pretty(&want).unwrap();
        assert_eq!(value(json::node(spaced.as_bytes())), want, "{spaced}");
        assert_eq!(rebuild(spaced.as_bytes()), want, "{spaced}");
    }
}

#[test]
fn values_of_every_kind_are_told_apart() {
    let table = [
        (" null ", Node::Null),
        ("true", Node::Bool(true)),
        ("\tfalse\n", Node::Bool(false)),
        (" -1.5e3 ", Node::Number("-1.5e3")),
        (" [ 1 ] ", Node::Array(b"[ 1 ]")),
        (r#" {"a]":"}"} "#, Node::Object(br#"{"a]":"}"}"#)),
        ("", Node::Null),
        ("x", Node::Null),
    ];
    for (text, want) in table {
        assert_eq!(json::node(text.as_bytes()), want, "{text}");
    }
    let Node::Str(plain) = json::node(br#" "plain" "#) else { panic!() };
    assert_eq!((plain.raw(), plain.is_escaped(), plain.eq_str("plain")), (&b"plain"[..], false, true));
    assert!(matches!(plain.to_cow(), std::borrow::Cow::Borrowed("plain")));
    let Node::Str(escaped) = json::node(br#""\u0070lain\ud800""#) else { panic!() };
    assert_eq!((escaped.is_escaped(), escaped.to_cow().as_ref()), (true, "plain\u{fffd}"));
    for (other, equal) in [("plain\u{fffd}", true), ("plain", false), ("plain\u{fffd}x", false), ("", false)]
    {
        assert_eq!(escaped.eq_str(other), equal, "{other}");
    }
}

#[test]
fn items_come_in_order_and_the_last_of_equal_keys_is_the_value() {
    let nodes: Vec<Node<'_>> = json::elements(br#" [ 1 , "a", [2,[3]] ,{} , null]"#).collect();
    let text = RawStr::new(b"a");
    let want = [Node::Number("1"), Node::Str(text), Node::Array(b"[2,[3]]"), Node::Object(b"{}"), Node::Null];
    assert_eq!(nodes, want);
    assert_eq!(json::elements(b"[ ]").count() + json::members(b"{ }").count(), 0);
    let object = br#"{ "a" : 1 , "b":{"a":0},"\u0061":2 }"#;
    let keys: Vec<String> = json::members(object).map(|(key, _)| key.to_cow().into_owned()).collect();
    assert_eq!(keys, ["a", "b", "a"]);
    assert_eq!(json::get(object, "a"), Some(Node::Number("2")));
    assert_eq!(json::get(object, "c"), None);
}

#[test]
fn reading_stops_where_the_text_is_not_json() {
    for text in
        ["", "x", "[", "{", "[x]", "[1", "\"a", "{1:2}", "{\"a\":}", "{\"a\":x}", "{\"a\"", "nul", "-", "]"]
    {
        let bytes = text.as_bytes();
        assert!(json::elements(bytes).count() <= 1, "{text}");
        assert_eq!(json::members(bytes).count(), 0, "{text}");
    }
    assert_eq!(json::elements(b"{\"a\":1}").count(), 0, "an object has no elements");
    assert_eq!(json::members(b"[1]").count(), 0, "an array has no members");
    let deep = "[".repeat(1_000_000);
    assert_eq!(json::node(deep.as_bytes()), Node::Array(deep.as_bytes()));
    assert_eq!(json::tokens(deep.as_bytes()).count(), deep.len());
    assert_eq!(json::tokens(b"[1,x,2]").count(), 2, "stops at what is no value");
}

#[test]
fn integers_are_as_strict_as_in_go() {
    let table = [
        ("0", Some(0)),
        ("-0", Some(0)),
        ("54321", Some(54321)),
        ("-1", Some(-1)),
        ("9223372036854775807", Some(i64::MAX)),
        ("-9223372036854775808", Some(i64::MIN)),
        ("9223372036854775808", None),
        ("5.0", None),
        ("5e0", None),
        ("1e3", None),
        ("+5", None),
        ("", None),
        (" 5", None),
    ];
    for (text, want) in table {
        assert_eq!(json::int(text), want, "{text}");
    }
}

#[test]
fn floats_are_the_nearest() {
    let table = [("5", 5.0), ("-0.5e1", -5.0), ("9007199254740993", 9007199254740992.0), ("1e-999", 0.0)];
    for (text, want) in table {
        assert_eq!(json::float(text), want, "{text}");
    }
    assert_eq!(json::float("1e999"), f64::INFINITY);
    assert!(json::float("x").is_nan());
}

proptest! {
    #[test]
    fn nothing_panics_or_loops_on_any_bytes(bytes in prop::collection::vec(
        prop_oneof![4 => prop::sample::select(br#"{}[],:"\u0dtrfalsn1-.e "#.to_vec()), 1 => any::<u8>()], 0..60)
    ) {
        fn read(node: Node<'_>, depth: usize) {
            match node {
                Node::Str(text) => {
                    let valid = std::str::from_utf8(text.raw()).is_ok();
                    assert!(!valid || text.eq_str(&text.to_cow()));
                }
                Node::Array(text) if depth < 100 => json::elements(text).for_each(|node| read(node, depth + 1)),
                Node::Object(text) if depth < 100 => json::members(text).for_each(|(_, node)| read(node, depth + 1)),
                _ => {}
            }
        }
        read(json::node(&bytes), 0);
        prop_assert!(json::elements(&bytes).count() <= bytes.len());
        prop_assert!(json::members(&bytes).count() <= bytes.len());
        prop_assert!(json::tokens(&bytes).count() <= bytes.len());
    }

    #[test]
    fn a_string_reads_as_serde_json_reads_it(string in ".*") {
        let quoted = serde_json::to_string(&string).unwrap();
        let Node::Str(text) = json::node(quoted.as_bytes()) else { panic!() };
        let read = text.to_cow();
        prop_assert_eq!(read.as_ref(), string.as_str());
        prop_assert!(text.eq_str(&string));
        let longer = string + "x";
        prop_assert!(!text.eq_str(&longer));
    }
}
