//! Hands bytes of libFuzzer to `eaf`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| arcuate_fuzz::run("eaf", bytes));
