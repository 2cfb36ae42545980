use proptest::prelude::*;

use super::*;
use crate::sink::tests::{RECORD, task};

fn default_text(markup: Markup, record: &str) -> String {
    Messages::new(markup, MessageFormat::Text, None).text(&task(record))
}

fn templated(markup: Markup, template: &str, record: &str) -> String {
    let template = Template::compile(template).expect("a good template");
    Messages::new(markup, MessageFormat::Text, Some(template)).text(&task(record))
}

#[test]
fn the_default_says_what_is_there_and_nothing_else() {
    for (record, expected) in [
        ("{}", "critical: a record without operation and path"),
        (r#"{"type":"kmip-request"}"#, "critical: a record without operation and path\nwhen: kmip-request"),
        (
            r#"{"type":"request","request":{"operation":"update","path":"sys/audit/test","id":"i","namespace":{"id":"root"}},"auth":{"token_type":"default"}}"#,
            "critical: update sys/audit/test\nwhen: request, request id i",
        ),
        (
            r#"{"error":"1 error occurred:\n\t* permission denied\n\n","auth":{"policy_results":{"allowed":true}},"request":{"path":"a"}}"#,
            "critical: a denied\nerror: 1 error occurred: * permission denied",
        ),
        (
            r#"{"error":"boom","auth":{"policy_results":{"allowed":true}},"request":{"path":"a"}}"#,
            "critical: a failed\nerror: boom",
        ),
        (r#"{"auth":{"policy_results":{"allowed":false}},"request":{"path":"a"}}"#, "critical: a denied"),
        (
            r#"{"auth":{"entity_id":"e1","policies":[]},"request":{"path":"a"}}"#,
            "critical: a\nwho: entity e1",
        ),
        (
            r#"{"auth":{"display_name":"","policies":["p",1,null,"q"]},"request":{"path":"a"}}"#,
            "critical: a\nwho: policies p, q",
        ),
        (
            r#"{"auth":{"policies":["1","2","3","4","5","6","7","8","9","10"]},"request":{"path":"a"}}"#,
            "critical: a\nwho: policies 1, 2, 3, 4, 5, 6, 7, 8, and 2 more",
        ),
        // Mistyped fields are left out, not shown wrong.
        (r#"{"time":[],"error":{},"request":{"path":true,"operation":7},"auth":"x"}"#, "critical: 7"),
        (
            r#"{"request":{"path":"a","remote_address":"hmac-sha256:59fb2f9c689b4d48d93a"}}"#,
            "critical: a\nwho: from hmac-sha256:59fb2f9c…",
        ),
        ("not a record", "critical: a record of 12 bytes that cannot be read"),
    ] {
        assert_eq!(default_text(Markup::Plain, record), expected, "{record}");
    }
}

#[test]
fn records_cannot_change_the_message() {
    let record = r#"{"request":{"operation":"read","path":"a`*b*` <!channel> @all & \n*denied*"},"auth":{"display_name":"x\u001b[31m\u202ey"}}"#;
    assert_eq!(
        default_text(Markup::Slack, record),
        "*critical*: `read` `a'*b*' &lt;!channel&gt; @all &amp; *denied*`\nwho: `x[31my`"
    );
    assert_eq!(
        default_text(Markup::Mattermost, record),
        "**critical**: `read` `a'*b*' <\u{200b}!channel> @\u{200b}all & *denied*`\nwho: `x[31my`"
    );
}

#[test]
fn real_records_give_short_texts() {
    for file in ["openbao-2.7.2.jsonl", "published_examples.jsonl"] {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/records").join(file);
        let text = std::fs::read(path).expect("the records of the repository");
        for record in text.split(|b| *b == b'\n').filter(|r| !r.is_empty()) {
            let text = default_text(Markup::Slack, std::str::from_utf8(record).expect("UTF-8"));
            assert!(text.len() < 2500 && !text.contains("cannot be read"), "{text}");
        }
    }
}

#[test]
fn hashes_are_shortened_wherever_they_stand() {
    let hash = "0123456789abcdef".repeat(4);
    let record = format!(
        r#"{{"error":"no hmac-sha256:{hash}, hmac-sha256:x, hmac-sha256:{hash}","request":{{"path":"a"}}}}"#
    );
    assert!(
        default_text(Markup::Plain, &record)
            .contains("no hmac-sha256:01234567…, hmac-sha256:x, hmac-sha256:01234567…")
    );
}

#[test]
fn each_platforms_limit_holds_and_a_cut_says_so() {
    let long = RECORD.replace("secret/data/app", &"p<ä".repeat(30_000));
    for (markup, format, limit) in [
        (Markup::Slack, MessageFormat::Raw, SLACK_RAW_CHARS_MAX),
        (Markup::Mattermost, MessageFormat::Raw, MATTERMOST_CHARS_MAX),
    ] {
        let text = Messages::new(markup, format, None).text(&task(&long));
        assert!(text.chars().count() <= limit, "{}", text.chars().count());
        assert!(text.ends_with("… (truncated, request id 587719dc-58df-0462-883e-f7c6cf0857b1)"), "{text}");
    }
    for (markup, limit) in [
        (Markup::Slack, SLACK_CHARS_MAX),
        (Markup::Mattermost, MATTERMOST_CHARS_MAX),
        (Markup::Plain, WEBHOOK_CHARS_MAX),
    ] {
        assert!(default_text(markup, &long).chars().count() < 1000, "values are bounded one by one");
        let text = templated(markup, "{{ Request.Path }}{{ Request.Path }}", &long);
        assert!(text.chars().count() <= limit);
        assert!(text.contains("(truncated, request id 587719dc"), "{text}");
    }
    assert!(
        Messages::new(Markup::Slack, MessageFormat::Text, None).own(&"x".repeat(9000)).chars().count()
            <= SLACK_CHARS_MAX
    );
}

#[test]
fn templates_show_fields_and_expressions() {
    for (template, expected) in [
        ("plain", "plain"),
        ("{{ Request.Operation }} on {{Request.Path}}", "delete on secret/data/app"),
        ("<!channel> {{ Auth.DisplayName }}!", "<!channel> ldap-jane!"),
        ("{{ Auth.PolicyResults.Allowed ? \"yes }}\" : 'no' }}", "yes }}"),
        ("{{ \"{{\" }} and }}", "{{ and }}"),
        ("{{ {\"a\": {\"b\": 1}}.a.b }}", "1"),
        ("{{ `}}` }}", "}}"),
        ("[{{ Request.Namespace.ID }}]", "[n1]"),
        ("[{{ Error }}]", "[]"),
        ("{{ 1 / 0 > 1 }} {{ record.request.nothing }}", "true "),
        ("{{ fromJSON(Type) }}: {{ Type }}", "(error): response"),
        ("{{ now().Year() > 2000 }}", "true"),
    ] {
        assert_eq!(templated(Markup::Slack, template, RECORD), expected, "{template}");
    }
    assert_eq!(templated(Markup::Plain, "{{ Type }}!", "nonsense"), "(error)!");
}

#[test]
fn an_empty_text_becomes_the_default() {
    assert_eq!(templated(Markup::Plain, " {{ Error }} ", RECORD), default_text(Markup::Plain, RECORD));
}

#[test]
fn wrong_templates_say_where() {
    for (template, places) in [
        ("a {{ b", vec![(2, "has no }}")]),
        ("{{ 'x }}", vec![(0, "has no }}")]),
        ("ab{{ }}{{}}", vec![(2, "nothing between"), (7, "nothing between")]),
        ("x {{ Request.Pth }} y {{ 1 + }}", vec![(13, "Pth"), (29, "")]),
    ] {
        let errors = Template::compile(template).expect_err(template);
        assert_eq!(errors.len(), places.len(), "{errors:?}");
        for (error, (offset, word)) in errors.iter().zip(places) {
            assert!(error.message.contains(word), "{error:?}");
            assert!(error.offset.abs_diff(offset) <= 1, "{error:?} {offset}");
        }
    }
    let long = "x".repeat(100_000);
    assert!(Template::compile(&long).expect_err("too long")[0].message.contains("100000 bytes"));
}

proptest! {
    /// Splitting loses nothing, never panics, and its offsets are where the sources stand.
    #[test]
    fn splitting_is_faithful(template in "(\\{|\\}|\\{\\{|\\}\\}|'|\"|`|\\\\|a|ä| ){0,40}") {
        match split(&template) {
            Ok(pieces) => {
                let mut literals = 0;
                for piece in pieces {
                    match piece {
                        Piece::Literal(text) => {
                            prop_assert!(!text.contains("{{"));
                            literals += text.len();
                        }
                        Piece::Expr { source, offset } => {
                            prop_assert_eq!(&template[offset..offset + source.len()], source);
                            prop_assert!(!source.is_empty());
                        }
                    }
                }
                prop_assert!(literals <= template.len());
            }
            Err(errors) => for error in errors {
                prop_assert!(template[error.offset..].starts_with("{{"));
            },
        }
    }

    #[test]
    fn any_bytes_give_a_text_within_the_limit(bytes in prop::collection::vec(any::<u8>(), 0..300), raw: bool) {
        let format = if raw { MessageFormat::Raw } else { MessageFormat::Text };
        let mut t = task("");
        t.record = bytes.into();
        for markup in [Markup::Slack, Markup::Mattermost, Markup::Plain] {
            let text = Messages::new(markup, format, None).text(&t);
            prop_assert!(!text.trim().is_empty());
            prop_assert!(text.chars().count() <= 4000);
        }
    }
}
