//! The instruction set of the computation.

use anyhow::Result;
use arcuate_ops::{LEVEL_VARIABLE as VARIABLE, Level};

use crate::exit::usage;

/// Refuses an instruction set in the environment that is none or that this processor lacks; the kernels read it themselves.
pub(crate) fn check_variable() -> Result<()> {
    let Some(name) = std::env::var_os(VARIABLE).filter(|name| !name.is_empty()) else {
        return Ok(());
    };
    check(&name.to_string_lossy(), &Level::available().collect::<Vec<_>>())
}

fn check(name: &str, available: &[Level]) -> Result<()> {
    let choices = available.iter().map(|level| level.name()).collect::<Vec<_>>().join(", ");
    match Level::from_name(name) {
        Some(level) if available.contains(&level) => Ok(()),
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
        assert!(check("avx2", &has).is_ok());
        let lacks = check("amx", &has).expect_err("an error").to_string();
        assert_eq!(lacks, "ARCUATE_CPU=amx: this processor lacks it; it has portable, avx2");
        let unknown = check("sse", &has).expect_err("an error").to_string();
        assert_eq!(unknown, "ARCUATE_CPU=sse is no instruction set; this processor has portable, avx2");
    }
}
