//! What is compared: a row of `arcuate bench`, its sizes, and how the peer runs.

/// One line of the table.
#[derive(Debug)]
pub(super) struct Case {
    /// Name in the table and for `--rows`; it begins with the row.
    pub(super) name: &'static str,
    /// Row of `arcuate bench` and of `peer.py`.
    pub(super) row: &'static str,
    /// Sizes that differ from those of the row.
    pub(super) set: &'static [&'static str],
    /// `f32` or `bf16`, on both sides.
    pub(super) precision: &'static str,
    /// `eager` or `compile`.
    pub(super) variant: &'static str,
    /// How many times faster than the peer we want to be.
    pub(super) goal: Option<f64>,
}

/// The largest share of the peer's memory that we want to need.
pub(super) const MEMORY_GOAL: f64 = 0.6;

const fn case(
    name: &'static str,
    row: &'static str,
    set: &'static [&'static str],
    precision: &'static str,
    variant: &'static str,
    goal: f64,
) -> Case {
    Case { name, row, set, precision, variant, goal: Some(goal) }
}

const LONG: &[&str] = &["seq_len=1024", "batch=2"];
const WIDE: &[&str] = &["vocab=32000"];

/// All cases.
pub(super) const CASES: &[Case] = &[
    Case { name: "products-f32", row: "products", set: &[], precision: "f32", variant: "eager", goal: None },
    Case { name: "products-bf16", row: "products", set: &[], precision: "bf16", variant: "eager", goal: None },
    case("gpt-f32", "gpt", &[], "f32", "eager", 1.25),
    case("gpt-bf16", "gpt", &[], "bf16", "compile", 1.3),
    case("gpt-bf16-eager", "gpt", &[], "bf16", "eager", 1.6),
    case("llama-f32", "llama", &[], "f32", "eager", 1.25),
    case("llama-bf16", "llama", &[], "bf16", "compile", 1.3),
    case("llama-v32000-f32", "llama", WIDE, "f32", "eager", 1.25),
    case("llama-v32000-bf16", "llama", WIDE, "bf16", "compile", 1.3),
    case("llama-t1024-f32", "llama", LONG, "f32", "eager", 1.25),
    case("llama-t1024-bf16", "llama", LONG, "bf16", "compile", 1.3),
    case("bert-f32", "bert", &[], "f32", "eager", 1.5),
    case("bert-bf16", "bert", &[], "bf16", "eager", 1.5),
    case("frontend-f32", "frontend", &[], "f32", "eager", 1.5),
    case("frontend-bf16", "frontend", &[], "bf16", "eager", 1.6),
    case("positional_conv-f32", "positional_conv", &[], "f32", "eager", 1.0),
    case("positional_conv-bf16", "positional_conv", &[], "bf16", "eager", 1.0),
    case("ctc-v32", "ctc", &[], "f32", "eager", 3.0),
    case("ctc-v500", "ctc", &["vocab=500"], "f32", "eager", 3.0),
    case("decode-b1", "decode", &[], "f32", "eager", 2.0),
    case("decode-b16", "decode", &["batch=16"], "f32", "eager", 2.0),
    case("fbank", "fbank", &[], "f32", "eager", 1.0),
    case("mfcc", "mfcc", &[], "f32", "eager", 1.0),
    case("log_mel", "log_mel", &[], "f32", "eager", 1.0),
    case("resample", "resample", &[], "f32", "eager", 1.0),
    case("beam", "beam", &[], "f32", "eager", 3.0),
];

/// The cases that the names choose: a whole name, or the row; all without names.
pub(super) fn chosen(names: &[String]) -> Result<Vec<&'static Case>, String> {
    let is_meant = |case: &Case, name: &str| case.name == name || case.row == name;
    if let Some(unknown) = names.iter().find(|name| CASES.iter().all(|case| !is_meant(case, name))) {
        let known: Vec<&str> = CASES.iter().map(|case| case.name).collect();
        return Err(format!("there is no row `{unknown}`; there are {}", known.join(", ")));
    }
    Ok(CASES.iter().filter(|case| names.is_empty() || names.iter().any(|name| is_meant(case, name))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_choose_a_case_or_all_of_a_row() {
        let names = |wanted: &[&str]| {
            let wanted: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
            chosen(&wanted).map(|cases| cases.iter().map(|case| case.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&["gpt-f32", "decode"]), Ok(vec!["gpt-f32", "decode-b1", "decode-b16"]));
        assert_eq!(names(&[]).map(|all| all.len()), Ok(CASES.len()));
        assert!(names(&["gtp"]).is_err_and(|text| text.starts_with("there is no row `gtp`; there are products-f32")));
    }

    #[test]
    fn names_are_unique_and_begin_with_the_row() {
        for (index, case) in CASES.iter().enumerate() {
            assert!(case.name.starts_with(case.row), "{}", case.name);
            assert!(CASES[..index].iter().all(|other| other.name != case.name), "{}", case.name);
        }
    }
}
