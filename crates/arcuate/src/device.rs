//! The device that a recipe or a flag names, opened before anything else is begun.

use std::path::PathBuf;

use arcuate_ops::DeviceKind;
use arcuate_ops::device::Device;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::{exit, memory};

/// `--device`, for commands that read no recipe.
#[derive(clap::Args)]
pub(crate) struct Flag {
    /// What computes: `cpu`, or `cuda` for the first NVIDIA GPU.
    #[arg(long, value_name = "DEVICE", default_value = "cpu", value_parser = kinds())]
    pub device: DeviceKind,
}

/// Reads the name of a device.
pub(crate) fn kinds() -> impl TypedValueParser<Value = DeviceKind> {
    PossibleValuesParser::new(DeviceKind::ALL.map(DeviceKind::name))
        .map(|name| DeviceKind::ALL.into_iter().find(|kind| kind.name() == name).expect("one of the possible values"))
}

/// The device, ready to compute; an error says what is missing on this machine.
pub(crate) fn open(kind: DeviceKind) -> anyhow::Result<Device> {
    kind.open(toolkit().as_deref())
        .map_err(|missing| exit::usage(format!("cannot compute on `{}`: {missing}", kind.name())))
}

/// Where the user says that the CUDA toolkit is.
pub(crate) fn toolkit() -> Option<PathBuf> {
    std::env::var_os("CUDA_PATH").map(PathBuf::from)
}

/// Memory that training may use there.
pub(crate) fn available_memory(kind: DeviceKind) -> Option<u64> {
    match kind {
        DeviceKind::Cpu => memory::available(),
        DeviceKind::Cuda => arcuate_ops::cuda::gpus().ok().map(|(_, gpus)| gpus[0].memory_bytes),
    }
}
