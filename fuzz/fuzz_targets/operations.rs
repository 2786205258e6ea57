//! Operations on one cache against a plain model: see `tests/suite/history/operations_model.rs`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::cell::RefCell;
use std::panic;
use std::sync::Once;

#[path = "../../tests/suite/history/operations_model.rs"]
mod operations_model;

thread_local! {
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Programs make some panics happen and catch them; the fuzzer's own hook takes the first one for a
/// failure. With this one only a panic that the program does not catch ends the run.
fn keep_panics_quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        panic::set_hook(Box::new(|panic| {
            LAST_PANIC.with(|last| last.replace(panic.to_string()));
        }));
    });
}

fuzz_target!(|program: &[u8]| {
    keep_panics_quiet();
    if let Err(panic) = panic::catch_unwind(|| operations_model::run(program)) {
        LAST_PANIC.with(|last| eprintln!("{}", last.borrow()));
        panic::resume_unwind(panic);
    }
});
