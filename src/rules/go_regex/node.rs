//! The pieces of a pattern under construction, with the figures that Go's limits are about.
//!
//! Only whether a text matches is ever asked. Capturing groups and greediness have no part in that, so they leave
//! no trace in the [`Hir`]: `((a)b)` is the literal `ab`, and `(?:a*)*` is `a*`.

use regex_syntax::hir::{Class, ClassUnicode, Hir, HirKind, Repetition};

use super::unicode;

/// An expression that is closed: later input can only repeat it or stand beside it.
#[derive(Debug)]
pub(super) struct Node {
    kind: Kind,
    /// Height of the tree that Go would have built, groups included.
    pub(super) height_levels: u32,
    /// Highest number of copies of anything inside that nested `{n}` ask for.
    pub(super) copies: u32,
}

#[derive(Debug)]
enum Kind {
    /// Characters in a row, all under `(?i)` or none.
    Literal { text: String, folded: bool },
    /// A concatenation, still open for being taken over by a larger one.
    Concat(Vec<Part>),
    /// An alternation, still open for being taken over by a larger one.
    Alternation(Vec<Part>),
    /// Anything else.
    Whole(Part),
}

/// A piece of the final tree and its depth.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) hir: Hir,
    pub(super) depth_levels: u32,
}

impl Part {
    /// `hir` over parts that are at most `inside_levels` deep.
    fn over(inside_levels: u32, hir: Hir) -> Part {
        let depth_levels = match hir.kind() {
            HirKind::Concat(_) | HirKind::Alternation(_) | HirKind::Repetition(_) => inside_levels + 1,
            // Literals in a row are one literal, characters to choose from one class.
            _ => 1,
        };
        Part { hir, depth_levels }
    }

    /// Depth that `self` adds to a concatenation or alternation that holds it, both being flat.
    fn depth_inside(&self, same: fn(&HirKind) -> bool) -> u32 {
        if same(self.hir.kind()) { self.depth_levels.saturating_sub(1) } else { self.depth_levels }
    }
}

impl Node {
    pub(super) fn literal(c: char, folded: bool) -> Node {
        Node { kind: Kind::Literal { text: c.to_string(), folded }, height_levels: 1, copies: 1 }
    }

    /// A node without children: class, assertion, nothing.
    pub(super) fn leaf(hir: Hir) -> Node {
        Node { kind: Kind::Whole(Part { hir, depth_levels: 1 }), height_levels: 1, copies: 1 }
    }

    pub(super) fn class(class: ClassUnicode) -> Node {
        Node::leaf(Hir::class(Class::Unicode(class)))
    }

    /// Takes in `next` if both are literals of one kind; gives it back otherwise.
    pub(super) fn append_literal(&mut self, next: Node) -> Option<Node> {
        match (&mut self.kind, next.kind) {
            (Kind::Literal { text, folded }, Kind::Literal { text: more, folded: more_folded })
                if *folded == more_folded =>
            {
                text.push_str(&more);
                None
            }
            (_, kind) => Some(Node { kind, ..next }),
        }
    }

    /// One node out of `nodes` in a row. Nothing in a row matches the empty text.
    pub(super) fn concat(mut nodes: Vec<Node>) -> Node {
        if nodes.len() <= 1 {
            return nodes.pop().unwrap_or_else(|| Node::leaf(Hir::empty()));
        }
        let (height_levels, copies) = Node::figures(&nodes, |kind| matches!(kind, Kind::Concat(_)));
        let mut parts = Vec::with_capacity(nodes.len());
        for node in nodes {
            match node.kind {
                // The first one is usually the longest.
                Kind::Concat(inner) if parts.is_empty() => parts = inner,
                Kind::Concat(inner) => parts.extend(inner),
                kind => parts.push(kind.into_part()),
            }
        }
        Node { kind: Kind::Concat(parts), height_levels, copies }
    }

    /// One node that matches what any of `nodes`, at least one, matches.
    pub(super) fn alternation(mut nodes: Vec<Node>) -> Node {
        if nodes.len() == 1
            && let Some(node) = nodes.pop()
        {
            return node;
        }
        let (height_levels, copies) = Node::figures(&nodes, |kind| matches!(kind, Kind::Alternation(_)));
        let mut parts = Vec::with_capacity(nodes.len());
        for node in nodes {
            match node.kind {
                Kind::Alternation(inner) if parts.is_empty() => parts = inner,
                Kind::Alternation(inner) => parts.extend(inner),
                kind => parts.push(kind.into_part()),
            }
        }
        Node { kind: Kind::Alternation(parts), height_levels, copies }
    }

