//! The text of messages, with line, column and caret: `tests/data/rules/messages.txt`. Each case is a rule, a line `--`, the
//! message, and a line `====`. With `UPDATE_MESSAGES=1` the file is written anew, to be read before it is committed.

use super::refused;

#[test]
fn messages_are_as_written_down() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/rules/messages.txt");
    let text = std::fs::read_to_string(path).expect("the file of messages");
    let mut written = String::new();
    let mut cases = 0;
    for case in text.split("\n====\n").filter(|case| !case.trim().is_empty()) {
        let (rule, want) = case.split_once("\n--\n").unwrap_or((case, ""));
        // Control characters are written as escapes in the file.
        let source = rule.replace("<ESC>", "\u{1b}");
        let got = refused(&source).render(&source);
        let got: Vec<&str> = got.lines().map(str::trim_end).collect();
        let got = got.join("\n");
        if std::env::var_os("UPDATE_MESSAGES").is_none() {
            assert_eq!(got, want, "{rule}");
        }
        written.push_str(&format!("{rule}\n--\n{got}\n====\n"));
        cases += 1;
    }
    assert!(cases >= 20, "only {cases} cases");
    if std::env::var_os("UPDATE_MESSAGES").is_some() {
        std::fs::write(path, written).expect("the file can be written");
    }
}

#[test]
fn every_span_lies_in_its_source() {
    for source in
        ["é ==", "\"日本", "日本 == 1", "x\u{300}\u{301} > 1", "a\n\n  b", "Type == \"é\" && Täpe == 1", ""]
    {
        let error = refused(source);
        assert!(
            error.span.start <= error.span.end && error.span.end <= source.len(),
            "{source:?}: {:?}",
            error.span
        );
        assert!(
            source.is_char_boundary(error.span.start) && source.is_char_boundary(error.span.end),
            "{source:?}"
        );
        assert!(error.render(source).contains('^'));
    }
}
