//! Rows of recordings: filter banks, augmentation, equal lengths. Sounds are tones that each test writes.

use serde_json::{Value, json};

use super::*;
use crate::corpus::Corpus;
use crate::row::Row;
use crate::sampler::Sampler;
use crate::speech::tests::fixtures::{sine, wav};
use crate::testing::{Bytes, Folder, document};

const LIMITS: MicrobatchLimits = MicrobatchLimits { rows: 4, tokens: Some(2000) };

/// A folder with twelve recordings of 0.3 to 1.4 seconds, two noises and two rooms.
fn folder() -> Folder {
    let folder = Folder::new();
    let mut lines = String::new();
    for at in 0..12 {
        folder.write(&format!("{at}.wav"), wav(&sine(0.3 + 0.1 * f64::from(at))));
        lines += &format!("{{\"audio_filepath\": \"{at}.wav\", \"text\": \"ab\"}}\n");
    }
    folder.write("list.jsonl", lines);
    let hiss = |num: i32, step: i32| wav(&(0..num).map(|i| ((i * step) % 2001 - 1000) as i16).collect::<Vec<_>>());
    folder.write("noise/a.wav", hiss(3000, 7919));
    folder.write("noise/deep/b.wav", hiss(40_000, 6007));
    for (name, echo) in [("small", 200), ("large", 3000)] {
        let room = |i: usize| {
            if i == 10 {
                20_000
            } else if i == echo {
                9000
            } else {
                0
            }
        };
        folder.write(&format!("rooms/{name}.wav"), wav(&(0..4000).map(room).collect::<Vec<i16>>()));
    }
    folder
}

fn options(downsampling: Downsampling, transcripts: bool) -> SpeechOptions {
    SpeechOptions { max_frames: 10_000, downsampling, transcripts, equal_lengths: false, units: false }
}

/// Two convolutions with a frame every ten samples.
fn waves() -> SpeechOptions {
    options(Downsampling { layers: vec![(10, 5), (3, 2)] }, true)
}

fn config(folder: &Folder, more: &Value) -> DataConfig {
    let mut speech = json!({
        "source": {"a": {"format": {"nemo": {"path": folder.at("list.jsonl")}}}},
        "normalise": true,
    });
    for (key, value) in more.as_object().expect("a table") {
        speech[key] = value.clone();
    }
    let speech = Some(serde_json::from_value(speech).expect("a table of speech"));
    DataConfig { source: BTreeMap::new(), speech, held_out_fraction: 0.3, ..DataConfig::single("", "", document()) }
}

fn try_open(folder: &Folder, more: &Value, options: &SpeechOptions) -> Result<Corpus> {
    Corpus::open_speech_with(&config(folder, more), Box::new(Bytes::default()), options, &Progress::none())
}

fn open(folder: &Folder, more: &Value, options: &SpeechOptions) -> Corpus {
    try_open(folder, more, options).expect("good data")
}

/// Everything that samples can go through.
fn everything(folder: &Folder) -> Value {
    json!({
        "normalise": false,
        "augment": {
            "speed": [0.9, 1.0, 1.1],
            "gain_db": [-6.0, 6.0],
            "noise": {"path": folder.at("noise"), "snr_db": [5.0, 20.0], "share": 0.6},
            "reverberation": {"path": folder.at("rooms"), "share": 0.5},
        },
    })
}

fn draw(sampler: &mut Sampler, num: usize) -> Vec<Vec<Row>> {
    (0..num).map(|_| sampler.next_microbatch(LIMITS).expect("rows")).collect()
}

fn sound(row: &Row) -> &RowSound {
    row.sound.as_ref().expect("speech")
}

fn rows(from: impl Iterator<Item = Result<Row>>) -> Vec<Row> {
    from.collect::<Result<_>>().expect("good rows")
}

#[test]
fn rows_of_filter_banks_have_the_steps_of_their_length() {
    let folder = folder();
    let banks = json!({"filter_banks": {"num_mel_bins": 40, "stride": 2}});
    let corpus = open(&folder, &banks, &options(Downsampling::default(), true));
    let mut num = 0;
    for row in rows(corpus.in_order()).iter().chain(&rows(corpus.held_out(None).expect("no stride"))) {
        let seconds = corpus.utterance(row.key).expect("its own").seconds;
        let frames = ((seconds * 16_000.0).round() as usize - 400) / 160 + 1;
        let own = sound(row);
        assert_eq!((own.num_features, own.num_steps(), own.num_frames), (80, frames / 2, frames / 2));
        assert!(own.values.iter().all(|x| x.is_finite()) && own.values.iter().any(|x| x.abs() > 0.1));
        num += 1;
    }
    assert_eq!(num, 12);
    let longest = corpus.largest_microbatch(1, LIMITS).expect("rows");
    assert_eq!(longest[0].num_positions(), corpus.max_row_tokens());
}

