//! The files of a repository: listed, downloaded into the cache, and held against the sizes and sums that the hub says.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use hf_hub::api::Progress as Listener;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError};
use hf_hub::{Cache, Repo, RepoType};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{HubOptions, HubSet, LIBRISPEECH, Layout};
use crate::progress::{Progress, Stage};
use crate::{Error, Result};

/// Longest list of files that is read.
const MAX_LIST_BYTES: u64 = 256 << 20;
/// Waits before the network is tried again, in milliseconds.
const PAUSES_MS: [u64; 3] = if cfg!(test) { [1, 1, 1] } else { [500, 2000, 8000] };
/// How often a file is downloaded that is not what the hub says.
const TRIES_OF_WRONG_FILES: usize = 2;
/// Codes that are listed where one is unknown.
const MAX_CODES: usize = 120;
/// The splits of a language.
pub(super) const SPLITS: [&str; 3] = ["train", "dev", "test"];

/// A file of the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HubFile {
    pub(super) path: String,
    bytes: u64,
    /// Of large files.
    sha256: Option<String>,
}

/// What the hub says of a repository.
#[derive(Deserialize)]
struct Listing {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    lfs: Option<Large>,
}

#[derive(Deserialize)]
struct Large {
    sha256: Option<String>,
}

/// A repository of the hub with its cache.
pub(super) struct Hub<'a> {
    set: &'a HubSet,
    options: &'a HubOptions,
    api: Api,
    cache: Cache,
}

/// Why a file is not there, and how often it is worth trying.
struct Problem {
    error: Error,
    tries: usize,
}

impl<'a> Hub<'a> {
    pub(super) fn open(set: &'a HubSet, options: &'a HubOptions) -> Result<Self> {
        // Links in the cache are relative, which needs absolute paths to begin with.
        let path = std::path::absolute(&options.cache).map_err(|e| Error::io("find", &options.cache, e))?;
        let cache = Cache::new(path);
        let builder = ApiBuilder::from_cache(cache.clone())
            .with_endpoint(options.endpoint.trim_end_matches('/').to_owned())
            .with_token(options.token.clone())
            .with_progress(false)
            .with_user_agent("arcuate", env!("CARGO_PKG_VERSION"));
        let api = builder.build().map_err(|error| set.error(options, error.to_string(), "look at the address"))?;
        Ok(Self { set, options, api, cache })
    }

    fn error(&self, said: impl Into<String>, remedy: impl Into<String>) -> Error {
        self.set.error(self.options, said, remedy)
    }

    fn repository(&self, revision: &str) -> Repo {
        Repo::with_revision(self.set.family.repository.to_owned(), RepoType::Dataset, revision.to_owned())
    }

