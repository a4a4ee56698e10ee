//! Hostile bytes: one function for each reader of files that come from elsewhere, seeds, and a mutator.
//!
//! A target is sound if it returns for all bytes, in reasonable time and memory. `cargo xtask fuzz` tries mutated seeds on any machine;
//! the programs in `fuzz/` hand the same functions to libFuzzer, which looks for new paths.

mod lists;
mod mutate;
mod sounds;
mod texts;

use std::io;
use std::path::Path;

pub use mutate::Mutator;

/// One reader.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, also of its program in `fuzz/`.
    pub name: &'static str,
    /// Reads the bytes; whatever they are, it returns.
    pub run: fn(&[u8]),
    /// Good input to begin with, from the files of the tests in the folder of the workspace.
    pub seeds: fn(&Path) -> io::Result<Vec<Vec<u8>>>,
}

/// All targets by name.
pub const TARGETS: &[Target] = &[
    Target { name: "arpa", run: texts::ngram, seeds: texts::arpa_seeds },
    Target { name: "audio", run: sounds::whole, seeds: sounds::seeds },
    Target { name: "audio_pipe", run: sounds::piped, seeds: sounds::seeds },
    Target { name: "common_voice", run: lists::common_voice, seeds: lists::common_voice_seeds },
    Target { name: "eaf", run: texts::eaf, seeds: texts::eaf_seeds },
    Target { name: "fairseq", run: lists::fairseq, seeds: lists::fairseq_seeds },
    Target { name: "kaldi", run: lists::kaldi, seeds: lists::kaldi_seeds },
    Target { name: "kenlm", run: texts::ngram, seeds: texts::kenlm_seeds },
    Target { name: "nemo", run: lists::nemo, seeds: lists::nemo_seeds },
    Target { name: "tar", run: lists::tar, seeds: lists::tar_seeds },
    Target { name: "textgrid", run: texts::textgrid, seeds: texts::textgrid_seeds },
];

/// Runs the target of a name.
///
/// # Panics
/// When there is none, and when the reader is wrong.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("the programs are named like the targets");
    (target.run)(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> &'static Path {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
    }

    #[test]
    fn every_target_has_a_program_and_a_place_in_the_list() {
        assert!(TARGETS.is_sorted_by(|a, b| a.name < b.name));
        let manifest = std::fs::read_to_string(root().join("fuzz/Cargo.toml")).expect("a manifest");
        for target in TARGETS {
            let program = root().join(format!("fuzz/fuzz_targets/{}.rs", target.name));
            let text = std::fs::read_to_string(&program).expect(target.name);
            assert!(text.contains(&format!("arcuate_fuzz::run(\"{}\"", target.name)), "{}", target.name);
            assert!(manifest.contains(&format!("name = \"{}\"", target.name)), "{}", target.name);
        }
        assert_eq!(std::fs::read_dir(root().join("fuzz/fuzz_targets")).expect("a folder").count(), TARGETS.len());
    }

    #[test]
    fn seeds_are_good_input_and_some_damage_is_survived() {
        for target in TARGETS {
            let seeds = (target.seeds)(root()).expect(target.name);
            assert!(!seeds.is_empty(), "{}", target.name);
            seeds.iter().for_each(|seed| (target.run)(seed));
            let mut mutator = Mutator::new(7, seeds);
            (0..20).for_each(|_| (target.run)(&mutator.next_input()));
        }
    }
}
