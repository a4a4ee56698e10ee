//! Recorded speech of the Hugging Face hub by name: downloaded into its cache, checked, and laid out for the readers of lists.
//!
//! The branch `main` is looked up once; everything is then taken from that commit, which is written down beside the data.

#[cfg(feature = "hub")]
mod convert;
#[cfg(feature = "hub")]
mod download;

use std::fs;
use std::path::{Path, PathBuf};

use super::{Fetched, ORIGIN_FILE, sounds_below};
use crate::progress::Progress;
use crate::{Error, Result};

/// Where files come from unless another place is named.
pub const ENDPOINT: &str = "https://huggingface.co";

/// Parts of LibriSpeech and their folders in the repository.
const LIBRISPEECH: [(&str, &str); 7] = [
    ("clean-100", "clean/train.100"),
    ("clean-360", "clean/train.360"),
    ("dev-clean", "clean/validation"),
    ("dev-other", "other/validation"),
    ("other-500", "other/train.500"),
    ("test-clean", "clean/test"),
    ("test-other", "other/test"),
];
/// Longest code of a language.
const MAX_CODE_BYTES: usize = 24;

/// How the files of a repository are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// `FOLDER/*.parquet` with the sound inside.
    LibriSpeech,
    /// `data/CODE/SPLIT.tsv` without a line of names, and `data/CODE/audio/SPLIT.tar.gz`.
    Fleurs,
    /// `transcript/CODE/SPLIT.tsv` with a line of names, and `audio/CODE/SPLIT/*.tar`.
    CommonVoice,
}

/// Data sets of one repository; a name ends with the part or the language.
#[derive(Debug)]
pub struct HubFamily {
    /// What the names begin with.
    prefix: &'static str,
    /// The names, for people.
    pub names: &'static str,
    /// What is in them.
    pub about: &'static str,
    /// The repository.
    pub repository: &'static str,
    /// Licence, or what is known of the rights.
    pub licence: &'static str,
    layout: Layout,
}

/// All families, in the order in which they are listed.
pub const FAMILIES: &[HubFamily] = &[
    HubFamily {
        prefix: "common-voice-",
        names: "common-voice-CODE",
        about: "recorded speech: sentences read by volunteers, version 17; CODE is a language such as cs; needs HF_TOKEN",
        repository: "mozilla-foundation/common_voice_17_0",
        licence: "CC0-1.0; who is heard must not be identified",
        layout: Layout::CommonVoice,
    },
    HubFamily {
        prefix: "fleurs-",
        names: "fleurs-CODE",
        about: "recorded speech: sentences of an encyclopaedia, 12 hours each; CODE is a language such as cs_cz",
        repository: "google/fleurs",
        licence: "CC-BY-4.0",
        layout: Layout::Fleurs,
    },
    HubFamily {
        prefix: "librispeech-",
        names: "librispeech-PART",
        about: "recorded speech: read books, English; PART is clean-100, clean-360, other-500, dev-clean, dev-other, test-clean or test-other",
        repository: "openslr/librispeech_asr",
        licence: "CC-BY-4.0",
        layout: Layout::LibriSpeech,
    },
];

/// One data set of the hub.
#[derive(Debug, Clone)]
pub struct HubSet {
    /// Name on the command line, and of its folder.
    pub name: String,
    /// What it is one of.
    pub family: &'static HubFamily,
    /// The part or the language.
    #[cfg_attr(not(feature = "hub"), allow(dead_code))]
    part: String,
}

/// The set of a name, whether or not the hub has it.
pub fn hub_set(name: &str) -> Option<HubSet> {
    FAMILIES.iter().find_map(|family| {
        let part = name.strip_prefix(family.prefix)?;
        let is_code = |part: &str| {
            (2..=MAX_CODE_BYTES).contains(&part.len())
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
        };
        let is_sound = match family.layout {
            Layout::LibriSpeech => LIBRISPEECH.iter().any(|(name, _)| *name == part),
            Layout::Fleurs | Layout::CommonVoice => is_code(part),
        };
        is_sound.then(|| HubSet { name: name.to_owned(), family, part: part.to_owned() })
    })
}

