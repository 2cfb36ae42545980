//! Which fields to extract: collected from rules and templates, then built into a [`Decoder`].

use super::SlotId;
use super::decode::{Decoder, WantedKey};

/// Index of a node in a [`Decoder`]'s tree of wanted keys.
pub(super) type NodeId = u32;

/// The tree's root: the record itself.
pub(super) const ROOT: NodeId = 0;

/// The fields that some rule or template reads.
///
/// Collect with [`FieldPlan::want`], then [`FieldPlan::build`]. Building does not use the plan up: it can grow and be built again, and
/// the numbers handed out stay valid for every later decoder.
#[derive(Debug, Clone)]
pub struct FieldPlan {
    nodes: Vec<PlanNode>,
    slots: u32,
}

#[derive(Debug, Clone, Default)]
struct PlanNode {
    slot: Option<SlotId>,
    children: Vec<(String, NodeId)>,
}

impl Default for FieldPlan {
    fn default() -> FieldPlan {
        FieldPlan::new()
    }
}

impl FieldPlan {
    /// A plan that extracts nothing: its decoder only validates.
    pub fn new() -> FieldPlan {
        FieldPlan { nodes: vec![PlanNode::default()], slots: 0 }
    }

    /// Asks for the value at `path`, JSON keys from the root (`["request", "path"]`); the empty path is the whole record.
    ///
    /// The same path gets the same number. A path may go on below another wanted one; each has its own slot. Keys are compared exactly,
    /// after unescaping; arrays are not entered.
    pub fn want(&mut self, path: &[&str]) -> SlotId {
        let mut node = ROOT;
        for key in path {
            node = self.child(node, key);
        }
        let node = &mut self.nodes[node as usize];
        *node.slot.get_or_insert_with(|| {
            let slot = SlotId(self.slots);
            self.slots += 1;
            slot
        })
    }

    fn child(&mut self, parent: NodeId, key: &str) -> NodeId {
        if let Some((_, node)) = self.nodes[parent as usize].children.iter().find(|(name, _)| name == key) {
            return *node;
        }
        let node = NodeId::try_from(self.nodes.len()).unwrap_or(NodeId::MAX);
        self.nodes.push(PlanNode::default());
        self.nodes[parent as usize].children.push((key.to_string(), node));
        node
    }

    /// The decoder that extracts what was asked for so far.
    pub fn build(&self) -> Decoder {
        let mut between = self.slots;
        let mut states = Vec::with_capacity(self.nodes.len());
        let mut keys = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            states.push(match node.slot {
                Some(SlotId(slot)) => slot,
                None => {
                    between += 1;
                    between - 1
                }
            });
            let wanted = node.children.iter();
            let wanted = wanted.map(|(name, node)| WantedKey { name: name.as_bytes().into(), node: *node });
            keys.push(wanted.collect());
        }
        Decoder::new(keys, states, self.slots)
    }
}
