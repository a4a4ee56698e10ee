//! The instruction set of the computation.

use anyhow::Result;
use arcuate_ops::{LEVEL_VARIABLE as VARIABLE, Level, force_level};

use crate::exit::usage;

/// Uses at most the instruction set that the environment names, for comparisons between machines and to find faults.
pub(crate) fn choose() -> Result<()> {
    let Some(name) = std::env::var_os(VARIABLE).filter(|name| !name.is_empty()) else {
        return Ok(());
    };
    force_level(level(&name.to_string_lossy(), &Level::available().collect::<Vec<_>>())?);
    Ok(())
}

fn level(name: &str, available: &[Level]) -> Result<Level> {
    let choices = available.iter().map(|level| level.name()).collect::<Vec<_>>().join(", ");
    match Level::from_name(name) {
        Some(level) if available.contains(&level) => Ok(level),
        Some(_) => Err(usage(format!("{VARIABLE}={name}: this processor lacks it; it has {choices}"))),
        None => Err(usage(format!("{VARIABLE}={name} is no instruction set; this processor has {choices}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_the_processor_has() {
        let has = [Level::Portable, Level::Avx2];
        assert_eq!(level("avx2", &has).expect("a level"), Level::Avx2);
        let lacks = level("amx", &has).expect_err("an error").to_string();
        assert_eq!(lacks, "ARCUATE_CPU=amx: this processor lacks it; it has portable, avx2");
        let unknown = level("sse", &has).expect_err("an error").to_string();
        assert_eq!(unknown, "ARCUATE_CPU=sse is no instruction set; this processor has portable, avx2");
    }
}
