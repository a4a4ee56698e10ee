//! Hands bytes of libFuzzer to `audio`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| arcuate_fuzz::run("audio", bytes));
