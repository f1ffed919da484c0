//! Any bytes as a line of requests: a request, or an error of the parser.
#![no_main]

use bidslate::request::Request;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = serde_json::from_slice::<Request>(bytes);
});
