//! Building a token cache: one thread reads, all tokenise, one writes in order; a few megabytes are in flight.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, sync_channel};

use arcuate_text::SpecialToken;
use rayon::prelude::*;

use super::{DOCUMENTS, DocumentRecord, IDS, LOGITS, MAX_LABELS, NO_LABEL, StoreDetails, TAGS, TOKENS, file_in};
use crate::config::{DataConfig, SourceConfig};
use crate::encoder::Encoder;
use crate::error::{BadItem, BadItems, BadReason, Error, Result};
use crate::files::InputFile;
use crate::progress::{Progress, Stage};
use crate::prompt::Prompt;
use crate::reader::{PART_BYTES, Part, Parts};
use crate::row::Framing;
use crate::split::id_hash;
use crate::words::Words;

const BATCH_BYTES: usize = 16 * PART_BYTES;
const BATCH_PARTS: usize = 4096;

/// What to build.
pub(super) struct Job<'a> {
    pub(super) name: &'a str,
    pub(super) config: &'a DataConfig,
    pub(super) source: &'a SourceConfig,
    pub(super) encoder: &'a dyn Encoder,
    pub(super) framing: Framing,
    /// The sentence that documents are written into, and the most tokens of it.
    pub(super) prompt: Option<(&'a Prompt, usize)>,
    pub(super) progress: &'a Progress<'a>,
}

type Batch = Vec<Result<Part>>;

impl Job<'_> {
    /// Writes all files of the cache into `dir`.
    pub(super) fn run(&self, dir: &Path, files: Vec<InputFile>) -> Result<StoreDetails> {
        let parts = Parts::of_files(self.name, self.source, self.config.max_document_bytes, files);
        let (done, total) = (parts.progress(), parts.total_bytes());
        let mut writer = Writer::create(self, dir)?;
        std::thread::scope(|scope| {
            let (sender, receiver) = sync_channel::<Batch>(1);
            // When the receiver goes, because of an error, sending fails and the reader ends.
            scope.spawn(move || {
                let mut batches = Batches { parts };
                while let Some(batch) = batches.next_batch() {
                    if sender.send(batch).is_err() {
                        break;
                    }
                }
            });
            let on_batch = || self.progress.report(Stage::Tokenise, done.load(Ordering::Relaxed).min(total), total);
            self.consume(receiver, &mut writer, on_batch)
        })?;
        self.progress.report(Stage::Tokenise, total, total)?;
        writer.finish()
    }

    /// Whether words have tags; a prompt makes another text of them.
    fn has_tags(&self) -> bool {
        self.source.tags_column.is_some() && self.prompt.is_none()
    }

    /// The tokens of a part; where words begin is known only if they have tags.
    fn encode(&self, part: &Part) -> Result<Words> {
        let document = &part.document;
        let is_whole = part.is_first && part.is_last;
        if !is_whole && (self.prompt.is_some() || self.has_tags()) {
            let what = if self.has_tags() { "text with tags" } else { "prompt" };
            let detail = format!("is longer than the {PART_BYTES} bytes that a {what} takes; shorten it");
            let place = document.place.clone();
            return Err(Error::BadItem(BadItem { reason: BadReason::TooLong, place, detail }));
        }
        if self.has_tags() {
            return Words::encode_with(self.encoder, document);
        }
        let Some((prompt, max_tokens)) = self.prompt else {
            let encoded = self.encoder.encode(&document.text);
            let ids = encoded.map_err(|source| Error::Encode { place: document.place.clone(), source })?;
            return Ok(Words { ids, starts: Vec::new() });
        };
        let mask = match self.framing {
            Framing::Bert => {
                let missing = Error::MissingSpecial { missing: "[MASK]" };
                Some(self.encoder.special(SpecialToken::Mask).ok_or(missing)?)
            }
            Framing::CausalLm => None,
        };
        let ids = prompt.encode_with(self.encoder, document, mask, max_tokens)?;
        Ok(Words { ids, starts: Vec::new() })
    }

    fn consume(
        &self,
        batches: Receiver<Batch>,
        writer: &mut Writer<'_>,
        on_batch: impl Fn() -> Result<()>,
    ) -> Result<()> {
        for batch in batches {
            let encoded: Vec<Result<(Part, Words)>> = batch
                .into_par_iter()
                .map(|part| {
                    let part = part?;
                    let words = self.encode(&part)?;
                    Ok((part, words))
                })
                .collect();
            for item in encoded {
                match item {
                    Ok((part, words)) => writer.add(part, &words)?,
                    Err(Error::BadItem(item)) => writer.bad.add(item)?,
                    Err(error) => return Err(error),
                }
            }
            on_batch()?;
        }
        Ok(())
    }
}