#[test]
fn the_same_draw_gives_the_same_row_and_another_one_another() {
    let folder = folder();
    let corpus = open(&folder, &everything(&folder), &waves());
    let mut whole = corpus.sampler(5);
    let all = draw(&mut whole, 8);
    let mut first = corpus.sampler(5);
    assert_eq!(draw(&mut first, 3), all[..3]);
    // Another process that goes on; noise that finds no room in memory is decoded again.
    let mut small = everything(&folder);
    small["augment"]["cache_bytes"] = json!(0);
    let again = open(&folder, &small, &waves());
    assert_eq!(again.fingerprint(), corpus.fingerprint());
    let mut rest = again.sampler(5);
    rest.restore(&first.state()).expect("its own state");
    assert_eq!(draw(&mut rest, 5), all[3..]);
    let by_key = |batches: &[Vec<Row>]| -> BTreeMap<u64, Vec<Row>> {
        let mut found: BTreeMap<u64, Vec<Row>> = BTreeMap::new();
        for row in batches.iter().flatten() {
            found.entry(row.key).or_default().push(row.clone());
        }
        found
    };
    let heard = by_key(&all);
    let twice = heard.values().find(|rows| rows.len() > 1).expect("more rows than recordings");
    assert_ne!(sound(&twice[0]).values, sound(&twice[1]).values);
    assert_ne!(draw(&mut corpus.sampler(6), 8), all);
}

#[test]
fn only_rows_to_train_on_are_augmented() {
    let folder = folder();
    let plain = open(&folder, &json!({"normalise": false}), &waves());
    let augmented = open(&folder, &everything(&folder), &waves());
    let held_out = |corpus: &Corpus| rows(corpus.held_out(None).expect("no stride"));
    assert!(!held_out(&plain).is_empty());
    assert_eq!(held_out(&plain), held_out(&augmented));
    assert_eq!(rows(plain.in_order()), rows(augmented.in_order()));
    assert_ne!(draw(&mut plain.sampler(5), 3), draw(&mut augmented.sampler(5), 3));
    assert_ne!(plain.fingerprint(), augmented.fingerprint());
}

#[test]
fn slow_rows_fit_into_the_microbatches_that_were_made_for_them() {
    let folder = folder();
    let slow = json!({"augment": {"speed": [0.5, 0.7, 1.0]}});
    for transcripts in [true, false] {
        let mut options = SpeechOptions { transcripts, ..waves() };
        options.max_frames = 2600;
        let corpus = open(&folder, &slow, &options);
        let limits = MicrobatchLimits { rows: 4, tokens: Some(5200) };
        let mut sampler = corpus.sampler(3);
        let mut lengths = std::collections::BTreeSet::new();
        for _ in 0..24 {
            let rows = sampler.next_microbatch(limits).expect("rows");
            let longest = rows.iter().map(Row::num_positions).max().unwrap_or(0);
            assert!(longest * rows.len() <= 5200 || rows.len() == 1, "{longest} times {}", rows.len());
            assert!(longest <= options.max_frames, "{longest}");
            lengths.extend(rows.iter().map(|row| (row.key, row.num_positions())));
        }
        let keys: std::collections::BTreeSet<u64> = lengths.iter().map(|(key, _)| *key).collect();
        assert!(lengths.len() > keys.len() + 3, "{} lengths of {} recordings", lengths.len(), keys.len());
        let longest = lengths.iter().map(|(_, len)| *len).max().unwrap_or(0);
        assert!(longest <= corpus.max_row_tokens());
        let rehearsed = corpus.largest_microbatch(3, limits).expect("rows");
        assert!(rehearsed[0].num_positions() >= longest, "{} {longest}", rehearsed[0].num_positions());
    }
}

#[test]
fn a_speed_that_leaves_too_few_frames_for_the_transcript_is_not_taken() {
    let folder = folder();
    // 0.3 seconds are 4800 samples and 479 frames: enough at speed 1, too few at speed 2.
    folder.write("list.jsonl", format!("{{\"audio_filepath\": \"0.wav\", \"text\": \"{}\"}}\n", "ab".repeat(180)));
    let fast = |speed: f64| {
        let mut config = config(&folder, &json!({"augment": {"speed": [speed]}}));
        config.held_out_fraction = 0.0;
        let corpus = Corpus::open_speech_with(&config, Box::new(Bytes::default()), &waves(), &Progress::none());
        draw(&mut corpus.expect("good data").sampler(1), 1)[0][0].num_positions()
    };
    let taken = waves().downsampling.num_frames(4000);
    assert_eq!((fast(2.0), fast(1.2)), (waves().downsampling.num_frames(4800), taken));
}

