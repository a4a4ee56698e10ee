//! The state of a prefix beam search between two frames.
//!
//! Texts are nodes of a tree that grows; a node knows what the language model thinks of its text. Entries are the nodes
//! in the beam. Every few frames the start that all entries share is committed, and nodes that no entry descends from
//! are forgotten, so that memory is bounded by the width of the beam and the length of what is still open.

use super::super::paths::{NONE, Paths};
use super::super::word_scorer::TextState;
use super::super::{Emissions, Token, log_add};
use super::PrefixBeam;
use crate::{Error, Result};

/// How often what is certain is committed; a fixed number, so that results do not depend on how a stream is cut.
const COMMIT_FRAMES: u32 = 16;
/// A chain that has not been made.
const UNMADE: u32 = NONE - 1;

#[derive(Debug, Clone, Copy)]
struct Node {
    parent: u32,
    first_child: u32,
    next_sibling: u32,
    /// Its place in the beam, or `NONE`.
    entry: u32,
    /// The last token; at the root the boundary, which thus can do nothing there, or `NONE`.
    token: u32,
    /// Tokens from the root.
    depth: u32,
    /// The place of the text with its last word ended, once that was asked for, or `NONE`.
    ended: u32,
}

/// A text in the beam.
#[derive(Debug, Clone, Copy)]
struct Entry {
    node: u32,
    /// Log-probability of the paths that end in the blank.
    blank: f64,
    /// Log-probability of the paths that end in the last token.
    token: f64,
    /// Of both.
    total: f64,
    /// The last token on the best path.
    last: Token,
    /// The tokens before it.
    before: u32,
    /// The chain with the last token, once a longer text needs it.
    closed: u32,
}

/// What may be in the next beam: an entry that stays, or a text of one token more.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    /// The node, or `NONE` if it is to be made.
    node: u32,
    /// The entry whose tokens stand before the last one, or `NONE` to keep `before`.
    from: u32,
    before: u32,
    blank: f64,
    token: f64,
    total: f64,
    lm: f64,
    score: f64,
    last: Token,
    /// The place of the text of a new node.
    text: u32,
}

/// A text at the end of the recording.
pub(in super::super) struct Final {
    pub(in super::super) entry: usize,
    pub(in super::super) acoustic: f64,
    pub(in super::super) lm: f64,
}

impl Final {
    pub(in super::super) fn score(&self) -> f64 {
        self.acoustic + self.lm
    }
}

#[derive(Debug, Clone)]
pub(in super::super) struct Search {
    nodes: Vec<Node>,
    /// The text of each node.
    texts: Vec<TextState>,
    /// Texts whose last word was ended, of some nodes.
    ended: Vec<TextState>,
    paths: Paths,
    entries: Vec<Entry>,
    best: usize,
    frame: u32,
    committed: Vec<Token>,
    max_pending_frames: Option<u32>,
    // Reused from frame to frame.
    candidates: Vec<Candidate>,
    new_texts: Vec<TextState>,
    /// Tokens that may begin in this frame, and their log-probabilities.
    tokens: Vec<(Token, f64)>,
    /// Scores and places of the candidates of the next beam.
    chosen: Vec<(f64, u32)>,
    next_entries: Vec<Entry>,
    renumbered: Vec<u32>,
    kept_ended: Vec<TextState>,
}

impl Search {
    /// Before the first frame. After `max_pending_frames` a token is committed even if other texts disagree.
    pub(in super::super) fn new(beam: &PrefixBeam, max_pending_frames: Option<u32>) -> Self {
        let token = beam.alphabet.boundary().unwrap_or(NONE);
        let root = Node::new(NONE, token, 0);
        let last = Token { id: token, start_frame: 0, end_frame: 0, confidence: 0.0 };
        let entry =
            Entry { node: 0, blank: 0.0, token: f64::NEG_INFINITY, total: 0.0, last, before: NONE, closed: NONE };
        let mut search = Self {
            nodes: vec![root],
            texts: vec![beam.scorer.begin()],
            ended: Vec::new(),
            paths: Paths::default(),
            entries: vec![entry],
            best: 0,
            frame: 0,
            committed: Vec::new(),
            max_pending_frames,
            candidates: Vec::new(),
            new_texts: Vec::new(),
            tokens: Vec::new(),
            chosen: Vec::new(),
            next_entries: Vec::new(),
            renumbered: Vec::new(),
            kept_ended: Vec::new(),
        };
        search.nodes[0].entry = 0;
        search
    }

