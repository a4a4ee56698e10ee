//! Each format is read back by a small reader of its own or by the public one.

use super::*;

fn word(start: f64, end: f64, text: &str) -> Word {
    Word { start_seconds: start, end_seconds: end, text: text.to_owned(), confidence: None }
}

fn segment(start: f64, end: f64, text: &str) -> Segment {
    Segment { start_seconds: start, end_seconds: end, text: text.to_owned(), ..Segment::default() }
}

fn transcript(segments: Vec<Segment>) -> Transcript {
    Transcript { audio: "a b.wav".to_owned(), duration_seconds: 10.0, language: Some("cs".to_owned()), segments }
}

fn two() -> Transcript {
    let words = vec![word(0.5, 0.9, "Dobrý"), word(1.0, 1.25, "den.")];
    transcript(vec![
        Segment { words, confidence: Some(0.75), ..segment(0.5, 1.25, "Dobrý den.") },
        segment(2.0, 9.0, "Řekl \"ano\" & <odešel>."),
    ])
}

fn spoken(by: &[(&str, f64, f64)]) -> Transcript {
    let speak = |(name, start, end): &(&str, f64, f64)| Segment {
        speaker: Some((*name).to_owned()),
        ..segment(*start, *end, "ano")
    };
    transcript(by.iter().map(speak).collect())
}

/// Start, end, lines of each cue.
fn read_subtitles(text: &str) -> Vec<(String, String, Vec<String>)> {
    let blocks = text.split("\n\n").filter(|block| block.contains("-->"));
    blocks
        .map(|block| {
            let mut lines = block.lines().skip_while(|line| !line.contains("-->"));
            let (start, end) = lines.next().and_then(|line| line.split_once(" --> ")).expect("times");
            (start.to_owned(), end.to_owned(), lines.map(str::to_owned).collect())
        })
        .collect()
}

fn times(transcript: &Transcript) -> Vec<(f64, f64)> {
    transcript.segments.iter().map(|s| (s.start_seconds, s.end_seconds)).collect()
}

#[test]
fn formats_are_named_by_their_ending() {
    for format in Format::ALL {
        assert_eq!(Format::named(format.extension()), Some(format));
    }
    assert_eq!(Format::named("textgrid"), Some(Format::TextGrid));
    assert_eq!(Format::named("doc"), None);
}

#[test]
fn impossible_times_are_put_right() {
    let nan = f64::NAN;
    let wrong = transcript(vec![
        segment(-3.0, 1.0, "a"),
        segment(0.5, 0.7, "b"),
        segment(nan, nan, "c"),
        segment(4.0, 3.0, "d"),
        segment(8.0, f64::INFINITY, "e"),
        segment(20.0, 30.0, "f"),
        segment(9.0, 9.5, "  \n "),
    ]);
    let tidied = wrong.tidied();
    assert_eq!(times(&tidied), [(0.0, 1.0), (1.0, 1.0), (1.0, 1.0), (4.0, 4.0), (8.0, 8.0), (10.0, 10.0)]);
    assert_eq!(tidied.tidied(), tidied);
}

#[test]
fn words_stay_inside_of_their_segment_and_in_order() {
    let words = vec![word(0.0, 1.5, "a"), word(1.2, f64::NAN, "b"), word(9.0, 8.0, "c"), word(1.0, 2.0, " ")];
    let tidied = transcript(vec![Segment { words, ..segment(1.0, 2.0, "a b c") }]).tidied();
    let places: Vec<_> = tidied.segments[0].words.iter().map(|w| (w.start_seconds, w.end_seconds)).collect();
    assert_eq!(places, [(1.0, 1.5), (1.5, 1.5), (2.0, 2.0)]);
}

