//! Hands bytes of libFuzzer to `kenlm`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| arcuate_fuzz::run("kenlm", bytes));
