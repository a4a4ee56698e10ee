//! Hands bytes of libFuzzer to `common_voice`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| arcuate_fuzz::run("common_voice", bytes));
