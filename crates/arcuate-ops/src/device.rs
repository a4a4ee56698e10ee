//! Device choice.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

pub use burn::tensor::Device;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cuda::{self, Missing};

/// What computes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// The processor.
    #[default]
    Cpu,
    /// The first NVIDIA GPU that `CUDA_VISIBLE_DEVICES` leaves; needs a build with the feature `cuda`.
    Cuda,
}

impl DeviceKind {
    /// Every kind.
    pub const ALL: [Self; 2] = [Self::Cpu, Self::Cuda];

    /// The word for it in recipes and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        }
    }

    /// The device, ready to compute. `toolkit` is the value of `CUDA_PATH`.
    pub fn open(self, toolkit: Option<&Path>) -> Result<Device, Missing> {
        match self {
            Self::Cpu => Ok(cpu()),
            Self::Cuda => {
                if !cfg!(feature = "cuda") {
                    return Err(Missing::Feature);
                }
                cuda::ready(toolkit)?;
                start()
            }
        }
    }

    /// One line that says what computes: device, threads, instruction set.
    pub fn describe(self) -> String {
        match self {
            Self::Cpu => {
                let set = match crate::level() {
                    crate::Level::Amx => "AVX-512 and AMX (bf16)",
                    crate::Level::Avx512Bf16 => "AVX-512 with bf16",
                    crate::Level::Avx512 => "AVX-512",
                    crate::Level::Avx2 => "AVX2",
                    crate::Level::Portable => "portable",
                };
                format!("cpu, {} threads, {set}", rayon::current_num_threads())
            }
            Self::Cuda => match cuda::gpus() {
                Ok((version, gpus)) => format!("cuda, {}, CUDA {version}", gpus[0]),
                Err(missing) => format!("cuda, {missing}"),
            },
        }
    }
}

/// The CPU.
pub fn cpu() -> Device {
    Device::flex()
}

/// The first GPU after a first computation on it, since the tensor library panics where something is missing.
#[cfg(feature = "cuda")]
fn start() -> Result<Device, Missing> {
    let first = caught(|| {
        let device = Device::cuda(0);
        let x = burn::tensor::Tensor::<1>::from_data([1.0f32, 2.0], &device);
        (device, crate::gradcheck::values(x * 2.0))
    });
    let (device, twice) = first.map_err(Missing::Start)?;
    if twice == [2.0, 4.0] { Ok(device) } else { Err(Missing::Start(format!("twice 1 and 2 is {twice:?} there"))) }
}

#[cfg(not(feature = "cuda"))]
fn start() -> Result<Device, Missing> {
    Err(Missing::Feature)
}

/// Runs a function in which the tensor library may panic, on this thread or on one of its own; the first message instead.
pub(crate) fn caught<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    // The hook is one for the process.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let said = Arc::new(Mutex::new(None));
    let before = std::panic::take_hook();
    std::panic::set_hook({
        let said = said.clone();
        Box::new(move |panic| {
            if let Ok(mut said) = said.lock() {
                said.get_or_insert_with(|| panic.payload_as_str().unwrap_or("no message").to_owned());
            }
        })
    });
    let result = catch_unwind(AssertUnwindSafe(f));
    std::panic::set_hook(before);
    result.map_err(|_| {
        let said = said.lock().ok().and_then(|mut said| said.take()).unwrap_or_default();
        said.lines().map(str::trim).filter(|line| !line.is_empty()).take(4).collect::<Vec<_>>().join(" ")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_always_there() {
        assert!(DeviceKind::Cpu.open(None).is_ok());
        assert!(DeviceKind::default().describe().starts_with("cpu, "));
    }

    #[test]
    fn a_gpu_that_is_not_there_is_an_error() {
        if cuda::ready(None).is_err() || !cfg!(feature = "cuda") {
            assert!(DeviceKind::Cuda.open(None).is_err());
            let message = start().expect_err("no device").to_string();
            assert!(message.len() < 500 && !message.contains('\n'), "{message}");
        }
    }

    #[test]
    fn a_panic_is_caught_with_its_first_message() {
        assert_eq!(caught(|| 3), Ok(3));
        let there = caught(|| {
            let inner = std::thread::spawn(|| panic!("the {} cause\n\n  in two lines", "first")).join();
            assert!(inner.is_ok(), "the second");
        });
        assert_eq!(there, Err("the first cause in two lines".to_owned()));
    }
}
