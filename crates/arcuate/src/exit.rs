//! Exit codes: 0 done; 1 another failure; 2 bad recipe or arguments; 3 stopped by the health referee; 4 bad data;
//! 75 preempted, run again to resume.

/// A failure whose exit code is given.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Coded {
    pub code: u8,
    pub message: String,
}

/// A failure that the results on standard output tell of already.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Told {
    pub code: u8,
    pub message: String,
}

/// An error in the arguments: exit code 2.
pub(crate) fn usage(message: impl Into<String>) -> anyhow::Error {
    Coded { code: 2, message: message.into() }.into()
}

/// An error with its causes, each of them once.
pub(crate) fn text(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// The exit code of an error: that of the first cause that has one.
pub(crate) fn code(error: &anyhow::Error) -> u8 {
    error.chain().find_map(code_of).unwrap_or(1)
}

fn code_of(cause: &(dyn std::error::Error + 'static)) -> Option<u8> {
    if let Some(coded) = cause.downcast_ref::<Coded>() {
        return Some(coded.code);
    }
    if let Some(told) = cause.downcast_ref::<Told>() {
        return Some(told.code);
    }
    if cause.is::<arcuate_recipe::Diagnostics>() {
        return Some(2);
    }
    if let Some(error) = cause.downcast_ref::<arcuate_train::Error>() {
        return match error {
            arcuate_train::Error::Hook(inner) => inner_code(inner.as_ref()),
            other => Some(other.exit_code()),
        };
    }
    inner_code(cause)
}

fn inner_code(cause: &(dyn std::error::Error + 'static)) -> Option<u8> {
    use arcuate_recipe::build;
    use arcuate_record as record;
    let mut cause = Some(cause);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<build::Error>() {
            let is_recipe =
                matches!(error, build::Error::Objective(_) | build::Error::Model(arcuate_model::Error::Unsupported(_)));
            return Some(if is_recipe { 2 } else { 4 });
        }
        if let Some(error) = error.downcast_ref::<record::Error>() {
            use record::Error::{BadName, Busy, NotARunFolder, OtherRecipe};
            let is_argument = matches!(error, BadName { .. } | Busy { .. } | NotARunFolder { .. } | OtherRecipe { .. });
            return is_argument.then_some(2);
        }
        if let Some(error) = error.downcast_ref::<arcuate_decode::Error>() {
            use arcuate_decode::Error::{Config, NotCausal, PromptTooLong};
            return Some(if matches!(error, Config { .. } | NotCausal { .. } | PromptTooLong { .. }) { 2 } else { 4 });
        }
        if error.is::<arcuate_objective::Error>() {
            return Some(2);
        }
        let is_data = error.is::<arcuate_data::Error>()
            || error.is::<arcuate_eval::Error>()
            || error.is::<arcuate_model::Error>()
            || error.is::<arcuate_text::Error>()
            || error.is::<arcuate_audio::Error>();
        if is_data {
            return Some(4);
        }
        cause = error.source();
    }
    None
}
