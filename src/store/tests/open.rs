use super::*;

#[test]
fn what_was_found_is_said_one_line_each() {
    let damage =
        |file: &str, what: &str| Damage { file: file.to_owned(), offset: 4096, what: what.to_owned() };
    let report = Report {
        pending: 7,
        dead: 2,
        outcome_unknown: 1,
        unknown_sinks: vec![("gone/slack".to_owned(), 3)],
        damages: vec![damage("dead/0000000000000001.seg", "the header is damaged")],
        imported: 4,
        not_imported: vec![("pending/x.json".to_owned(), "no JSON".to_owned())],
        segments: 3,
        bytes: 999,
    };
    let said: Vec<String> =
        lines(Path::new("/q"), &report).iter().map(|(level, line)| format!("{level} {line}")).collect();
    assert_eq!(
        said[0],
        "ERROR store of side effects /q: dead/0000000000000001.seg at byte 4096: the header is damaged; `queue set-aside` moves damaged files away"
    );
    assert!(said[1].starts_with("WARN 3 pending tasks are for \"gone/slack\""), "{}", said[1]);
    assert_eq!(said[2], "WARN \"pending/x.json\" was not imported and stays where it is: no JSON");
    assert_eq!(
        said[3],
        "INFO store of side effects /q: 7 tasks pending, 2 dead letters, 4 imported, 1 of unknown outcome; 3 segments, 999 bytes"
    );
    assert_eq!(said.len(), 4);
}

#[test]
fn a_disk_that_refuses_is_told_with_its_cure() {
    let settings = Settings::new("/q", BYTES_MAX_MIN);
    let told = |kind| {
        let error = journal::OpenError::Io {
            file: "/q/1.seg".to_owned(),
            doing: "open",
            error: io::Error::from(kind),
        };
        journal_error(&settings, error).to_string()
    };
    assert!(told(io::ErrorKind::StorageFull).contains("free some room"));
    assert!(told(io::ErrorKind::PermissionDenied).contains("writable for this user"));
    assert!(told(io::ErrorKind::ReadOnlyFilesystem).contains("writable for this user"));
    let other = told(io::ErrorKind::NotFound);
    assert!(other.starts_with("async.durable.dir /q: cannot open \"/q/1.seg\": "), "{other}");
}
