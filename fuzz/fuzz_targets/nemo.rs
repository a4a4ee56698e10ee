//! Hands bytes of libFuzzer to `nemo`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| arcuate_fuzz::run("nemo", bytes));