    /// The commit, and the files of the set sorted by path.
    pub(super) fn list(&self) -> Result<(String, Vec<HubFile>)> {
        let revision = self.options.revision.as_deref().unwrap_or("main");
        let request = self.api.repo(self.repository(revision)).info_request().query("blobs", "true");
        let answer = request
            .call()
            .and_then(|mut response| response.body_mut().with_config().limit(MAX_LIST_BYTES).read_to_string());
        let text = answer.map_err(|error| self.problem(&ApiError::from(Box::new(error))).error)?;
        let listing: Listing = serde_json::from_str(&text).map_err(|error| {
            let said = format!("its list of files cannot be read ({error})");
            self.error(said, "see whether `HF_ENDPOINT` is the address of a hub")
        })?;
        let is_plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let leads_out = |path: &str| path.split('/').any(|part| part.is_empty() || matches!(part, "." | ".."));
        if !is_plain(&listing.sha) || listing.siblings.iter().any(|file| leads_out(&file.rfilename)) {
            return Err(self.error("its list has names that lead elsewhere", "use another address of the hub"));
        }
        let mut files: Vec<HubFile> = Vec::new();
        for Sibling { rfilename: path, size, lfs } in &listing.siblings {
            if self.set.wants(path) {
                let without_size = || self.error(format!("its list has no size for `{path}`"), "use another mirror");
                let bytes = size.ok_or_else(without_size)?;
                files.push(HubFile { path: path.clone(), bytes, sha256: lfs.as_ref().and_then(|l| l.sha256.clone()) });
            }
        }
        if files.is_empty() {
            let codes = self.set.codes(listing.siblings.iter().map(|file| file.rfilename.as_str()));
            let remedy = match codes.len() {
                0 => "see at that address whether the set has moved".to_owned(),
                _ => format!("the languages there are {}", codes.join(", ")),
            };
            return Err(self.error(format!("it has no file of `{}`", self.set.part), remedy));
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok((listing.sha, files))
    }

    /// Where the files lie once all of them are whole, by path.
    pub(super) fn files(
        &self,
        commit: &str,
        wanted: &[HubFile],
        progress: &Progress<'_>,
    ) -> Result<BTreeMap<String, PathBuf>> {
        let total = wanted.iter().map(|file| file.bytes).sum();
        let mut before = 0;
        let mut found = BTreeMap::new();
        for file in wanted {
            progress.report(Stage::Download, before, total)?;
            found.insert(file.path.clone(), self.file(commit, file, Told { progress, before, now: 0, total })?);
            before += file.bytes;
        }
        progress.report(Stage::Download, total, total)?;
        Ok(found)
    }

    fn file(&self, commit: &str, file: &HubFile, told: Told<'_>) -> Result<PathBuf> {
        let cached = self.cache.repo(self.repository(commit));
        let pointer = cached.pointer_path(commit).join(&file.path);
        if pointer.exists() && self.verify(file, &pointer).is_ok() {
            return Ok(pointer);
        }
        let mut tried = 0;
        loop {
            forget(&pointer);
            let downloaded = self.download(commit, file, told).and_then(|()| self.verify(file, &pointer));
            let Err(Problem { error, tries }) = downloaded else { return Ok(pointer) };
            tried += 1;
            if tried >= tries {
                // What is wrong must not be found by the next one who looks.
                forget(&pointer);
                return Err(error);
            }
            sleep(Duration::from_millis(PAUSES_MS[(tried - 1).min(PAUSES_MS.len() - 1)]));
        }
    }

    /// Goes on where an interrupted download stopped.
    fn download(&self, commit: &str, file: &HubFile, told: Told<'_>) -> Result<(), Problem> {
        let repository = self.api.repo(self.repository(commit));
        let metadata = self.api.metadata(&repository.url(&file.path)).map_err(|error| self.problem(&error))?;
        // The name of the file in the cache.
        let etag = metadata.etag();
        if !etag.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
            let said = format!("`{}` has the tag `{etag}`, which is none", file.path);
            return Err(Problem { error: self.error(said, "use another address of the hub"), tries: 1 });
        }
        let part = self.cache.repo(self.repository(commit)).blob_path(etag).with_extension("part");
        // A part that is no part cannot be continued.
        if fs::metadata(&part).is_ok_and(|found| found.len() >= file.bytes) {
            fs::remove_file(&part).map_err(|e| Problem { error: Error::io("remove", &part, e), tries: 1 })?;
        }
        let downloaded = repository.download_with_progress(&file.path, told);
        downloaded.map(|_| ()).map_err(|error| self.problem(&error))
    }

    /// Refuses a file that has not the size or the sum that the hub says.
    fn verify(&self, file: &HubFile, path: &Path) -> Result<(), Problem> {
        let wrong = |what: String| {
            let said = format!("`{}` has {what}", file.path);
            let remedy =
                "run the same command again; if that fails too, the file is damaged there: try another `--revision`";
            Problem { error: self.error(said, remedy), tries: TRIES_OF_WRONG_FILES }
        };
        let unreadable = |e| Problem { error: Error::read(path, e), tries: 1 };
        let mut read = File::open(path).map_err(unreadable)?;
        let bytes = read.metadata().map_err(unreadable)?.len();
        if bytes != file.bytes {
            return Err(wrong(format!("{bytes} bytes, not {} as the hub says", file.bytes)));
        }
        let Some(expected) = &file.sha256 else { return Ok(()) };
        let mut hasher = Sha256::new();
        io::copy(&mut read, &mut hasher).map_err(unreadable)?;
        let sum: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        if sum.eq_ignore_ascii_case(expected) {
            return Ok(());
        }
        Err(wrong(format!("the SHA-256 {sum}, not {expected} as the hub says")))
    }

