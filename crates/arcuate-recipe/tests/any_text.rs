//! Recipes changed at random: whatever stands in a file, the answer is a recipe or a message, never a crash.

use std::fmt::Write as _;

use arcuate_recipe::{Override, check_recipe, parse_pipeline, parse_recipe, resolved_toml};

const RECIPE: &str = include_str!("wrong/several_at_once.toml");

/// A small generator with a fixed seed (splitmix64): the same texts in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % n.max(1) as u64).expect("below n")
    }
}

const PIECES: &[&str] = &[
    "=",
    "[",
    "]",
    "[[",
    "{",
    "}",
    "\"",
    "'",
    "\"\"\"",
    ".",
    ",",
    "\n",
    "\r\n",
    "\u{0}",
    "\u{1b}[31m",
    "é",
    "漢字",
    "\u{202e}",
    "nan",
    "-inf",
    "-1",
    "0",
    "1e400",
    "9223372036854775807",
    "9223372036854775808",
    "true",
    "1979-05-27",
    "{ steps = 1 }",
    "[model.gpt2]",
    "[[step]]",
    "a.b.c = 1",
    "#",
    "\\u0000",
    "\t",
    "[objective.next_token]",
    "[]",
    "{}",
];

fn changed(dice: &mut Dice) -> String {
    let mut lines: Vec<String> = RECIPE.lines().map(str::to_owned).collect();
    for _ in 0..=dice.below(4) {
        let at = dice.below(lines.len());
        match dice.below(6) {
            0 => drop(lines.remove(at)),
            1 => lines.insert(at, PIECES[dice.below(PIECES.len())].to_owned()),
            2 => {
                let other = dice.below(lines.len());
                lines.swap(at, other);
            }
            3 => {
                let key = lines[at].split('=').next().unwrap_or_default().to_owned();
                lines[at] = format!("{key}= {}", PIECES[dice.below(PIECES.len())]);
            }
            4 => {
                let mut chars: Vec<char> = lines[at].chars().collect();
                let place = dice.below(chars.len() + 1);
                chars.splice(place..place, PIECES[dice.below(PIECES.len())].chars());
                lines[at] = chars.into_iter().collect();
            }
            _ => {
                let line = lines[at].clone();
                lines.push(line);
            }
        }
        if lines.is_empty() {
            lines.push(String::new());
        }
    }
    lines.join("\n")
}

fn answer(text: &str, overrides: &[Override]) {
    match parse_recipe("any.toml", text, overrides) {
        Ok(loaded) => {
            check_recipe(&loaded).render(true);
            let resolved = resolved_toml(&loaded.value, &loaded.source);
            let again = parse_recipe("resolved.toml", &resolved, &[]);
            assert_eq!(again.map(|again| again.value), Ok(loaded.value), "{text}\n---\n{resolved}");
        }
        Err(found) => {
            assert!(found.has_errors());
            found.render(true);
            let shown = found.render(false);
            assert!(!shown.contains('\u{1b}'), "a control character came through: {shown:?}");
            found.to_json();
        }
    }
}

#[test]
fn changed_recipes_give_recipes_or_messages() {
    let mut dice = Dice(17);
    for _ in 0..300 {
        answer(&changed(&mut dice), &[]);
    }
}

#[test]
fn random_overrides_give_recipes_or_messages() {
    let mut dice = Dice(18);
    for _ in 0..200 {
        let mut flag = String::new();
        for _ in 0..dice.below(6) {
            let part = ["model", ".llama", ".", "=", "batch.microbatch=", "schedule", "x"];
            let _ = write!(flag, "{}{}", part[dice.below(part.len())], PIECES[dice.below(PIECES.len())]);
        }
        answer(RECIPE, &Override::from_flags(&[flag, "seed=3".to_owned()]));
    }
}

#[test]
fn cut_recipes_give_messages() {
    for end in (0..RECIPE.len()).step_by(7) {
        answer(&RECIPE[..RECIPE.floor_char_boundary(end)], &[]);
    }
}

#[test]
fn long_and_deep_texts_end_soon() {
    for text in [
        "a = 1\n".repeat(100_000),
        (0..50_000).fold(String::new(), |mut text, i| {
            let _ = writeln!(text, "key{i} = {i}");
            text
        }),
        format!("name = \"{}\"", "x".repeat(900_000)),
        format!("unknown = \"{}\"", "\u{e9}".repeat(400_000)),
        format!("seed = [{}]", "1, ".repeat(300_000)),
        format!("x = {}1{}", "[".repeat(70), "]".repeat(70)),
        format!("[{}]\n", vec!["model"; 70].join(".")),
    ] {
        answer(&text, &[]);
        assert!(parse_pipeline("any.toml", &text, &[]).is_err());
    }
}
