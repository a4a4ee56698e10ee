//! Generating text token by token with a key-value cache.

use std::ops::ControlFlow;

use arcuate_model::{KvCache, Network};
use arcuate_ops::gradcheck::values;
use arcuate_ops::rng::Stream;
use arcuate_text::{DecodeStream, SpecialToken, Tokenizer};
use serde::{Deserialize, Serialize};

use crate::frame::{begin_tokens, empty_context};
use crate::sampling::choose;
use crate::{Error, Result, SamplesConfig, SamplingConfig, StopFinder};

/// Tokens of the prompt from which the stream of text takes its beginning.
const TEXT_CONTEXT: usize = 8;

/// What is generated, and when it ends.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateConfig {
    /// How the next token is chosen.
    pub sampling: SamplingConfig,
    /// Longest continuation in tokens.
    pub max_new_tokens: usize,
    /// Texts before which the continuation ends.
    pub stop: Vec<String>,
    /// Tokens that end the continuation beside the tokenizer's `eos_token`; see [`crate::end_tokens`].
    pub end_tokens: Vec<u32>,
    /// Go on after a token that ends the text.
    pub ignore_end: bool,
    /// Seed of the draws.
    pub seed: u64,
}

impl GenerateConfig {
    /// Greedy, up to so many tokens.
    pub fn greedy(max_new_tokens: usize) -> Self {
        Self {
            sampling: SamplingConfig::default(),
            max_new_tokens,
            stop: Vec::new(),
            end_tokens: Vec::new(),
            ignore_end: false,
            seed: 0,
        }
    }

    /// As a recipe's `[samples]` says.
    pub fn from_samples(samples: &SamplesConfig, seed: u64) -> Self {
        Self { sampling: samples.sampling.clone(), seed, ..Self::greedy(samples.max_new_tokens) }
    }
}

/// Why a continuation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The model ended the text.
    EndToken,
    /// A stop string appeared.
    StopString,
    /// `max_new_tokens` were generated.
    MaxNewTokens,
    /// The longest sequence of the model was reached.
    Length,
    /// The receiver of the text asked to stop.
    Interrupted,
}

/// A continuation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// The text, without the prompt and without the stop string.
    pub text: String,
    /// The tokens, the end token included.
    pub ids: Vec<u32>,
    /// Why it ended.
    pub reason: Reason,
    /// Tokens of the prompt, begin token included.
    pub num_prompt_tokens: usize,
}

impl Generation {
    /// Tokens that were generated; divide by your clock for tokens per second.
    pub fn num_new_tokens(&self) -> usize {
        self.ids.len()
    }
}

/// Continues prompts with one network.
#[derive(Debug)]
pub struct Generator<'a> {
    network: Network,
    tokenizer: &'a Tokenizer,
    config: GenerateConfig,
    begin: Vec<u32>,
    end: Vec<u32>,
    max_seq_len: usize,
}

impl<'a> Generator<'a> {
    /// Checks that network and values can generate.
    pub fn new(network: &Network, tokenizer: &'a Tokenizer, config: GenerateConfig) -> Result<Self> {
        let architecture = network.architecture();
        if !architecture.is_causal() {
            return Err(Error::NotCausal { architecture: architecture.name() });
        }
        if let Some((key, problem)) = config.sampling.check().into_iter().next() {
            return Err(Error::Config { key, problem });
        }
        let mut end = if config.ignore_end { Vec::new() } else { config.end_tokens.clone() };
        end.extend(tokenizer.special(SpecialToken::Eos).filter(|_| !config.ignore_end));
        Ok(Self {
            network: network.valid(),
            tokenizer,
            begin: begin_tokens(tokenizer),
            end,
            max_seq_len: architecture.max_seq_len(),
            config,
        })
    }

    /// The tokens of a prompt, with the tokens that the tokenizer puts before a text unless the prompt names them itself.
    ///
    /// It fails where the prompt is empty without a token to begin with, or fills more than the model.
    pub fn encode(&self, prompt: &str) -> Result<Vec<u32>> {
        let mut ids = self.tokenizer.encode_with_special(prompt)?;
        if ids.is_empty() {
            ids = empty_context(self.tokenizer);
        } else if !ids.starts_with(&self.begin) {
            ids.splice(0..0, self.begin.iter().copied());
        }
        self.check(&ids)?;
        Ok(ids)
    }