    /// Goes on by these frames.
    pub(in super::super) fn push(&mut self, beam: &PrefixBeam, emissions: &Emissions) -> Result<()> {
        emissions.check_width(beam.alphabet.num_tokens())?;
        for row in emissions.frames() {
            self.step(beam, row)?;
            self.frame += 1;
            if self.frame.is_multiple_of(COMMIT_FRAMES) {
                self.commit();
            }
        }
        Ok(())
    }

    fn step(&mut self, beam: &PrefixBeam, row: &[f32]) -> Result<()> {
        self.choose_tokens(beam, row);
        self.candidates.clear();
        self.new_texts.clear();
        let mut best = self.stay(beam, row);
        for at in 0..self.entries.len() {
            self.extend(beam, at, &mut best);
        }
        self.select(beam)?;
        self.make_entries();
        Ok(())
    }

    /// The tokens that may begin in this frame: those above the limit, and the best one.
    fn choose_tokens(&mut self, beam: &PrefixBeam, row: &[f32]) {
        let limit = beam.config.min_token_log_prob as f32;
        let (start_frame, end_frame) = (self.frame, self.frame + 1);
        let begin = |id: u32, log_prob: f32| {
            (Token { id, start_frame, end_frame, confidence: log_prob.exp() }, f64::from(log_prob))
        };
        let written = || (0u32..).zip(row.iter().copied()).filter(|(id, _)| beam.scorer.is_written(*id));
        self.tokens.clear();
        self.tokens.extend(written().filter(|(_, value)| *value >= limit).map(|(id, value)| begin(id, value)));
        if self.tokens.is_empty() && row[beam.alphabet.blank() as usize] < limit {
            let best = written().max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)));
            self.tokens.extend(best.map(|(id, value)| begin(id, value)));
        }
    }

    /// Every entry by the blank and by its last token once more; the best score.
    fn stay(&mut self, beam: &PrefixBeam, row: &[f32]) -> f64 {
        let blank = f64::from(row[beam.alphabet.blank() as usize]);
        let boundary = beam.alphabet.boundary().unwrap_or(NONE);
        let mut best = f64::NEG_INFINITY;
        for entry in &self.entries {
            let node = &self.nodes[entry.node as usize];
            let by_blank = entry.total + blank;
            let mut last = entry.last;
            let mut by_token = f64::NEG_INFINITY;
            if node.token != NONE {
                let log_prob = row[node.token as usize];
                // A boundary after a boundary changes nothing, with or without a blank between.
                let mass = if node.token == boundary { entry.total } else { entry.token };
                by_token = mass + f64::from(log_prob);
                if by_token >= by_blank && by_token > f64::NEG_INFINITY {
                    last.end_frame = self.frame + 1;
                    last.confidence = last.confidence.max(log_prob.exp());
                }
            }
            let total = log_add(by_blank, by_token);
            let lm = self.texts[entry.node as usize].score();
            best = best.max(total + lm);
            self.candidates.push(Candidate {
                node: entry.node,
                from: NONE,
                before: entry.before,
                blank: by_blank,
                token: by_token,
                total,
                lm,
                score: total + lm,
                last,
                text: NONE,
            });
        }
        best
    }

    /// One entry by every token that may begin.
    fn extend(&mut self, beam: &PrefixBeam, at: usize, best: &mut f64) {
        let entry = self.entries[at];
        let boundary = beam.alphabet.boundary().unwrap_or(NONE);
        let own = self.nodes[entry.node as usize].token;
        for at_token in 0..self.tokens.len() {
            let (last, log_prob) = self.tokens[at_token];
            let token = last.id;
            if token == boundary && token == own {
                continue;
            }
            let total = log_prob + if token == own { entry.blank } else { entry.total };
            if total == f64::NEG_INFINITY {
                continue;
            }
            let child = child(&self.nodes, entry.node, token);
            if child != NONE && self.nodes[child as usize].entry != NONE {
                let same = &mut self.candidates[self.nodes[child as usize].entry as usize];
                if total > same.total {
                    (same.last, same.from) = (last, at as u32);
                }
                same.token = log_add(same.token, total);
                same.total = log_add(same.blank, same.token);
                same.score = same.total + same.lm;
                *best = best.max(same.score);
                continue;
            }
            let mut text = NONE;
            let lm = if child == NONE {
                let longer = self.longer_text(beam, entry.node, token);
                if total + longer.score() >= *best - beam.config.beam_threshold {
                    text = self.new_texts.len() as u32;
                    self.new_texts.push(longer);
                }
                longer.score()
            } else {
                self.texts[child as usize].score()
            };
            let score = total + lm;
            if score < *best - beam.config.beam_threshold {
                continue;
            }
            *best = best.max(score);
            self.candidates.push(Candidate {
                node: child,
                from: at as u32,
                before: NONE,
                blank: f64::NEG_INFINITY,
                token: total,
                total,
                lm,
                score,
                last,
                text,
            });
        }
    }

    /// The text of a node and one token more.
    fn longer_text(&mut self, beam: &PrefixBeam, node: u32, token: u32) -> TextState {
        let text = &self.texts[node as usize];
        if !beam.scorer.ends_word(token) {
            return beam.scorer.extend(text, token);
        }
        let ended = &mut self.nodes[node as usize].ended;
        if *ended == NONE {
            *ended = self.ended.len() as u32;
            self.ended.push(beam.scorer.end_word(text));
        }
        beam.scorer.extend(&self.ended[*ended as usize], token)
    }

    /// Chooses the candidates of the next beam.
    fn select(&mut self, beam: &PrefixBeam) -> Result<()> {
        let best = self.candidates.iter().map(|candidate| candidate.score).fold(f64::NEG_INFINITY, f64::max);
        if best == f64::NEG_INFINITY {
            return Err(Error::NoPath { frame: self.frame as usize });
        }
        let limit = best - beam.config.beam_threshold;
        // The stamps of the old beam go before the candidates that carried their places.
        for entry in &self.entries {
            self.nodes[entry.node as usize].entry = NONE;
        }
        let scores = (0u32..).zip(&self.candidates).map(|(at, candidate)| (candidate.score, at));
        self.chosen.clear();
        self.chosen.extend(scores.filter(|(score, _)| *score >= limit && *score > f64::NEG_INFINITY));
        let width = beam.config.beam_width;
        if self.chosen.len() > width {
            self.chosen.select_nth_unstable_by(width - 1, |a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            self.chosen.truncate(width);
        }
        Ok(())
    }

    fn make_entries(&mut self) {
        self.best = 0;
        self.next_entries.clear();
        for at in 0..self.chosen.len() {
            let (score, place) = self.chosen[at];
            let candidate = self.candidates[place as usize];
            let before = if candidate.from == NONE { candidate.before } else { self.close(candidate.from) };
            let node = if candidate.node == NONE { self.make_node(&candidate) } else { candidate.node };
            self.nodes[node as usize].entry = at as u32;
            let Candidate { blank, token, total, last, .. } = candidate;
            self.next_entries.push(Entry { node, blank, token, total, last, before, closed: UNMADE });
            if score > self.chosen[self.best].0 {
                self.best = at;
            }
        }
        std::mem::swap(&mut self.entries, &mut self.next_entries);
    }

    fn make_node(&mut self, candidate: &Candidate) -> u32 {
        let parent = self.entries[candidate.from as usize].node;
        let made = self.nodes.len() as u32;
        let above = &mut self.nodes[parent as usize];
        let mut node = Node::new(parent, candidate.last.id, above.depth + 1);
        node.next_sibling = std::mem::replace(&mut above.first_child, made);
        self.nodes.push(node);
        self.texts.push(self.new_texts[candidate.text as usize]);
        made
    }

    /// The chain of an entry with its last token.
    fn close(&mut self, entry: u32) -> u32 {
        let entry = &mut self.entries[entry as usize];
        if entry.closed == UNMADE {
            let is_root = self.nodes[entry.node as usize].depth == 0;
            entry.closed = if is_root { NONE } else { self.paths.push(entry.before, entry.last, NONE) };
        }
        entry.closed
    }

    /// Commits the tokens that all texts share, apart from the last of each, and forgets nodes out of reach.
    fn commit(&mut self) {
        if let Some(max_pending_frames) = self.max_pending_frames {
            self.drop_dissenters(max_pending_frames);
        }
        let mut shared = self.nodes[self.entries[0].node as usize].parent;
        for entry in &self.entries {
            shared = self.shared_ancestor(shared, self.nodes[entry.node as usize].parent);
        }
        let num_committed = if shared == NONE { 0 } else { self.nodes[shared as usize].depth - self.nodes[0].depth };
        let tokens = self.paths.collect(self.entries[self.best].before);
        self.committed.extend(tokens.iter().take(num_committed as usize).map(|(token, _)| *token));
        self.paths.compact(self.entries.iter().map(|entry| entry.before), num_committed);
        self.entries.iter_mut().for_each(|entry| entry.before = self.paths.renumbered(entry.before));
        self.compact(if shared == NONE { 0 } else { shared });
    }

    /// The deepest node above or at both; `NONE` if one of them is above the root.
    fn shared_ancestor(&self, mut a: u32, mut b: u32) -> u32 {
        while a != b {
            if a == NONE || b == NONE {
                return NONE;
            }
            // A parent has a lower number than its children.
            if a > b {
                a = self.nodes[a as usize].parent;
            } else {
                b = self.nodes[b as usize].parent;
            }
        }
        a
    }

    /// Drops the texts that disagree with tokens of the best one that are older than the limit.
    fn drop_dissenters(&mut self, max_pending_frames: u32) {
        let best = self.entries[self.best];
        let tokens = self.paths.collect(best.before);
        let is_old = |token: &Token| token.end_frame + max_pending_frames <= self.frame;
        let num_old = tokens.iter().take_while(|(token, _)| is_old(token)).count() as u32;
        let depth = self.nodes[0].depth + num_old;
        if num_old == 0 {
            return;
        }
        let nodes = &self.nodes;
        let above = |mut node: u32| {
            while nodes[node as usize].depth > depth {
                node = nodes[node as usize].parent;
            }
            node
        };
        let wanted = above(best.node);
        let stays = |entry: &Entry| entry.node != wanted && above(entry.node) == wanted;
        self.entries.retain(stays);
        self.best = self.entries.iter().position(|entry| entry.node == best.node).expect("the best one agrees");
    }

    /// Forgets nodes that no entry descends from, and those above `root`.
    fn compact(&mut self, root: u32) {
        const ALIVE: u32 = 0;
        let renumbered = &mut self.renumbered;
        renumbered.clear();
        renumbered.resize(self.nodes.len(), NONE);
        renumbered[root as usize] = ALIVE;
        for entry in &self.entries {
            let mut at = entry.node;
            while renumbered[at as usize] == NONE {
                renumbered[at as usize] = ALIVE;
                at = self.nodes[at as usize].parent;
            }
        }
        // Nodes move down, parents before their children.
        let mut num_kept = 0;
        for old in 0..self.nodes.len() {
            if renumbered[old] == NONE {
                continue;
            }
            renumbered[old] = num_kept;
            let Node { parent, token, depth, ended, .. } = self.nodes[old];
            let parent = if old == root as usize { NONE } else { renumbered[parent as usize] };
            let mut node = Node::new(parent, token, depth);
            if parent != NONE {
                let above = &mut self.nodes[parent as usize];
                node.next_sibling = std::mem::replace(&mut above.first_child, num_kept);
            }
            if ended != NONE {
                node.ended = self.kept_ended.len() as u32;
                self.kept_ended.push(self.ended[ended as usize]);
            }
            self.nodes[num_kept as usize] = node;
            self.texts[num_kept as usize] = self.texts[old];
            num_kept += 1;
        }
        self.nodes.truncate(num_kept as usize);
        self.texts.truncate(num_kept as usize);
        std::mem::swap(&mut self.ended, &mut self.kept_ended);
        self.kept_ended.clear();
        for (at, entry) in (0u32..).zip(&mut self.entries) {
            entry.node = renumbered[entry.node as usize];
            self.nodes[entry.node as usize].entry = at;
        }
    }

    /// The tokens that will not change.
    pub(in super::super) fn committed(&self) -> &[Token] {
        &self.committed
    }

    /// The tokens of the best text after the committed ones.
    pub(in super::super) fn pending(&self) -> Vec<Token> {
        self.open_tokens(self.best)
    }

    /// How much the search holds beside what is committed.
    #[cfg(test)]
    pub(in super::super) fn num_held(&self) -> usize {
        self.nodes.len() + self.paths.len()
    }

    pub(in super::super) fn finals(&self, beam: &PrefixBeam) -> Vec<Final> {
        let last = |(entry, of): (usize, &Entry)| {
            let lm = beam.scorer.finish(&self.texts[of.node as usize]);
            Final { entry, acoustic: of.total, lm }
        };
        self.entries.iter().enumerate().map(last).collect()
    }

    /// All tokens of a text.
    pub(in super::super) fn tokens(&self, entry: usize) -> Vec<Token> {
        let mut tokens = self.committed.clone();
        tokens.extend(self.open_tokens(entry));
        tokens
    }

    /// The tokens of a text after the committed ones.
    pub(in super::super) fn open_tokens(&self, entry: usize) -> Vec<Token> {
        let entry = &self.entries[entry];
        let mut tokens: Vec<Token> = self.paths.collect(entry.before).into_iter().map(|(token, _)| token).collect();
        if self.nodes[entry.node as usize].depth > 0 {
            tokens.push(entry.last);
        }
        tokens
    }
}

impl Node {
    fn new(parent: u32, token: u32, depth: u32) -> Self {
        Self { parent, first_child: NONE, next_sibling: NONE, entry: NONE, token, depth, ended: NONE }
    }
}

fn child(nodes: &[Node], node: u32, token: u32) -> u32 {
    let mut at = nodes[node as usize].first_child;
    while at != NONE && nodes[at as usize].token != token {
        at = nodes[at as usize].next_sibling;
    }
    at
}
