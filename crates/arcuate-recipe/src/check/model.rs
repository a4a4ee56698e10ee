//! Sizes of the network that do not fit each other.

use arcuate_data::PackingConfig;
use arcuate_model::ModelConfig;
use arcuate_model::llama::RopeScaling;

use crate::recipe::Recipe;
use crate::source::Finding;

/// How far from the given value others are tried.
const MAX_TRIES: usize = 100_000;

/// The sizes that the checks compare, whatever the architecture.
struct Sizes<'a> {
    table: String,
    hidden: usize,
    heads: usize,
    kv_heads: Option<usize>,
    head_dim: Option<usize>,
    positions: usize,
    rotary: bool,
    scaling: Option<&'a RopeScaling>,
}

fn sizes(recipe: &Recipe) -> Sizes<'_> {
    let table = format!("model.{}", recipe.model.name());
    let plain = |hidden, heads, positions| Sizes {
        table: table.clone(),
        hidden,
        heads,
        kv_heads: None,
        head_dim: None,
        positions,
        rotary: false,
        scaling: None,
    };
    match &recipe.model {
        ModelConfig::Bert(c) => plain(c.hidden_size, c.num_heads, c.max_seq_len),
        ModelConfig::Gpt2(c) => plain(c.hidden_size, c.num_heads, c.max_seq_len),
        // Frames have no learned positions that could run out.
        ModelConfig::Hubert(c) => plain(c.hidden_size, c.num_heads, usize::MAX),
        ModelConfig::Speecht5(c) => plain(c.hidden_size, c.num_heads, usize::MAX),
        ModelConfig::Wav2vec2(c) => plain(c.hidden_size, c.num_heads, usize::MAX),
        ModelConfig::Wav2vec2Bert(c) => plain(c.hidden_size, c.num_heads, usize::MAX),
        ModelConfig::Wav2vec2Conformer(c) => plain(c.hidden_size, c.num_heads, usize::MAX),
        ModelConfig::Llama(c) => Sizes {
            kv_heads: c.num_kv_heads,
            head_dim: c.head_dim,
            rotary: true,
            scaling: c.rope_scaling.as_ref(),
            ..plain(c.hidden_size, c.num_heads, c.max_seq_len)
        },
        ModelConfig::Qwen2(c) => Sizes {
            kv_heads: c.num_kv_heads,
            rotary: true,
            scaling: c.rope_scaling.as_ref(),
            ..plain(c.hidden_size, c.num_heads, c.max_seq_len)
        },
    }
}

/// "4 or 8 heads would": the nearest smaller and larger numbers that fit.
fn nearest(value: usize, most: usize, fits: impl Fn(usize) -> bool) -> Option<String> {
    let below = (1..value).rev().take(MAX_TRIES).find(|n| fits(*n));
    let above = (value.saturating_add(1)..=most).take(MAX_TRIES).find(|n| fits(*n));
    match (below, above) {
        (Some(below), Some(above)) => Some(format!("{below} or {above}")),
        (Some(one), None) | (None, Some(one)) => Some(one.to_string()),
        (None, None) => None,
    }
}

fn impossible(sizes: &Sizes<'_>, key: &str, message: String, help: Option<String>) -> Vec<Finding> {
    let finding = Finding::error("recipe::impossible", format!("{}.{key}", sizes.table), message);
    vec![match help {
        Some(help) => finding.help(help),
        None => finding,
    }]
}

pub(super) fn heads(recipe: &Recipe) -> Vec<Finding> {
    let sizes = sizes(recipe);
    if sizes.head_dim.is_some() || sizes.heads == 0 || sizes.hidden.is_multiple_of(sizes.heads) {
        return Vec::new();
    }
    let fits = |heads: usize| {
        let even = !sizes.rotary || (sizes.hidden / heads).is_multiple_of(2);
        sizes.hidden.is_multiple_of(heads) && even
    };
    let help = nearest(sizes.heads, sizes.hidden, fits).map(|heads| format!("{heads} heads would"));
    let message = format!("{} heads do not divide hidden_size {}", sizes.heads, sizes.hidden);
    impossible(&sizes, "num_heads", message, help)
}

