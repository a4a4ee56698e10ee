//! From the files of a repository to what the readers of lists take: Parquet as it is, archives as folders of sound files with lists.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use super::download::SPLITS;
use super::{HubSet, Layout};
use crate::fetch::convert::{damaged, read};
use crate::fetch::speech::{Manifest, Spoken, seconds_of};
use crate::fetch::{FetchedFile, summary};
use crate::speech::parquet::num_rows;
use crate::speech::tar::{Member, each_member};
use crate::{Error, Result};

/// Lengths of clips, where the reader of Common Voice looks for them.
const DURATIONS: &str = "clip_durations.tsv";
const CLIPS: &str = "clips";

type Downloaded = BTreeMap<String, PathBuf>;

/// Lays the files out in the folder `data`; `draft` is room for what is not kept.
pub(super) fn run(set: &HubSet, files: &Downloaded, draft: &Path, data: &Path) -> Result<Vec<FetchedFile>> {
    match set.family.layout {
        Layout::LibriSpeech => tables(files, data),
        Layout::Fleurs => fleurs(set, files, draft, data),
        Layout::CommonVoice => common_voice(set, files, data),
    }
}

/// Files that are read as they are: linked to those of the cache, or copied where it is on another disk.
fn tables(files: &Downloaded, data: &Path) -> Result<Vec<FetchedFile>> {
    let one = |(name, from): (&String, &PathBuf)| {
        let name = name.rsplit('/').next().unwrap_or(name);
        let from = fs::canonicalize(from).map_err(|e| Error::read(from, e))?;
        let to = data.join(name);
        if fs::hard_link(&from, &to).is_err() {
            fs::copy(&from, &to).map_err(|e| Error::write(&to, e))?;
        }
        Ok(FetchedFile { documents: num_rows(&to)?, ..summary(data, name)? })
    };
    files.iter().map(one).collect()
}

/// `SPLIT.jsonl` for each split, with the sounds in `audio/SPLIT`.
fn fleurs(set: &HubSet, files: &Downloaded, draft: &Path, data: &Path) -> Result<Vec<FetchedFile>> {
    let language = set.part.split('_').next().unwrap_or(&set.part);
    let mut done = Vec::new();
    for split in SPLITS {
        let table = files.get(&format!("data/{}/{split}.tsv", set.part));
        let packed = files.get(&format!("data/{}/audio/{split}.tar.gz", set.part));
        let (Some(table), Some(packed)) = (table, packed) else { continue };
        let archive = draft.join("sounds.tar");
        unpack(packed, &archive)?;
        let sounds = format!("audio/{split}");
        extract(&archive, ".wav", &data.join(&sounds))?;
        let list = format!("{split}.jsonl");
        let mut manifest = Manifest::create(data, &list)?;
        for (number, line) in read(table)?.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            // The id of the sentence, the file, what is said with and without punctuation, characters, samples, and who speaks.
            let cells: Vec<&str> = line.split('\t').collect();
            let [_, name, said, ..] = cells[..] else {
                return Err(damaged(table, number, "a line without a file and what is said in it"));
            };
            let file = format!("{sounds}/{name}");
            let path = data.join(&file);
            // Some lines have lost their sound.
            if is_name(name) && path.is_file() {
                manifest.line(seconds_of(&path)?, &Spoken { file: &file, text: said, speaker: None, language })?;
            }
        }
        manifest.finish()?;
        done.push(summary(data, &list)?);
    }
    some(set, done, files)
}

/// The tables as they are beside the folder of clips, and how long each clip is.
fn common_voice(set: &HubSet, files: &Downloaded, data: &Path) -> Result<Vec<FetchedFile>> {
    let clips = data.join(CLIPS);
    let mut done = Vec::new();
    for split in SPLITS {
        let Some(table) = files.get(&format!("transcript/{}/{split}.tsv", set.part)) else { continue };
        let folder = format!("audio/{}/{split}/", set.part);
        for (_, archive) in files.range(folder.clone()..).take_while(|(path, _)| path.starts_with(&folder)) {
            extract(archive, ".mp3", &clips)?;
        }
        let list = format!("{split}.tsv");
        let to = data.join(&list);
        fs::copy(table, &to).map_err(|e| Error::write(&to, e))?;
        let found = summary(data, &list)?;
        // The first line names the columns.
        done.push(FetchedFile { documents: found.documents.saturating_sub(1), ..found });
    }
    let mut done = some(set, done, files)?;
    let path = data.join(DURATIONS);
    let write = |e| Error::write(&path, e);
    let mut out = BufWriter::new(File::create(&path).map_err(write)?);
    writeln!(out, "clip\tduration[ms]").map_err(write)?;
    let mut names: Vec<_> = fs::read_dir(&clips).map_err(|e| Error::read(&clips, e))?.flatten().collect();
    names.sort_by_key(fs::DirEntry::file_name);
    for clip in names {
        let milliseconds = (seconds_of(&clip.path())? * 1000.0).round();
        writeln!(out, "{}\t{milliseconds}", clip.file_name().to_string_lossy()).map_err(write)?;
    }
    out.flush().map_err(write)?;
    drop(out);
    // It lists what the tables list already.
    done.push(FetchedFile { documents: 0, ..summary(data, DURATIONS)? });
    Ok(done)
}

/// Refuses a set of which nothing came out.
fn some(set: &HubSet, done: Vec<FetchedFile>, files: &Downloaded) -> Result<Vec<FetchedFile>> {
    if done.iter().any(|file| file.documents > 0) {
        return Ok(done);
    }
    let first = files.values().next().cloned().unwrap_or_default();
    Err(damaged(&first, 0, format!("`{}` has no list with sounds beside it", set.name)))
}

/// Undoes the compression of an archive.
fn unpack(packed: &Path, archive: &Path) -> Result<()> {
    let file = File::open(packed).map_err(|e| Error::read(packed, e))?;
    let mut decoder = MultiGzDecoder::new(BufReader::new(file));
    let mut out = BufWriter::new(File::create(archive).map_err(|e| Error::write(archive, e))?);
    let mut buffer = vec![0; 1 << 16];
    loop {
        let num = decoder.read(&mut buffer).map_err(|e| damaged(packed, 0, e.to_string()))?;
        if num == 0 {
            return out.flush().map_err(|e| Error::write(archive, e));
        }
        out.write_all(&buffer[..num]).map_err(|e| Error::write(archive, e))?;
    }
}

/// Writes the members of an archive whose names end so into a folder, without their own folders.
fn extract(archive: &Path, ending: &str, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(|e| Error::io("make", folder, e))?;
    each_member(archive, |file, member| {
        let Member { name, offset, len } = member?;
        let name = name.rsplit('/').next().unwrap_or(&name);
        if !name.ends_with(ending) || !is_name(name) {
            return Ok(());
        }
        let to = folder.join(name);
        let mut from = file;
        from.seek(SeekFrom::Start(offset)).map_err(|e| Error::read(archive, e))?;
        let mut out = File::create(&to).map_err(|e| Error::write(&to, e))?;
        let copied = io::copy(&mut from.take(len), &mut out).map_err(|e| Error::write(&to, e))?;
        if copied == len { Ok(()) } else { Err(Error::Truncated { path: archive.to_owned(), line: 0 }) }
    })
}

/// Whether a text is the plain name of a file that is seen.
fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains('/') && !name.starts_with('.')
}
