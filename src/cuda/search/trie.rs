//! Tries over the codes of ads, on the host, level by level as `kernels/search.cuh` lays them out.

/// Words of a node: the first of its children, its parent, its code.
pub(super) const NODE_WORDS: usize = 3;

/// Tries below several roots, made from ads in the order of their codes.
///
/// Level 0 holds the roots, level j + 1 the nodes of code layer j. Nodes count from 0 within their level, ads from 0.
pub(super) struct Tries {
    levels: Vec<Level>,
    /// Index of each ad's node in the last level.
    leaves: Vec<u32>,
    /// The newest node of each level.
    newest: Vec<u32>,
}

#[derive(Default)]
struct Level {
    first: Vec<u32>,
    parent: Vec<u32>,
    code: Vec<u16>,
}

impl Level {
    fn push(&mut self, first: usize, parent: u32, code: u16) -> u32 {
        self.first.push(first as u32);
        self.parent.push(parent);
        self.code.push(code);
        self.first.len() as u32 - 1
    }

    fn len(&self) -> usize {
        self.first.len()
    }
}

impl Tries {
    /// No roots yet, for codes of `layers` layers.
    pub(super) fn new(layers: usize) -> Self {
        let levels = (0..=layers).map(|_| Level::default()).collect();
        Self { levels, leaves: Vec::new(), newest: vec![0; layers + 1] }
    }

    /// Forgets all roots, and keeps the memory.
    pub(super) fn clear(&mut self) {
        self.leaves.clear();
        for level in &mut self.levels {
            level.first.clear();
            level.parent.clear();
            level.code.clear();
        }
    }

    /// Adds a root over the ads with these codes `[layers]`, sorted. Returns its index.
    pub(super) fn push_root<'c>(&mut self, ads: impl Iterator<Item = &'c [u16]>) -> usize {
        let layers = self.levels.len() - 1;
        let first = self.levels[1].len();
        self.newest[0] = self.levels[0].push(first, 0, 0);
        let mut before: Option<&[u16]> = None;
        for codes in ads {
            let same =
                before.map_or(0, |before| codes.iter().zip(before).take_while(|(a, b)| a == b).count());
            for (layer, &code) in codes.iter().enumerate().take(layers).skip(same) {
                let first = self.levels.get(layer + 2).map_or(self.leaves.len(), Level::len);
                let parent = self.newest[layer];
                self.newest[layer + 1] = self.levels[layer + 1].push(first, parent, code);
            }
            self.leaves.push(self.newest[layers]);
            before = Some(codes);
        }
        self.newest[0] as usize
    }

    /// Number of nodes, a sentinel for each level included.
    pub(super) fn nodes(&self) -> usize {
        self.levels.iter().map(|level| level.len() + 1).sum()
    }

    /// The most nodes that tries below `roots` roots can have over `ads` ads.
    pub(super) fn most_nodes(layers: usize, roots: usize, ads: usize) -> usize {
        roots + 1 + layers * (ads + 1)
    }

    /// The nodes of code layer `layer` among all nodes.
    pub(super) fn layer(&self, layer: usize) -> std::ops::Range<usize> {
        let start = self.start(layer + 1);
        start..start + self.levels[layer + 1].len()
    }

    fn start(&self, level: usize) -> usize {
        self.levels[..level].iter().map(|level| level.len() + 1).sum()
    }

    /// The nodes `[nodes, NODE_WORDS]` where node 0 is node `first_node` of the forest and ad 0 is ad `first_ad`.
    pub(super) fn words(&self, first_node: usize, first_ad: usize) -> Vec<u32> {
        let mut words = Vec::with_capacity(self.nodes() * NODE_WORDS);
        let mut parents = first_node as u32;
        for (at, level) in self.levels.iter().enumerate() {
            let is_last = at + 1 == self.levels.len();
            let (base, len) = if is_last {
                (first_ad, self.leaves.len())
            } else {
                (first_node + self.start(at + 1), self.levels[at + 1].len())
            };
            for node in 0..level.len() {
                let parent = parents + level.parent[node];
                words.extend([base as u32 + level.first[node], parent, u32::from(level.code[node])]);
            }
            words.extend([(base + len) as u32, 0, 0]);
            parents = (first_node + self.start(at)) as u32;
        }
        words
    }

    /// The leaf of each ad, as a node of the forest.
    pub(super) fn leaves(&self, first_node: usize) -> impl Iterator<Item = u32> {
        let base = (first_node + self.start(self.levels.len() - 1)) as u32;
        self.leaves.iter().map(move |leaf| base + leaf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_roots_over_two_layers() {
        let mut tries = Tries::new(2);
        let ads: [&[u16]; 3] = [&[1, 5], &[1, 7], &[4, 5]];
        assert_eq!(tries.push_root(ads.into_iter()), 0);
        assert_eq!(tries.push_root([&[1u16, 5][..], &[1, 5]].into_iter()), 1);
        assert_eq!(tries.push_root(std::iter::empty()), 2);
        // Roots 0 1 2 and a sentinel; three nodes of layer 0, four of layer 1, each with one.
        assert_eq!((tries.nodes(), tries.layer(0), tries.layer(1)), (4 + 4 + 5, 4..7, 8..12));
        let words = tries.words(100, 50);
        let nodes: Vec<[u32; 3]> = words.as_chunks().0.to_vec();
        let first: Vec<u32> = nodes.iter().map(|node| node[0]).collect();
        assert_eq!(first, [104, 106, 107, 107, 108, 110, 111, 112, 50, 51, 52, 53, 55]);
        let of_layer =
            |layer| nodes[tries.layer(layer)].iter().map(|node| (node[1], node[2])).collect::<Vec<_>>();
        assert_eq!(of_layer(0), [(100, 1), (100, 4), (101, 1)]);
        assert_eq!(of_layer(1), [(104, 5), (104, 7), (105, 5), (106, 5)]);
        assert_eq!(tries.leaves(100).collect::<Vec<_>>(), [108, 109, 110, 111, 111]);
        tries.clear();
        assert_eq!(tries.nodes(), 3);
    }
}