    fn check(&self, prompt_ids: &[u32]) -> Result<()> {
        match prompt_ids.len() {
            0 => Err(Error::EmptyPrompt),
            num_tokens if num_tokens > self.max_seq_len => {
                Err(Error::PromptTooLong { num_tokens, max_seq_len: self.max_seq_len })
            }
            _ => Ok(()),
        }
    }

    /// Continues `prompt`; `on_text` receives complete characters as they become certain and may break off.
    ///
    /// The draws follow from (seed, `item`, token).
    pub fn generate(
        &self,
        prompt: &str,
        item: u64,
        mut on_text: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Generation> {
        let mut one = self.generate_batch(&[(prompt, item)], |_, text| on_text(text))?;
        Ok(one.pop().expect("one prompt, one continuation"))
    }

    /// Continues prompts together, each with its own item; `on_text` receives the index of the prompt too.
    ///
    /// The draws follow from (seed, item, token), so a prompt gets the same continuation in any company (up to the rounding
    /// of matrix products). When `on_text` breaks off, all end where they are.
    pub fn generate_batch<S: AsRef<str>>(
        &self,
        prompts: &[(S, u64)],
        mut on_text: impl FnMut(usize, &str) -> ControlFlow<()>,
    ) -> Result<Vec<Generation>> {
        let encoded: Vec<Vec<u32>> =
            prompts.iter().map(|(prompt, _)| self.encode(prompt.as_ref())).collect::<Result<_>>()?;
        let mut texts = encoded.iter().map(|ids| Text::new(self, ids)).collect::<Result<Vec<_>>>()?;
        let rows: Vec<(&[u32], u64)> =
            encoded.iter().zip(prompts).map(|(ids, (_, item))| (ids.as_slice(), *item)).collect();
        let mut hand_out = |index: usize, fresh: &str| {
            if fresh.is_empty() { ControlFlow::Continue(()) } else { on_text(index, fresh) }
        };
        let ended = self.tokens_batch(&rows, |index, id| {
            let answer = hand_out(index, texts[index].push(id)?);
            Ok(match answer {
                _ if texts[index].finder.is_stopped() => Some(Reason::StopString),
                ControlFlow::Break(()) => Some(Reason::Interrupted),
                ControlFlow::Continue(()) => None,
            })
        })?;
        let mut all = Vec::with_capacity(prompts.len());
        for (index, ((ids, mut reason), mut text)) in ended.into_iter().zip(texts).enumerate() {
            if reason != Reason::Interrupted {
                let answer = hand_out(index, text.finish()?);
                if answer.is_break() {
                    reason = Reason::Interrupted;
                } else if text.finder.is_stopped() {
                    reason = Reason::StopString;
                }
            }
            all.push(Generation { text: text.text, ids, reason, num_prompt_tokens: encoded[index].len() });
        }
        Ok(all)
    }

    /// Continues any number of prompts, `batch_size` at a time; the index of a prompt is its item.
    pub fn generate_all<S: AsRef<str>>(&self, prompts: &[S], batch_size: usize) -> Result<Vec<Generation>> {
        let items: Vec<(&str, u64)> = prompts.iter().map(AsRef::as_ref).zip(0..).collect();
        let mut all = Vec::with_capacity(prompts.len());
        for batch in items.chunks(batch_size.max(1)) {
            all.extend(self.generate_batch(batch, |_, _| ControlFlow::Continue(()))?);
        }
        Ok(all)
    }

    /// Continues tokens; `on_token` receives each new one that does not end the text and may give a reason to end.
    pub fn tokens(
        &self,
        prompt_ids: &[u32],
        item: u64,
        mut on_token: impl FnMut(u32) -> Result<Option<Reason>>,
    ) -> Result<(Vec<u32>, Reason)> {
        let mut one = self.tokens_batch(&[(prompt_ids, item)], |_, id| on_token(id))?;
        Ok(one.pop().expect("one row, one continuation"))
    }

    /// Continues rows of tokens together, each with its own item; `on_token` receives the index of the row too.
    ///
    /// An interrupted row interrupts the others.
    pub fn tokens_batch(
        &self,
        prompts: &[(&[u32], u64)],
        mut on_token: impl FnMut(usize, u32) -> Result<Option<Reason>>,
    ) -> Result<Vec<(Vec<u32>, Reason)>> {
        prompts.iter().try_for_each(|(ids, _)| self.check(ids))?;
        let mut rows: Vec<Row> = prompts.iter().map(|(ids, item)| Row::new(ids, *item)).collect();
        let mut cache = KvCache::new(rows.len());
        // The rows that the cache holds.
        let mut active: Vec<usize> = (0..rows.len()).collect();
        loop {
            for index in &active {
                rows[*index].end_if_full(self.config.max_new_tokens, self.max_seq_len);
            }
            let left: Vec<usize> = (0..active.len()).filter(|place| rows[active[*place]].reason.is_none()).collect();
            if left.is_empty() {
                break;
            }
            if left.len() < active.len() {
                cache.keep(&left);
                active = left.iter().map(|place| active[*place]).collect();
            }
            let new: Vec<&[u32]> =
                active.iter().zip(cache.lengths()).map(|(index, length)| &rows[*index].seen[*length..]).collect();
            let logits = self.network.step(&new, &mut cache)?;
            let vocab_size = logits.dims()[1];
            for (index, logits) in active.iter().zip(values(logits).chunks_exact(vocab_size)) {
                let row = &mut rows[*index];
                // Rows of the embedding that no token has are there for the hardware only.
                let logits = &logits[..vocab_size.min(self.tokenizer.vocab_size())];
                let mut stream = Stream::new(self.config.seed, "sample", row.num_new() as u64, row.item);
                let id = choose(logits, &row.seen, &self.config.sampling, &mut stream)?;
                row.seen.push(id);
                row.reason = if self.end.contains(&id) { Some(Reason::EndToken) } else { on_token(*index, id)? };
            }
            if rows.iter().any(|row| row.reason == Some(Reason::Interrupted)) {
                break;
            }
        }
        let end = |row: Row| (row.seen[row.num_prompt..].to_vec(), row.reason.unwrap_or(Reason::Interrupted));
        Ok(rows.into_iter().map(end).collect())
    }
}

/// A row of tokens while it is continued.
struct Row {
    /// Prompt and new tokens.
    seen: Vec<u32>,
    num_prompt: usize,
    item: u64,
    /// Set when it has ended.
    reason: Option<Reason>,
}

impl Row {
    fn new(prompt_ids: &[u32], item: u64) -> Self {
        Self { seen: prompt_ids.to_vec(), num_prompt: prompt_ids.len(), item, reason: None }
    }

