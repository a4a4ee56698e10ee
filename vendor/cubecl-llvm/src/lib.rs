//! What `cubecl-cuda` names from the LLVM compiler of CubeCL, without the compiler.
//!
//! The published `cubecl-llvm` downloads a build of LLVM while it is compiled, so it cannot be built where only the crate
//! registry is reached. This program compiles its GPU kernels as CUDA C++ with NVRTC (feature `cubecl/cuda-cpp`) and
//! never asks LLVM for anything; `cubecl-cuda` still needs the names. Whoever asks for a kernel gets an error.

use std::ffi::c_char;

use cubecl_core::CompilationError;
use cubecl_core::ir::nvidia::SmArch;
use cubecl_core::prelude::KernelDefinition;
use cubecl_runtime::kernel::BufferIOAttr;
use nvptx::ptx_version::PtxVersion;

/// What a compiler produces code for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LlvmTarget {
    /// A processor.
    #[default]
    Cpu,
    /// An NVIDIA device.
    Nvptx,
}

/// Refuses every kernel.
#[derive(Clone, Debug, Default)]
pub struct PlironCompiler {
    /// What it would produce code for.
    pub target: LlvmTarget,
}

/// What the compiler is told about a device.
#[derive(Clone, Debug, Default)]
pub struct PlironOptions {
    /// The architecture of an AMD device.
    pub arch: Option<()>,
    /// The architecture of an NVIDIA device.
    pub sm_arch: Option<SmArch>,
    /// The PTX version to emit.
    pub ptx_version: Option<PtxVersion>,
    /// Whether scalars travel in the block of parameters.
    pub grid_constants: bool,
}

/// A compiled kernel for an NVIDIA device; never made here.
#[derive(Clone, Debug)]
pub struct NvptxModule {
    /// PTX with a closing zero.
    pub ptx: Vec<c_char>,
    /// What it was compiled from.
    pub ir: String,
    /// Shared memory of a launch, in bytes.
    pub shared_memory_size: usize,
    /// How each buffer is used.
    pub io: Vec<BufferIOAttr>,
}

/// A compiled kernel; never made here.
pub enum PlironArtifact {
    /// For an NVIDIA device.
    NvptxCode(NvptxModule),
    /// For a processor.
    Jit,
}

impl PlironCompiler {
    /// Refuses the kernel.
    pub fn compile(&mut self, _: KernelDefinition, _: &PlironOptions) -> Result<PlironArtifact, CompilationError> {
        Err(CompilationError::Generic {
            reason: "this program was built without LLVM; the feature `cubecl/cuda-cpp` is missing".to_owned(),
            backtrace: cubecl_core::environment::backtrace::BackTrace::capture(),
        })
    }

    /// The language that the compiler reads.
    pub fn lang_tag(&self) -> &'static str {
        "llvm"
    }
}

/// Names for NVIDIA devices.
pub mod nvptx {
    /// The version of PTX.
    pub mod ptx_version {
        use std::fmt;

        /// A version of PTX that LLVM would emit: none.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum PtxVersion {}

        impl PtxVersion {
            /// The newest version that a driver loads; NVRTC chooses its own, so there is nothing to say.
            pub fn for_driver(_: i32) -> Option<Self> {
                None
            }
        }

        impl fmt::Display for PtxVersion {
            fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
                match *self {}
            }
        }
    }
}

/// Names for all devices.
pub mod shared {
    /// What LLVM can express of a device.
    pub mod lowered_features {
        use cubecl_core::ir::DeviceProperties;

        /// A GPU for which features would be taken away.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum GpuTarget {
            /// An NVIDIA device.
            Nvptx,
        }

        /// Takes nothing away: no kernel is compiled by LLVM.
        pub fn restrict_features(_: &mut DeviceProperties, _: GpuTarget) {}
    }
}
