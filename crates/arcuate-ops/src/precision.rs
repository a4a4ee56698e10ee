//! The numbers in which matrix products are computed.

use std::cell::Cell;

use serde::{Deserialize, Serialize};

/// What is multiplied. Sums, reductions, weights and optimiser states are f32 in either case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32-bit floating point.
    #[default]
    F32,
    /// 16-bit brain floating point: factors are rounded to 8 significant bits, nearest even.
    Bf16,
}

thread_local! {
    static CURRENT: Cell<Precision> = const { Cell::new(Precision::F32) };
}

impl Precision {
    /// What operations that are called now on this thread use, forward and backward.
    pub fn current() -> Self {
        CURRENT.get()
    }

    /// Runs a function whose operations use this precision; restored after, even by a panic.
    pub fn scope<T>(self, f: impl FnOnce() -> T) -> T {
        struct Restore(Precision);
        impl Drop for Restore {
            fn drop(&mut self) {
                CURRENT.set(self.0);
            }
        }
        let _restore = Restore(CURRENT.replace(self));
        f()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_nest_and_end() {
        assert_eq!(Precision::current(), Precision::F32);
        Precision::Bf16.scope(|| {
            Precision::F32.scope(|| assert_eq!(Precision::current(), Precision::F32));
            assert_eq!(Precision::current(), Precision::Bf16);
        });
        assert_eq!(Precision::current(), Precision::F32);
    }
}