    /// What an answer of the hub means.
    fn problem(&self, error: &ApiError) -> Problem {
        let status = match error {
            ApiError::RequestError(error) => match error.as_ref() {
                ureq::Error::StatusCode(status) => Some(*status),
                _ => None,
            },
            _ => None,
        };
        let once = |said: String, remedy: String| Problem { error: self.error(said, remedy), tries: 1 };
        let page = format!("{}/datasets/{}", super::ENDPOINT, self.set.family.repository);
        match status {
            Some(status @ (401 | 403)) if self.options.token.is_some() => once(
                format!("it refuses the token (status {status})"),
                format!("accept the terms at {page} with the account of the token, or set `HF_TOKEN` to a valid one"),
            ),
            Some(status @ (401 | 403)) => once(
                format!("it wants to know who asks (status {status})"),
                format!(
                    "accept the terms at {page}, make a token at {}/settings/tokens, and set `HF_TOKEN` to it",
                    super::ENDPOINT
                ),
            ),
            Some(404) => once(
                "there is no such repository, revision or file (status 404)".to_owned(),
                format!("see at {page} whether the set has moved, or correct `--revision`"),
            ),
            Some(status) if (400..500).contains(&status) && status != 408 && status != 429 => {
                once(format!("it refuses (status {status})"), "see whether `HF_ENDPOINT` is right".to_owned())
            }
            _ => {
                let remedy = "look at the network and run the same command again: it goes on where it stopped";
                Problem { error: self.error(error.to_string(), remedy), tries: PAUSES_MS.len() + 1 }
            }
        }
    }
}

/// Removes a file of the cache: the link and what it leads to.
fn forget(pointer: &Path) {
    if let Ok(blob) = fs::canonicalize(pointer) {
        let _ = fs::remove_file(blob);
    }
    let _ = fs::remove_file(pointer);
}

/// Tells the progress of one file as that of the set.
#[derive(Clone, Copy)]
struct Told<'a> {
    progress: &'a Progress<'a>,
    before: u64,
    now: u64,
    total: u64,
}

impl Listener for Told<'_> {
    fn init(&mut self, _size: usize, _filename: &str) {
        self.now = 0;
    }

    fn update(&mut self, size: usize) {
        self.now += size as u64;
        // Stopping waits for the end of the file: the listener cannot refuse.
        let _ = self.progress.report(Stage::Download, self.before + self.now, self.total);
    }

    fn finish(&mut self) {}
}

impl HubSet {
    /// The folder of LibriSpeech's part.
    fn folder(&self) -> &'static str {
        LIBRISPEECH.iter().find(|(name, _)| *name == self.part).map_or("", |(_, folder)| folder)
    }

    /// Whether a file of the repository belongs to the set.
    fn wants(&self, path: &str) -> bool {
        let parts: Vec<&str> = path.split('/').collect();
        let is_split = |name: &str, ending: &str| SPLITS.iter().any(|split| name.strip_suffix(ending) == Some(*split));
        match (self.family.layout, &parts[..]) {
            (Layout::LibriSpeech, [first, second, name]) => {
                format!("{first}/{second}") == self.folder() && name.ends_with(".parquet")
            }
            (Layout::Fleurs, ["data", code, name]) => *code == self.part && is_split(name, ".tsv"),
            (Layout::Fleurs, ["data", code, "audio", name]) => *code == self.part && is_split(name, ".tar.gz"),
            (Layout::CommonVoice, ["transcript", code, name]) => *code == self.part && is_split(name, ".tsv"),
            (Layout::CommonVoice, ["audio", code, split, name]) => {
                *code == self.part && is_split(split, "") && name.ends_with(".tar")
            }
            _ => false,
        }
    }

    /// The languages that a list of files has.
    fn codes<'f>(&self, paths: impl Iterator<Item = &'f str>) -> Vec<&'f str> {
        let top = match self.family.layout {
            Layout::LibriSpeech => return Vec::new(),
            Layout::Fleurs => "data/",
            Layout::CommonVoice => "transcript/",
        };
        let mut codes: Vec<&str> =
            paths.filter_map(|path| path.strip_prefix(top)?.split_once('/')).map(|(code, _)| code).collect();
        codes.sort_unstable();
        codes.dedup();
        codes.truncate(MAX_CODES);
        codes
    }
}
