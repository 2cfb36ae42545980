//! What searches: a comparison of bytes where the pattern is no more than that, else a DFA built in advance, else
//! the meta engine of `regex-automata`.
//!
//! A DFA needs no cache, so any number of threads may use it at once without locks or allocation. A pattern whose
//! DFA would be too large goes to the meta engine, which keeps a pool of caches.

use memchr::memmem::{self, Finder};
use regex_automata::dfa::{Automaton, StartKind, dense};
use regex_automata::nfa::thompson::{self, NFA, WhichCaptures};
use regex_automata::util::prefilter::Prefilter;
use regex_automata::{Anchored, Input, MatchKind, meta};
use regex_syntax::hir::{Hir, HirKind, Look, Repetition};

use super::RegexLimits;
use super::node::never_matches;

/// States of an NFA whose DFA is tried.
const DFA_NFA_STATES_MAX: usize = 2000;
/// Memory for building a DFA, in units of the finished one.
const DFA_BUILD_FACTOR: usize = 8;
/// Room for building a program, in units of the limit that its reckoned size has kept to: builders need more than what is left
/// in the end, and what reads backwards shares less.
const PROGRAM_BUILD_FACTOR: usize = 4;
/// Bytes of a one-pass DFA inside the meta engine.
const ONEPASS_BYTES_MAX: usize = 64 * 1024;