    fn num_new(&self) -> usize {
        self.seen.len() - self.num_prompt
    }

    fn end_if_full(&mut self, max_new_tokens: usize, max_seq_len: usize) {
        if self.reason.is_some() {
            return;
        }
        if self.num_new() >= max_new_tokens {
            self.reason = Some(Reason::MaxNewTokens);
        } else if self.seen.len() > max_seq_len {
            self.reason = Some(Reason::Length);
        }
    }
}

/// The text of a continuation while its tokens come.
struct Text<'a> {
    decoder: DecodeStream<'a>,
    finder: StopFinder,
    /// Everything that was handed out.
    text: String,
}

impl<'a> Text<'a> {
    fn new(generator: &Generator<'a>, prompt_ids: &[u32]) -> Result<Self> {
        let mut decoder = generator.tokenizer.decode_stream();
        for id in &prompt_ids[prompt_ids.len().saturating_sub(TEXT_CONTEXT)..] {
            decoder.step(*id)?;
        }
        Ok(Self { decoder, finder: StopFinder::new(&generator.config.stop), text: String::new() })
    }

    /// Takes a token and gives the text that has become certain.
    fn push(&mut self, id: u32) -> Result<&str> {
        let piece = self.decoder.step(id)?;
        Ok(self.add(&piece))
    }

    /// Gives the text that was held back.
    fn finish(&mut self) -> Result<&str> {
        let piece = self.decoder.finish()?;
        let start = self.text.len();
        self.add(&piece);
        self.text.push_str(&self.finder.finish());
        Ok(&self.text[start..])
    }

    fn add(&mut self, piece: &str) -> &str {
        let start = self.text.len();
        self.text.push_str(&self.finder.push(piece));
        &self.text[start..]
    }
}

#[cfg(test)]
mod tests;
