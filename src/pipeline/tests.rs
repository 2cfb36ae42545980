//! With the index, every record goes to the groups that the plain scan over all rules finds.

use super::*;
use crate::config;
use crate::evidence::Identity;
use crate::log_file::{LogFile, LogFiles};
use crate::record::FieldPlan;
use crate::rules::Limits;

const RECORDS: &str = include_str!("../../tests/data/records/openbao-2.7.2.jsonl");
const RULES: [&str; 2] = [
    include_str!("../../tests/data/rules/typical10.txt"),
    include_str!("../../tests/data/rules/mixed1000.txt"),
];

/// A pipeline with these groups of rules; the last group is the fallback.
fn pipeline(groups: &[Vec<&str>], dir: &std::path::Path) -> Pipeline {
    pipeline_with_logs(groups, &[], dir, &Registry::new())
}

/// The same; the first groups write to these files.
pub(super) fn pipeline_with_logs(
    groups: &[Vec<&str>],
    logs: &[Arc<LogFile>],
    dir: &std::path::Path,
    registry: &Registry,
) -> Pipeline {
    pipeline_with_evidence(groups, logs, dir, registry, &config::Config::default())
}

/// The same; it looks for what `config` asks for.
pub(super) fn pipeline_with_evidence(
    groups: &[Vec<&str>],
    logs: &[Arc<LogFile>],
    dir: &std::path::Path,
    registry: &Registry,
    config: &config::Config,
) -> Pipeline {
    std::fs::create_dir_all(dir).expect("a temporary directory");
    let mut plan = FieldPlan::new();
    let mut built = Vec::new();
    for (number, texts) in groups.iter().enumerate() {
        let name = format!("g{number}");
        let rules = texts.iter().map(|text| {
            let rule = Rule::compile(text, &mut plan, &Limits::default()).expect("the rule compiles");
            GroupRule::new(rule, registry.counter(&metrics::RULE_ERRORS, &[&name, "1"]))
        });
        built.push(RuleGroup {
            name: name.as_str().into(),
            rules: rules.collect(),
            log_file: logs.get(number).cloned(),
            sinks: Vec::new(),
            matches: registry.counter(&metrics::GROUP_MATCHES, &[&name]),
        });
    }
    let quarantine = config::LogFile::at(dir.join("quarantine.log"));
    let quarantine = LogFiles::new().open(&quarantine, registry).expect("a log file");
    let fallback = Some(groups.len() - 1);
    let identity = Identity::wanted(config, &mut plan);
    let evidence = Evidence::new(identity, config, None, registry, clock::now());
    let pipeline = Pipeline::new(plan.build(), built, fallback, Quarantine::new(quarantine), registry);
    pipeline.expect("a pipeline").looking_for(evidence)
}

#[test]
fn records_go_to_the_groups_of_the_plain_scan() {
    let dir = std::env::temp_dir().join(format!("vaf-pipeline-index-{}", std::process::id()));
    let rules: Vec<&str> = RULES.iter().flat_map(|text| text.lines()).collect();
    let mut some: Vec<Vec<&str>> = rules.chunks(4).map(<[&str]>::to_vec).collect();
    some.push(Vec::new());
    let mut with_catch_all = some.clone();
    with_catch_all.insert(3, Vec::new());
    let few = vec![rules[..5].to_vec(), rules[5..10].to_vec(), Vec::new()];
    for (groups, has_index) in [(some, true), (with_catch_all, true), (few, false)] {
        let pipeline = pipeline(&groups, &dir);
        assert_eq!(pipeline.index.is_some(), has_index);
        let mut worker = Worker::default();
        let frames: Vec<&[u8]> = RECORDS.lines().map(str::as_bytes).collect();
        pipeline.evaluate(Source::Http, &frames, &mut worker);
        let found: Vec<(usize, usize, bool)> =
            worker.hits.iter().map(|hit| (hit.frame, hit.group, hit.by_rules)).collect();
        assert_eq!(found, plain(&pipeline, &frames));
        assert!(found.iter().any(|(.., by_rules)| *by_rules));
    }
    let _ = std::fs::remove_dir_all(&dir);
}

