//! Hands bytes of libFuzzer to `kaldi`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| arcuate_fuzz::run("kaldi", bytes));
