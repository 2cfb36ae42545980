use proptest::prelude::*;

use super::*;

fn value(markup: Markup, text: &str) -> String {
    let mut out = String::new();
    markup.push_value(&mut out, text);
    out
}

#[test]
fn values_are_made_harmless() {
    use Markup::*;
    for (markup, text, expected) in [
        (Slack, "a & b < c > d", "a &amp; b &lt; c &gt; d"),
        (Slack, "<!channel> <@U1>", "&lt;!channel&gt; &lt;@U1&gt;"),
        (Slack, "&amp;", "&amp;amp;"),
        (Slack, "a`b", "a'b"),
        (Slack, "*_~", "*_~"),
        (Mattermost, "@all", "@\u{200b}all"),
        (Mattermost, "x @Here y", "x @\u{200b}Here y"),
        (Mattermost, "@@channel", "@\u{200b}@\u{200b}channel"),
        (Mattermost, "john@example.com", "john@example.com"),
        (Mattermost, "<!channel>", "<\u{200b}!channel>"),
        (Mattermost, "1 < 2 & `x`", "1 < 2 & 'x'"),
        (Plain, "<`&@all`>", "<`&@all`>"),
        (Plain, "a\r\nb\tc\u{0}\u{1b}[31md\u{7f}", "a  b c[31md"),
        (Slack, "a\u{202e}b\u{200b}c\u{feff}d\u{2028}e", "abcde"),
        (Plain, "äöü 日本 🔑", "äöü 日本 🔑"),
    ] {
        assert_eq!(value(markup, text), expected, "{markup:?} {text:?}");
    }
}

#[test]
fn texts_keep_their_lines_and_ticks() {
    let mut out = String::new();
    Markup::Mattermost.push_text(&mut out, "a\n\t`@all`\r\u{1b}");
    assert_eq!(out, "a\n\t`@\u{200b}all` ");
}

#[test]
fn cuts_say_so() {
    let mut short = "ä".repeat(50);
    cut(&mut short, 50, Some("id"), false);
    assert_eq!(short, "ä".repeat(50));
    let mut long = "ä".repeat(51);
    cut(&mut long, 50, Some("id-1"), false);
    assert!(long.ends_with(" … (truncated, request id id-1)"), "{long}");
    assert!(long.chars().count() <= 50);
    let mut long = "ä".repeat(51);
    cut(&mut long, 50, None, false);
    assert!(long.ends_with(" … (truncated)"));
    let mut part = "short".to_owned();
    cut(&mut part, 50, None, true);
    assert_eq!(part, "short … (truncated)");
}

proptest! {
    #[test]
    fn nothing_that_calls_people_survives(text in "[@<>!`&a-z \n|]{0,40}") {
        let slack = value(Markup::Slack, &text);
        prop_assert!(!slack.contains(['<', '>', '`', '\n']));
        let mattermost = value(Markup::Mattermost, &text);
        for word in ["all", "here", "channel"] {
            let at = format!("@{word}");
            for (i, _) in mattermost.match_indices(&at) {
                let before = mattermost[..i].chars().next_back().unwrap_or(' ');
                prop_assert!(before.is_alphanumeric(), "{mattermost:?}");
            }
        }
        prop_assert!(!mattermost.contains("<!") && !mattermost.contains("<@"));
    }

    #[test]
    fn cuts_hold_the_limit_and_leave_no_half_entity(text in "(&|<|>|a|ä|🔑){0,200}", limit in 40usize..150) {
        let mut out = String::new();
        Markup::Slack.push_value(&mut out, &text);
        let whole = out.clone();
        cut(&mut out, limit, Some("x"), false);
        prop_assert!(out.chars().count() <= limit);
        if let Some(kept) = out.strip_suffix(" … (truncated, request id x)") {
            prop_assert!(whole.starts_with(kept));
            let stripped = kept.replace("&amp;", "").replace("&lt;", "").replace("&gt;", "");
            prop_assert!(!stripped.contains('&'), "{kept}");
        } else {
            prop_assert_eq!(out, whole);
        }
    }
}
