//! Texts as a corpus: all sources of a recipe, tokenised, split and laid into rows; opens in moments once its cache is there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use arcuate_text::SpecialToken;

use crate::config::{DataConfig, SourceConfig};
use crate::encoder::Encoder;
use crate::error::{BadItems, Error, Result};
use crate::held_out::{HeldOut, Strided};
use crate::mixture::{LedgerEntry, expected};
use crate::pack::{Geometry, PackingConfig, best_fit};
use crate::plan::{Plan, PlanSpec};
use crate::progress::Progress;
use crate::prompt::Prompt;
use crate::row::{Framing, IGNORED_TARGET, Row, bytes_between};
use crate::rows::{Draw, Rows, SourceRows};
use crate::split::Split;
use crate::store::{NO_LABEL, Store};
use crate::summary::SourceSummary;

const HELD_OUT_KEY: u64 = 1 << 63;
const STRIDED_KEY: u64 = 1 << 62;
const SOURCE_SHIFT: u32 = 44;
const MAX_SOURCES: usize = 1 << 16;

/// What the rest of a recipe asks of the data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorpusOptions {
    /// Most tokens in a row.
    pub max_seq_len: usize,
    /// How documents are framed.
    pub framing: Framing,
    /// True when every row needs the label of its document.
    pub labels: bool,
    /// True when every row needs the logits of its document.
    pub logits: bool,
    /// True when rows predict the tags of their words.
    pub tags: bool,
    /// The sentence that every document is written into; its classes are those of the corpus.
    pub prompt: Option<Prompt>,
}

impl CorpusOptions {
    /// Whether rows stand for documents of which something is known.
    fn is_labelled(&self) -> bool {
        self.labels || self.logits || self.tags
    }
}

/// The documents of all sources as rows. Cheap to clone; memory does not grow with the corpus.
#[derive(Clone)]
pub(crate) struct TextCorpus {
    inner: Arc<Inner>,
}

pub(crate) struct SourceData {
    pub(crate) name: String,
    pub(crate) config: SourceConfig,
    pub(crate) store: Store,
    pub(crate) train: Arc<Plan>,
    pub(crate) held_out: Arc<Plan>,
    /// From labels of this source to labels of the corpus.
    labels: Vec<u32>,
    /// From labels that are numbers to the shares of both classes; empty otherwise.
    numbers: Vec<[f64; 2]>,
    /// The same for tags; empty unless rows predict them.
    tags: Vec<i32>,
}

pub(crate) struct Inner {
    pub(crate) sources: Vec<SourceData>,
    rows: Vec<SourceRows>,
    pub(crate) max_seq_len: u64,
    label_names: Vec<String>,
    fingerprint: String,
    framing: Framing,
    cls_and_sep: (u32, u32),
    cache_dir: PathBuf,
    held_out_fraction: f64,
    only_labelled: bool,
    bad: BadItems,
}

