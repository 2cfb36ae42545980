//! An index over the rules of several groups: which of them can be true of a record at all.
//!
//! Every rule that can be so reduced has a set of witnesses, one of which a record must have for the rule to be true: this
//! string in that field, or at its beginning, end or anywhere in it, or this element in that array. Each field is looked
//! up once, whatever the number of rules. Rules without witnesses are always candidates. Candidates are then evaluated as ever,
//! in their order, so that matches, and the first matching rule of a group, are those of the plain scan.
//!
//! A rule that is no candidate cannot be true, but it might have failed: **its error is then not counted**, since the rule is
//! not evaluated. Where the looked-up field itself has another type than the schema says, the rules that need it are
//! candidates, so that they fail and are counted as without the index.
//!
//! The cost is linear in the rules that share a witness: ten thousand rules that say nothing but `Request.Operation ==
//! "read"` are all candidates of each record that is a read.

mod tables;
#[cfg(test)]
mod tests;
mod witness;

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use super::Rule;
use crate::record::{Record, Slot, json};
use tables::{Anywhere, Beginnings, RuleSet, Texts};
use witness::{Need, Part, Subject, Test, Witness};

/// Below this number of rules, looking at each of them is as fast.
pub const RULES_MIN: usize = 16;

/// Bytes of a text that a scratch keeps room for.
const TEXT_BYTES_KEPT: usize = 64 * 1024;

/// The rules that can be true of a record, by what the record holds. Immutable; any number of threads may use it.
#[derive(Debug)]
pub struct RuleIndex {
    tables: Vec<Table>,
    /// Rules without a witness.
    always: RuleSet,
    /// The numbers of each group's rules.
    groups: Vec<Range<usize>>,
}

/// Memory that look-ups use again. One for each thread.
#[derive(Debug, Default)]
pub struct IndexScratch {
    found: RuleSet,
    text: Text,
}

/// Room for texts that are not in the record as they are looked up.
#[derive(Debug, Default)]
struct Text {
    unescaped: String,
    folded: Vec<u8>,
    reversed: Vec<u8>,
}

/// The candidates of one record.
#[derive(Debug, Clone, Copy)]
pub struct Candidates<'s> {
    found: &'s RuleSet,
    groups: &'s [Range<usize>],
}

impl<'s> Candidates<'s> {
    /// The candidates of a group: numbers of its rules in ascending order. Nothing for a group that the index does not have.
    pub fn of_group(&self, group: usize) -> impl Iterator<Item = usize> + use<'s> {
        let Range { start, end } = self.groups.get(group).cloned().unwrap_or_default();
        let (found, mut next) = (self.found, start);
        std::iter::from_fn(move || {
            let rule = found.next(next).filter(|rule| *rule < end)?;
            next = rule + 1;
            Some(rule - start)
        })
    }
}

impl RuleIndex {
    /// An index, unless the rules are fewer than [`RULES_MIN`]: then all of them are evaluated.
    pub fn unless_few(groups: &[Vec<&Rule>]) -> Option<RuleIndex> {
        (groups.iter().map(Vec::len).sum::<usize>() >= RULES_MIN).then(|| RuleIndex::build(groups))
    }

    /// An index over the rules of several groups that are evaluated together. All of them must have been compiled with one
    /// [`FieldPlan`](crate::record::FieldPlan).
    pub fn build(groups: &[Vec<&Rule>]) -> RuleIndex {
        let mut start = 0;
        let ranges = groups.iter().map(|rules| {
            let range = start..start + rules.len();
            start = range.end;
            range
        });
        let ranges: Vec<Range<usize>> = ranges.collect();
        let needs: Vec<Need> =
            groups.iter().flatten().map(|rule| witness::of_rule(&rule.expr.code)).collect();
        let mut uses: HashMap<&Witness, u64> = HashMap::new();
        for need in &needs {
            need.each(&mut |witness| *uses.entry(witness).or_default() += 1);
        }
        let cost =
            |witness: &Witness| uses.get(witness).copied().unwrap_or(1).saturating_mul(likelihood(witness));
        let mut always = RuleSet::with_room(needs.len());
        let mut builders: BTreeMap<Subject, Builder> = BTreeMap::new();
        for (rule, need) in (0_u32..).zip(&needs) {
            match need.cheapest(&cost) {
                None => always.insert(&[rule]),
                Some((_, witnesses)) => {
                    for witness in witnesses {
                        builders.entry(witness.subject).or_default().add(witness, rule);
                    }
                }
            }
        }
        let tables = builders.into_iter().map(|(subject, builder)| builder.build(subject, &mut always));
        let tables = tables.collect();
        RuleIndex { tables, always, groups: ranges }
    }

    /// The rules that can be true of `record`: every rule that is true of it is among them. Does not block; allocates nothing
    /// once the scratch has seen a few records. Takes time in proportion to the looked-up fields, the logarithm of the number of
    /// rules, and the number of candidates.
    pub fn candidates<'s>(&'s self, record: &Record<'_>, scratch: &'s mut IndexScratch) -> Candidates<'s> {
        scratch.found.copy_from(&self.always);
        for table in &self.tables {
            if !table.look_up(record, &mut scratch.found, &mut scratch.text) {
                scratch.found.insert(&table.rules);
            }
        }
        Candidates { found: &scratch.found, groups: &self.groups }
    }
}

