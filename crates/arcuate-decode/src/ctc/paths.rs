//! Where the tokens of hypotheses lie, as chains that hypotheses share.

use super::Token;

/// The end of every chain.
pub(super) const NONE: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct Link {
    before: u32,
    /// Tokens of the chain up to here, those that were dropped included.
    depth: u32,
    /// The word that ends with this token, or `NONE`.
    word: u32,
    token: Token,
}

/// Tokens, each with the one before it; a hypothesis holds the number of its last one.
#[derive(Debug, Clone, Default)]
pub(super) struct Paths {
    links: Vec<Link>,
    num_dropped: u32,
    /// The new number of each link after [`Paths::compact`].
    renumbered: Vec<u32>,
}

impl Paths {
    pub(super) fn push(&mut self, before: u32, token: Token, word: u32) -> u32 {
        let depth = 1 + if before == NONE { self.num_dropped } else { self.links[before as usize].depth };
        self.links.push(Link { before, depth, word, token });
        (self.links.len() - 1) as u32
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.links.len()
    }

    /// The tokens of a chain in order, each with the word it ends.
    pub(super) fn collect(&self, last: u32) -> Vec<(Token, u32)> {
        let mut tokens = Vec::new();
        let mut at = last;
        while at != NONE {
            let link = &self.links[at as usize];
            tokens.push((link.token, link.word));
            at = link.before;
        }
        tokens.reverse();
        tokens
    }

    /// Forgets what is in none of the chains, and their first `num_dropped` tokens, which all of them must have; then
    /// [`Paths::renumbered`] tells the new numbers.
    pub(super) fn compact(&mut self, chains: impl Iterator<Item = u32>, num_dropped: u32) {
        const ALIVE: u32 = 0;
        self.num_dropped += num_dropped;
        self.renumbered.clear();
        self.renumbered.resize(self.links.len(), NONE);
        for chain in chains {
            let mut at = chain;
            while at != NONE && self.renumbered[at as usize] == NONE {
                self.renumbered[at as usize] = ALIVE;
                at = self.links[at as usize].before;
            }
        }
        // Links move down, each behind the one before it.
        let mut num_kept = 0;
        for old in 0..self.links.len() {
            let link = self.links[old];
            if self.renumbered[old] == NONE || link.depth <= self.num_dropped {
                self.renumbered[old] = NONE;
                continue;
            }
            self.renumbered[old] = num_kept;
            self.links[num_kept as usize] = Link { before: self.renumbered(link.before), ..link };
            num_kept += 1;
        }
        self.links.truncate(num_kept as usize);
    }

    /// The number that a chain has since the last [`Paths::compact`].
    pub(super) fn renumbered(&self, chain: u32) -> u32 {
        if chain == NONE { NONE } else { self.renumbered[chain as usize] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(id: u32) -> Token {
        Token { id, start_frame: id, end_frame: id + 1, confidence: 1.0 }
    }

    fn ids(paths: &Paths, last: u32) -> Vec<u32> {
        paths.collect(last).iter().map(|(token, _)| token.id).collect()
    }

    #[test]
    fn compacting_keeps_living_chains_without_their_common_start() {
        let mut paths = Paths::default();
        let a = paths.push(NONE, token(1), NONE);
        let b = paths.push(a, token(2), 7);
        let dead = paths.push(b, token(9), NONE);
        let c = paths.push(b, token(3), NONE);
        let d = paths.push(b, token(4), NONE);
        assert_eq!(ids(&paths, dead), [1, 2, 9]);
        let mut chains = [d, c, b, NONE];
        compact(&mut paths, &mut chains, 0);
        assert_eq!(paths.len(), 4);
        assert_eq!(chains.map(|chain| ids(&paths, chain)), [vec![1, 2, 4], vec![1, 2, 3], vec![1, 2], vec![]]);
        assert_eq!(paths.collect(chains[2])[1].1, 7);
        compact(&mut paths, &mut chains[..2], 1);
        assert_eq!((ids(&paths, chains[0]), ids(&paths, chains[1]), paths.len()), (vec![2, 4], vec![2, 3], 3));
        compact(&mut paths, &mut chains[..1], 1);
        assert_eq!((ids(&paths, chains[0]), paths.len()), (vec![4], 1));
        compact(&mut paths, &mut chains[..1], 1);
        assert_eq!((chains[0], paths.len()), (NONE, 0));
        let new = paths.push(NONE, token(5), NONE);
        compact(&mut paths, &mut [new], 0);
        assert_eq!(paths.len(), 1, "what comes after all was dropped stays");
    }

    fn compact(paths: &mut Paths, chains: &mut [u32], num_dropped: u32) {
        paths.compact(chains.iter().copied(), num_dropped);
        chains.iter_mut().for_each(|chain| *chain = paths.renumbered(*chain));
    }
}
