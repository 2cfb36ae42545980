//! Lines of every node of a YAML document, in the shape of the document.
//!
//! `serde_yaml` gives values without places; this walks the events of `saphyr-parser` over the same text and keeps the
//! lines only. Where the two disagree about a document, lines are missing and nothing else is lost.

use std::collections::HashMap;
use std::rc::Rc;

use saphyr_parser::{Event, Parser, Span};

/// Nesting beyond which lines are not kept; `serde_yaml` refuses documents deeper than 128.
const DEPTH_MAX: usize = 130;

/// Where a node begins, and where its children do.
#[derive(Debug)]
pub(super) struct Mark {
    /// Line, from 1.
    pub(super) line: u32,
    pub(super) children: Children,
}

/// The children of a node.
#[derive(Debug)]
pub(super) enum Children {
    None,
    /// Items of a list.
    List(Vec<Rc<Mark>>),
    /// Keys and values of a mapping, as written.
    Map(Vec<(Rc<Mark>, Rc<Mark>)>),
}

/// The marks of the first document of `text`; `None` where this parser cannot read it.
pub(super) fn marks(text: &str) -> Option<Rc<Mark>> {
    let mut walk = Walk { parser: Parser::new_from_str(text), anchors: HashMap::new() };
    loop {
        match walk.parser.next_event()?.ok()? {
            (Event::StreamStart | Event::DocumentStart(_) | Event::Nothing, _) => {}
            (Event::StreamEnd | Event::DocumentEnd, _) => return None,
            (event, span) => return walk.node(event, span, 0),
        }
    }
}

struct Walk<'t> {
    parser: Parser<'t, saphyr_parser::StrInput<'t>>,
    anchors: HashMap<usize, Rc<Mark>>,
}

impl<'t> Walk<'t> {
    fn next(&mut self) -> Option<(Event<'t>, Span)> {
        self.parser.next_event()?.ok()
    }

    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Option<Rc<Mark>> {
        if depth > DEPTH_MAX {
            return None;
        }
        let line = u32::try_from(span.start.line()).unwrap_or(0);
        let (anchor, children) = match event {
            Event::Alias(anchor) => return self.anchors.get(&anchor).cloned(),
            Event::Scalar(_, _, anchor, _) => (anchor, Children::None),
            Event::SequenceStart(anchor, _) => (anchor, self.list(depth)?),
            Event::MappingStart(anchor, _) => (anchor, self.map(depth)?),
            _ => return None,
        };
        let mark = Rc::new(Mark { line, children });
        if anchor > 0 {
            self.anchors.insert(anchor, mark.clone());
        }
        Some(mark)
    }

    fn list(&mut self, depth: usize) -> Option<Children> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Some(Children::List(items)),
                (event, span) => items.push(self.node(event, span, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Option<Children> {
        let mut entries = Vec::new();
        loop {
            let (event, span) = match self.next()? {
                (Event::MappingEnd, _) => return Some(Children::Map(entries)),
                key => key,
            };
            let key = self.node(event, span, depth + 1)?;
            let (event, span) = self.next()?;
            entries.push((key, self.node(event, span, depth + 1)?));
        }
    }
}
