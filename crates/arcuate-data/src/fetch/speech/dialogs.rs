//! The dialogues of Fish Fillets, a puzzle game whose figures talk to each other.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Manifest, Spoken, files_below, seconds_of};
use crate::Result;
use crate::fetch::convert::{entries, read};

const FOLDER: &str = "usr/share/games/fillets-ng";
const LANGUAGES: [&str; 2] = ["cs", "nl"];

/// One line of a dialogue.
struct Line {
    role: String,
    text: String,
}

/// `sound/LEVEL/LANG/ID.ogg` says what `script/*/*dialogs_LANG.lua` writes: `dialogId("ID", "font_ROLE", "English")`, then
/// `dialogStr("TEXT")`. Lines that several levels use are written in one of them.
pub(in crate::fetch) fn fish_fillets(package: &Path, data: &Path) -> Result<()> {
    let folder = package.join(FOLDER);
    for language in LANGUAGES {
        let mut lines: BTreeMap<(String, String), Line> = BTreeMap::new();
        for (level, path) in entries(&folder.join("script"))?.into_iter().filter(|(_, path)| path.is_dir()) {
            for (name, path) in entries(&path)? {
                if name.ends_with(&format!("dialogs_{language}.lua")) {
                    dialogs(&read(&path)?, |id, line| {
                        lines.entry((id, level.clone())).or_insert(line);
                    });
                }
            }
        }
        let mut manifest = Manifest::create(data, &format!("{language}.jsonl"))?;
        for (file, path) in files_below(&folder.join("sound"), "sound")? {
            let parts: Vec<&str> = file.split('/').collect();
            // `sound/LEVEL/LANG/ID.ogg`, with one more folder for what several levels share.
            let [_, level, .., folder, name] = parts[..] else { continue };
            let Some(id) = name.strip_suffix(".ogg").filter(|_| folder == language) else { continue };
            let own = lines.get(&(id.to_owned(), level.to_owned()));
            let first = || {
                let from = (id.to_owned(), String::new());
                lines.range(from..).next().filter(|((found, _), _)| found == id).map(|(_, line)| line)
            };
            let Some(line) = own.or_else(first).filter(|line| !line.text.trim().is_empty()) else { continue };
            let spoken = Spoken { file: &file, text: &line.text, speaker: Some(&line.role), language };
            manifest.moved(&path, seconds_of(&path)?, &spoken)?;
        }
        manifest.finish()?;
    }
    Ok(())
}

/// Calls `each` with every line of a script that has an id and a text.
fn dialogs(script: &str, mut each: impl FnMut(String, Line)) {
    let is_code = |line: &&str| !line.trim_start().starts_with("--");
    let script: String = script.lines().filter(is_code).flat_map(|line| [line, "\n"]).collect();
    let mut begun: Option<(String, String)> = None;
    for (at, _) in script.match_indices("dialog") {
        let call = &script[at..];
        if let Some(arguments) = call.strip_prefix("dialogId(") {
            let mut strings = strings(arguments).into_iter();
            begun = strings.next().zip(strings.next());
        } else if let Some(arguments) = call.strip_prefix("dialogStr(")
            && let Some((id, font)) = begun.take()
            && let Some(text) = strings(arguments).into_iter().next()
        {
            let role = font.strip_prefix("font_").unwrap_or(&font).to_owned();
            each(id, Line { role, text });
        }
    }
}

/// The quoted strings of a call in Lua, up to its closing bracket.
fn strings(arguments: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Option<String> = None;
    let mut characters = arguments.chars();
    while let Some(character) = characters.next() {
        match (&mut open, character) {
            (None, ')') => break,
            (None, '"') => open = Some(String::new()),
            (None, _) => {}
            (Some(_), '"') => found.extend(open.take()),
            (Some(text), '\\') => match characters.next() {
                Some('n') => text.push(' '),
                Some(escaped) => text.push(escaped),
                None => {}
            },
            (Some(text), other) => text.push(other),
        }
    }
    found
}