pub(super) fn kv_heads(recipe: &Recipe) -> Vec<Finding> {
    let sizes = sizes(recipe);
    let Some(kv_heads) = sizes.kv_heads.filter(|n| *n > 0 && !sizes.heads.is_multiple_of(*n)) else {
        return Vec::new();
    };
    let help = nearest(kv_heads, sizes.heads, |n| sizes.heads.is_multiple_of(n));
    let message = format!("{kv_heads} key and value heads do not divide num_heads {}", sizes.heads);
    impossible(&sizes, "num_kv_heads", message, help.map(|heads| format!("{heads} would")))
}

/// Rotary positions turn pairs of values.
pub(super) fn head_width(recipe: &Recipe) -> Vec<Finding> {
    let sizes = sizes(recipe);
    if !sizes.rotary || sizes.heads == 0 {
        return Vec::new();
    }
    match sizes.head_dim {
        Some(width) if width.is_multiple_of(2) => Vec::new(),
        Some(width) => {
            let message = format!("head_dim {width} is odd, but rotary positions turn pairs of values");
            impossible(&sizes, "head_dim", message, Some(format!("use {}", width.saturating_add(1))))
        }
        None if !sizes.hidden.is_multiple_of(sizes.heads) => Vec::new(),
        None => {
            let width = sizes.hidden / sizes.heads;
            if width.is_multiple_of(2) {
                return Vec::new();
            }
            let fits = |n: usize| sizes.hidden.is_multiple_of(n) && (sizes.hidden / n).is_multiple_of(2);
            let message = format!("each head is {width} wide, which is odd, but rotary positions turn pairs of values");
            let help = nearest(sizes.heads, sizes.hidden, fits).map(|heads| format!("{heads} heads would do"));
            impossible(&sizes, "num_heads", message, help.or(Some("make hidden_size even".to_owned())))
        }
    }
}

pub(super) fn positions(recipe: &Recipe) -> Vec<Finding> {
    let sizes = sizes(recipe);
    if recipe.batch.max_seq_len <= sizes.positions {
        return Vec::new();
    }
    let message = format!(
        "rows of {} tokens are longer than the model's {} positions",
        recipe.batch.max_seq_len, sizes.positions
    );
    let help = format!("lower it to {} or raise max_seq_len in `[{}]`", sizes.positions, sizes.table);
    vec![Finding::error("recipe::impossible", "batch.max_seq_len", message).help(help)]
}

pub(super) fn rope_scaling(recipe: &Recipe) -> Vec<Finding> {
    let sizes = sizes(recipe);
    let (name, factor) = match sizes.scaling {
        None => return Vec::new(),
        Some(RopeScaling::Linear { factor }) => ("linear", *factor),
        Some(RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, .. }) => {
            if low_freq_factor >= high_freq_factor || *low_freq_factor <= 0.0 {
                let message =
                    format!("low_freq_factor {low_freq_factor} is not below high_freq_factor {high_freq_factor}");
                let help = "Llama 3.1 has 1.0 and 4.0".to_owned();
                return impossible(&sizes, "rope_scaling.llama3.low_freq_factor", message, Some(help));
            }
            ("llama3", *factor)
        }
    };
    if factor >= 1.0 {
        return Vec::new();
    }
    let help = "it says how many times longer sequences become; remove rope_scaling for none".to_owned();
    impossible(&sizes, &format!("rope_scaling.{name}.factor"), format!("factor {factor} is below 1"), Some(help))
}

