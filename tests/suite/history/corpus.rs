//! Programs of operations against the model: the fuzz target's corpus, and random ones.

use crate::history::operations_model;
use crate::history::runs::watched;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::path::Path;

#[test]
fn the_corpus_agrees_with_the_model() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/operations");
    let programs: Vec<_> = std::fs::read_dir(&corpus)
        .expect("the corpus is part of the repository")
        .map(|entry| entry.expect("a readable directory").path())
        .collect();
    assert!(programs.len() >= 24, "only {} programs", programs.len());
    watched(move |alive| {
        for path in programs {
            let program = std::fs::read(&path).expect("a readable file");
            // Shown when it fails.
            println!("{}", path.display());
            alive.send(path).expect("watched");
            operations_model::run(&program);
        }
    });
}

/// The same programs every time, so that a failure repeats; a program that fails is shrunk.
#[test]
fn random_programs_agree_with_the_model() {
    let config = Config {
        cases: 3_000,
        failure_persistence: None,
        ..Config::default()
    };
    let seed = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let programs = prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..200),
        // Few keys and few methods: more happens to each.
        4 => prop::collection::vec(0_u8..20, 0..300),
        1 => prop::collection::vec(any::<u8>(), 600..1_000),
    ];
    watched(move |alive| {
        TestRunner::new_with_rng(config, seed)
            .run(&programs, |program| {
                alive.send(program.clone()).expect("watched");
                operations_model::run(&program);
                Ok(())
            })
            .unwrap_or_else(|failure| panic!("{failure}"));
    });
}