struct Batches {
    parts: Parts,
}

impl Batches {
    fn next_batch(&mut self) -> Option<Batch> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        for part in self.parts.by_ref() {
            bytes += part.as_ref().map_or(0, |part| part.document.text.len());
            batch.push(part);
            if bytes >= BATCH_BYTES || batch.len() >= BATCH_PARTS {
                break;
            }
        }
        (!batch.is_empty()).then_some(batch)
    }
}

struct Output {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Output {
    fn create(dir: &Path, name: &str) -> Result<Self> {
        let path = file_in(dir, name);
        let file = File::create(&path).map_err(|source| Error::write(&path, source))?;
        Ok(Self { path, file: BufWriter::with_capacity(1 << 20, file) })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|source| Error::write(&self.path, source))
    }

    fn finish(mut self) -> Result<()> {
        self.file.flush().map_err(|source| Error::write(&self.path, source))
    }
}

/// Names by number, in the order of their first use.
#[derive(Default)]
struct Names {
    numbers: HashMap<String, u32>,
    names: Vec<String>,
}

impl Names {
    /// The number of a name; none for one too many.
    fn number(&mut self, name: &str) -> Option<u32> {
        if let Some(number) = self.numbers.get(name) {
            return Some(*number);
        }
        let number = self.names.len() as u32;
        (self.names.len() < MAX_LABELS).then(|| {
            self.numbers.insert(name.to_owned(), number);
            self.names.push(name.to_owned());
            number
        })
    }
}

struct Writer<'a> {
    job: &'a Job<'a>,
    bos: Option<u32>,
    eos: Option<u32>,
    tokens: Output,
    documents: Output,
    ids: Output,
    logits: Option<Output>,
    tags: Option<Output>,
    seen: HashSet<u64>,
    labels: Names,
    tag_names: Names,
    bad: BadItems,
    details: StoreDetails,
    ids_bytes: u64,
    current: Option<DocumentRecord>,
    num_text_tokens: u64,
    current_id: String,
    current_logits: Vec<f32>,
}

impl<'a> Writer<'a> {
    fn create(job: &'a Job<'a>, dir: &Path) -> Result<Self> {
        let mark = |token| match job.framing {
            Framing::CausalLm => job.encoder.special(token),
            Framing::Bert => None,
        };
        let vocab_size = job.encoder.vocab_size();
        let is_open = job.prompt.is_some() && job.framing == Framing::CausalLm;
        Ok(Self {
            job,
            bos: mark(SpecialToken::Bos),
            // The last token of a causal row is only predicted; a prompt must be seen to its end.
            eos: mark(SpecialToken::Eos).or(is_open.then_some(0)),
            tokens: Output::create(dir, TOKENS)?,
            documents: Output::create(dir, DOCUMENTS)?,
            ids: Output::create(dir, IDS)?,
            logits: job.source.logits_column.as_ref().map(|_| Output::create(dir, LOGITS)).transpose()?,
            tags: job.has_tags().then(|| Output::create(dir, TAGS)).transpose()?,
            seen: HashSet::new(),
            labels: Names::default(),
            tag_names: Names::default(),
            bad: BadItems::new(job.config.max_bad_items),
            details: StoreDetails {
                num_documents: 0,
                num_tokens: 0,
                num_bytes: 0,
                labels: Vec::new(),
                logit_classes: Vec::new(),
                tag_names: Vec::new(),
                num_unlabelled: 0,
                first_unlabelled: None,
                bad_items: Default::default(),
                first_bad_item: None,
                is_wide: vocab_size > 1 << 16,
                vocab_size: vocab_size as u64,
            },
            ids_bytes: 0,
            current: None,
            num_text_tokens: 0,
            current_id: String::new(),
            current_logits: Vec::new(),
        })
    }

