//! The binary `side_by_side` from the outside.

use std::process::Command;

use serde_json::Value;

fn run(arguments: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_side_by_side"))
        .args(arguments)
        .output()
        .expect("the binary runs")
}

#[test]
fn times_every_contender() {
    let output = run(&["--rounds", "1", "--operations", "500", "--json"]);
    assert!(output.status.success());
    let results: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let races = results["races"].as_array().expect("races");
    assert_eq!(races.len(), 6);
    for race in races {
        let contenders = race["contenders"].as_array().expect("contenders");
        assert_eq!(contenders.len(), 6);
        assert_eq!(contenders[0]["name"], "atomic-cache");
        assert!(
            contenders
                .iter()
                .all(|contender| contender["ns_per_op"].as_f64().is_some_and(|ns| ns > 0.0))
        );
    }
}

#[test]
fn refuses_in_one_line() {
    let output = run(&["--rounds", "0"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr)
            .matches('\n')
            .count(),
        1
    );
}