    /// Height and copies of a node over `nodes` that takes over the children of those of its own kind.
    fn figures(nodes: &[Node], same: fn(&Kind) -> bool) -> (u32, u32) {
        let height = |node: &Node| node.height_levels - u32::from(same(&node.kind));
        let tallest = nodes.iter().map(height).max().unwrap_or(0);
        (tallest + 1, nodes.iter().map(|node| node.copies).max().unwrap_or(1))
    }

    /// The node of a capturing group. It matches what `self` does and counts as a level of Go's tree.
    pub(super) fn captured(self) -> Node {
        Node {
            height_levels: self.height_levels + 1,
            copies: self.copies,
            kind: Kind::Whole(self.kind.into_part()),
        }
    }

    /// `self`, `min` to `max` times. `counted`: written with braces.
    pub(super) fn repeated(self, min: u32, max: Option<u32>, counted: bool) -> Node {
        let factor = match (counted, max) {
            (false, _) => 1,
            (true, Some(max)) => max,
            (true, None) => min.max(1),
        };
        // `{0}` leaves no copy of what is inside, however often that is repeated.
        let copies = if factor == 0 { 1 } else { self.copies.saturating_mul(factor) };
        let height_levels = self.height_levels + 1;
        let part = self.kind.into_part();
        Node { kind: Kind::Whole(repeat(part, min, max)), height_levels, copies }
    }

    pub(super) fn into_part(self) -> Part {
        self.kind.into_part()
    }
}

impl Kind {
    fn into_part(self) -> Part {
        match self {
            Kind::Whole(part) => part,
            Kind::Literal { text, folded: false } => {
                Part { hir: Hir::literal(text.into_bytes()), depth_levels: 1 }
            }
            Kind::Literal { text, folded: true } => {
                Part::over(1, Hir::concat(text.chars().map(folded_char).collect()))
            }
            Kind::Concat(parts) => {
                let inside =
                    parts.iter().map(|part| part.depth_inside(|kind| matches!(kind, HirKind::Concat(_))));
                let inside_levels = inside.max().unwrap_or(0);
                if parts.iter().any(|part| never_matches(&part.hir)) {
                    return Part { hir: Hir::fail(), depth_levels: 1 };
                }
                Part::over(inside_levels, Hir::concat(parts.into_iter().map(|part| part.hir).collect()))
            }
            Kind::Alternation(mut parts) => {
                parts.retain(|part| !never_matches(&part.hir));
                let inside = parts
                    .iter()
                    .map(|part| part.depth_inside(|kind| matches!(kind, HirKind::Alternation(_))));
                let inside_levels = inside.max().unwrap_or(0);
                let hir = Hir::alternation(parts.into_iter().map(|part| part.hir).collect());
                // Prefixes in common are taken out in front, which adds a level.
                let added = u32::from(matches!(hir.kind(), HirKind::Concat(_)));
                Part::over(inside_levels + added, hir)
            }
        }
    }
}

/// `hir` is the class without members; nothing larger that cannot match is ever built.
pub(super) fn never_matches(hir: &Hir) -> bool {
    matches!(hir.kind(), HirKind::Class(class) if class.is_empty())
}

fn folded_char(c: char) -> Hir {
    if c.is_ascii() && !c.is_ascii_alphabetic() {
        return Hir::literal([c as u8]);
    }
    Hir::class(Class::Unicode(unicode::fold_char(c)))
}

/// A repetition. `*`, `+` and `?` directly inside each other become one of them.
fn repeat(part: Part, min: u32, max: Option<u32>) -> Part {
    let simple = |min: u32, max: Option<u32>| min <= 1 && matches!(max, None | Some(1));
    let Part { hir, depth_levels } = part;
    if never_matches(&hir) {
        return Part { hir: if min == 0 { Hir::empty() } else { hir }, depth_levels };
    }
    let inner = match hir.kind() {
        HirKind::Repetition(inner) if simple(min, max) && simple(inner.min, inner.max) => {
            Some((inner.min, inner.max))
        }
        _ => None,
    };
    match (inner, hir) {
        (Some((inner_min, inner_max)), hir) => {
            let HirKind::Repetition(repetition) = hir.into_kind() else {
                return Part { hir: Hir::empty(), depth_levels: 1 };
            };
            let min = min.min(inner_min);
            let max = if max == Some(1) && inner_max == Some(1) { Some(1) } else { None };
            let repetition = Repetition { min, max, greedy: true, ..repetition };
            Part { hir: Hir::repetition(repetition), depth_levels }
        }
        (None, hir) => {
            let once = (min, max) == (1, Some(1));
            let hir = Hir::repetition(Repetition { min, max, greedy: true, sub: Box::new(hir) });
            if once { Part { hir, depth_levels } } else { Part::over(depth_levels, hir) }
        }
    }
}