pub(super) fn conv_front(recipe: &Recipe) -> Vec<Finding> {
    let ModelConfig::Bert(config) = &recipe.model else { return Vec::new() };
    let Some(front) = &config.conv_front else { return Vec::new() };
    let mut found = Vec::new();
    if let Some(message) = front.problem(config.max_seq_len, config.hidden_size) {
        let help = "published: 2 layers of 64 channels with a kernel of [3, 3]";
        found.push(Finding::error("recipe::impossible", "model.bert.conv_front", message).help(help));
    }
    if !matches!(recipe.data.packing, PackingConfig::Document(_)) {
        let name = recipe.data.packing.name();
        let message =
            format!("`conv_front` lets every token see its neighbours, but `{name}` puts several documents in a row");
        let finding = Finding::error("recipe::impossible", format!("data.packing.{name}"), message);
        found.push(finding.help("use `[data.packing.document]`"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{bert_text, llama_text, read};

    fn one(check: fn(&Recipe) -> Vec<Finding>, text: &str) -> (String, String) {
        let found = check(&read(text));
        assert_eq!(found.len(), 1, "{found:?}");
        (found[0].message.clone(), found[0].help.clone().unwrap_or_default())
    }

    #[test]
    fn heads_that_do_not_divide_name_those_that_do() {
        let (message, help) = one(heads, &llama_text().replace("num_heads = 4", "num_heads = 6"));
        assert_eq!(message, "6 heads do not divide hidden_size 64");
        assert_eq!(help, "4 or 8 heads would");
        let (_, help) = one(heads, &bert_text().replace("num_heads = 4", "num_heads = 100"));
        assert_eq!(help, "64 heads would");
    }

    #[test]
    fn a_given_head_width_frees_the_number_of_heads() {
        let text = llama_text().replace("num_heads = 4", "num_heads = 6\nhead_dim = 16");
        assert_eq!(heads(&read(&text)), []);
    }

    #[test]
    fn kv_heads_must_divide_the_heads() {
        let (message, help) = one(kv_heads, &llama_text().replace("num_heads = 4", "num_heads = 4\nnum_kv_heads = 3"));
        assert_eq!(message, "3 key and value heads do not divide num_heads 4");
        assert_eq!(help, "2 or 4 would");
    }

    #[test]
    fn odd_heads_cannot_be_rotated() {
        let (message, help) = one(head_width, &llama_text().replace("num_heads = 4", "num_heads = 64"));
        assert!(message.contains("1 wide"), "{message}");
        assert_eq!(help, "32 heads would do");
        let (_, help) = one(head_width, &llama_text().replace("num_heads = 4", "num_heads = 4\nhead_dim = 7"));
        assert_eq!(help, "use 8");
    }

    #[test]
    fn rows_longer_than_the_positions_are_found() {
        let (message, _) = one(positions, &bert_text().replace("max_seq_len = 64", "max_seq_len = 129"));
        assert_eq!(message, "rows of 129 tokens are longer than the model's 128 positions");
    }

    #[test]
    fn rotary_scaling_must_stretch() {
        let text = llama_text().replace("[objective", "[model.llama.rope_scaling.linear]\nfactor = 0.5\n[objective");
        assert_eq!(one(rope_scaling, &text).0, "factor 0.5 is below 1");
        let keys = "factor = 8.0\nlow_freq_factor = 4.0\nhigh_freq_factor = 1.0\noriginal_max_seq_len = 64\n";
        let text = llama_text().replace("[objective", &format!("[model.llama.rope_scaling.llama3]\n{keys}[objective"));
        assert_eq!(one(rope_scaling, &text).0, "low_freq_factor 4 is not below high_freq_factor 1");
    }

    #[test]
    fn enormous_sizes_end() {
        let text = llama_text().replace("num_heads = 4", "num_heads = 9223372036854775806");
        let text = text.replace("hidden_size = 64", "hidden_size = 9223372036854775807");
        assert_eq!(heads(&read(&text)).len(), 1);
    }

    #[test]
    fn impossible_convolutions_are_found() {
        let with = |keys: &str| {
            let text = bert_text().replace("best_fit", "document");
            let table = format!("[model.bert.conv_front]\n{keys}\n[objective");
            text.replacen("[objective", &table, 1)
        };
        let sound = "num_layers = 2\nkernel = [3, 3]\nchannels = 8";
        assert_eq!(conv_front(&read(&with(sound))), []);
        let (message, _) = one(conv_front, &with(&sound.replace("[3, 3]", "[129, 3]")));
        assert_eq!(
            message,
            "the kernel of 129 x 3 of `conv_front` is larger than a row of 128 tokens x 64 hidden numbers"
        );
        assert!(one(conv_front, &with(&sound.replace("[3, 3]", "[3, 65]"))).0.contains("3 x 65"));
        assert!(one(conv_front, &with(&sound.replace("[3, 3]", "[0, 3]"))).0.contains("at least 1"));
        let packed = with(sound).replace("packing.document", "packing.best_fit");
        assert!(one(conv_front, &packed).0.contains("puts several documents in a row"));
    }
}