    fn add(&mut self, part: Part, words: &Words) -> Result<()> {
        let tokens = words.ids.as_slice();
        if part.is_first {
            self.begin(&part)?;
        }
        // Without a current document this is a later part of one that was refused.
        let Some(mut current) = self.current.take() else { return Ok(()) };
        if self.num_text_tokens == 0
            && self.bos.is_none()
            && self.job.framing == Framing::CausalLm
            && let Some(first) = tokens.first()
        {
            let bytes = self.job.encoder.decoded_bytes(&[*first]).unwrap_or(0);
            current.unpredicted_bytes = u32::try_from(bytes).unwrap_or(0);
        }
        current.num_bytes += part.document.text.len() as u64;
        self.num_text_tokens += tokens.len() as u64;
        let tags = self.tags(&part, words)?;
        self.write_tokens(&mut current, tokens, &tags, &part.document.place)?;
        if part.is_last {
            return self.end(current, &part);
        }
        self.current = Some(current);
        Ok(())
    }

    fn begin(&mut self, part: &Part) -> Result<()> {
        let document = &part.document;
        let hash = id_hash(&document.id);
        if !self.seen.insert(hash) {
            let detail = format!("has the id `{}` of an earlier document", document.id);
            let place = document.place.clone();
            self.current = None;
            return self.bad.add(BadItem { reason: BadReason::DuplicateId, place, detail });
        }
        let label = self.label(document.label.as_deref())?;
        self.current_logits.clear();
        if let Some(logits) = &document.logits {
            let classes = || logits.iter().map(|(class, _)| class);
            if self.details.logit_classes.is_empty() {
                self.details.logit_classes = classes().cloned().collect();
            }
            if !classes().eq(&self.details.logit_classes) {
                let detail = format!(
                    "has logits for the {} classes {:?} (id `{}`), those before for the {} classes {:?}; annotate all with one model",
                    logits.len(),
                    classes().collect::<Vec<_>>(),
                    document.id,
                    self.details.logit_classes.len(),
                    self.details.logit_classes
                );
                let place = document.place.clone();
                self.current = None;
                return self.bad.add(BadItem { reason: BadReason::WrongType, place, detail });
            }
            self.current_logits.extend(logits.iter().map(|(_, logit)| *logit));
        }
        let mut current = DocumentRecord {
            side_hash: document.side_hash(),
            id_end: 0,
            token_start: self.details.num_tokens,
            num_bytes: 0,
            num_tokens: 0,
            label,
            unpredicted_bytes: 0,
            unused: 0,
        };
        self.num_text_tokens = 0;
        self.current_id.clone_from(&document.id);
        if let Some(bos) = self.bos {
            self.write_tokens(&mut current, &[bos], &[NO_LABEL], &document.place)?;
        }
        self.current = Some(current);
        Ok(())
    }

