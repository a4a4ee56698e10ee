//! Generating text token by token with a key-value cache.

use std::ops::ControlFlow;

use arcuate_model::{KvCache, Network};
use arcuate_ops::gradcheck::values;
use arcuate_ops::rng::Stream;
use arcuate_text::{SpecialToken, Tokenizer};
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
    pub fn encode(&self, prompt: &str) -> Result<Vec<u32>> {
        let ids = self.tokenizer.encode_with_special(prompt)?;
        if ids.is_empty() {
            let begin = empty_context(self.tokenizer);
            return if begin.is_empty() { Err(Error::EmptyPrompt) } else { Ok(begin) };
        }
        if ids.starts_with(&self.begin) {
            return Ok(ids);
        }
        Ok([self.begin.as_slice(), &ids].concat())
    }

    /// Continues `prompt`; `on_text` receives complete characters as they become certain and may break off.
    ///
    /// The draws follow from (seed, `item`, token), so prompts of a batch get different ones.
    pub fn generate(
        &self,
        prompt: &str,
        item: u64,
        mut on_text: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Generation> {
        let prompt_ids = self.encode(prompt)?;
        let mut decoder = self.tokenizer.decode_stream();
        for id in &prompt_ids[prompt_ids.len().saturating_sub(TEXT_CONTEXT)..] {
            decoder.step(*id)?;
        }
        let mut finder = StopFinder::new(&self.config.stop);
        let mut text = String::new();
        let mut hand_out = |fresh: String, text: &mut String| {
            text.push_str(&fresh);
            if fresh.is_empty() { ControlFlow::Continue(()) } else { on_text(&fresh) }
        };
        let (ids, mut reason) = self.tokens(&prompt_ids, item, |id| {
            let fresh = finder.push(&decoder.step(id)?);
            Ok(match hand_out(fresh, &mut text) {
                _ if finder.is_stopped() => Some(Reason::StopString),
                ControlFlow::Break(()) => Some(Reason::Interrupted),
                ControlFlow::Continue(()) => None,
            })
        })?;
        if reason != Reason::Interrupted {
            let mut rest = finder.push(&decoder.finish()?);
            rest.push_str(&finder.finish());
            if finder.is_stopped() {
                reason = Reason::StopString;
            }
            if hand_out(rest, &mut text).is_break() {
                reason = Reason::Interrupted;
            }
        }
        Ok(Generation { text, ids, reason, num_prompt_tokens: prompt_ids.len() })
    }

    /// Continues several prompts one after the other; `on_text` receives the index of the prompt too.
    ///
    /// When it breaks off, the prompts that are left are not begun.
    pub fn generate_all<S: AsRef<str>>(
        &self,
        prompts: &[S],
        mut on_text: impl FnMut(usize, &str) -> ControlFlow<()>,
    ) -> Result<Vec<Generation>> {
        let mut all = Vec::with_capacity(prompts.len());
        for (index, prompt) in prompts.iter().enumerate() {
            let generation = self.generate(prompt.as_ref(), index as u64, |text| on_text(index, text))?;
            let is_last = generation.reason == Reason::Interrupted;
            all.push(generation);
            if is_last {
                break;
            }
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
        let num_tokens = prompt_ids.len();
        if num_tokens == 0 {
            return Err(Error::EmptyPrompt);
        }
        if num_tokens > self.max_seq_len {
            return Err(Error::PromptTooLong { num_tokens, max_seq_len: self.max_seq_len });
        }
        let mut cache = KvCache::new();
        let mut seen = prompt_ids.to_vec();
        loop {
            let num_new = seen.len() - num_tokens;
            let new = |seen: &[u32]| seen[num_tokens..].to_vec();
            if num_new >= self.config.max_new_tokens {
                return Ok((new(&seen), Reason::MaxNewTokens));
            }
            if seen.len() > self.max_seq_len {
                return Ok((new(&seen), Reason::Length));
            }
            let fed: Vec<i32> = seen[cache.len()..].iter().map(|id| *id as i32).collect();
            let mut logits = values(self.network.step(1, &fed, &mut cache)?);
            // Rows of the embedding that no token has are there for the hardware only.
            logits.truncate(self.tokenizer.vocab_size());
            let mut stream = Stream::new(self.config.seed, "sample", num_new as u64, item);
            let id = choose(&logits, &seen, &self.config.sampling, &mut stream)?;
            seen.push(id);
            if self.end.contains(&id) {
                return Ok((new(&seen), Reason::EndToken));
            }
            if let Some(reason) = on_token(id)? {
                return Ok((new(&seen), reason));
            }
        }
    }
}

#[cfg(test)]
mod tests;
