//! Which fields to extract: collected from rules and templates, then built into a [`Decoder`].

use super::SlotId;
use super::decode::Decoder;
use super::tree::{Node, NodeId, Tree};

/// The plan's node for the record itself.
const ROOT: usize = 0;

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
    children: Vec<(String, usize)>,
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
        *self.nodes[node].slot.get_or_insert_with(|| {
            let slot = SlotId(self.slots);
            self.slots += 1;
            slot
        })
    }

    fn child(&mut self, parent: usize, key: &str) -> usize {
        if let Some((_, node)) = self.nodes[parent].children.iter().find(|(name, _)| name == key) {
            return *node;
        }
        let node = self.nodes.len();
        self.nodes.push(PlanNode::default());
        self.nodes[parent].children.push((key.to_string(), node));
        node
    }

    /// The decoder that extracts what was asked for so far.
    pub fn build(&self) -> Decoder {
        // Nodes with a slot get its number, the others the numbers behind.
        let mut next = self.slots;
        let number = |node: &PlanNode| {
            node.slot.map_or_else(
                || {
                    next += 1;
                    next - 1
                },
                |SlotId(slot)| slot,
            )
        };
        let ids: Vec<NodeId> = self.nodes.iter().map(number).collect();
        let mut order: Vec<usize> = (0..self.nodes.len()).collect();
        order.sort_by_key(|node| ids[*node]);
        let build = |node: usize| {
            Node::new(self.nodes[node].children.iter().map(|(key, child)| (key.as_str(), ids[*child])))
        };
        Decoder::new(Tree::new(ids[ROOT], order.into_iter().map(build).collect()), self.slots)
    }
}
