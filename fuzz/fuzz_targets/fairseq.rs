//! Hands bytes of libFuzzer to `fairseq`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| arcuate_fuzz::run("fairseq", bytes));