impl TextCorpus {
    /// Opens all sources, building or completing the cache where needed.
    pub(crate) fn open(
        config: &DataConfig,
        encoder: &dyn Encoder,
        options: &CorpusOptions,
        progress: &Progress<'_>,
    ) -> Result<Self> {
        config.refuse_impossible()?;
        let geometry = geometry(config, options)?;
        let cls_and_sep = match options.framing {
            Framing::CausalLm => (0, 0),
            Framing::Bert => {
                let special = |token, missing| encoder.special(token).ok_or(Error::MissingSpecial { missing });
                (special(SpecialToken::Cls, "[CLS]")?, special(SpecialToken::Sep, "[SEP]")?)
            }
        };
        let room = options.max_seq_len.saturating_sub(2);
        let prompt = options.prompt.as_ref().map(|prompt| (prompt, room));
        let mut bad = BadItems::new(config.max_bad_items);
        let mut stores = Vec::new();
        for (name, source) in &config.source {
            if options.labels && source.label_column.is_none() {
                let detail = "the objective needs labels; set `label_column`".to_owned();
                return Err(Error::MissingLabel { name: name.clone(), detail });
            }
            if options.logits && source.logits_column.is_none() {
                let detail = "the objective needs logits; set `logits_column`".to_owned();
                return Err(Error::MissingLabel { name: name.clone(), detail });
            }
            if options.tags && source.tags_column.is_none() {
                let detail = "the objective needs tags; set `tags_column`".to_owned();
                return Err(Error::MissingLabel { name: name.clone(), detail });
            }
            let store = Store::open(name, config, source, encoder, options.framing, prompt, progress)?;
            bad.merge(&store.details.bad_items, store.details.first_bad_item.as_ref())?;
            if options.labels {
                refuse_unlabelled(name, &store, bad.total(), config.max_bad_items)?;
            }
            stores.push((name, source, store));
        }
        let label_names = if options.logits {
            classes_of_logits(&stores)?
        } else if let Some(prompt) = &options.prompt {
            classes_of_prompt(prompt, &stores)?
        } else {
            let names = |(_, _, store): &(_, _, Store)| {
                if options.tags { store.details.tag_names.clone() } else { store.details.labels.clone() }
            };
            stores.iter().flat_map(names).collect::<BTreeSet<String>>().into_iter().collect()
        };
        if options.is_labelled() && label_names.len() < 2 {
            let name = config.source.keys().next().cloned().unwrap_or_default();
            let (what, key) = if options.tags { ("tags", "tags_column") } else { ("labels", "label_column") };
            let detail = format!("the {what} have only one value, {label_names:?}; choose another `{key}`");
            return Err(Error::MissingLabel { name, detail });
        }
        let packing = packing_key(&config.packing);
        let is_whole = matches!(config.packing, PackingConfig::Document(_))
            && (options.is_labelled() || options.framing == Framing::Bert);
        let best_fit = PackingConfig::BestFit(best_fit::Config {});
        // Every held-out token counts, so it is only cut off where a row stands for its document.
        let held_out_packing = if is_whole { &config.packing } else { &best_fit };
        let held_out_key = packing_key(held_out_packing);
        let mut sources = Vec::new();
        for (name, source, store) in stores {
            let spec = |split, packing| PlanSpec {
                split,
                held_out_fraction: config.held_out_fraction,
                only_labelled: options.labels,
                geometry,
                packing,
            };
            let plan = |split, key, packing: &PackingConfig| {
                Plan::open(&store, &config.cache_dir, spec(split, key), packing.packer(), progress).map(Arc::new)
            };
            let train = plan(Split::Train, packing.as_str(), &config.packing)?;
            let held_out = plan(Split::HeldOut, held_out_key.as_str(), held_out_packing)?;
            if train.details.num_rows == 0 {
                let documents = store.details.num_documents;
                return Err(Error::NothingToTrainOn { name: name.clone(), documents });
            }
            let global = |label: &String| label_names.binary_search(label).map_or(NO_LABEL, |index| index as u32);
            let numbers = match &options.prompt {
                Some(prompt) if prompt.regression.is_some() => numbers(prompt, name, &store)?,
                _ => Vec::new(),
            };
            let labels = if numbers.is_empty() {
                store.details.labels.iter().map(global).collect()
            } else {
                numbers.iter().map(|shares| u32::from(shares[1] > shares[0])).collect()
            };
            let tags = store.details.tag_names.iter().filter(|_| options.tags).map(|tag| global(tag) as i32).collect();
            let (name, config) = (name.clone(), source.clone());
            sources.push(SourceData { name, config, store, train, held_out, labels, numbers, tags });
        }
        let mut hasher = blake3::Hasher::new();
        for source in &sources {
            hasher.update(format!("{:?} {}\n", source.name, source.store.key).as_bytes());
        }
        let rest = format!(
            "{geometry:?} {packing} {:x} {} {} {:?}",
            config.held_out_fraction.to_bits(),
            options.labels,
            options.logits,
            label_names
        );
        hasher.update(rest.as_bytes());
        if options.tags {
            hasher.update(b" tags");
        }
        if options.prompt.as_ref().is_some_and(|prompt| prompt.regression.is_some()) {
            hasher.update(b" numbers");
        }
        let rows = sources.iter().map(SourceData::rows).collect();
        let inner = Inner {
            sources,
            rows,
            max_seq_len: u64::from(geometry.max_seq_len),
            label_names,
            fingerprint: hasher.finalize().to_hex()[..32].to_owned(),
            framing: options.framing,
            cls_and_sep,
            cache_dir: config.cache_dir.clone(),
            held_out_fraction: config.held_out_fraction,
            only_labelled: options.labels,
            bad,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    pub(crate) fn rows(&self) -> Arc<dyn Rows> {
        Arc::clone(&self.inner) as Arc<dyn Rows>
    }

    pub(crate) fn summary(&self) -> Vec<SourceSummary> {
        let weight = self.inner.total_weight();
        self.inner.sources.iter().map(|source| source.summary(weight)).collect()
    }

    pub(crate) fn fingerprint(&self) -> &str {
        &self.inner.fingerprint
    }

    pub(crate) fn source_fingerprints(&self) -> BTreeMap<String, String> {
        self.inner.sources.iter().map(|source| (source.name.clone(), source.store.content.clone())).collect()
    }

    pub(crate) fn label_names(&self) -> &[String] {
        &self.inner.label_names
    }

    pub(crate) fn train_tokens(&self, source: usize) -> u64 {
        self.inner.sources.get(source).map_or(0, |source| source.train.details.row_tokens)
    }

    pub(crate) fn max_row_tokens(&self) -> usize {
        let longest = self.inner.sources.iter().map(SourceData::max_row_tokens).max();
        longest.unwrap_or(0) as usize
    }

    pub(crate) fn num_bad_items(&self) -> u64 {
        self.inner.bad.total()
    }

    pub(crate) fn held_out(&self, stride: Option<usize>) -> Result<HeldOut> {
        let inner = &self.inner;
        let Some(stride) = stride else {
            let sources = inner.sources.iter().map(|s| (s.name.as_str(), s.held_out.details.num_rows));
            return Ok(HeldOut::of_rows(self.rows(), sources));
        };
        let refuse = |detail: String| Error::BadStride { stride, detail };
        if inner.framing != Framing::CausalLm {
            return Err(refuse("only a causal model can be evaluated with one; leave it out".to_owned()));
        }
        if stride == 0 || stride as u64 > inner.max_seq_len {
            return Err(refuse(format!("it must lie between 1 and max_seq_len, {}", inner.max_seq_len)));
        }
        let packer = Strided { stride: stride as u32 };
        let packing = format!("strided {stride}");
        let spec = PlanSpec {
            split: Split::HeldOut,
            held_out_fraction: inner.held_out_fraction,
            only_labelled: inner.only_labelled,
            geometry: Geometry { max_seq_len: inner.max_seq_len as u32, overhead: 0 },
            packing: &packing,
        };
        let plans: Vec<Arc<Plan>> = inner
            .sources
            .iter()
            .map(|source| Plan::open(&source.store, &inner.cache_dir, spec, &packer, &Progress::none()).map(Arc::new))
            .collect::<Result<_>>()?;
        let sources: Vec<(String, u64)> =
            inner.sources.iter().zip(&plans).map(|(s, plan)| (s.name.clone(), plan.details.num_rows)).collect();
        let (inner, stride) = (Arc::clone(inner), packer.stride);
        let read = move |source: usize, index| inner.strided_row(source, &plans[source], index, stride).map(Some);
        Ok(HeldOut::new(sources.iter().map(|(name, num)| (name.as_str(), *num)), read))
    }

    pub(crate) fn expected_ledger(&self, tokens: u64) -> Vec<LedgerEntry> {
        let sources = &self.inner.sources;
        let weight = self.inner.total_weight();
        let members: Vec<(f64, Option<u64>)> = sources
            .iter()
            .map(|source| {
                let details = &source.train.details;
                let row_tokens = details.row_tokens as f64 / details.num_rows as f64;
                (source.config.weight, source.rows().max_rows.map(|rows| (rows as f64 * row_tokens) as u64))
            })
            .collect();
        let given = expected(&members, tokens);
        let total: f64 = given.iter().sum();
        sources
            .iter()
            .zip(given)
            .map(|(source, given)| {
                let details = &source.train.details;
                let repeats = given / details.row_tokens.max(1) as f64;
                LedgerEntry {
                    source: source.name.clone(),
                    rows: (repeats * details.num_rows as f64).round() as u64,
                    tokens: given.round() as u64,
                    bytes: (repeats * details.num_bytes as f64).round() as u64,
                    repeats,
                    target_share: source.config.weight / weight,
                    share: if total > 0.0 { given / total } else { 0.0 },
                }
            })
            .collect()
    }

    pub(crate) fn document_id(&self, source: u32, document: u32) -> Option<String> {
        self.inner.sources.get(source as usize)?.store.id(document)
    }

    pub(crate) fn describe_row(&self, key: u64) -> Option<(String, Vec<String>)> {
        if key & STRIDED_KEY != 0 {
            return None;
        }
        let is_held_out = key & HELD_OUT_KEY != 0;
        let key = key & !HELD_OUT_KEY;
        let source = self.inner.sources.get((key >> SOURCE_SHIFT) as usize)?;
        let plan = if is_held_out { &source.held_out } else { &source.train };
        let pieces = plan.row(key & ((1 << SOURCE_SHIFT) - 1)).ok()?;
        let ids = pieces.iter().filter_map(|piece| source.store.id(piece.document)).collect();
        Some((source.name.clone(), ids))
    }
}

fn packing_key(packing: &PackingConfig) -> String {
    format!("{packing:?}")
}

fn geometry(config: &DataConfig, options: &CorpusOptions) -> Result<Geometry> {
    let refuse = |key: &str, message: String, help: &str| {
        Err(Error::Config { key: key.to_owned(), message, help: help.to_owned() })
    };
    let overhead = match options.framing {
        Framing::CausalLm => 0,
        Framing::Bert => 2,
    };
    let max = options.max_seq_len;
    if max <= overhead as usize || max > 1 << 24 {
        let message = format!("is {max}, not between {} and {}", overhead + 1, 1 << 24);
        return refuse("batch.max_seq_len", message, "some hundreds are usual");
    }
    if options.is_labelled() && !matches!(config.packing, PackingConfig::Document(_)) {
        let what = if options.tags { "tags" } else { "labels" };
        let message = format!("is `{}`, but {what} belong to whole documents", config.packing.name());
        return refuse("data.packing", message, "use `[data.packing.document]`");
    }
    if config.source.len() > MAX_SOURCES {
        return refuse("data.source", "has more than 65536 sources".to_owned(), "join some by a pattern");
    }
    Ok(Geometry { max_seq_len: max as u32, overhead })
}

/// The classes that the logits of all sources are for; all must have the same.
fn classes_of_logits(stores: &[(&String, &SourceConfig, Store)]) -> Result<Vec<String>> {
    let Some((first, _, store)) = stores.first() else { return Ok(Vec::new()) };
    let classes = store.details.logit_classes.clone();
    for (name, _, store) in stores {
        let (own, labels) = (&store.details.logit_classes, &store.details.labels);
        if *own != classes {
            let detail = format!(
                "its logits are for the {} classes {own:?}, those of `{first}` for the {} classes {classes:?}; annotate both with one model",
                own.len(),
                classes.len()
            );
            return Err(Error::MissingLabel { name: (*name).clone(), detail });
        }
        if let Some(label) = labels.iter().find(|label| classes.binary_search(label).is_err()) {
            let detail = format!("the label `{label}` is none of the classes of its logits, {classes:?}");
            return Err(Error::MissingLabel { name: (*name).clone(), detail });
        }
    }
    Ok(classes)
}

/// The classes of a prompt; every label of the sources must be one.
fn classes_of_prompt(prompt: &Prompt, stores: &[(&String, &SourceConfig, Store)]) -> Result<Vec<String>> {
    let classes = prompt.classes();
    if prompt.regression.is_some() {
        return Ok(classes);
    }
    for (name, _, store) in stores {
        if let Some(label) = store.details.labels.iter().find(|label| classes.binary_search(label).is_err()) {
            let detail = format!("the label `{label}` has no word; the classes with a word are {classes:?}");
            return Err(Error::MissingLabel { name: (*name).clone(), detail });
        }
    }
    Ok(classes)
}

/// The shares of both classes in each label of a source; every label must be a number between those of the prompt.
fn numbers(prompt: &Prompt, name: &str, store: &Store) -> Result<Vec<[f64; 2]>> {
    let share = |(index, label): (usize, &String)| {
        prompt.shares(label).ok_or_else(|| {
            let first = store.documents().iter().position(|document| document.label as usize == index);
            let id = first.and_then(|first| store.id(first as u32)).unwrap_or_default();
            let detail = format!(
                "the document `{id}` has the label `{label}`, which is no number from {}; correct it or leave it out",
                prompt.classes().join(" to ")
            );
            Error::MissingLabel { name: name.to_owned(), detail }
        })
    };
    store.details.labels.iter().enumerate().map(share).collect()
}

fn refuse_unlabelled(name: &str, store: &Store, num_bad: u64, limit: u64) -> Result<()> {
    let missing = store.details.num_unlabelled;
    if num_bad + missing <= limit {
        return Ok(());
    }
    let first = store.details.first_unlabelled.as_deref().unwrap_or("unknown");
    let detail = format!(
        "{missing} of {} documents have no label, the first is `{first}`; add labels, or raise `data.max_bad_items` to leave them out",
        store.details.num_documents
    );
    if missing == 0 { Ok(()) } else { Err(Error::MissingLabel { name: name.to_owned(), detail }) }
}

impl SourceData {
    fn rows(&self) -> SourceRows {
        let num_rows = self.train.details.num_rows;
        let max_rows = SourceRows::limit(self.config.max_repeats, num_rows);
        SourceRows { name: self.name.clone(), weight: self.config.weight, num_rows, max_rows }
    }

    fn max_row_tokens(&self) -> u64 {
        self.train.details.max_row_tokens.max(self.held_out.details.max_row_tokens)
    }

    fn summary(&self, total_weight: f64) -> SourceSummary {
        let (all, train, held_out) = (&self.store.details, &self.train.details, &self.held_out.details);
        SourceSummary {
            name: self.name.clone(),
            files: self.store.num_files as u64,
            documents: all.num_documents,
            tokens: all.num_tokens,
            bytes: all.num_bytes,
            train_documents: train.num_documents,
            train_tokens: train.num_tokens,
            train_bytes: train.num_bytes,
            held_out_documents: held_out.num_documents,
            held_out_tokens: held_out.num_tokens,
            held_out_bytes: held_out.num_bytes,
            epoch_rows: train.num_rows,
            epoch_tokens: train.row_tokens,
            max_row_tokens: self.max_row_tokens(),
            target_share: self.config.weight / total_weight,
            max_repeats: self.config.max_repeats,
            unlabelled_documents: all.num_unlabelled,
            train_seconds: 0.0,
            held_out_seconds: 0.0,
            left_out: 0,
            bad_items: all.bad_items.clone(),
        }
    }
}

impl Rows for Inner {
    fn sources(&self) -> &[SourceRows] {
        &self.rows
    }

    fn max_row_positions(&self) -> u64 {
        self.max_seq_len
    }

    fn row(&self, draw: Draw) -> Result<Option<Row>> {
        let data = &self.sources[draw.source];
        match draw.split {
            Split::Train => self.fill(draw.source, 0, &data.train, draw.index, 0).map(Some),
            Split::HeldOut => self.fill(draw.source, HELD_OUT_KEY, &data.held_out, draw.index, 0).map(Some),
        }
    }

    fn positions(&self, _source: usize, _index: u64) -> Option<u64> {
        None
    }
}

impl Inner {
    pub(crate) fn total_weight(&self) -> f64 {
        self.sources.iter().map(|source| source.config.weight).sum()
    }

    /// A row of a plan of overlapping windows.
    pub(crate) fn strided_row(&self, source: usize, plan: &Plan, index: u64, stride: u32) -> Result<Row> {
        let context = plan.geometry.max_seq_len - stride;
        self.fill(source, HELD_OUT_KEY | STRIDED_KEY, plan, index, context)
    }

    fn fill(&self, source: usize, side: u64, plan: &Plan, index: u64, context: u32) -> Result<Row> {
        let key = side | (source as u64) << SOURCE_SHIFT | index;
        let data = &self.sources[source];
        let store = &data.store;
        let mut row = Row::empty(source as u32, key);
        let mut tokens = Vec::new();
        for (at, piece) in plan.row(index)?.iter().enumerate() {
            let document = store.document(piece.document)?;
            // The first window of a document has no context before it.
            let skipped = if piece.start == 0 { 0 } else { context.min(piece.len) };
            match self.framing {
                Framing::CausalLm => {
                    store.tokens(document, piece.start, piece.len + 1, &mut tokens)?;
                    row.push_causal(*piece, &tokens, skipped);
                }
                Framing::Bert => {
                    store.tokens(document, piece.start, piece.len, &mut tokens)?;
                    let number = |tag: &u32| data.tags.get(*tag as usize).copied().unwrap_or(IGNORED_TARGET);
                    let tags: Vec<i32> = if data.tags.is_empty() {
                        Vec::new()
                    } else {
                        store.tags(document, piece.start, piece.len)?.iter().map(number).collect()
                    };
                    row.push_bert(*piece, &tokens, &tags, self.cls_and_sep);
                }
            }
            let num_positions = store.num_positions(document);
            let num_bytes = store.position_bytes(document);
            row.num_bytes += bytes_between(num_bytes, num_positions, piece.start + skipped, piece.start + piece.len);
            if at == 0 {
                row.label = data.labels.get(document.label as usize).copied();
                row.logits = match data.numbers.get(document.label as usize) {
                    Some(shares) => Some(shares.iter().map(|share| share.ln() as f32).collect()),
                    None => store.logits(piece.document)?,
                };
            }
        }
        Ok(row)
    }
}

#[cfg(test)]
mod tests;