/// How likely a record has a witness, roughly, with the price of looking for it; only the ratios matter.
fn likelihood(witness: &Witness) -> u64 {
    let short = witness.text.len() < 4;
    let chance = match witness.test {
        Test::Equals => 1,
        Test::StartsWith | Test::EndsWith if short => 8,
        Test::StartsWith | Test::EndsWith => 2,
        Test::Contains if short => 16,
        Test::Contains => 4,
    };
    // Several hundred rules may share a better witness before this one is preferred to it.
    if witness.weak { chance * 256 } else { chance }
}

/// The witnesses of one subject while they are collected.
#[derive(Default)]
struct Builder {
    of_test: BTreeMap<Test, BTreeMap<Box<[u8]>, Vec<u32>>>,
}

impl Builder {
    /// Rules come in ascending order.
    fn add(&mut self, witness: &Witness, rule: u32) {
        let rules = self.of_test.entry(witness.test).or_default().entry(witness.text.clone()).or_default();
        if rules.last() != Some(&rule) {
            rules.push(rule);
        }
    }

    fn build(mut self, subject: Subject, always: &mut RuleSet) -> Table {
        let mut rules: Vec<u32> =
            self.of_test.values().flat_map(BTreeMap::values).flatten().copied().collect();
        rules.sort_unstable();
        rules.dedup();
        let mut take =
            |test| -> Texts { self.of_test.remove(&test).unwrap_or_default().into_iter().collect() };
        let beginnings = Beginnings::new(take(Test::Equals), take(Test::StartsWith));
        let mut ends = take(Test::EndsWith);
        ends.iter_mut().for_each(|(text, _)| text.reverse());
        let anywhere = take(Test::Contains);
        let searcher = if anywhere.is_empty() { None } else { Anywhere::new(&anywhere) };
        if searcher.is_none() {
            anywhere.iter().for_each(|(_, rules)| always.insert(rules));
        }
        Table { subject, beginnings, ends: Beginnings::new(Vec::new(), ends), anywhere: searcher, rules }
    }
}

/// All witnesses of one subject.
#[derive(Debug)]
struct Table {
    subject: Subject,
    beginnings: Beginnings,
    /// Reversed.
    ends: Beginnings,
    anywhere: Option<Anywhere>,
    /// All rules with a witness here.
    rules: Vec<u32>,
}

impl Table {
    /// Adds the rules that have a witness in the record; false if that cannot be told.
    fn look_up(&self, record: &Record<'_>, found: &mut RuleSet, text: &mut Text) -> bool {
        let slot = self.subject.slot;
        match self.subject.part {
            Part::Truth => match record.slot(slot) {
                Slot::Bool(true) => self.find(witness::TRUE, found, &mut text.reversed),
                Slot::Bool(false) => self.find(witness::FALSE, found, &mut text.reversed),
                slot => slot.is_missing() && self.find(witness::FALSE, found, &mut text.reversed),
            },
            Part::Items => match record.slot(slot) {
                Slot::Json(array) if array.first() == Some(&b'[') => {
                    json::elements(array).all(|node| self.find_item(node, found, text))
                }
                slot => slot.is_missing(),
            },
            Part::Text => {
                record.text_of(slot).is_some_and(|value| self.find(value, found, &mut text.reversed))
            }
            part @ (Part::Lower | Part::Upper) => match record.text_of(slot) {
                // Other letters have rules of their own, which only the rule itself knows.
                Some(value) if value.is_ascii() => {
                    text.folded.clear();
                    text.folded.shrink_to(TEXT_BYTES_KEPT);
                    text.folded.extend_from_slice(value);
                    match part {
                        Part::Lower => text.folded.make_ascii_lowercase(),
                        _ => text.folded.make_ascii_uppercase(),
                    }
                    self.find(&text.folded, found, &mut text.reversed)
                }
                _ => false,
            },
        }
    }

    fn find_item(&self, node: json::Node<'_>, found: &mut RuleSet, text: &mut Text) -> bool {
        match node {
            json::Node::Str(item) if !item.is_escaped() => self.find(item.raw(), found, &mut text.reversed),
            json::Node::Str(item) => {
                text.unescaped.clear();
                text.unescaped.shrink_to(TEXT_BYTES_KEPT);
                item.unescape_into(&mut text.unescaped);
                self.find(text.unescaped.as_bytes(), found, &mut text.reversed)
            }
            json::Node::Null => self.find(b"", found, &mut text.reversed),
            _ => false,
        }
    }

    fn find(&self, text: &[u8], found: &mut RuleSet, reversed: &mut Vec<u8>) -> bool {
        self.beginnings.find(text, found);
        if !self.ends.is_empty() {
            reversed.clear();
            reversed.extend(text.iter().rev().take(self.ends.longest_bytes()));
            self.ends.find(reversed, found);
        }
        self.anywhere.as_ref().is_none_or(|anywhere| anywhere.find(text, found))
    }
}
