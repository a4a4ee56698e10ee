//! The conversions of recorded speech on small packages.

use tempfile::TempDir;

use super::*;
use crate::fetch::{FetchSet, fetch_set, read_sounds};

/// A WAV file of 8 kHz, 16 bits.
fn wav(seconds: f64) -> Vec<u8> {
    let len = (seconds * 16_000.0) as u32;
    let mut bytes = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data".to_vec();
    bytes.extend(len.to_le_bytes());
    bytes.resize(bytes.len() + len as usize, 0);
    bytes
}

/// What is needed of an Ogg Vorbis file to know its length.
fn ogg(seconds: f64) -> Vec<u8> {
    let page = |position: u64, packet: &[u8]| {
        let mut page = b"OggS\0\0".to_vec();
        page.extend(position.to_le_bytes());
        page.resize(27, 0);
        page.extend_from_slice(packet);
        page
    };
    let last = page((seconds * 44_100.0) as u64, b"sound");
    [page(0, b"\x01vorbis\0\0\0\0\x01\x44\xac\0\0"), last].concat()
}

/// Frames of MPEG 2.5, layer III, 16 kbit a second, 11 025 Hz: 576 samples each.
fn mp3(num_frames: usize) -> Vec<u8> {
    let mut frame = vec![0xff, 0xe3, 0x20, 0xc0];
    frame.resize(104, 0);
    frame.repeat(num_frames)
}

struct Converted {
    folder: TempDir,
    set: &'static FetchSet,
}

impl Converted {
    fn of(set: &str, files: &[(&str, Vec<u8>)]) -> Result<Self> {
        let folder = TempDir::new().expect("folder");
        let (package, data) = (folder.path().join("package"), folder.path().join("data"));
        fs::create_dir_all(&data).expect("folder");
        for (name, bytes) in files {
            let path = package.join(name);
            fs::create_dir_all(path.parent().expect("below the root")).expect("folder");
            fs::write(path, bytes).expect("file");
        }
        let set = fetch_set(set).expect("a set");
        set.convert.run(&package, &data)?;
        Ok(Self { folder, set })
    }

    fn lines(&self, name: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.folder.path().join("data").join(name)).expect("written");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// Number of sound files.
    fn num_sounds(&self) -> u64 {
        let listed: Vec<&str> = self.set.files().collect();
        read_sounds(self.set.name, &listed, &self.folder.path().join("data")).expect("readable").files
    }
}

const VOICE: &str = "usr/share/festival/voices/russian/msu_ru_nsh_clunits";

#[test]
fn marks_of_stress_are_no_text() {
    let list = "( ru_0001 \"Вол+ос, - она.\" )\n( ru_0002 \"Да.\" )\n";
    let files = [
        (&*format!("{VOICE}/etc/txt.done.data"), list.as_bytes().to_vec()),
        (&*format!("{VOICE}/wav/ru_0001.wav"), wav(1.5)),
        (&*format!("{VOICE}/wav/ru_0002.wav"), wav(0.5)),
    ];
    let set = Converted::of("russian-studio", &files).expect("sound");
    let lines = set.lines("ru.jsonl");
    assert_eq!(lines.len(), 2);
    let expected = json!({"audio_filepath": "wav/ru_0001.wav", "duration": 1.5, "text": "Волос, - она.", "speaker": "msu_ru_nsh", "lang": "ru"});
    assert_eq!(lines[0], expected);
    assert_eq!(set.num_sounds(), 2);
    let broken = [(&*format!("{VOICE}/etc/txt.done.data"), b"ru_0001 text\n".to_vec())];
    let wrong = Converted::of("russian-studio", &broken).err().expect("no list");
    assert!(matches!(wrong, Error::DamagedFile { .. }), "{wrong}");
}

#[test]
fn stamps_are_read_in_the_languages_that_have_text() {
    let root = "usr/share/tuxpaint/stamps/animals";
    let files = [
        (&*format!("{root}/cat.txt"), "A cat.\nru.utf8=Кошка.\npt_BR.utf8=Um gato.\nfr.utf8=\n".as_bytes().to_vec()),
        (&*format!("{root}/cat_desc.ogg"), ogg(1.0)),
        (&*format!("{root}/cat_desc_ru.ogg"), ogg(1.25)),
        (&*format!("{root}/cat_desc_pt_BR.wav"), wav(0.75)),
        (&*format!("{root}/cat_desc_fr.ogg"), ogg(1.0)),
        (&*format!("{root}/dog.txt"), "A dog.\nru.utf8=Собака.\n".as_bytes().to_vec()),
        (&*format!("{root}/dog_desc_ru.ogg"), ogg(20.5)),
        (&*format!("{root}/cat.ogg"), ogg(0.5)),
    ];
    let set = Converted::of("tux-paint", &files).expect("sound");
    let expected =
        json!({"audio_filepath": "stamps/animals/cat_desc_ru.ogg", "duration": 1.25, "text": "Кошка.", "lang": "ru"});
    assert_eq!(set.lines("ru.jsonl"), [expected], "clips of more than 20 seconds are left out");
    assert_eq!(set.lines("en.jsonl")[0]["text"], "A cat.");
    assert_eq!(set.lines("pt_BR.jsonl")[0]["audio_filepath"], "stamps/animals/cat_desc_pt_BR.wav");
    assert!(set.lines("fr.jsonl").is_empty(), "an empty text is none");
    assert_eq!(set.num_sounds(), 3);
}

