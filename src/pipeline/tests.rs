//! With the index, every record goes to the groups that the plain scan over all rules finds.

use super::*;
use crate::config;
use crate::log_file::LogFiles;
use crate::record::FieldPlan;
use crate::rules::Limits;

const RECORDS: &str = include_str!("../../tests/data/records/openbao-2.7.2.jsonl");
const RULES: [&str; 2] = [
    include_str!("../../tests/data/rules/typical10.txt"),
    include_str!("../../tests/data/rules/mixed1000.txt"),
];

/// A pipeline with these groups of rules; the last group is the fallback.
fn pipeline(groups: &[Vec<&str>], dir: &std::path::Path) -> Pipeline {
    std::fs::create_dir_all(dir).expect("a temporary directory");
    let registry = Registry::new();
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
            log_file: None,
            sinks: Vec::new(),
            matches: registry.counter(&metrics::GROUP_MATCHES, &[&name]),
        });
    }
    let quarantine = config::LogFile::at(dir.join("quarantine.log"));
    let quarantine = LogFiles::new().open(&quarantine, &registry).expect("a log file");
    let fallback = Some(groups.len() - 1);
    Pipeline::new(plan.build(), built, fallback, Quarantine::new(quarantine), &registry).expect("a pipeline")
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
        pipeline.evaluate(&frames, &mut worker);
        let found: Vec<(usize, usize, bool)> =
            worker.hits.iter().map(|hit| (hit.frame, hit.group, hit.by_rules)).collect();
        assert_eq!(found, plain(&pipeline, &frames));
        assert!(found.iter().any(|(.., by_rules)| *by_rules));
    }
    let _ = std::fs::remove_dir_all(&dir);
}

/// What every group says of every frame, rule after rule.
fn plain(pipeline: &Pipeline, frames: &[&[u8]]) -> Vec<(usize, usize, bool)> {
    let fallback = pipeline.groups.len() - 1;
    let (mut decode, mut eval) = (DecodeScratch::default(), EvalScratch::default());
    let mut hits = Vec::new();
    for (number, frame) in frames.iter().enumerate() {
        let record = pipeline.decoder.decode(frame, &mut decode).expect("a real record is valid");
        let before = hits.len();
        for (group, rules) in pipeline.groups[..fallback].iter().enumerate() {
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