/// What every group says of every frame, rule after rule.
fn plain(pipeline: &Pipeline, frames: &[&[u8]]) -> Vec<(usize, usize, bool)> {
    let fallback = pipeline.groups().len() - 1;
    let (mut decode, mut eval) = (DecodeScratch::default(), EvalScratch::default());
    let mut hits = Vec::new();
    for (number, frame) in frames.iter().enumerate() {
        let record = pipeline.decoder.decode(frame, &mut decode).expect("a real record is valid");
        let before = hits.len();
        for (group, rules) in pipeline.groups()[..fallback].iter().enumerate() {
            if rules.matches(&record, &mut eval) {
                hits.push((number, group, true));
            }
        }
        if hits.len() == before {
            hits.push((number, fallback, false));
        }
    }
    hits
}

#[test]
fn what_one_log_file_refuses_costs_no_frame_that_does_not_go_there() {
    let dir = std::env::temp_dir().join(format!("vaf-pipeline-each-{}", std::process::id()));
    let rules = [r#"Request.Path startsWith "a""#, r#"Request.Path endsWith "b""#];
    let (registry, files) = (Registry::new(), LogFiles::new());
    let path = |name: &str| dir.join(name).join("log");
    let names = ["one", "two"];
    let open = |name: &&str| files.open(&config::LogFile::at(path(name)), &registry).expect("a log file");
    let logs: Vec<_> = names.iter().map(open).collect();
    let groups = [vec![rules[0]], vec![rules[1]], vec!["false"]];
    let pipeline = pipeline_with_logs(&groups, &logs, &dir, &registry);
    let record = |path: &str| format!(r#"{{"request":{{"path":"{path}"}}}}"#);
    let frames = ["a", "b", "ab", "x", "a "].map(record);
    let mut frames: Vec<&[u8]> = frames.iter().map(String::as_bytes).collect();
    frames.push(b"no record");
    let outcomes = || {
        ["matched", "unmatched", "quarantined", "refused"]
            .map(|outcome| registry.counter(&metrics::RECORDS, &[outcome]).get())
    };
    let lines = |name: &str| std::fs::read_to_string(path(name)).map_or(0, |text| text.lines().count());
    let mut no_ticket = || panic!("asked for a ticket");
    let mut worker = Worker::default();
    pipeline.handle_each(Source::Tcp, &frames, &mut worker, &mut no_ticket);
    assert_eq!((outcomes(), lines("one"), lines("two")), ([4, 1, 1, 0], 3, 2));
    // A file in the place of the directory: the second log file can neither be kept nor made anew.
    std::fs::remove_dir_all(dir.join("two")).expect("removed");
    std::fs::write(dir.join("two"), "").expect("written");
    pipeline.handle_each(Source::Tcp, &frames, &mut worker, &mut no_ticket);
    assert_eq!((outcomes(), lines("one")), ([6, 2, 2, 2], 6));
    // One frame alone, and the whole of a request.
    pipeline.handle_each(Source::Udp, &frames[1..2], &mut worker, &mut no_ticket);
    assert_eq!(outcomes(), [6, 2, 2, 3]);
    assert_eq!(pipeline.handle(Source::Http, &frames, &mut worker, &mut no_ticket), Verdict::Refused);
    assert_eq!(outcomes(), [6, 2, 2, 9]);
    std::fs::remove_file(dir.join("two")).expect("removed");
    pipeline.handle_each(Source::Udp, &frames, &mut worker, &mut no_ticket);
    assert_eq!((outcomes(), lines("two")), ([10, 3, 3, 9], 2));
    let _ = std::fs::remove_dir_all(&dir);
}