/// How to fetch from the hub.
#[derive(Debug, Clone)]
pub struct HubOptions {
    /// Address of the hub or of a mirror: [`ENDPOINT`].
    pub endpoint: String,
    /// Says who asks, for sets that want to know.
    pub token: Option<String>,
    /// Folder of downloaded files, laid out like that of other programs for the hub.
    pub cache: PathBuf,
    /// The commit or branch to take; `main` when left out.
    pub revision: Option<String>,
}

/// The set in `folder/NAME` if it is there with files of the right sizes.
pub fn fetched_hub(set: &HubSet, folder: &Path) -> Option<Fetched> {
    let folder = folder.join(&set.name);
    let found: Fetched = serde_json::from_slice(&fs::read(folder.join(ORIGIN_FILE)).ok()?).ok()?;
    let size = |name: &str| fs::metadata(folder.join(name)).ok().map(|metadata| metadata.len());
    let has_files = found.files.iter().all(|file| size(&file.name) == Some(file.bytes));
    let has_sounds = found.sounds.as_ref().is_none_or(|sounds| {
        let listed: Vec<&str> = found.files.iter().map(|file| file.name.as_str()).collect();
        let files = sounds_below(&set.name, &listed, &folder).unwrap_or_default();
        let bytes = files.iter().map(|file| fs::metadata(&file.path).map_or(0, |metadata| metadata.len())).sum();
        (files.len() as u64, sounds.bytes) == (sounds.files, bytes)
    });
    (found.name == set.name && has_files && has_sounds).then_some(found)
}

/// Downloads, checks and lays out a set, and puts it at `folder/NAME`, in place of what stood there; progress counts bytes.
///
/// # Errors
/// When the hub cannot be reached or refuses, when it has no such set, when files are not what the hub says, and when files
/// cannot be written. Nothing is changed then but the cache, in which whole files stay and others go on when they are asked for again.
#[cfg(feature = "hub")]
pub fn fetch_hub(set: &HubSet, folder: &Path, options: &HubOptions, progress: &Progress<'_>) -> Result<Fetched> {
    use super::{Draft, publish, read_sounds};
    fs::create_dir_all(folder).map_err(|e| Error::io("make", folder, e))?;
    let hub = download::Hub::open(set, options)?;
    let (commit, wanted) = hub.list()?;
    let downloaded = hub.files(&commit, &wanted, progress)?;
    let draft = Draft::new(folder, &set.name)?;
    let data = draft.path().join("data");
    fs::create_dir_all(&data).map_err(|e| Error::io("make", &data, e))?;
    let files = convert::run(set, &downloaded, draft.path(), &data)?;
    let sounds = match set.family.layout {
        Layout::LibriSpeech => None,
        Layout::Fleurs | Layout::CommonVoice => {
            let listed: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
            Some(read_sounds(&set.name, &listed, &data)?)
        }
    };
    let fetched = Fetched {
        name: set.name.clone(),
        about: set.family.about.to_owned(),
        origin: format!("{} of the Hugging Face hub, commit {commit}", set.family.repository),
        licence: set.family.licence.to_owned(),
        files,
        sounds,
    };
    publish(&fetched, &data, &folder.join(&set.name))?;
    Ok(fetched)
}

/// Says that this program cannot.
///
/// # Errors
/// Always.
#[cfg(not(feature = "hub"))]
pub fn fetch_hub(set: &HubSet, _folder: &Path, options: &HubOptions, _progress: &Progress<'_>) -> Result<Fetched> {
    Err(set.error(
        options,
        "this program was built without the feature `hub`",
        "build it with `cargo build --release --features hub`",
    ))
}

impl HubSet {
    /// What went wrong with the set, and what to do.
    fn error(&self, options: &HubOptions, said: impl Into<String>, remedy: impl Into<String>) -> Error {
        let (set, endpoint) = (self.name.clone(), options.endpoint.trim_end_matches('/'));
        let url = format!("{endpoint}/datasets/{}", self.family.repository);
        Error::Hub { set, url, said: said.into(), remedy: remedy.into() }
    }
}

#[cfg(all(test, feature = "hub"))]
mod tests;
