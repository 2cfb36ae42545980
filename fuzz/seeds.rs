//! Writes the seed corpus, `corpus/TARGET/*`, from the tables and records in `../tests/data`.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

type Seeds = BTreeSet<Vec<u8>>;

fn main() -> Result<(), Box<dyn Error>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let data = here.join("../tests/data");
    let records = lines(&data.join("records"), "jsonl")?;
    let rules = rules(&data)?;
    write(&here.join("corpus/decode"), &records.iter().map(|record| record.clone().into_bytes()).collect())?;
    write(&here.join("corpus/rule_compile"), &rules.iter().map(|rule| rule.clone().into_bytes()).collect())?;
    // Short records, so that a change hits the rule often; each rule with another one.
    let short: Vec<&String> = records.iter().filter(|record| record.len() < 1_000).collect();
    let pairs = rules.iter().zip(short.iter().cycle()).map(|(rule, record)| format!("{rule}\n{record}"));
    write(&here.join("corpus/rule_evaluate"), &pairs.map(String::into_bytes).collect())?;
    let requests = fs::read_to_string(data.join("http_requests.tsv"))?;
    let requests = requests.lines().filter_map(|line| Some(unescape(line.split_once('\t')?.1)));
    write(
        &here.join("corpus/http_framer"),
        &requests.map(|request| behind(&[6, 0, 40, 3], request)).collect(),
    )?;
    let streams = short.chunks(3).map(|lines| {
        let text = lines.iter().map(|line| &line[..line.len().min(90)]).collect::<Vec<_>>().join("\n");
        behind(&[80, 9, 6, 1, 40, 3], text.into_bytes())
    });
    write(&here.join("corpus/line_framer"), &streams.collect())
}

/// All lines of the files in a directory, each once.
fn lines(dir: &Path, extension: &str) -> Result<BTreeSet<String>, Box<dyn Error>> {
    let mut all = BTreeSet::new();
    for entry in fs::read_dir(dir)? {
        let path: PathBuf = entry?.path();
        if path.extension().is_some_and(|found| found == extension) {
            all.extend(fs::read_to_string(path)?.lines().map(str::to_owned));
        }
    }
    Ok(all)
}

/// The rules of operators, the nasty ones, and a part of the table of the language.
fn rules(data: &Path) -> Result<BTreeSet<String>, Box<dyn Error>> {
    let mut rules: BTreeSet<String> = BTreeSet::new();
    for row in lines(&data.join("conformance"), "jsonl")?.iter().step_by(4) {
        let row: serde_json::Value = serde_json::from_str(row)?;
        rules.extend(row["expr"].as_str().map(str::to_owned));
    }
    for file in ["typical10.txt", "nasty.txt"] {
        let text = fs::read_to_string(data.join("rules").join(file))?;
        rules.extend(text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned));
    }
    Ok(rules)
}

fn behind(start: &[u8], rest: Vec<u8>) -> Vec<u8> {
    start.iter().copied().chain(rest).collect()
}

/// The escapes of the table of requests.
fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((byte, behind)) = rest.split_first() {
        rest = behind;
        let (byte, behind) = match (byte, rest) {
            (b'\\', [b'r', behind @ ..]) => (b'\r', behind),
            (b'\\', [b'n', behind @ ..]) => (b'\n', behind),
            (b'\\', [b't', behind @ ..]) => (b'\t', behind),
            (b'\\', [b'x', high, low, behind @ ..]) => {
                let digits = [*high, *low];
                let digits = std::str::from_utf8(&digits).unwrap_or_default();
                (u8::from_str_radix(digits, 16).unwrap_or_default(), behind)
            }
            (b'\\', [other, behind @ ..]) => (*other, behind),
            _ => (*byte, rest),
        };
        out.push(byte);
        rest = behind;
    }
    out
}

fn write(dir: &Path, seeds: &Seeds) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(dir)?;
    for (number, seed) in seeds.iter().enumerate() {
        fs::write(dir.join(format!("seed-{number:05}")), seed)?;
    }
    Ok(())
}
