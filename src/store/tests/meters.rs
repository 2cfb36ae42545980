use super::*;

fn told(log: Log, event: &Event) -> String {
    line(log, event).map(|(level, line)| format!("{level} {line}")).unwrap_or_default()
}

#[test]
fn events_are_said_with_their_cause_and_counted() {
    let registry = Registry::new();
    let meters = Meters::new(&registry);
    let value = |family: &str, log: &str| {
        let text = registry.render();
        let head = format!("vault_audit_filter_{family}{{log=\"{log}\"}} ");
        let found = text.lines().find_map(|line| line.strip_prefix(&head).map(str::to_owned));
        found.unwrap_or_else(|| panic!("no {head} in {text}"))
    };
    let what = || "cannot sync \"q/1.seg\": EIO".to_owned();
    let events = [
        (Event::Synced { records: 3, bytes: 100, took: Duration::from_millis(2) }, ""),
        (
            Event::Broken { what: what() },
            "ERROR the store of side effects: cannot sync \"q/1.seg\": EIO; nothing is accepted until a fresh segment can be written",
        ),
        (
            Event::NoRoom { what: what() },
            "ERROR the store of side effects: no room for another segment: cannot sync \"q/1.seg\": EIO; what was accepted goes on",
        ),
        (Event::Room, "INFO the store of side effects: there is room again"),
        (
            Event::SetAside { file: "q/1.seg.damaged\n".to_owned() },
            "WARN the store of side effects: \"q/1.seg.damaged\\n\" was damaged and is not needed any more; `queue set-aside` moves it away",
        ),
    ];
    for (event, line) in &events {
        assert_eq!(told(Log::Pending, event), *line);
        meters.event(Log::Pending, event);
    }
    let counted =
        |log| ["store_up", "store_faults_total", "store_synced_records_total"].map(|f| value(f, log));
    assert_eq!(counted("pending"), ["0", "1", "3"]);
    assert_eq!(counted("dead"), ["1", "0", "0"]);
    meters.event(Log::Pending, &Event::Opened);
    assert_eq!(counted("pending"), ["1", "1", "3"]);
    assert!(
        told(Log::Dead, &Event::Opened).starts_with("INFO the store of dead letters: the disk takes writes")
    );
}

#[test]
fn a_line_comes_once_in_its_interval() {
    let (limit, now) = (LineLimit::default(), crate::clock::now());
    assert!(limit.allows(now) && !limit.allows(now + LINE_INTERVAL / 2));
    assert!(limit.allows(now + LINE_INTERVAL) && !limit.allows(now));
}