    fn end(&mut self, mut current: DocumentRecord, part: &Part) -> Result<()> {
        if self.num_text_tokens == 0 {
            // What was written for it, at most its begin mark, stays in the file without an owner.
            let detail = "has a text of which the tokenizer keeps nothing".to_owned();
            let place = part.document.place.clone();
            return self.bad.add(BadItem { reason: BadReason::NoTokens, place, detail });
        }
        if let Some(eos) = self.eos {
            self.write_tokens(&mut current, &[eos], &[NO_LABEL], &part.document.place)?;
        }
        if self.details.num_documents == u64::from(u32::MAX) {
            let detail = "has more than 4 thousand million documents; divide it into several sources".to_owned();
            return Err(Error::TooLarge { place: self.job.name.to_owned(), detail });
        }
        if let Some(logits) = &mut self.logits {
            logits.write(bytemuck::cast_slice(&self.current_logits))?;
        }
        self.ids.write(self.current_id.as_bytes())?;
        self.ids_bytes += self.current_id.len() as u64;
        current.id_end = self.ids_bytes;
        self.documents.write(bytemuck::bytes_of(&current))?;
        self.details.num_documents += 1;
        self.details.num_bytes += current.num_bytes;
        if current.label == NO_LABEL && self.job.source.label_column.is_some() {
            self.details.num_unlabelled += 1;
            self.details.first_unlabelled.get_or_insert_with(|| part.document.place.clone());
        }
        Ok(())
    }

    fn label(&mut self, label: Option<&str>) -> Result<u32> {
        let Some(label) = label else { return Ok(NO_LABEL) };
        let number = self.labels.number(label);
        number.ok_or_else(|| self.too_many("label_column", self.job.source.label_column.as_deref()))
    }

    fn too_many(&self, key: &'static str, column: Option<&str>) -> Error {
        let (name, column) = (self.job.name.to_owned(), column.unwrap_or_default().to_owned());
        Error::TooManyLabels { name, column, key, limit: MAX_LABELS }
    }

    /// The tag of each token by number; none at all where words have no tags.
    fn tags(&mut self, part: &Part, words: &Words) -> Result<Vec<u32>> {
        let (Some(_), Some(tags)) = (&self.tags, &part.document.tags) else { return Ok(Vec::new()) };
        let mut all = vec![NO_LABEL; words.ids.len()];
        for (start, tag) in words.starts.iter().zip(tags) {
            let number = self.tag_names.number(tag);
            let too_many = || self.too_many("tags_column", self.job.source.tags_column.as_deref());
            all[*start] = number.ok_or_else(too_many)?;
        }
        Ok(all)
    }

    fn write_tokens(&mut self, current: &mut DocumentRecord, tokens: &[u32], tags: &[u32], place: &str) -> Result<()> {
        let vocab_size = self.details.vocab_size;
        if let Some(wrong) = tokens.iter().find(|token| u64::from(**token) >= vocab_size) {
            let detail =
                format!("gives token {wrong} with a vocabulary of {vocab_size}; the tokenizer is inconsistent");
            return Err(Error::TooLarge { place: place.to_owned(), detail });
        }
        if let Some(out) = &mut self.tags {
            out.write(bytemuck::cast_slice(tags))?;
        }
        if self.details.is_wide {
            self.tokens.write(bytemuck::cast_slice(tokens))?;
        } else {
            let narrow: Vec<u16> = tokens.iter().map(|token| *token as u16).collect();
            self.tokens.write(bytemuck::cast_slice(&narrow))?;
        }
        self.details.num_tokens += tokens.len() as u64;
        current.num_tokens = u32::try_from(tokens.len())
            .ok()
            .and_then(|num| current.num_tokens.checked_add(num))
            // Positions are 32 bits wide, and one more than the last must still fit.
            .filter(|num| *num < u32::MAX)
            .ok_or_else(|| Error::TooLarge {
                place: place.to_owned(),
                detail: "has more than 4 thousand million tokens; set `split_at_bytes`".to_owned(),
            })?;
        Ok(())
    }

    fn finish(self) -> Result<StoreDetails> {
        let Self { mut details, bad, tokens, documents, ids, logits, tags, labels, tag_names, job, .. } = self;
        logits.map_or(Ok(()), Output::finish)?;
        tags.map_or(Ok(()), Output::finish)?;
        (details.labels, details.tag_names) = (labels.names, tag_names.names);
        tokens.finish()?;
        documents.finish()?;
        ids.finish()?;
        if details.num_documents == 0 {
            return Err(Error::EmptySource { name: job.name.to_owned(), path: job.source.path.clone() });
        }
        details.bad_items = bad.by_reason;
        details.first_bad_item = bad.first;
        Ok(details)
    }
}
