//! The binary `peers` from the outside.

use std::process::{Command, Output};

use serde_json::Value;

/// So little that a debug build takes seconds.
const LITTLE: [&str; 6] = ["--rounds", "1", "--operations", "500", "--keys", "300"];

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_peers"))
        .args(LITTLE)
        .args(arguments)
        .output()
        .expect("the binary runs")
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&text(&run(arguments))).expect("JSON")
}

#[test]
fn times_everybody_at_every_work() {
    let results = json(&["--tasks", "50", "--entries", "1000", "--json", "-"]);
    let races = results["races"].as_array().expect("races");
    assert_eq!(races.len(), 2 * 13);
    for race in races {
        let contenders = race["contenders"].as_array().expect("contenders");
        assert_eq!(contenders[0]["name"], "atomic-cache");
        for contender in contenders {
            let number = |field: &str| contender[field].as_f64().expect("a number");
            assert!(number("ns") > 0.0, "{race}");
            assert!(number("least") <= number("ns") && number("ns") <= number("most"));
            assert_eq!(contender["hit_ratio"].is_number(), race["work"] == "zipf");
        }
    }
    assert_eq!(races[0]["work"], "hit");
    assert_eq!(races[0]["contenders"].as_array().map(Vec::len), Some(10));
}

#[test]
fn times_only_what_is_asked_for() {
    let table = text(&run(&[
        "--only",
        "hot-key,zipf",
        "--peers",
        "moka,papaya",
        "--threads",
        "3",
    ]));
    for word in [
        "atomic-cache",
        "moka",
        "papaya *",
        "hot key",
        "hit ratio",
        " 3 ",
        "-",
    ] {
        assert!(table.contains(word), "{word} in\n{table}");
    }
    for word in ["quick_cache", "closure"] {
        assert!(!table.contains(word), "{word} in\n{table}");
    }
}

#[test]
fn says_which_bars_are_met() {
    let told = text(&run(&["--bars", "--entries", "1000"]));
    assert!(told.contains("hit, 2 threads, of quick_cache"), "{told}");
    assert!(!told.contains("not measured"), "{told}");
}

#[test]
fn refuses_in_one_line() {
    for arguments in [
        ["--threads", "0"],
        ["--only", "nothing"],
        ["--peers", "nobody"],
    ] {
        let output = run(&arguments);
        assert_eq!(output.status.code(), Some(2));
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(told.matches('\n').count(), 1, "{told}");
    }
}

#[test]
fn measures_herds_tasks_and_memory() {
    let results = json(&[
        "--only",
        "herd,tasks,memory",
        "--tasks",
        "50",
        "--entries",
        "1000",
        "--json",
        "-",
    ]);
    let of = |section: &str, name: &str| {
        let mut figures = results[section].as_array().expect("a section").iter();
        let figure = figures.find(|figure| figure["name"] == name);
        figure
            .cloned()
            .unwrap_or_else(|| panic!("{name} in {results}"))
    };
    assert!(results["races"].as_array().is_some_and(Vec::is_empty));
    assert_eq!(of("herd", "atomic-cache")["fills"], 1);
    assert!(of("herd", "atomic-cache")["wake_us"].is_number());
    assert!(of("herd", "papaya")["fills"].as_u64() >= Some(1));
    assert_eq!(of("tasks", "foyer")["fills"], 1);
    assert_eq!(of("memory", "atomic-cache")["allocations_a_hit"], 0.0);
    assert!(of("memory", "quick_cache")["bytes_an_entry"].as_f64() > Some(16.0));
}

#[test]
fn shows_how_the_cost_grows_and_what_is_slowest() {
    let told = text(&run(&[
        "--scale",
        "--latency",
        "--most",
        "1000",
        "--milliseconds",
        "0",
    ]));
    for word in [
        "entries",
        " 64 ",
        "longest",
        "hits beside evictions",
        "put in beside",
    ] {
        assert!(told.contains(word), "{word} in\n{told}");
    }
}

#[test]
fn writes_figures_and_charts() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name);
    let (line, chart) = (file("figures.json"), file("chart.svg"));
    let paths = [&line, &chart].map(|path| path.to_str().expect("a path of text"));
    let told = text(&run(&[
        "--only", "hit,ttl", "--json", paths[0], "--plot", paths[1],
    ]));
    assert!(told.contains("ns an operation"), "{told}");
    let read = |path| std::fs::read_to_string(path).expect("a file");
    let results: Value = serde_json::from_str(&read(&line)).expect("JSON");
    assert_eq!(results["races"][0]["work"], "hit");
    let chart = read(&chart);
    assert!(chart.starts_with("<svg"), "{chart}");
    assert!(
        chart.contains("quick_cache") && chart.contains("hit, TTL on"),
        "{chart}"
    );
}
