//! Where the tokens of hypotheses lie, as chains that hypotheses share.

use super::Token;

/// The end of every chain.
pub(super) const NONE: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct Link {
    before: u32,
    token: Token,
    /// The word that ends with this token, or `NONE`.
    word: u32,
}

/// Tokens, each with the one before it; a hypothesis holds the number of its last one.
#[derive(Debug, Clone, Default)]
pub(super) struct Paths {
    links: Vec<Link>,
}

impl Paths {
    pub(super) fn push(&mut self, before: u32, token: Token, word: u32) -> u32 {
        self.links.push(Link { before, token, word });
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

    /// Forgets what is in none of the chains, and their first `num_dropped` tokens, which all of them have; renumbers
    /// the chains.
    pub(super) fn compact<'a>(&mut self, chains: impl Iterator<Item = &'a mut u32>, num_dropped: usize) {
        let mut renumbered = vec![NONE; self.links.len()];
        let mut kept = Vec::new();
        let mut stack = Vec::new();
        let mut depth = vec![0usize; self.links.len()];
        for chain in chains {
            let mut at = *chain;
            // Back to a link that was seen, then forward.
            while at != NONE && depth[at as usize] == 0 {
                stack.push(at);
                at = self.links[at as usize].before;
            }
            let mut above = if at == NONE { 0 } else { depth[at as usize] };
            while let Some(link) = stack.pop() {
                above += 1;
                depth[link as usize] = above;
                if above > num_dropped {
                    let Link { before, token, word } = self.links[link as usize];
                    let before = if before == NONE { NONE } else { renumbered[before as usize] };
                    renumbered[link as usize] = kept.len() as u32;
                    kept.push(Link { before, token, word });
                }
            }
            *chain = if *chain == NONE { NONE } else { renumbered[*chain as usize] };
        }
        self.links = kept;
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
        paths.compact(chains.iter_mut(), 0);
        assert_eq!(paths.len(), 4);
        assert_eq!(chains.map(|chain| ids(&paths, chain)), [vec![1, 2, 4], vec![1, 2, 3], vec![1, 2], vec![]]);
        assert_eq!(paths.collect(chains[2])[1].1, 7);
        paths.compact(chains[..2].iter_mut(), 1);
        assert_eq!((ids(&paths, chains[0]), ids(&paths, chains[1]), paths.len()), (vec![2, 4], vec![2, 3], 3));
        paths.compact(chains[..1].iter_mut(), 1);
        assert_eq!((ids(&paths, chains[0]), paths.len()), (vec![4], 1));
    }
}
