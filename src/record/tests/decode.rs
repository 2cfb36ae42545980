use super::*;
use crate::record::DEPTH_MAX;

#[test]
fn a_field_has_the_state_that_the_record_gives_it() {
    let table = [
        (r#"{}"#, "request", Owned::Absent),
        (r#"{}"#, "request.path", Owned::Unreached),
        (r#"{"request":null}"#, "request.path", Owned::Unreached),
        (r#"{"request":null}"#, "request", Owned::Null),
        (r#"{"request":"x"}"#, "request.path", Owned::Misplaced),
        (r#"{"request":[{"path":"p"}]}"#, "request.path", Owned::Misplaced),
        (r#"{"request":{}}"#, "request.path", Owned::Absent),
        (r#"{"request":{"data":{}}}"#, "request.data.options.cas", Owned::Unreached),
        (r#"{"request":{"path":null}}"#, "request.path", Owned::Null),
        (r#"{"request":{"path":true}}"#, "request.path", Owned::Bool(true)),
        (r#"{"request":{"path":false}}"#, "request.path", Owned::Bool(false)),
        (r#"{"request":{"path":-0.5e+07}}"#, "request.path", Owned::Number("-0.5e+07".into())),
        (r#"{"request":{"path":0}}"#, "request.path", Owned::Number("0".into())),
        (r#"{"request":{"path":""}}"#, "request.path", string("")),
        (r#"{"request":{"path":"sys/audit"}}"#, "request.path", string("sys/audit")),
        (r#"{"request":{"path":"é/😀"}}"#, "request.path", string("é/😀")),
        (
            r#"{"request" : { "path" : [ 1 , {"a":[]} ] } }"#,
            "request.path",
            Owned::Json(r#"[ 1 , {"a":[]} ]"#.into()),
        ),
        (r#"{"request":{"path":{}}}"#, "request.path", Owned::Json("{}".into())),
        (r#"{"request":{"path":[]}}"#, "request.path", Owned::Json("[]".into())),
        (r#"{"a":{"b":{"c":{"d":1}}}}"#, "a.b.c.d", Owned::Number("1".into())),
        (r#"{"":1}"#, "", Owned::Json(r#"{"":1}"#.into())),
    ];
    for (frame, path, want) in table {
        assert_eq!(slot(frame, path), want, "{path} in {frame}");
    }
}

#[test]
fn strings_are_unescaped() {
    let table = [
        (r#"\u0041"#, "A"),
        (r#"a\"b\\c\/d"#, "a\"b\\c/d"),
        (r#"\b\f\n\r\t"#, "\u{8}\u{c}\n\r\t"),
        (r#"a\u0000b"#, "a\0b"),
        (r#"\u003cb\u003E"#, "<b>"),
        (r#"\ud83d\ude00"#, "😀"),
        (r#"\u0041\ud83d\ude00\ud83d"#, "A😀\u{fffd}"),
        (r#"\ud83dx"#, "\u{fffd}x"),
        (r#"\ud83d\n"#, "\u{fffd}\n"),
        (r#"\ude00"#, "\u{fffd}"),
        (r#"\ud83d\u0041"#, "\u{fffd}A"),
        (r#"\ud83d\ud83d\ude00"#, "\u{fffd}😀"),
        (r#"\u00e9é"#, "éé"),
        (r#"0123456\n89abcde\t"#, "0123456\n89abcde\t"),
    ];
    for (text, want) in table {
        let frame = format!(r#"{{"request":{{"id":"\n","path":"{text}","operation":"\t"}}}}"#);
        let got = slots(frame.as_bytes(), &["request.path", "request.id", "request.operation"]).unwrap();
        assert_eq!(got, [string(want), string("\n"), string("\t")], "{text}");
    }
}

#[test]
fn keys_match_exactly_once_unescaped() {
    let table = [
        (r#"{"\u0072equest":{"pat\u0068":"p"}}"#, string("p")),
        (r#"{"\u0072equest2":{"path":"p"}}"#, Owned::Unreached),
        (r#"{"reques\u0074\u0000":{"path":"p"}}"#, Owned::Unreached),
        (r#"{"Request":{"path":"p"}}"#, Owned::Unreached),
        (r#"{"request":{"PATH":"p"}}"#, Owned::Absent),
        (r#"{"requeſt":{"path":"p"}}"#, Owned::Unreached),
        (r#"{"request":{"path ":"p","pat":"p","":"p","paths":"p","xath":"p"}}"#, Owned::Absent),
        (r#"{"request":{"data":{"path":"p"}},"path":"p"}"#, Owned::Absent),
    ];
    for (frame, want) in table {
        assert_eq!(slot(frame, "request.path"), want, "{frame}");
    }
    let long = "k".repeat(300);
    assert_eq!(slot(&format!(r#"{{"{long}":1,"{long}k":2}}"#), &long), Owned::Number("1".into()));
    for length in 1..40 {
        let key: String = ('a'..='z').cycle().take(length).collect();
        for differs in 0..length {
            let other = format!("{}_{}", &key[..differs], &key[differs + 1..]);
            let frame = format!(r#"{{"{other}":0,"{key}":1,"{key}x":2}}"#);
            let want = [Owned::Number("1".into()), Owned::Number("0".into())];
            assert_eq!(slots(frame.as_bytes(), &[&key, &other]).unwrap(), want, "{frame}");
            assert_eq!(slot(&frame, &key), want[0], "{frame}");
        }
    }
}

#[test]
fn the_last_of_equal_keys_wins_with_everything_below_it() {
    let paths = ["request", "request.path", "request.data", "request.data.a"];
    let table = [
        (
            r#"{"request":{"path":"p","data":{"a":1}},"request":{"x":1}}"#,
            [Owned::Json(r#"{"x":1}"#.into()), Owned::Absent, Owned::Absent, Owned::Unreached],
        ),
        (
            r#"{"request":{"path":"p","data":{"a":1}},"request":5}"#,
            [Owned::Number("5".into()), Owned::Misplaced, Owned::Misplaced, Owned::Misplaced],
        ),
        (
            r#"{"request":{"path":"p","data":{"a":1}},"re\u0071uest":null}"#,
            [Owned::Null, Owned::Unreached, Owned::Unreached, Owned::Unreached],
        ),
        (
            r#"{"request":[1],"request":{"path":"p"}}"#,
            [Owned::Json(r#"{"path":"p"}"#.into()), string("p"), Owned::Absent, Owned::Unreached],
        ),
        (
            r#"{"request":{"path":"a\n","path":"b","data":{"a":1},"data":{"a":2,"a":[]}}}"#,
            [
                Owned::Json(r#"{"path":"a\n","path":"b","data":{"a":1},"data":{"a":2,"a":[]}}"#.into()),
                string("b"),
                Owned::Json(r#"{"a":2,"a":[]}"#.into()),
                Owned::Json("[]".into()),
            ],
        ),
    ];
    for (frame, want) in table {
        assert_eq!(slots(frame.as_bytes(), &paths).unwrap(), want, "{frame}");
    }
}

#[test]
fn a_parent_a_child_and_the_whole_record_can_be_wanted_together() {
    let frame = " \t{\"request\":{\"data\":{\"a\":1}}}\r\n";
    let paths = ["request.data.a", "request", "", "request.data.b.c", "request.data"];
    let want = [
        Owned::Number("1".into()),
        Owned::Json(r#"{"data":{"a":1}}"#.into()),
        Owned::Json(frame.trim().into()),
        Owned::Unreached,
        Owned::Json(r#"{"a":1}"#.into()),
    ];
    assert_eq!(slots(frame.as_bytes(), &paths).unwrap(), want);
}

#[test]
fn a_plan_gives_one_number_to_one_path_and_may_grow_after_it_was_built() {
    let mut plan = FieldPlan::default();
    let first = plan.want(&["a", "b"]);
    assert_eq!(plan.want(&["a", "b"]), first);
    let small = plan.build();
    let second = plan.want(&["a"]);
    let whole = plan.want(&[]);
    assert_ne!(first, second);
    let (mut scratch, large) = (DecodeScratch::default(), plan.build());
    let record = large.decode(br#"{"a":{"b":true}}"#, &mut scratch).unwrap();
    assert_eq!(record.slot(first), Slot::Bool(true));
    assert_eq!(record.slot(second), Slot::Json(br#"{"b":true}"#));
    assert_eq!(record.slot(whole), Slot::Json(record.bytes()));
    let record = small.decode(br#"{"a":{"b":true}}"#, &mut scratch).unwrap();
    assert_eq!((record.slot(first), record.slot(second)), (Slot::Bool(true), Slot::Unreached));
}

#[test]
fn a_record_shows_its_bytes_without_the_whitespace_around_it() {
    let decoder = FieldPlan::new().build();
    let mut scratch = DecodeScratch::default();
    for frame in ["{}", "{}\n", "{}\r\n", " \t\r\n{} \t\r\n", "\n\n{}"] {
        let record = decoder.decode(frame.as_bytes(), &mut scratch).unwrap();
        assert_eq!(record.bytes(), b"{}");
    }
}

#[test]
fn a_frame_that_is_no_record_gets_its_reason() {
    let table: &[(&[u8], &str, &str)] = &[
        (b"", "empty", "empty"),
        (b" \r\n", "empty", "empty"),
        (b"null", "not_object", "not a JSON object: another JSON value"),
        (b"[{}]\n", "not_object", "not a JSON object: another JSON value"),
        (b"\"x\"", "not_object", "not a JSON object: another JSON value"),
        (b"hunter2", "not_object", "not a JSON object"),
        (
            b"<json:object name=\"auth\"/>",
            "not_object",
            "not a JSON object: looks like JSONx; set format=json on the audit device",
        ),
        (
            b"@cee: {\"a\":1}",
            "not_object",
            "not a JSON object: text before the object; remove the prefix option of the audit device",
        ),
        ("\u{feff}{}".as_bytes(), "not_object", "not a JSON object: starts with a byte order mark"),
        (b"{\"a\":01}", "syntax", "invalid JSON at byte 6: expected ',' or '}'"),
        (b" {\"a\":tru}", "syntax", "invalid JSON at byte 9: expected null, true or false"),
        (b"{\"a\":1", "syntax", "invalid JSON at byte 6: the text ends too early"),
        (b"{}}", "trailing_data", "more data behind the JSON object, at byte 2"),
        (b"{} {}", "trailing_data", "more data behind the JSON object, at byte 3"),
        (b"{\"a\":\"\xff\"}", "not_utf8", "not UTF-8 at byte 6"),
        (b"{}\xc3", "not_utf8", "not UTF-8 at byte 2"),
        (b"{\"a\":\"\xed\xa0\x80\"}", "not_utf8", "not UTF-8 at byte 6"),
    ];
    for (frame, reason, text) in table {
        let error = error(frame);
        assert_eq!((error.reason(), error.to_string().as_str()), (*reason, *text), "{frame:?}");
    }
    assert_eq!(error("[".repeat(1_000_000)).reason(), "not_object");
    assert_eq!(error("hunter2"), DecodeError::NotObject { looks_like: LooksLike::Unknown });
}

#[test]
fn what_violates_the_grammar_is_refused_where_it_does() {
    let table = [
        (r#"{"request":{"path":"p",}}"#, 23, "expected a key in quotation marks"),
        (r#"{"a":1,}"#, 7, "expected a key in quotation marks"),
        (r#"{,}"#, 1, "expected a key in quotation marks"),
        (r#"{a:1}"#, 1, "expected a key in quotation marks"),
        (r#"{"a" 1}"#, 5, "expected ':'"),
        (r#"{"a"}"#, 4, "expected ':'"),
        (r#"{"a":}"#, 5, "expected a value"),
        (r#"{"a"::1}"#, 5, "expected a value"),
        (r#"{"a":[,]}"#, 6, "expected a value"),
        (r#"{"a":[1,]}"#, 8, "expected a value"),
        (r#"{"a":'b'}"#, 5, "expected a value"),
        (r#"{"a":NaN}"#, 5, "expected a value"),
        (r#"{"a":+1}"#, 5, "expected a value"),
        (r#"{"a":.5}"#, 5, "expected a value"),
        (r#"{"a":[1 2]}"#, 8, "expected ',' or ']'"),
        (r#"{"a":[1}}"#, 7, "expected ',' or ']'"),
        (r#"{"a":1 "b":2}"#, 7, "expected ',' or '}'"),
        (r#"{"a":1]"#, 6, "expected ',' or '}'"),
        (r#"{"a":-}"#, 6, "a number needs a digit here"),
        (r#"{"a":1.}"#, 7, "a number needs a digit here"),
        (r#"{"a":1e}"#, 7, "a number needs a digit here"),
        (r#"{"a":1e+}"#, 8, "a number needs a digit here"),
        (r#"{"a":-01}"#, 7, "expected ',' or '}'"),
        (r#"{"a":0x1}"#, 6, "expected ',' or '}'"),
        (r#"{"a":1_0}"#, 6, "expected ',' or '}'"),
        (r#"{"a":nul}"#, 8, "expected null, true or false"),
        (r#"{"a":trUe}"#, 7, "expected null, true or false"),
        (r#"{"a":falsee}"#, 10, "expected ',' or '}'"),
        (r#"{"a":"\x"}"#, 7, "unknown escape sequence"),
        (r#"{"a":"\u12G4"}"#, 10, "\\u needs four hexadecimal digits"),
        (r#"{"a":"\u12"}"#, 10, "\\u needs four hexadecimal digits"),
        (r#"{"\U0041":1}"#, 3, "unknown escape sequence"),
        ("{\"a\":\"b\nc\"}", 7, "a control character in a string must be escaped"),
        ("{\"a\":\"01234567\u{1f}\"}", 14, "a control character in a string must be escaped"),
        ("{\"a\":\"\\t\t\"}", 8, "a control character in a string must be escaped"),
        ("{\"a\u{0}\":1}", 3, "a control character in a string must be escaped"),
        ("{\"a\":\u{b}1}", 5, "expected a value"),
        ("{\"a\":\u{a0}1}", 5, "expected a value"),
        ("{\"a\":1}/* */", 7, ""),
    ];
    for (frame, offset, what) in table {
        let want = match what {
            "" => DecodeError::TrailingData { offset },
            what => DecodeError::Syntax { offset, what },
        };
        assert_eq!(error(frame), want, "{frame}");
    }
}

#[test]
fn every_prefix_of_a_record_ends_too_early() {
    let decoder = every_field().build();
    let mut scratch = DecodeScratch::default();
    for text in records().step_by(23) {
        assert!(decoder.decode(text.as_bytes(), &mut scratch).is_ok());
        for end in 1..text.len() {
            let error = decoder.decode(&text.as_bytes()[..end], &mut scratch).unwrap_err();
            let cut_character = DecodeError::NotUtf8 { offset: text.floor_char_boundary(end) };
            let want = match text.is_char_boundary(end) {
                true => DecodeError::Syntax { offset: end, what: "the text ends too early" },
                false => cut_character,
            };
            assert_eq!(error, want, "{}", &text[..text.floor_char_boundary(end)]);
        }
    }
}

/// A plan that wants every field of the schema, and containers that hold others.
fn every_field() -> FieldPlan {
    fn walk<'a>(plan: &mut FieldPlan, path: &mut Vec<&'a str>, ty: &'a crate::record::schema::StructType) {
        for field in ty.fields {
            path.push(field.json);
            plan.want(path);
            if let crate::record::schema::Type::Struct(inner) = field.ty {
                walk(plan, path, inner);
            }
            path.pop();
        }
    }
    let mut plan = FieldPlan::new();
    walk(&mut plan, &mut Vec::new(), &crate::record::schema::AUDIT_LOG);
    plan
}

#[test]
fn nesting_is_limited_however_it_is_made() {
    let nested = |open: &str, close: &str, depth: usize| {
        format!("{{\"request\":{}0{}}}", open.repeat(depth), close.repeat(depth)).into_bytes()
    };
    for paths in [&["request.path"][..], &["request", ""], &["other"]] {
        for (open, close) in [("[", "]"), ("{\"path\":", "}"), ("[{\"a\":", "}]")] {
            let pairs = open.matches(['[', '{']).count();
            assert!(slots(&nested(open, close, (DEPTH_MAX - 1) / pairs), paths).is_ok(), "{open} {paths:?}");
            let error = slots(&nested(open, close, DEPTH_MAX / pairs), paths).unwrap_err();
            assert_eq!(error, DecodeError::TooDeep, "{open} {paths:?}");
        }
    }
    let error = slots("{\"a\":".repeat(1_000_000).as_bytes(), &["a"]).unwrap_err();
    assert_eq!((error.reason(), error.to_string().as_str()), ("too_deep", "nested deeper than 10000 levels"));
}

#[test]
fn a_scratch_serves_one_record_after_another_and_keeps_little_of_a_giant_one() {
    let decoder = every_field().build();
    let mut scratch = DecodeScratch::default();
    for text in records() {
        assert!(decoder.decode(text.as_bytes(), &mut scratch).is_ok());
    }
    let warm = scratch.bytes_held();
    for text in records() {
        assert!(decoder.decode(text.as_bytes(), &mut scratch).is_ok());
        assert_eq!(scratch.bytes_held(), warm);
    }
    let long = format!(r#"{{"error":"{}"}}"#, r"\n".repeat(3 << 20));
    let mut plan = FieldPlan::new();
    let slot = plan.want(&["error"]);
    let small = plan.build();
    assert_eq!(
        small.decode(long.as_bytes(), &mut scratch).unwrap().slot(slot),
        Slot::Str(&"\n".repeat(3 << 20))
    );
    assert!(scratch.bytes_held() >= 3 << 20);
    let deep = format!("{}0{}", "{\"a\":".repeat(9_000), "}".repeat(9_000));
    assert!(small.decode(deep.as_bytes(), &mut scratch).is_ok());
    assert!(small.decode(b"{", &mut scratch).is_err());
    assert_eq!(small.decode(b"{}", &mut scratch).unwrap().slot(slot), Slot::Absent);
    assert!(scratch.bytes_held() < 400 << 10, "{} bytes held", scratch.bytes_held());
}

#[test]
fn a_decoder_can_be_shared_and_a_scratch_can_change_threads() {
    fn shared<T: Send + Sync>(_: &T) {}
    fn sent<T: Send + 'static>(_: &T) {}
    shared(&FieldPlan::new().build());
    sent(&DecodeScratch::default());
}
