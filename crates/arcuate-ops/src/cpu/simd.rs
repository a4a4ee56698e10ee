//! Chooses vector code by the features of the processor at run time.

use std::sync::atomic::{AtomicU8, Ordering};

/// An instruction set for which kernels are compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// What every processor of this architecture has.
    Portable = 1,
    /// AVX2 with fused multiply-add.
    Avx2 = 2,
    /// AVX-512 F, BW, DQ, VL.
    Avx512 = 3,
    /// AVX-512 with products of bf16.
    Avx512Bf16 = 4,
    /// Tiles of bf16, and all of the above.
    Amx = 5,
}

impl Level {
    const ALL: [Self; 5] = [Self::Portable, Self::Avx2, Self::Avx512, Self::Avx512Bf16, Self::Amx];

    /// The name by which users choose it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Avx512Bf16 => "avx512_bf16",
            Self::Amx => "amx",
        }
    }

    /// The level of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name() == name)
    }

    /// What this processor has, lowest first.
    pub fn available() -> impl Iterator<Item = Self> {
        let best = detect();
        Self::ALL.into_iter().filter(move |level| *level <= best)
    }
}

/// The environment variable that names the best instruction set to use, so that tests of every crate can be run with each.
pub const LEVEL_VARIABLE: &str = "ARCUATE_CPU";

static LEVEL: AtomicU8 = AtomicU8::new(0);

fn detect() -> Level {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
        {
            if !is_x86_feature_detected!("avx512bf16") {
                return Level::Avx512;
            }
            return if super::product::amx::usable() { Level::Amx } else { Level::Avx512Bf16 };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return Level::Avx2;
        }
    }
    Level::Portable
}

/// The instruction set that kernels use: the best that the processor has, or that the environment names.
pub fn level() -> Level {
    #[cfg(test)]
    if let Some(forced) = testing::FORCED.get() {
        return forced;
    }
    match LEVEL.load(Ordering::Relaxed) {
        1 => Level::Portable,
        2 => Level::Avx2,
        3 => Level::Avx512,
        4 => Level::Avx512Bf16,
        5 => Level::Amx,
        _ => {
            let wanted = std::env::var(LEVEL_VARIABLE).ok().and_then(|name| Level::from_name(&name));
            let found = wanted.unwrap_or(Level::Amx).min(detect());
            LEVEL.store(found as u8, Ordering::Relaxed);
            found
        }
    }
}

/// Compiles a function once per instruction set and calls the one that `level()` names.
macro_rules! simd {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            fn body($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,fma,avx2")]
                #[allow(clippy::too_many_arguments)]
                fn avx512($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }
                #[target_feature(enable = "avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn avx2($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }
                match $crate::cpu::simd::level() {
                    // SAFETY: `level` names only what the processor was found to have.
                    #[allow(unsafe_code)]
                    $crate::cpu::simd::Level::Avx512
                    | $crate::cpu::simd::Level::Avx512Bf16
                    | $crate::cpu::simd::Level::Amx => return unsafe { avx512($($arg),*) },
                    #[allow(unsafe_code)]
                    $crate::cpu::simd::Level::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::cpu::simd::Level::Portable => {}
                }
            }
            body($($arg),*)
        }
    };
}
pub(crate) use simd;

/// Instruction sets of single tests, which leave other tests of the same process alone.
#[cfg(test)]
pub(crate) mod testing {
    use std::cell::Cell;

    use super::Level;

    thread_local! {
        pub(super) static FORCED: Cell<Option<Level>> = const { Cell::new(None) };
    }

    /// A pool whose threads use the given instruction set.
    pub(crate) fn pool(level: Level, threads: usize) -> rayon::ThreadPool {
        let force = move |_| FORCED.set(Some(level));
        rayon::ThreadPoolBuilder::new().num_threads(threads).start_handler(force).build().expect("a pool")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detected_level_is_stable() {
        assert_eq!(level(), level());
        assert!(detect() >= Level::Portable);
    }

    #[test]
    fn levels_have_names() {
        for level in Level::ALL {
            assert_eq!(Level::from_name(level.name()), Some(level));
        }
        assert_eq!(Level::from_name("AVX-512"), None);
        assert_eq!(Level::available().next(), Some(Level::Portable));
        assert_eq!(Level::available().last(), Some(detect()));
    }
}