/// A text comparison that a whole pattern comes down to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LiteralTest<'a> {
    /// Every text matches.
    Always,
    /// No text matches.
    Never,
    /// The text is this one.
    Equals(&'a str),
    /// The text starts with this.
    StartsWith(&'a str),
    /// The text ends with this.
    EndsWith(&'a str),
    /// The text holds this.
    Contains(&'a str),
}

#[derive(Debug)]
pub(super) enum Engine {
    Always,
    Never,
    Equals(String),
    StartsWith(String),
    EndsWith(String),
    Contains(String, Box<Finder<'static>>),
    Dfa(Box<dense::DFA<Vec<u32>>>, Anchored),
    /// With the number of states of the NFA.
    Meta(Box<meta::Regex>, usize),
}

/// A text of up to so many bytes costs [`ORDINARY_TEXT_STEPS_MAX`] at most.
const ORDINARY_TEXT_BYTES: usize = 16 * 1024;
/// A quarter of the steps that an evaluation has by default.
const ORDINARY_TEXT_STEPS_MAX: usize = 25_000;

impl Engine {
    /// The engine for `hir`, which has been through [`trim`]; `None` if the program would be too large.
    pub(super) fn new(hir: &Hir, limits: &RegexLimits) -> Option<Engine> {
        if let Some(engine) = Engine::literal(hir) {
            return Some(engine);
        }
        let config = thompson::Config::new()
            .which_captures(WhichCaptures::None)
            .nfa_size_limit(Some(program_build_bytes_max(limits)));
        let nfa = thompson::Compiler::new().configure(config).build_from_hir(hir).ok()?;
        Engine::dfa(hir, &nfa, limits).or_else(|| Engine::meta(hir, nfa.states().len(), limits))
    }

    fn literal(hir: &Hir) -> Option<Engine> {
        let single = std::slice::from_ref(hir);
        let mut subs = match hir.kind() {
            HirKind::Concat(subs) => subs.as_slice(),
            HirKind::Empty => &[],
            _ => single,
        };
        if never_matches(hir) {
            return Some(Engine::Never);
        }
        let mut take = |look: Look, first: bool| {
            let sub = if first { subs.first() } else { subs.last() };
            let found = matches!(sub.map(Hir::kind), Some(HirKind::Look(found)) if *found == look);
            if found {
                subs = if first { &subs[1..] } else { &subs[..subs.len() - 1] };
            }
            found
        };
        let (start, end) = (take(Look::Start, true), take(Look::End, false));
        let text = match subs {
            [] => String::new(),
            [sub] => match sub.kind() {
                HirKind::Literal(literal) => String::from_utf8(literal.0.to_vec()).ok()?,
                _ => return None,
            },
            _ => return None,
        };
        // U+FFFD stands for invalid bytes as well, so it cannot be compared byte by byte.
        if text.contains(char::REPLACEMENT_CHARACTER) {
            return None;
        }
        Some(match (start, end) {
            (true, true) => Engine::Equals(text),
            _ if text.is_empty() => Engine::Always,
            (true, false) => Engine::StartsWith(text),
            (false, true) => Engine::EndsWith(text),
            (false, false) => {
                let finder = Finder::new(&text).into_owned();
                Engine::Contains(text, Box::new(finder))
            }
        })
    }

    fn dfa(hir: &Hir, nfa: &NFA, limits: &RegexLimits) -> Option<Engine> {
        if nfa.states().len() > DFA_NFA_STATES_MAX {
            return None;
        }
        let at_start = anchored_at_start(hir);
        let (start_kind, anchored) = if at_start {
            (StartKind::Anchored, Anchored::Yes)
        } else {
            (StartKind::Unanchored, Anchored::No)
        };
        let prefilter =
            if at_start { None } else { Prefilter::from_hir_prefix(MatchKind::LeftmostFirst, hir) };
        let config = dense::Config::new()
            .start_kind(start_kind)
            .specialize_start_states(prefilter.is_some())
            .prefilter(prefilter)
            .dfa_size_limit(Some(limits.dfa_bytes_max))
            .determinize_size_limit(Some(limits.dfa_bytes_max.saturating_mul(DFA_BUILD_FACTOR)));
        let dfa = dense::Builder::new().configure(config).build_from_nfa(nfa).ok()?;
        Some(Engine::Dfa(Box::new(dfa), anchored))
    }

    fn meta(hir: &Hir, states: usize, limits: &RegexLimits) -> Option<Engine> {
        let config = meta::Config::new()
            .which_captures(WhichCaptures::None)
            .nfa_size_limit(Some(program_build_bytes_max(limits)))
            .onepass_size_limit(Some(ONEPASS_BYTES_MAX))
            .hybrid_cache_capacity(limits.cache_bytes_max);
        let regex = meta::Builder::new().configure(config).build_from_hir(hir).ok()?;
        Some(Engine::Meta(Box::new(regex), states))
    }

    pub(super) fn literal_test(&self) -> Option<LiteralTest<'_>> {
        Some(match self {
            Engine::Always => LiteralTest::Always,
            Engine::Never => LiteralTest::Never,
            Engine::Equals(text) => LiteralTest::Equals(text),
            Engine::StartsWith(text) => LiteralTest::StartsWith(text),
            Engine::EndsWith(text) => LiteralTest::EndsWith(text),
            Engine::Contains(text, _) => LiteralTest::Contains(text),
            Engine::Dfa(..) | Engine::Meta(..) => return None,
        })
    }

    /// Whether the answer for bytes that are not UTF-8 may differ from the one for the text that they stand for.
    pub(super) fn needs_utf8(&self) -> bool {
        self.literal_test().is_none()
    }

    #[inline]
    pub(super) fn is_match(&self, text: &[u8]) -> bool {
        match self {
            Engine::Always => true,
            Engine::Never => false,
            Engine::Equals(want) => text == want.as_bytes(),
            Engine::StartsWith(want) => text.starts_with(want.as_bytes()),
            Engine::EndsWith(want) => text.ends_with(want.as_bytes()),
            Engine::Contains(_, finder) => finder.find(text).is_some(),
            Engine::Dfa(dfa, anchored) => {
                let input = Input::new(text).anchored(*anchored).earliest(true);
                // Errors are about quit bytes and start states that were not built: neither is possible here.
                dfa.try_search_fwd(&input).is_ok_and(|found| found.is_some())
            }
            Engine::Meta(regex, _) => regex.is_match(text),
        }
    }

    /// The work of searching so many bytes, in steps of [`crate::rules::Limits`]. The meta engine may have to follow every state
    /// at every byte, though it seldom has to: a text of ordinary length is searched whatever the pattern, a few times in one evaluation.
    pub(super) fn steps(&self, bytes: usize) -> usize {
        match self {
            Engine::Meta(_, states) => {
                let worst = bytes.saturating_mul(*states) / 32;
                if bytes <= ORDINARY_TEXT_BYTES { worst.min(ORDINARY_TEXT_STEPS_MAX) } else { worst }
            }
            Engine::Dfa(..) => bytes / 8,
            _ => bytes / 64,
        }
    }

    /// Heap bytes of the program, without the caches that the meta engine makes when it is used.
    pub(super) fn memory_bytes(&self) -> usize {
        match self {
            Engine::Always | Engine::Never => 0,
            Engine::Equals(text) | Engine::StartsWith(text) | Engine::EndsWith(text) => text.len(),
            Engine::Contains(text, finder) => {
                2 * text.len() + std::mem::size_of_val::<memmem::Finder<'_>>(finder)
            }
            Engine::Dfa(dfa, _) => dfa.memory_usage(),
            Engine::Meta(regex, _) => regex.memory_usage(),
        }
    }
}

fn program_build_bytes_max(limits: &RegexLimits) -> usize {
    limits.program_bytes_max.saturating_mul(PROGRAM_BUILD_FACTOR)
}

/// Every match begins at the start of the text.
pub(super) fn anchored_at_start(hir: &Hir) -> bool {
    hir.properties().look_set_prefix().contains(Look::Start)
}

/// Every match ends at the end of the text.
pub(super) fn anchored_at_end(hir: &Hir) -> bool {
    hir.properties().look_set_suffix().contains(Look::End)
}

/// Takes away at both ends what cannot change whether a text matches: what may be empty, and copies beyond the
/// least number. `^sys/.*` becomes `^sys/`.
pub(super) fn trim(hir: Hir) -> Hir {
    let mut subs = match hir.kind() {
        HirKind::Concat(_) => match hir.into_kind() {
            HirKind::Concat(subs) => subs,
            _ => return Hir::empty(),
        },
        _ => vec![hir],
    };
    while subs.last().is_some_and(matches_empty) {
        subs.pop();
    }
    let optional = subs.iter().take_while(|sub| matches_empty(sub)).count();
    subs.drain(..optional);
    if let Some(last) = subs.pop() {
        subs.push(least_copies(last));
    }
    if let Some(first) = subs.first_mut() {
        let whole = std::mem::replace(first, Hir::empty());
        *first = least_copies(whole);
    }
    Hir::concat(subs)
}

/// `hir` matches the empty text wherever it stands.
fn matches_empty(hir: &Hir) -> bool {
    match hir.kind() {
        HirKind::Empty => true,
        HirKind::Repetition(repetition) if repetition.min == 0 => true,
        _ => hir.properties().minimum_len() == Some(0) && hir.properties().look_set().is_empty(),
    }
}

fn least_copies(hir: Hir) -> Hir {
    match hir.kind() {
        HirKind::Repetition(Repetition { min, max, .. }) if *max != Some(*min) => match hir.into_kind() {
            HirKind::Repetition(repetition) => {
                Hir::repetition(Repetition { max: Some(repetition.min), ..repetition })
            }
            _ => Hir::empty(),
        },
        _ => hir,
    }
}
