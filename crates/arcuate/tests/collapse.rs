//! Signs of collapse, on the built program: for each a seeded recipe that really collapses, beside one that does not.

use std::collections::BTreeMap;
use std::f64::consts::TAU;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use arcuate_model::tensors::{self, TensorFile};

const SPEECH: &str = "recipes/tiny_speech.toml";
const CTC: &str = "recipes/tiny_ctc.toml";
const NO_DIVERSITY: &str = "objective.contrastive.diversity_weight=0.0";
const CONSTANT: &str = "schedule={constant={}}";

/// Signs are looked for after 10 steps, have to hold for 8, and stop the run.
const GUARD: &str = "guard={ collapse_after_steps = 10, collapse_steps = 8, stop_on_collapse = true }";

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A run of so many steps with that recipe.
    fn run(&self, recipe: &str, runs: &str, steps: usize, set: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_arcuate"));
        command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."));
        command.args(["run", recipe, "--threads", "1", "--runs-dir"]).arg(self.at(runs));
        let steps = [format!("horizon.steps={steps}"), format!("evaluation.every_steps={steps}")];
        for change in
            steps.iter().map(String::as_str).chain([GUARD, "checkpoint.every_steps=1000"]).chain(set.iter().copied())
        {
            command.args(["--set", change]);
        }
        command.output().expect("it starts")
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The run must be stopped by the referee with this message and this remedy.
fn is_stopped(output: &Output, what: &str, next: &str) {
    let said = text(output).split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(output.status.code(), Some(3), "{said}");
    for part in [what, "for 8 steps now", "likely causes", next] {
        assert!(said.contains(part), "`{part}` is not in: {said}");
    }
}

fn is_sound(output: &Output) {
    assert_eq!(output.status.code(), Some(0), "{}", text(output));
}

#[test]
fn codebooks_collapse_at_a_huge_learning_rate_without_diversity() {
    let folder = Folder::new();
    is_sound(&folder.run(SPEECH, "sound", 24, &[]));
    let set = [NO_DIVERSITY, CONSTANT, "optimizer.adamw.peak_learning_rate=0.3"];
    let output = folder.run(SPEECH, "failing", 30, &set);
    is_stopped(&output, "the codebooks have collapsed: their perplexity is 1.0", "raise `diversity_weight`");
}

#[test]
fn codebooks_larger_than_the_data_die() {
    let folder = Folder::new();
    let large =
        "model.wav2vec2.quantizer={ num_codebooks = 2, codebook_size = 512, code_size = 16, projection_size = 16 }";
    // With the weight of the recipe the entries stay alive.
    is_sound(&folder.run(SPEECH, "sound", 24, &[large]));
    let set = [large, NO_DIVERSITY, CONSTANT, "optimizer.adamw.peak_learning_rate=0.1"];
    let output = folder.run(SPEECH, "failing", 50, &set);
    is_stopped(&output, "of the codebook entries are dead", "use fewer entries in a codebook");
}

#[test]
fn a_temperature_that_tells_nothing_apart_leaves_the_loss_at_chance() {
    let folder = Folder::new();
    // So many entries that hardly two frames share theirs, and all others compete.
    let entries =
        "model.wav2vec2.quantizer={ num_codebooks = 2, codebook_size = 64, code_size = 16, projection_size = 16 }";
    is_sound(&folder.run(SPEECH, "sound", 20, &[entries, "optimizer.adamw.peak_learning_rate=1e-9"]));
    let output = folder.run(SPEECH, "failing", 20, &[entries, "objective.contrastive.temperature=100.0"]);
    is_stopped(&output, "is that of chance, 2.3979", "a third of `peak_learning_rate`");
}

/// A manifest of recordings that are one steady tone each.
fn tones(folder: &Folder) -> String {
    let mut lines = String::new();
    for at in 0..24 {
        let hz = [200.0, 500.0, 1000.0, 2000.0, 4000.0, 6000.0][at % 6];
        let sample = |n: usize| (8000.0 * (TAU * hz * n as f64 / 16_000.0).sin()) as i16;
        let data: Vec<u8> = (0..24_000).flat_map(|n| sample(n).to_le_bytes()).collect();
        let mut file = b"RIFF".to_vec();
        file.extend((36 + data.len() as u32).to_le_bytes());
        file.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
        file.extend(16_000u32.to_le_bytes());
        file.extend(32_000u32.to_le_bytes());
        file.extend(b"\x02\0\x10\0data");
        file.extend((data.len() as u32).to_le_bytes());
        file.extend(data);
        fs::write(folder.at(&format!("{at}.wav")), file).expect("written");
        lines += &format!("{{\"audio_filepath\": \"{at}.wav\", \"duration\": 1.5}}\n");
    }
    fs::write(folder.at("tones.jsonl"), lines).expect("written");
    format!("data.speech.source.studio.format.nemo.path={:?}", folder.at("tones.jsonl").display().to_string())
}

#[test]
fn rows_of_one_tone_leave_nothing_that_competes() {
    let folder = Folder::new();
    is_sound(&folder.run(SPEECH, "first", 4, &[]));
    // A quantizer that is sure of itself, as one is late in a run: its noise no longer changes what it takes.
    let checkpoint = folder.at("first/tiny-speech/checkpoints/last");
    let sure = folder.at("sure");
    fs::create_dir(&sure).expect("made");
    for entry in fs::read_dir(&checkpoint).expect("a folder").flatten() {
        fs::copy(entry.path(), sure.join(entry.file_name())).expect("copied");
    }
    let file = TensorFile::open_folder(&checkpoint).expect("sound");
    let mut all = BTreeMap::new();
    for name in file.names() {
        let mut values = file.f32(&name).expect("float").expect("there");
        if name.ends_with("quantizer.weight_proj.weight") {
            values.data.iter_mut().for_each(|x| *x *= 2000.0);
        }
        all.insert(name, (values.shape, values.data));
    }
    tensors::write(&sure.join("model.safetensors"), &all).expect("written");
    let from = format!("init_from={:?}", sure.display().to_string());
    let slow = "optimizer.adamw.peak_learning_rate=1e-9";
    is_sound(&folder.run(SPEECH, "sound", 20, &[&from, slow]));
    let output = folder.run(SPEECH, "failing", 20, &[&from, slow, &tones(&folder)]);
    is_stopped(&output, "nothing competes with the targets: accuracy 1.000", "look at `code_perplexity`");
}

#[test]
fn a_network_cut_off_from_its_loss_has_no_gradient() {
    let folder = Folder::new();
    let freeze = "freeze=[\"wav2vec2.masked_spec_embed\", \"wav2vec2.feature_projection.*\", \"wav2vec2.encoder.*\", \"lm_head.*\"]";
    is_sound(&folder.run(CTC, "sound", 20, &[freeze]));
    let output = folder.run(CTC, "failing", 20, &[freeze, "model.wav2vec2.feature_gradient_scale=1e-12"]);
    is_stopped(&output, "the gradient has vanished", "look at `freeze`");
    // Of parameters that the loss does not see at all there is no gradient either.
    let all = "freeze=[\"wav2vec2.feature_extractor.*\", \"wav2vec2.feature_projection.*\", \"wav2vec2.encoder.*\", \"lm_head.*\"]";
    let output = folder.run(CTC, "unseen", 20, &[all, "objective.ctc={ zero_infinity = true }"]);
    is_stopped(&output, "the gradient has vanished: its norm is 0.0e0", "look at `freeze`");
}

#[test]
fn a_recogniser_at_a_huge_learning_rate_says_only_blanks() {
    let folder = Folder::new();
    is_sound(&folder.run(CTC, "sound", 24, &["optimizer.adamw.peak_learning_rate=5e-4"]));
    let output = folder.run(CTC, "failing", 40, &[CONSTANT, "optimizer.adamw.peak_learning_rate=0.03"]);
    is_stopped(&output, "the network says only blanks: 100.0 % of the frames", "lower `peak_learning_rate`");
}
