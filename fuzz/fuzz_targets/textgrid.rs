//! Hands bytes of libFuzzer to `textgrid`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| arcuate_fuzz::run("textgrid", bytes));