#[test]
fn masks_hide_bands_of_filter_banks_and_nothing_else() {
    let folder = folder();
    let banks = json!({"num_mel_bins": 40, "stride": 2});
    let masks = json!({"num_time_masks": 1, "max_time_frames": 10, "num_frequency_masks": 1, "max_frequency_bins": 8});
    let options = options(Downsampling::default(), true);
    let plain = open(&folder, &json!({"filter_banks": banks}), &options);
    let masked = open(&folder, &json!({"filter_banks": banks, "augment": {"spec_augment": masks}}), &options);
    let pairs = draw(&mut plain.sampler(2), 6).concat().into_iter().zip(draw(&mut masked.sampler(2), 6).concat());
    let mut num_hidden = 0;
    for (plain, masked) in pairs {
        assert_eq!(plain.key, masked.key);
        for (x, y) in sound(&plain).values.iter().zip(sound(&masked).values.iter()) {
            assert!(x == y || *y == 0.0);
            num_hidden += usize::from(x != y);
        }
    }
    assert!(num_hidden > 100, "{num_hidden}");
}

#[test]
fn rows_that_are_heard_together_are_equally_long_where_padding_would_be_heard() {
    let folder = folder();
    let options = SpeechOptions { transcripts: false, equal_lengths: true, ..waves() };
    let corpus = open(&folder, &json!({}), &options);
    let limits = MicrobatchLimits { rows: 4, tokens: None };
    let batches = |sampler: &mut Sampler| -> Vec<Vec<Row>> {
        (0..12).map(|_| sampler.next_microbatch(limits).expect("rows")).collect()
    };
    let mut sampler = corpus.sampler(4);
    let found = batches(&mut sampler);
    let whole: BTreeMap<u64, Row> = rows(corpus.in_order()).into_iter().map(|row| (row.key, row)).collect();
    let (mut num_cut, mut num_later) = (0, 0);
    for rows in &found {
        let batch = crate::collate(rows, 0, None);
        let heard = batch.sound.expect("speech");
        assert!(heard.lengths.iter().all(|len| *len == heard.num_steps), "there is padding");
        assert!(heard.frames.iter().all(|frames| *frames == heard.num_frames));
        assert!(rows.iter().any(|row| sound(row) == sound(&whole[&row.key])), "the shortest one was cut");
        for row in rows {
            let (own, whole) = (&sound(row).values, &sound(&whole[&row.key]).values);
            assert!(whole.windows(own.len()).any(|stretch| stretch == &own[..]), "not a stretch of the recording");
            num_cut += usize::from(own.len() < whole.len());
            num_later += usize::from(own[..] != whole[..own.len()]);
        }
    }
    assert!(num_cut > 10 && num_later > 10, "{num_cut} rows were cut, {num_later} at their beginning too");
    let frames: usize = found.iter().flatten().map(Row::num_positions).sum();
    assert_eq!(sampler.state().sources["a"].tokens, frames as u64);
    let mut again = corpus.sampler(4);
    assert_eq!(batches(&mut again), found);
    // What is only measured is whole.
    let held_out = rows(corpus.held_out(None).expect("no stride"));
    assert!(held_out.iter().any(|row| sound(row).num_steps() != sound(&held_out[0]).num_steps()));
}

fn refused(folder: &Folder, augment: &Value) -> String {
    let given = json!({"augment": augment});
    try_open(folder, &given, &waves()).err().expect("it must be refused").to_string()
}

#[test]
fn noise_that_cannot_be_used_is_refused_with_its_place() {
    let folder = folder();
    let noise = |path: &str| json!({"noise": {"path": folder.at(path), "snr_db": [5.0, 20.0], "share": 0.5}});
    let rooms = |path: &str| json!({"reverberation": {"path": folder.at(path), "share": 0.5}});
    let absent = refused(&folder, &noise("absent"));
    assert!(absent.starts_with("`data.speech.augment.noise.path`") && absent.contains("does not exist"), "{absent}");
    folder.write("empty/readme.txt", "nothing to hear");
    assert!(refused(&folder, &rooms("empty")).contains("has no file that ends in"));
    folder.write("broken/good.wav", wav(&sine(0.2)));
    folder.write("broken/bad.wav", "no sound");
    let broken = refused(&folder, &noise("broken"));
    assert!(broken.contains("broken/bad.wav") && broken.contains("remove"), "{broken}");
    folder.write("silent/a.wav", wav(&[0; 2000]));
    assert!(refused(&folder, &rooms("silent")).contains("silent sound"));
    folder.write("long/a.wav", wav(&sine(31.0)));
    assert!(refused(&folder, &rooms("long")).contains("a.wav"));
}

