//! Device choice.

use burn::tensor::Device;

/// The CPU.
pub fn cpu() -> Device {
    Device::flex()
}

/// One line that says what computes: device, threads, instruction set.
pub fn describe() -> String {
    let set = match crate::level() {
        crate::Level::Amx => "AVX-512 and AMX (bf16)",
        crate::Level::Avx512Bf16 => "AVX-512 with bf16",
        crate::Level::Avx512 => "AVX-512",
        crate::Level::Avx2 => "AVX2",
        crate::Level::Portable => "portable",
    };
    format!("cpu, {} threads, {set}", rayon::current_num_threads())
}
