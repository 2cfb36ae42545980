//! Tests of the record module. serde_json is the oracle wherever it and the decoder mean the same.

mod decode;
mod json;
mod oracle;
mod schema;

use super::{DecodeError, DecodeScratch, FieldPlan, LooksLike, Record, Slot, SlotId};

/// Files of real and published audit entries.
const FILES: [&str; 3] = [
    include_str!("../../../tests/data/records/openbao-2.7.2.jsonl"),
    include_str!("../../../tests/data/records/openbao-2.7.2-log_raw.jsonl"),
    include_str!("../../../tests/data/records/published_examples.jsonl"),
];

/// Every real record.
fn records() -> impl Iterator<Item = &'static str> {
    FILES.iter().flat_map(|file| file.lines())
}

/// A slot that owns what it shows.
#[derive(Debug, Clone, PartialEq)]
enum Owned {
    Unreached,
    Misplaced,
    Absent,
    Null,
    Bool(bool),
    Number(String),
    Str(String),
    Json(String),
}

impl From<Slot<'_>> for Owned {
    fn from(slot: Slot<'_>) -> Owned {
        match slot {
            Slot::Unreached => Owned::Unreached,
            Slot::Misplaced => Owned::Misplaced,
            Slot::Absent => Owned::Absent,
            Slot::Null => Owned::Null,
            Slot::Bool(value) => Owned::Bool(value),
            Slot::Number(text) => Owned::Number(text.to_string()),
            Slot::Str(text) => Owned::Str(text.to_string()),
            Slot::Json(text) => Owned::Json(String::from_utf8(text.to_vec()).unwrap()),
        }
    }
}

fn path(text: &str) -> Vec<&str> {
    text.split('.').filter(|key| !key.is_empty()).collect()
}

/// Decodes `frame` and shows the fields at `paths` (`a.b.c`; "" is the whole record). The walk for any frame has the same answer as the
/// one that is taken.
fn slots(frame: &[u8], paths: &[&str]) -> Result<Vec<Owned>, DecodeError> {
    let mut plan = FieldPlan::new();
    let ids: Vec<SlotId> = paths.iter().map(|text| plan.want(&path(text))).collect();
    let decoder = plan.build();
    let show = |record: Record<'_>| -> (Vec<u8>, Vec<Owned>) {
        (record.bytes().to_vec(), ids.iter().map(|id| record.slot(*id).into()).collect())
    };
    let taken = decoder.decode(frame, &mut DecodeScratch::default()).map(show);
    let careful = decoder.carefully(frame, &mut DecodeScratch::default()).map(show);
    assert_eq!(taken, careful, "{}", String::from_utf8_lossy(frame));
    taken.map(|(_, slots)| slots)
}

fn slot(frame: &str, path: &str) -> Owned {
    slots(frame.as_bytes(), &[path]).unwrap().remove(0)
}

fn string(text: &str) -> Owned {
    Owned::Str(text.to_string())
}

fn error(frame: impl AsRef<[u8]>) -> DecodeError {
    slots(frame.as_ref(), &["request.path"]).unwrap_err()
}