#[test]
fn other_noise_or_other_numbers_make_another_corpus() {
    let folder = folder();
    let fingerprint = |change: &dyn Fn(&mut Value)| {
        let mut given = everything(&folder);
        change(&mut given["augment"]);
        open(&folder, &given, &waves()).fingerprint().to_owned()
    };
    let own = fingerprint(&|_| {});
    assert_ne!(fingerprint(&|augment| augment["speed"] = json!([0.9, 1.1])), own);
    assert_ne!(fingerprint(&|augment| augment["noise"]["share"] = json!(0.7)), own);
    folder.write("noise/c.wav", wav(&sine(0.2)));
    assert_ne!(fingerprint(&|_| {}), own);
}

#[test]
fn values_that_cannot_work_are_reported_with_their_keys() {
    let folder = folder();
    let keys = |more: Value| -> Vec<String> {
        let found = config(&folder, &more).check().into_iter();
        found.map(|problem| problem.key.trim_start_matches("data.speech.").to_owned()).collect()
    };
    assert_eq!(keys(everything(&folder)), Vec::<String>::new());
    let wrong = json!({
        "speed": [1.0, 9.0],
        "gain_db": [6.0, -6.0],
        "noise": {"path": "", "snr_db": [20.0, 5.0], "share": 0.0},
        "reverberation": {"path": "", "share": 1.5},
        "spec_augment": {"num_time_masks": 1, "max_time_frames": 1, "num_frequency_masks": 0, "max_frequency_bins": 0},
    });
    let under = |name: &str| format!("augment.{name}");
    let wanted = [
        "speed",
        "gain_db",
        "noise.path",
        "noise.snr_db",
        "noise.share",
        "reverberation.path",
        "reverberation.share",
        "spec_augment",
    ];
    assert_eq!(keys(json!({"normalise": false, "augment": wrong})), wanted.map(under));
    assert_eq!(keys(json!({"augment": {"speed": [0.905]}})), ["augment.speed"]);
    assert_eq!(keys(json!({"augment": {"gain_db": [-6.0, 6.0]}})), ["augment.gain_db"]);
    let masks = json!({"num_time_masks": 1, "max_time_frames": 0, "max_time_share": 0.0, "num_frequency_masks": 1, "max_frequency_bins": 41});
    let banks = json!({"num_mel_bins": 40, "stride": 2});
    let wanted = ["max_time_share", "max_time_frames", "max_frequency_bins"];
    assert_eq!(
        keys(json!({"filter_banks": banks, "augment": {"spec_augment": masks}})),
        wanted.map(|name| under(&format!("spec_augment.{name}")))
    );
    assert_eq!(keys(json!({"filter_banks": {"num_mel_bins": 40, "stride": 0}})), ["filter_banks"]);
    assert_eq!(keys(json!({"filter_banks": banks, "normalise": false})), ["normalise"]);
    let unknown =
        serde_json::from_value::<SpeechConfig>(json!({"source": {}, "normalise": true, "augment": {"sped": []}}));
    assert!(unknown.expect_err("misspelt").to_string().contains("sped"));
}

#[test]
fn shares_by_hours_are_those_of_the_card() {
    let wanted = [
        (1.0, [0.9009, 0.0901, 0.0090]),
        (0.7, [0.8069, 0.1610, 0.0321]),
        (0.5, [0.7061, 0.2233, 0.0706]),
        (0.0, [1.0 / 3.0; 3]),
    ];
    for (exponent, wanted) in wanted {
        let weights = [100.0, 10.0, 1.0].map(|hours: f64| by_hours(3600.0 * hours, exponent));
        let total: f64 = weights.iter().sum();
        for (weight, wanted) in weights.iter().zip(wanted) {
            assert!((weight / total - wanted).abs() < 5e-5, "{exponent}: {weights:?}");
        }
    }
}

#[test]
fn a_source_of_which_nothing_can_be_heard_is_an_error_and_no_endless_search() {
    let folder = folder();
    let mut lines = String::new();
    for at in 0..3 {
        folder.write(&format!("broken{at}.wav"), b"RIFF of nothing");
        lines += &format!("{{\"audio_filepath\": \"broken{at}.wav\", \"duration\": 1.0, \"text\": \"ab\"}}\n");
    }
    folder.write("broken.jsonl", lines);
    let source = |list: &str| json!({"format": {"nemo": {"path": folder.at(list)}}});
    let two = json!({"source": {"a": source("list.jsonl"), "b": source("broken.jsonl")}});
    let mut config = config(&folder, &two);
    (config.held_out_fraction, config.max_bad_items) = (0.0, 10);
    let corpus = Corpus::open_speech_with(&config, Box::new(Bytes::default()), &waves(), &Progress::none());
    let mut sampler = corpus.expect("the lists are good").sampler(1);
    let failed = (0..40).find_map(|_| sampler.next_microbatch(LIMITS).err()).expect("nothing of `b` can be heard");
    assert!(matches!(&failed, Error::NothingToTrainOn { name, documents: 3 } if name == "b"), "{failed}");
}
