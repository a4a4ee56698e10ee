//! A prefix tree that is built once and asked often.

use std::collections::VecDeque;

/// Node 0 is the root.
pub(super) type NodeId = u32;
pub(super) const ROOT: NodeId = 0;

/// Keys as sequences of labels, each with numbers as values.
///
/// Nodes lie level by level, so that the children of one are neighbours, in the order of their labels.
#[derive(Debug, Clone)]
pub(super) struct Trie<L> {
    /// The label that leads to each node; unused for the root.
    labels: Vec<L>,
    /// The first child of each node, then the number of nodes.
    first_child: Vec<NodeId>,
    /// The first value of each node, then the number of values.
    first_value: Vec<u32>,
    values: Vec<u32>,
}

impl<L: Copy + Ord + Default> Trie<L> {
    /// Sorts the keys; equal keys keep all their values.
    pub(super) fn new(mut entries: Vec<(Vec<L>, u32)>) -> Self {
        entries.sort();
        let mut trie =
            Self { labels: vec![L::default()], first_child: Vec::new(), first_value: Vec::new(), values: Vec::new() };
        // Ranges of entries that share their first `depth` labels, one for each node in order.
        let mut open = VecDeque::from([(0, entries.len(), 0)]);
        while let Some((start, end, depth)) = open.pop_front() {
            trie.first_value.push(trie.values.len() as u32);
            // The nodes of the ranges that wait come before.
            trie.first_child.push(trie.labels.len() as NodeId);
            let mut at = start;
            while at < end && entries[at].0.len() == depth {
                trie.values.push(entries[at].1);
                at += 1;
            }
            while at < end {
                let label = entries[at].0[depth];
                let num = entries[at..end].partition_point(|(key, _)| key[depth] == label);
                trie.labels.push(label);
                open.push_back((at, at + num, depth + 1));
                at += num;
            }
        }
        trie.first_child.push(trie.labels.len() as NodeId);
        trie.first_value.push(trie.values.len() as u32);
        trie
    }

    pub(super) fn len(&self) -> usize {
        self.labels.len()
    }

    /// The node of a prefix and one label more.
    pub(super) fn child(&self, node: NodeId, label: L) -> Option<NodeId> {
        let range = self.child_range(node);
        let at = self.labels[range.clone()].binary_search(&label).ok()?;
        Some((range.start + at) as NodeId)
    }

    /// The children with the labels that lead to them.
    pub(super) fn children(&self, node: NodeId) -> impl Iterator<Item = (L, NodeId)> {
        let range = self.child_range(node);
        (range.start as NodeId..).zip(&self.labels[range]).map(|(child, label)| (*label, child))
    }

    pub(super) fn has_children(&self, node: NodeId) -> bool {
        !self.child_range(node).is_empty()
    }

    /// The values of the key that ends here.
    pub(super) fn values(&self, node: NodeId) -> &[u32] {
        &self.values[self.first_value[node as usize] as usize..self.first_value[node as usize + 1] as usize]
    }

    /// For each node the best of a number for its own values and those of its children.
    pub(super) fn best_below<T: Copy>(
        &self,
        worst: T,
        own: impl Fn(NodeId, &[u32]) -> T,
        better: impl Fn(T, T) -> T,
    ) -> Vec<T> {
        let mut best: Vec<T> = (0..).zip(0..self.len()).map(|(node, _)| own(node, self.values(node))).collect();
        // Children lie behind their parents.
        for node in (0..self.len()).rev() {
            let below = best[self.child_range(node as NodeId)].iter().copied().fold(worst, &better);
            best[node] = better(best[node], below);
        }
        best
    }

    fn child_range(&self, node: NodeId) -> std::ops::Range<usize> {
        self.first_child[node as usize] as usize..self.first_child[node as usize + 1] as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trie(words: &[&str]) -> Trie<char> {
        Trie::new((0..).zip(words).map(|(value, word)| (word.chars().collect(), value)).collect())
    }

    fn find(trie: &Trie<char>, word: &str) -> Option<NodeId> {
        word.chars().try_fold(ROOT, |node, label| trie.child(node, label))
    }

    #[test]
    fn keys_and_only_keys_have_values() {
        let words = ["to", "tea", "ten", "i", "in", "inn", "ten", "ä"];
        let trie = trie(&words);
        for (word, values) in [("to", vec![0]), ("ten", vec![2, 6]), ("i", vec![3]), ("in", vec![4]), ("te", vec![])] {
            assert_eq!(trie.values(find(&trie, word).expect("a prefix")), values, "{word}");
        }
        assert!(["x", "tex", "inns", "ab"].iter().all(|word| find(&trie, word).is_none()));
        assert_eq!(trie.len(), 1 + "t o te tea ten i in inn ä".split(' ').count());
    }

    #[test]
    fn children_come_in_order_and_lead_where_a_search_leads() {
        let trie = trie(&["b", "a", "c", "ab"]);
        let children: Vec<(char, NodeId)> = trie.children(ROOT).collect();
        assert_eq!(children.iter().map(|(label, _)| *label).collect::<String>(), "abc");
        assert!(children.iter().all(|(label, node)| trie.child(ROOT, *label) == Some(*node)));
        assert!(trie.has_children(children[0].1) && !trie.has_children(children[1].1));
    }

    #[test]
    fn the_best_below_a_node_is_that_of_all_keys_with_its_prefix() {
        let trie = trie(&["ab", "ac", "a", "b"]);
        let scores = [3, 7, 5, 4];
        let own = |_, values: &[u32]| values.iter().map(|value| scores[*value as usize]).max().unwrap_or(0);
        let best = trie.best_below(0, own, |a: i32, b| a.max(b));
        for (prefix, want) in [("", 7), ("a", 7), ("ab", 3), ("ac", 7), ("b", 4)] {
            assert_eq!(best[find(&trie, prefix).expect("a prefix") as usize], want, "{prefix}");
        }
    }

    #[test]
    fn without_keys_there_is_only_the_root() {
        let trie = trie(&[]);
        assert_eq!((trie.len(), trie.values(ROOT).len(), trie.has_children(ROOT)), (1, 0, false));
    }
}