#[test]
fn dialogues_are_matched_by_id_across_levels() {
    let root = "usr/share/games/fillets-ng";
    let script = "dialogId(\"a-1\", \"font_small\", \"Hi\")\ndialogStr(\n\"Ahoj \\\"ty\\\" (a dialog).\")\n\n-- dialogStr(\"nothing\")\ndialogId(\"a-2\", \"font_big\", \"No\")\ndialogStr(\"\")\n";
    let shared = "dialogId(\"s-1\", \"font_statue\", \"Yes\")\ndialogStr(\"Ano.\")\n";
    let files = [
        (&*format!("{root}/script/city/dialogs_cs.lua"), script.as_bytes().to_vec()),
        (&*format!("{root}/script/share/blackdialogs_cs.lua"), shared.as_bytes().to_vec()),
        (&*format!("{root}/script/city/dialogs_nl.lua"), Vec::new()),
        (&*format!("{root}/sound/city/cs/a-1.ogg"), ogg(1.0)),
        (&*format!("{root}/sound/city/cs/a-2.ogg"), ogg(1.0)),
        (&*format!("{root}/sound/share/black/cs/s-1.ogg"), ogg(2.0)),
        (&*format!("{root}/sound/city/cs/unknown.ogg"), ogg(2.0)),
        (&*format!("{root}/sound/hall/cs/a-1.ogg"), ogg(0.0)),
        (&*format!("{root}/sound/music/rain.ogg"), ogg(2.0)),
    ];
    let set = Converted::of("fish-fillets", &files).expect("sound");
    let lines = set.lines("cs.jsonl");
    assert_eq!(lines.len(), 2);
    assert_eq!((&lines[0]["text"], &lines[0]["speaker"]), (&"Ahoj \"ty\" (a dialog).".into(), &"small".into()));
    assert_eq!((&lines[1]["text"], &lines[1]["speaker"]), (&"Ano.".into(), &"statue".into()));
    assert!(set.lines("nl.jsonl").is_empty());
    assert_eq!(set.num_sounds(), 2);
}

/// An archive of the game.
fn archive(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = b"QTBL123456789".to_vec();
    bytes.extend((files.len() as u16).to_be_bytes());
    let mut start = 15 + 21 * files.len();
    for (name, content) in files {
        let mut entry = name.as_bytes().to_vec();
        entry.resize(13, 0);
        entry.extend((start as u32).to_be_bytes());
        entry.extend((content.len() as u32).to_be_bytes());
        bytes.extend(entry);
        start += content.len();
    }
    bytes.extend(files.iter().flat_map(|(_, content)| content.clone()));
    bytes
}

/// A dialogue with one line of the hero and none of the other.
fn dialogue(text: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 20 + 32 + 4];
    for (at, value) in [(20, 0_i16), (24, 7), (26, 1), (28, 0), (42, 0)] {
        bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
    }
    bytes[20 + 34..20 + 36].copy_from_slice(&18_i16.to_be_bytes());
    bytes.push(text.len() as u8);
    bytes.extend_from_slice(text);
    bytes
}

#[test]
fn clips_of_the_game_are_named_after_the_place_of_their_text() {
    let list = "A nice caf\u{82}.*23 More of it.\r\nx\r\n";
    let list: Vec<u8> = list.chars().map(|character| character as u8).collect();
    let bytes = archive(&[
        ("BOB.DOG", dialogue(b"Who is there?*AB12,3 And why?*01")),
        ("070012J1.SB", mp3(20)),
        ("070012J2.SB", mp3(1)),
        ("JOE00411.SB", mp3(20)),
        ("JOE00412.SB", mp3(20)),
        ("QUEEN2.JAS", list),
    ]);
    let set = Converted::of("amazon-queen", &[("usr/share/scummvm/flight-of-the-amazon-queen/queen.1c", bytes)]);
    let set = set.expect("sound");
    let lines = set.lines("en.jsonl");
    let of =
        |line: &Value| ["audio_filepath", "text", "speaker"].map(|key| line[key].as_str().expect("text").to_owned());
    let expected = [
        ["mp3/070012J1.mp3", "Who is there?", "JOE"],
        ["mp3/JOE00411.mp3", "A nice café.", "JOE"],
        ["mp3/JOE00412.mp3", "More of it.", "JOE"],
    ];
    assert_eq!(lines.iter().map(of).collect::<Vec<_>>(), expected.map(|line| line.map(str::to_owned)));
    assert_eq!(lines[0]["duration"], 1.045);
    assert_eq!(set.num_sounds(), 3, "8 characters in a twentieth of a second are another clip's");
    let name = "usr/share/scummvm/flight-of-the-amazon-queen/queen.1c";
    let wrong = Converted::of("amazon-queen", &[(name, archive(&[("../x.SB", mp3(1))]))]).err().expect("refused");
    assert!(matches!(wrong, Error::DamagedFile { .. }), "{wrong}");
}