#[test]
fn speakers_may_overlap_each_other_but_not_themselves() {
    let tidied = spoken(&[("A", 0.0, 2.0), ("B", 1.0, 3.0), ("A", 1.5, 4.0)]).tidied();
    let mut found = times(&tidied);
    found.sort_by(|a, b| a.0.total_cmp(&b.0));
    assert_eq!(found, [(0.0, 2.0), (1.0, 3.0), (2.0, 4.0)]);
}

#[test]
fn a_recording_of_unknown_length_ends_with_its_last_segment() {
    for duration_seconds in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let tidied = Transcript { duration_seconds, ..two() }.tidied();
        assert_eq!(tidied.duration_seconds, 9.0);
    }
}

#[test]
fn plain_text_has_a_line_for_each_segment() {
    assert_eq!(two().to_text(Format::Txt), "Dobrý den.\nŘekl \"ano\" & <odešel>.\n");
    assert_eq!(spoken(&[("Eva", 0.0, 1.0)]).to_text(Format::Txt), "Eva: ano\n");
}

#[test]
fn json_has_the_keys_of_whisper() {
    let value: serde_json::Value = serde_json::from_str(&two().to_text(Format::Json)).expect("is JSON");
    assert_eq!((&value["language"], &value["duration"]), (&"cs".into(), &10.0.into()));
    assert_eq!(value["text"], "Dobrý den. Řekl \"ano\" & <odešel>.");
    let first = &value["segments"][0];
    assert_eq!((&first["id"], &first["start"], &first["end"]), (&0.into(), &0.5.into(), &1.25.into()));
    assert_eq!((&first["confidence"], &first["words"][1]["word"]), (&0.75.into(), &"den.".into()));
    assert_eq!(value["segments"][1].get("confidence"), None);
}

#[test]
fn subtitles_come_back() {
    let cues = read_subtitles(&two().to_text(Format::Srt));
    assert_eq!(cues[0], ("00:00:00,500".into(), "00:00:01,250".into(), vec!["Dobrý den.".into()]));
    assert_eq!(cues[1].2, ["Řekl \"ano\" & <odešel>."]);
    let web = two().to_text(Format::Vtt);
    assert!(web.starts_with("WEBVTT\n\n00:00:00.500 --> 00:00:01.250\n"), "{web}");
    assert_eq!(read_subtitles(&web)[1].2, ["Řekl \"ano\" &amp; &lt;odešel&gt;."]);
    let late = transcript(vec![segment(3_723.004, 3_724.0, "a")]);
    let late = Transcript { duration_seconds: 4000.0, ..late }.to_text(Format::Srt);
    assert_eq!(late, "1\n01:02:03,004 --> 01:02:04,000\na\n\n");
}

#[test]
fn speakers_are_shown_in_subtitles() {
    let one = spoken(&[("E<va>", 0.0, 1.0)]);
    assert_eq!(read_subtitles(&one.to_text(Format::Srt))[0].2, ["E<va>: ano"]);
    assert_eq!(read_subtitles(&one.to_text(Format::Vtt))[0].2, ["<v E&lt;va&gt;>ano"]);
}

#[test]
fn long_segments_are_split_at_word_times() {
    let words: Vec<Word> = (0..40).map(|n| word(f64::from(n) * 0.2, f64::from(n) * 0.2 + 0.1, "slovo")).collect();
    let text = vec!["slovo"; 40].join(" ");
    let cues = read_subtitles(&transcript(vec![Segment { words, ..segment(0.0, 8.0, &text) }]).to_text(Format::Srt));
    // Seven words of five letters and six spaces are 41 characters: 14 words at a time.
    let sizes: Vec<usize> = cues.iter().map(|cue| cue.2.join(" ").split(' ').count()).collect();
    assert_eq!(sizes, [14, 14, 12]);
    assert!(cues.iter().all(|cue| cue.2.len() <= 2 && cue.2.iter().all(|line| line.chars().count() <= 42)));
    assert_eq!((cues[1].0.as_str(), cues[1].1.as_str()), ("00:00:02,800", "00:00:05,500"));
    assert_eq!((cues[0].0.as_str(), cues[2].1.as_str()), ("00:00:00,000", "00:00:08,000"));
}

