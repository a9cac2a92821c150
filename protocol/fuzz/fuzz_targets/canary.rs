#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vltava_protocol_fuzz::canary(data));
