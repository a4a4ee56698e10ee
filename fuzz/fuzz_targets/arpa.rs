//! Hands bytes of libFuzzer to `arpa`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| arcuate_fuzz::run("arpa", bytes));