#[test]
fn without_word_times_the_time_is_shared_out() {
    let text = "žluť ".repeat(60);
    let cues = read_subtitles(&transcript(vec![segment(0.0, 10.0, &text)]).to_text(Format::Vtt));
    assert_eq!(cues.iter().map(|cue| cue.2.join(" ")).collect::<Vec<_>>().join(" "), text.trim());
    assert!(cues.len() > 2 && cues.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{cues:?}");
}

#[test]
fn text_without_spaces_is_split_too() {
    let text = "你".repeat(200);
    let cues = read_subtitles(&transcript(vec![segment(0.0, 10.0, &text)]).to_text(Format::Srt));
    assert!(cues.iter().all(|cue| cue.2.len() <= 2 && cue.2.iter().all(|line| line.chars().count() <= 42)));
    assert_eq!(cues.iter().flat_map(|cue| cue.2.clone()).collect::<String>(), text);
}

#[test]
fn a_textgrid_tiles_the_recording() {
    let text = two().to_text(Format::TextGrid);
    assert!(text.starts_with("File type = \"ooTextFile\"\nObject class = \"TextGrid\"\n\nxmin = 0 \nxmax = 10 \n"));
    let bounds = |name: &str| -> Vec<f64> {
        let mut lines = text.lines().skip_while(|line| line.trim() != format!("name = \"{name}\"")).skip(3);
        let size = lines.next().and_then(|line| line.trim().strip_prefix("intervals: size = ")).expect("a size");
        let number = |line: &str| line.split('=').nth(1).expect("a value").trim().parse::<f64>().expect("a number");
        let size: usize = size.trim().parse().expect("a number");
        (0..size).flat_map(|n| lines.clone().skip(4 * n + 1).take(2).map(number).collect::<Vec<_>>()).collect()
    };
    assert_eq!(bounds("segments"), [0.0, 0.5, 0.5, 1.25, 1.25, 2.0, 2.0, 9.0, 9.0, 10.0]);
    assert_eq!(bounds("words"), [0.0, 0.5, 0.5, 0.9, 0.9, 1.0, 1.0, 1.25, 1.25, 10.0]);
    assert!(text.contains("text = \"Řekl \"\"ano\"\" & <odešel>.\""), "{text}");
}

#[test]
fn tiers_of_both_formats_are_read_as_written() {
    type Read = fn(&[u8]) -> crate::Result<Vec<Tier>>;
    let read: [Read; 2] = [read_textgrid, read_eaf];
    for (format, read) in [Format::TextGrid, Format::Eaf].into_iter().zip(read) {
        let tiers = read(two().to_text(format).as_bytes()).expect("our own file");
        assert_eq!(tiers.iter().map(|tier| tier.name.as_str()).collect::<Vec<_>>(), ["segments", "words"]);
        let found: Vec<_> =
            tiers[0].segments.iter().map(|s| (s.start_seconds, s.end_seconds, s.text.as_str())).collect();
        assert_eq!(found, [(0.5, 1.25, "Dobrý den."), (2.0, 9.0, "Řekl \"ano\" & <odešel>.")]);
        assert_eq!(tiers[1].segments[1], segment(1.0, 1.25, "den."));
        let by_speaker = read(spoken(&[("A", 0.0, 2.0), ("B", 1.0, 3.0)]).to_text(format).as_bytes());
        assert_eq!(by_speaker.expect("our own file").len(), 2);
        let silent = read(transcript(vec![]).to_text(format).as_bytes()).expect("our own file");
        assert_eq!(silent, [Tier { name: "segments".into(), segments: vec![] }]);
    }
}

#[test]
fn text_that_lasts_no_time_is_not_lost() {
    let short = transcript(vec![segment(1.0, 1.0, "a"), segment(1.0, 2.0, "b"), segment(2.0, 2.0001, "c")]);
    let tiers = read_textgrid(short.to_text(Format::TextGrid).as_bytes()).expect("our own file");
    assert_eq!(tiers[0].segments, [segment(1.0, 2.0, "a b c")]);
    let nothing = Transcript { duration_seconds: 0.0, ..transcript(vec![segment(0.0, 0.0, "a")]) };
    let tiers = read_textgrid(nothing.to_text(Format::TextGrid).as_bytes()).expect("our own file");
    assert_eq!(tiers[0].segments[0].text, "a");
}

const SHORT_FORM: &str = "File type = \"ooTextFile\"\nObject class = \"TextGrid\"\n\n0\n2.5\n<exists>\n2\n\"IntervalTier\"\n\"w 1\"\n0\n2.5\n2\n0\n1\n\"\"\n1\n2.5\n\"say \"\"hi\"\"\"\n\"TextTier\"\n\"p\"\n0\n2.5\n1\n2\n\"x\"\n";

#[test]
fn the_short_form_points_and_utf16_are_read() {
    let wanted = vec![
        Tier { name: "w 1".into(), segments: vec![segment(1.0, 2.5, "say \"hi\"")] },
        Tier { name: "p".into(), segments: vec![segment(2.0, 2.0, "x")] },
    ];
    assert_eq!(read_textgrid(SHORT_FORM.as_bytes()).expect("short form"), wanted);
    let wide = |mark: [u8; 2], pair: fn(u16) -> [u8; 2]| -> Vec<u8> {
        mark.into_iter().chain(SHORT_FORM.encode_utf16().flat_map(pair)).collect()
    };
    assert_eq!(read_textgrid(&wide([0xfe, 0xff], u16::to_be_bytes)).expect("UTF-16"), wanted);
    assert_eq!(read_textgrid(&wide([0xff, 0xfe], u16::to_le_bytes)).expect("UTF-16"), wanted);
}

#[test]
fn broken_textgrids_are_refused_with_their_line() {
    let error = |text: &str| read_textgrid(text.as_bytes()).expect_err("broken").to_string();
    assert!(error("").contains("ends too early"));
    assert!(error("\"ooTextFile\" \"Pitch\"").contains("`TextGrid` was expected, not `Pitch`"));
    assert!(error(&SHORT_FORM.replace("\n2\n0\n1\n", "\n9\n0\n1\n")).contains("a number was expected"));
    assert!(error(&SHORT_FORM.replace("1\n2.5\n\"say", "1\n0.5\n\"say")).starts_with("line 17 of the TextGrid file"));
    assert!(error(&SHORT_FORM.replace("\"x\"", "\"x")).starts_with("line 25 "));
    assert!(error(&SHORT_FORM.replace("<exists>\n2", "<exists>\n1e300")).contains("no number of tiers"));
    assert!(read_textgrid(b"\xff\xfe\x00").is_err() && read_textgrid(b"\"oo\xff").is_err());
}

const EAF: &str = r#"<?xml version="1.0"?>
<ANNOTATION_DOCUMENT FORMAT="2.7">
<TIME_ORDER><TIME_SLOT TIME_SLOT_ID="a" TIME_VALUE="1000"/><TIME_SLOT TIME_SLOT_ID="b"/><TIME_SLOT TIME_SLOT_ID="c"/>
<TIME_SLOT TIME_SLOT_ID="d" TIME_VALUE="4000"/><TIME_SLOT TIME_SLOT_ID="e"/></TIME_ORDER>
<TIER TIER_ID="text" PARTICIPANT="Eva">
<ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="2" TIME_SLOT_REF1="b" TIME_SLOT_REF2="d"><ANNOTATION_VALUE>dva &amp;
tři</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
<ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="1" TIME_SLOT_REF1="a" TIME_SLOT_REF2="b"><ANNOTATION_VALUE>jedna</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
</TIER>
<TIER TIER_ID="translation">
<ANNOTATION><REF_ANNOTATION ANNOTATION_ID="3" ANNOTATION_REF="2"><ANNOTATION_VALUE>two</ANNOTATION_VALUE></REF_ANNOTATION></ANNOTATION>
<ANNOTATION><REF_ANNOTATION ANNOTATION_ID="4" ANNOTATION_REF="3"><ANNOTATION_VALUE>zwei</ANNOTATION_VALUE></REF_ANNOTATION></ANNOTATION>
</TIER></ANNOTATION_DOCUMENT>"#;

#[test]
fn open_times_and_references_of_elan_are_followed() {
    let tiers = read_eaf(EAF.as_bytes()).expect("an ELAN file");
    let eva = |segment: Segment| Segment { speaker: Some("Eva".into()), ..segment };
    assert_eq!(tiers[0].segments, [eva(segment(1.0, 2.0, "jedna")), eva(segment(2.0, 4.0, "dva & tři"))]);
    assert_eq!(tiers[1].segments, [segment(2.0, 4.0, "two"), segment(2.0, 4.0, "zwei")]);
}

#[test]
fn broken_elan_files_are_refused_with_their_line() {
    let error = |text: &str| read_eaf(text.as_bytes()).expect_err("broken").to_string();
    assert!(error("").contains("no usable XML"));
    assert!(error("<a/>").contains("not `a`"));
    assert!(error(&EAF[..EAF.len() - 20]).contains("no usable XML"));
    assert!(
        error(&EAF.replace("REF2=\"d\"", "REF2=\"z\""))
            .starts_with("line 6 of the eaf file: there is no time slot `z`")
    );
    assert!(error(&EAF.replace("REF=\"2\"", "REF=\"4\"")).contains("has no times"));
    assert!(error(&EAF.replace("\"4000\"", "\"-4\"")).contains("no number of milliseconds"));
    assert!(error(&EAF.replace("\"4000\"", "\"40\"")).contains("before its start"));
    assert!(error(&EAF.replace("?>", "?><!DOCTYPE a [<!ENTITY b \"b\">]>")).contains("no usable XML"));
    assert!(read_eaf(b"\xff").is_err());
    let deep = format!("{}{}", "<a>".repeat(100_000), "</a>".repeat(100_000));
    assert!(read_eaf(deep.as_bytes()).is_err());
}

#[test]
fn what_xml_may_not_hold_is_replaced() {
    let odd = Transcript {
        audio: "/d/č \".mp3".to_owned(),
        ..transcript(vec![segment(0.0, 1.0, "a\u{0}\u{1f}\u{ffff}b<&\"")])
    };
    let text = odd.to_text(Format::Eaf);
    let tiers = read_eaf(text.as_bytes()).expect("our own file");
    assert_eq!(tiers[0].segments[0].text, "a\u{fffd}\u{fffd}\u{fffd}b<&\"");
    assert!(text.contains("MEDIA_URL=\"file:///d/%C4%8D%20%22.mp3\" MIME_TYPE=\"audio/mpeg\""), "{text}");
    assert!(two().to_text(Format::Eaf).contains("RELATIVE_MEDIA_URL=\"./a%20b.wav\""));
}

#[test]
fn no_format_fails_on_odd_transcripts() {
    let nan = f64::NAN;
    let odd = [
        Transcript::default(),
        Transcript {
            duration_seconds: f64::MAX,
            ..transcript(vec![segment(1e300, 1e301, "a"), segment(nan, -nan, "b")])
        },
        Transcript { duration_seconds: 1e-9, ..two() },
        transcript(vec![Segment {
            words: vec![word(nan, nan, "x"); 3],
            confidence: Some(nan),
            ..segment(nan, 1.0, "x x x")
        }]),
    ];
    for transcript in odd {
        for format in Format::ALL {
            let text = transcript.to_text(format);
            if format == Format::TextGrid {
                read_textgrid(text.as_bytes()).expect("our own file");
            }
        }
    }
}
