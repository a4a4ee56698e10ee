//! Hands bytes of libFuzzer to `tar`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| arcuate_fuzz::run("tar", bytes));
