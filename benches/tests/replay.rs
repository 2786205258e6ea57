//! The binary `replay` from the outside: its output, and how it refuses.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use flate2::{Compression, write::GzEncoder};
use serde_json::Value;
use tempfile::TempDir;

/// A directory for the files of one test.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(TempDir::new().expect("a temporary directory"))
    }

    /// Writes `data` to the file `name`; its path.
    fn write(&self, name: &str, data: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::write(&path, data).expect("writes a temporary file");
        path
    }

    fn path(&self, name: &str) -> String {
        self.0
            .path()
            .join(name)
            .to_str()
            .expect("a plain path")
            .to_owned()
    }
}

fn replay(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_replay"))
        .args(arguments)
        .output()
        .expect("the binary runs")
}

/// Runs `replay --json` and checks the facts that hold for every run.
fn report(arguments: &[&str]) -> Value {
    let output = replay(&[arguments, &["--json"]].concat());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && error.is_empty(),
        "{arguments:?}: {error}"
    );
    parse_report(&output)
}

fn parse_report(output: &Output) -> Value {
    let text = std::str::from_utf8(&output.stdout).expect("text");
    assert_eq!(text.matches('\n').count(), 1, "one line: {text}");
    let report: Value = serde_json::from_str(text).expect("JSON");
    let count = |field: &str| {
        report[field]
            .as_u64()
            .unwrap_or_else(|| panic!("{field} in {report}"))
    };
    assert_eq!(
        count("hits") + count("joined") + count("fills"),
        count("accesses")
    );
    assert!(count("distinct_keys") <= count("accesses") && count("threads") > 0);
    for field in [
        "hit_ratio",
        "accesses_per_second",
        "fill_time_saved_seconds",
        "elapsed_seconds",
    ] {
        assert!(
            report[field].as_f64().is_some_and(|figure| figure >= 0.0),
            "{field} in {report}"
        );
    }
    assert!(
        report["bytes_per_entry"]
            .as_f64()
            .is_some_and(|bytes| bytes >= 8.0),
        "{report}"
    );
    if report["ttl_seconds"].is_null() && report["capacity"].is_null() {
        assert_eq!(count("evictions"), 0);
        assert_eq!(
            count("fills"),
            count("distinct_keys"),
            "each key is filled once"
        );
        assert_eq!(count("peak_entries"), count("distinct_keys"));
    }
    report
}

/// Runs `replay` and expects a refusal: status 2, nothing on standard output, one line on standard error.
fn refusal(arguments: &[&str]) -> String {
    let output = replay(arguments);
    let error = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    assert!(
        error.starts_with("error: ") && error.ends_with('\n'),
        "{arguments:?}: {error}"
    );
    assert_eq!(error.matches('\n').count(), 1, "{arguments:?}: {error}");
    error
}

/// The refusal holds each of `parts`.
fn refuses(arguments: &[&str], parts: &[&str]) {
    let error = refusal(arguments);
    for part in parts {
        assert!(error.contains(part), "{part:?} in {error}");
    }
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(data).expect("writes to memory");
    encoder.finish().expect("writes to memory")
}

fn zstandard(data: &[u8]) -> Vec<u8> {
    zstd::encode_all(data, 0).expect("writes to memory")
}

/// 100 accesses to 10 keys.
fn keys() -> impl Iterator<Item = u64> {
    (0..100).map(|index| index * index % 37 % 10)
}

fn lines(lines: impl Iterator<Item = String>) -> String {
    lines.flat_map(|line| [line, "\n".to_owned()]).collect()
}

fn oracle() -> Vec<u8> {
    let record = |key: u64| {
        [
            &[0; 4][..],
            &key.to_le_bytes(),
            &[0; 4],
            &(-1_i64).to_le_bytes(),
        ]
        .concat()
    };
    keys().flat_map(record).collect()
}

fn access_log() -> String {
    let line = |key| {
        format!(r#"::1 - - [10/Oct/2025:13:55:36 +0000] "GET /{key} HTTP/2.0" 200 5 "-" "A""#)
    };
    lines(keys().map(line))
}

/// The same accesses in every format: the format, a name that tells it, and the content.
fn logs() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let narrow = keys()
        .flat_map(|key| u32::try_from(key).expect("a small key").to_be_bytes())
        .collect();
    let text = lines(keys().map(|key| key.to_string())) + "*\n";
    let arc = lines(
        keys()
            .enumerate()
            .map(|(index, key)| format!("{key} 1 0 {index}")),
    );
    vec![
        ("arc", "log.lis", arc.into_bytes()),
        ("oracle", "log.oracleGeneral", oracle()),
        ("u32", "log.u32", narrow),
        (
            "u64",
            "log.u64",
            keys().flat_map(u64::to_le_bytes).collect(),
        ),
        ("text", "log.txt", text.into_bytes()),
        ("clf", "access.log.1", access_log().into_bytes()),
    ]
}

fn check_keys(report: &Value, format: &str) {
    assert_eq!(report["format"], format);
    assert_eq!(report["accesses"], 100);
    assert_eq!(report["distinct_keys"], 10);
}

#[test]
fn every_format_is_guessed_from_the_name() {
    let files = Files::new();
    for (format, name, data) in logs() {
        check_keys(&report(&[&files.write(name, &data)]), format);
        check_keys(
            &report(&[&files.write(&format!("{name}.zst"), zstandard(&data))]),
            format,
        );
        check_keys(
            &report(&[&files.write(&format!("{name}.gz"), gzip(&data))]),
            format,
        );
    }
}

#[test]
fn every_format_is_read_from_standard_input() {
    for (format, _, data) in logs() {
        for data in [zstandard(&data), gzip(&data), data] {
            let mut child = Command::new(env!("CARGO_BIN_EXE_replay"))
                .args(["-", "--json", "--threads", "3", "--format", format])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("the binary runs");
            child
                .stdin
                .take()
                .expect("a pipe")
                .write_all(&data)
                .expect("writes to the pipe");
            let output = child.wait_with_output().expect("the binary ends");
            let report = parse_report(&output);
            check_keys(&report, format);
            assert_eq!(report["file"], "-");
            assert_eq!(report["threads"], 3);
        }
    }
}

#[test]
fn gzip_members_and_zstd_frames_follow_each_other() {
    let files = Files::new();
    for (name, pack) in [
        ("a.txt.gz", gzip as fn(&[u8]) -> Vec<u8>),
        ("a.txt.zst", zstandard),
    ] {
        let file = files.write(name, [pack(b"1\n2\n"), pack(b"3\n")].concat());
        assert_eq!(report(&[&file])["accesses"], 3);
    }
}

#[test]
fn compression_is_told_by_the_content_too() {
    let files = Files::new();
    assert_eq!(
        report(&[&files.write("zst.txt", zstandard(b"1\n2\n"))])["accesses"],
        2
    );
    assert_eq!(
        report(&[&files.write("gz.txt", gzip(b"1\n2\n"))])["accesses"],
        2
    );
}

#[test]
fn the_format_given_decides() {
    let files = Files::new();
    let file = files.write("log.u64", [1, 0, 0, 0, 2, 0, 0, 0]);
    assert_eq!(report(&[&file])["accesses"], 1);
    assert_eq!(report(&[&file, "--format", "u32"])["accesses"], 2);
}

#[test]
fn the_width_of_a_bare_bin_is_guessed() {
    let files = Files::new();
    for (format, _, data) in logs().into_iter().filter(|log| log.0.starts_with('u')) {
        check_keys(
            &report(&[&files.write("log.bin.zst", zstandard(&data))]),
            format,
        );
    }
    let open = files.write("open.bin", [1, 2, 3, 4, 5, 6, 7, 8]);
    refuses(
        &[&open],
        &[&open, "byte 0: expected keys that repeat", "--format u32"],
    );
}

#[test]
fn a_limit_ends_the_log_early() {
    let files = Files::new();
    for (_, name, data) in logs() {
        let file = files.write(name, &data);
        assert_eq!(report(&[&file, "--limit", "7"])["accesses"], 7);
        assert_eq!(report(&[&file, "--limit", "7000"])["accesses"], 100);
    }
    assert_eq!(
        report(&[&files.write("wide.lis", "5 100 0 0\n"), "--limit", "7"])["accesses"],
        7
    );
}

#[test]
fn lines_without_an_access_are_counted() {
    let files = Files::new();
    let dash = "h - - [t] \"-\" 400 0\n";
    let log = files.write("access.log", format!("{dash}{}{dash}", access_log()));
    assert_eq!(report(&[&log])["skipped_lines"], 2);
    assert_eq!(
        report(&[&files.write("a.txt", "*\n1\n*\n2\n*\n")])["skipped_lines"],
        3
    );
}

#[test]
fn fills_that_take_time_are_saved() {
    let files = Files::new();
    let file = files.write("a.txt", "1\n1\n2\n1\n");
    let report = report(&[&file, "--fill-time", "10us", "--threads", "1"]);
    assert_eq!(
        (&report["hits"], &report["fills"], &report["joined"]),
        (&2.into(), &2.into(), &0.into())
    );
    assert!(
        (report["fill_time_saved_seconds"]
            .as_f64()
            .expect("a number")
            - 2e-5)
            .abs()
            < 1e-12
    );
    assert!((report["hit_ratio"].as_f64().expect("a number") - 0.5).abs() < 1e-12);
}

#[test]
fn values_expire() {
    let files = Files::new();
    let file = files.write("a.txt", "1\n".repeat(2000));
    let report = report(&[&file, "--ttl", "1us", "--fill-time", "5us"]);
    assert!(report["fills"].as_u64().expect("a count") > 1, "{report}");
    assert_eq!(report["distinct_keys"], 1);
}

#[test]
fn without_a_file_a_workload_is_made() {
    let made = |seed| report(&["--limit", "20000", "--seed", seed, "--threads", "2"]);
    let (first, again, other) = (made("1"), made("1"), made("2"));
    assert_eq!(first["distinct_keys"], again["distinct_keys"]);
    assert_ne!(first["distinct_keys"], other["distinct_keys"]);
    assert_eq!(
        (&first["format"], &first["file"], &first["seed"]),
        (&"made".into(), &Value::Null, &1.into())
    );
}

#[test]
fn the_table_is_for_people() {
    let files = Files::new();
    let output = replay(&[&files.write("a.txt", "1\n1\n1\n2\n")]);
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "no progress bar without a terminal"
    );
    let table = String::from_utf8(output.stdout).expect("text");
    for name in [
        "accesses",
        "distinct keys",
        "hits",
        "fills",
        "joined flights",
        "hit ratio",
        "throughput",
    ] {
        assert!(table.contains(name), "{name} in\n{table}");
    }
    for name in ["fill time saved", "peak entries", "bytes an entry"] {
        assert!(table.contains(name), "{name} in\n{table}");
    }
}

#[test]
fn help_and_version_are_no_errors() {
    for arguments in [&["--help"][..], &["-h"], &["--version"]] {
        let output = replay(arguments);
        assert!(output.status.success() && output.stderr.is_empty() && !output.stdout.is_empty());
    }
}

#[test]
fn wrong_arguments_are_refused() {
    let files = Files::new();
    let file = files.write("a.txt", "1\n");
    refuses(
        &[&file, "--format", "xml"],
        &["'xml'", "--format", "arc, oracle, u32, u64, text, clf"],
    );
    refuses(
        &[&file, "--threads", "0"],
        &["'0'", "--threads", "expected a number from 1 to 1024"],
    );
    refuses(&[&file, "--threads", "many"], &["'many'", "--threads"]);
    refuses(
        &[&file, "--limit", "0"],
        &["--limit", "expected a number from 1 on"],
    );
    refuses(
        &[&file, "--ttl", "0s"],
        &["--ttl", "expected more than zero"],
    );
    refuses(&[&file, "--ttl", "soon"], &["'soon'", "--ttl"]);
    refuses(&[&file, "--fill-time", "-1s"], &["-1"]);
    refuses(&[&file, "--seed", "1"], &["--seed"]);
    refuses(
        &[&file, &file],
        &["expected one FILE without --curve, found 2"],
    );
    refuses(&["--format", "text"], &["FILE"]);
    refuses(&["-"], &["--format", "standard input"]);
    refuses(&["--wrong\noption"], &["'--wrong option'"]);
}

#[test]
fn files_that_cannot_be_opened_are_refused() {
    let files = Files::new();
    let expected = "expected a readable access log";
    for missing in [
        files.path("missing.txt"),
        files.path("missing"),
        files.path("line\nbreak.txt"),
    ] {
        refuses(&[&missing], &[&missing.replace('\n', "\\n"), expected]);
    }
    let directory = files.path("directory.txt");
    fs::create_dir(&directory).expect("makes a directory");
    refuses(&[&directory], &[&directory, expected, "directory"]);
    refuses(&[&files.path("")], &[expected, "directory"]);
    refuses(&["", "--format", "text"], &["FILE"]);
    let unknown = files.write("trace.csv", "1\n");
    refuses(
        &[&unknown],
        &[
            &unknown,
            "expected a name that tells the format",
            "--format",
        ],
    );
}

#[test]
fn empty_files_are_refused() {
    let files = Files::new();
    for (_, name, _) in logs() {
        let parts = |file: &str| [file.to_owned(), "expected at least one access".to_owned()];
        for file in [
            files.write(name, ""),
            files.write(&format!("{name}.zst"), zstandard(b"")),
            files.write(&format!("{name}.gz"), gzip(b"")),
        ] {
            refuses(&[&file], &parts(&file).each_ref().map(String::as_str));
        }
    }
    refuses(
        &[&files.write("blank.txt", "\n\n")],
        &["byte 2: expected at least one access"],
    );
    refuses(
        &[&files.write("log.bin", "")],
        &["byte 0: expected at least one access"],
    );
    refuses(
        &[&files.write("none.lis", "5 0 0 0\n")],
        &["byte 8: expected at least one access"],
    );
}

#[test]
fn cut_records_are_refused() {
    let files = Files::new();
    for (name, record) in [("a.u32", 4), ("a.u64", 8), ("a.oracleGeneral", 24)] {
        let data = [
            vec![0; record - 8 % record],
            vec![255; 8 % record],
            vec![0; 3],
        ]
        .concat();
        let place = format!("byte {record}: expected a whole record of {record} bytes, found 3");
        for file in [
            files.write(name, &data),
            files.write(&format!("{name}.gz"), gzip(&data)),
        ] {
            refuses(&[&file], &[&file, &place, "--format decides"]);
        }
    }
    refuses(
        &[&files.write("a.lis", "5 1 0 0\n6 1")],
        &["a.lis: line 2 (byte 8): expected `first_block"],
    );
}

#[test]
fn cut_and_damaged_compression_is_refused() {
    let files = Files::new();
    for (_, name, data) in logs() {
        for (ending, packed) in [("zst", zstandard(&data)), ("gz", gzip(&data))] {
            let file = files.write(&format!("{name}.{ending}"), &packed[..packed.len() - 5]);
            refuses(&[&file], &[&file, "byte ", "cut off or damaged"]);
        }
    }
    let plain = files.write("plain.txt.zst", "1\n2\n3\n");
    refuses(&[&plain], &[&plain, "byte 0: expected Zstd data"]);
}

#[test]
fn wrong_formats_are_refused() {
    let files = Files::new();
    let words = files.write("words", "some words\nthat are no log\n".repeat(9));
    refuses(
        &[&words, "--format", "text"],
        &["line 1 (byte 0)", "decimal number", "`some words`"],
    );
    refuses(
        &[&words, "--format", "arc"],
        &["line 1 (byte 0)", "first_block block_count", "`some words`"],
    );
    refuses(
        &[&words, "--format", "clf"],
        &["line 1 (byte 0)", "METHOD path", "`some words`"],
    );
    refuses(
        &[&words, "--format", "oracle"],
        &["byte 16", "oracleGeneral"],
    );
    let noise: Vec<u8> = (0..=255).cycle().take(4096).collect();
    let noise = files.write("noise", noise);
    for format in ["text", "arc", "clf", "oracle"] {
        refuses(&[&noise, "--format", format], &["noise: ", "expected"]);
    }
}

#[test]
fn every_cut_of_every_file_ends_well() {
    let files = Files::new();
    for (_, name, data) in logs() {
        for length in [0, 1, 2, 3, 5, 7, 9, 23, 25, data.len() - 1] {
            let output = replay(&[&files.write(name, &data[..length]), "--json"]);
            let lines = String::from_utf8_lossy(&output.stderr)
                .matches('\n')
                .count();
            match output.status.code() {
                Some(0) => assert_eq!(lines, 0),
                Some(2) => assert_eq!(lines, 1),
                status => panic!("{name} cut to {length}: {status:?}"),
            }
        }
    }
}

#[cfg(unix)]
#[test]
fn unreadable_files_are_refused() {
    use std::os::unix::fs::PermissionsExt;
    let files = Files::new();
    let file = files.write("a.txt", "1\n");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).expect("sets the mode");
    // A privileged user reads it all the same.
    if fs::read(&file).is_err() {
        refuses(&[&file], &[&file, "expected a readable access log"]);
    }
}

#[test]
fn a_reader_that_left_is_no_panic() {
    for arguments in [
        &["--limit", "100"][..],
        &["--limit", "100", "--json"],
        &["--help"],
    ] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_replay"))
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("the binary ends");
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{:?}",
            output.status
        );
    }
}

/// A log of 40 keys, of which some come far more often than others.
fn skewed() -> String {
    let key = |index: u64| (index * index % 41).pow(2) / 41;
    lines((0..4000).map(|index| key(index).to_string()))
}

#[test]
fn a_capacity_bounds_the_cache() {
    let files = Files::new();
    let file = files.write("a.txt", skewed());
    let distinct = report(&[&file])["distinct_keys"].as_u64().expect("a count");
    for (capacity, entries) in [
        ("5", 5),
        ("16", 16),
        ("100%", distinct),
        ("1%", 16),
        ("999", 999),
    ] {
        let report = report(&[&file, "--capacity", capacity, "--threads", "1"]);
        let count = |field: &str| report[field].as_u64().expect("a count");
        assert_eq!(count("capacity"), entries);
        // At the peak each thread may be putting one in, for which another is about to go.
        assert!(
            count("peak_entries") <= entries + count("threads"),
            "{report}"
        );
        assert_eq!(count("evictions") > 0, entries < distinct, "{report}");
        assert!(count("fills") >= distinct, "{report}");
    }
    let output = replay(&[&file, "--capacity", "5"]);
    let table = String::from_utf8(output.stdout).expect("text");
    assert!(
        table.contains("capacity") && table.contains("evictions"),
        "{table}"
    );
}

#[test]
fn wrong_capacities_are_refused() {
    let files = Files::new();
    let file = files.write("a.txt", "1\n");
    for wrong in ["0", "0%", "150%", "many", "-1", "1.5", "nan%", ""] {
        for arguments in [&["--curve"][..], &[]] {
            let capacity = format!("--capacity={wrong}");
            let error = refusal(&[arguments, &[file.as_str(), &capacity]].concat());
            assert!(error.contains("--capacity"), "{error}");
        }
    }
    refuses(
        &[&file, "--capacity", "0"],
        &["'0'", "expected entries from 1 on", "up to 100%"],
    );
    refuses(
        &[&file, "--capacity", "1%,5%"],
        &["expected one --capacity without --curve, found 2"],
    );
    refuses(&[&file, "--curve", "--capacity", "1%,,5%"], &["--capacity"]);
}

/// Runs `replay --curve --json` and checks the facts that hold for every cell.
fn curve(arguments: &[&str]) -> Value {
    let output = replay(&[&["--curve", "--json"], arguments].concat());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && error.is_empty(),
        "{arguments:?}: {error}"
    );
    let text = String::from_utf8(output.stdout).expect("text");
    assert_eq!(text.matches('\n').count(), 1, "one line: {text}");
    let curve: Value = serde_json::from_str(&text).expect("JSON");
    for cell in curve["cells"].as_array().expect("cells") {
        let [hits, accesses] =
            ["hits", "accesses"].map(|field| cell[field].as_f64().expect("a count"));
        let ratio = cell["hit_ratio"].as_f64().expect("a number");
        assert!((ratio - hits / accesses).abs() < 1e-12, "{cell}");
        assert!(
            cell["trace"].is_string() && cell["capacity"].is_u64(),
            "{cell}"
        );
        assert!(cell["share"].is_f64() && cell["threads"].is_u64(), "{cell}");
    }
    curve
}

/// The cells of the cache `name`.
fn cells<'a>(curve: &'a Value, name: &str) -> Vec<&'a Value> {
    let cells = curve["cells"].as_array().expect("cells").iter();
    cells.filter(|cell| cell["cache"] == name).collect()
}

#[test]
fn a_curve_compares_the_caches() {
    let files = Files::new();
    let (a, b) = (
        files.write("a.txt", skewed()),
        files.write("b.lis", "5 200 0 0\n5 200 0 1\n"),
    );
    let curve = curve(&[&a, &b, "--capacity", "50%,100", "--capacity", "300"]);
    for name in [
        "atomic-cache",
        "moka",
        "quick_cache",
        "tinyufo",
        "foyer s3-fifo",
        "foyer lfu",
        "lru",
        "optimum",
    ] {
        let cells = cells(&curve, name);
        let places = cells.iter().map(|cell| (&cell["trace"], &cell["capacity"]));
        let capacities = [("a", 16), ("a", 100), ("a", 300), ("b", 100), ("b", 300)];
        let expected =
            capacities.map(|(trace, capacity)| (Value::from(trace), Value::from(capacity)));
        assert!(
            places.eq(expected.iter().map(|(trace, capacity)| (trace, capacity))),
            "{name}"
        );
        assert_eq!(cells[4]["hits"], 200, "{name}: everything fits");
        assert_eq!(cells[4]["file"], b.as_str());
    }
    assert_eq!(
        cells(&curve, "lru")[3]["hits"],
        0,
        "a loop longer than the cache"
    );
    assert_eq!(cells(&curve, "optimum")[3]["hits"], 100);
    assert_eq!(curve["means"].as_array().map(Vec::len), Some(8));
}

#[test]
fn a_curve_of_the_lru_is_what_one_counts_by_hand() {
    let files = Files::new();
    let file = files.write("a.txt", "1\n2\n1\n3\n3\n2\n1\n4\n2\n");
    for _ in 0..3 {
        let curve = curve(&[&file, "--capacity", "1,2,3,4"]);
        let hits = |name| {
            cells(&curve, name)
                .iter()
                .map(|cell| cell["hits"].as_u64())
                .collect::<Vec<_>>()
        };
        assert_eq!(hits("lru"), [1, 2, 5, 5].map(Some));
        assert_eq!(hits("optimum"), [3, 4, 5, 5].map(Some));
    }
}

#[test]
fn a_curve_and_a_replay_say_the_same() {
    let files = Files::new();
    let file = files.write("a.txt", skewed());
    let replayed = report(&[
        &file,
        "--capacity",
        "20",
        "--threads",
        "1",
        "--limit",
        "3000",
    ]);
    let curve = curve(&[
        &file,
        "--capacity",
        "20",
        "--threads",
        "3",
        "--limit",
        "3000",
    ]);
    let ours = cells(&curve, "atomic-cache");
    let threads: Vec<_> = ours.iter().map(|cell| &cell["threads"]).collect();
    assert_eq!(threads, [1, 3, 1], "the last in the order of the three");
    assert_eq!(ours[2]["order_of_threads"], 3);
    assert_eq!(ours[0]["hits"], replayed["hits"]);
    assert_eq!(ours[0]["accesses"], 3000);
}

#[test]
fn a_log_of_few_keys_has_one_row() {
    let files = Files::new();
    let file = files.write("a.txt", "1\n2\n1\n");
    let curve = curve(&[&file]);
    assert_eq!(curve["cells"].as_array().map(Vec::len), Some(8));
    for cell in curve["cells"].as_array().expect("cells") {
        assert_eq!((&cell["capacity"], &cell["hits"]), (&16.into(), &1.into()));
    }
}

#[test]
fn a_curve_needs_no_file() {
    let curve = curve(&["--limit", "3000", "--seed", "5"]);
    assert_eq!(cells(&curve, "lru").len(), 4);
    assert_eq!(curve["cells"][0]["trace"], "made");
    assert_eq!(curve["cells"][0]["file"], Value::Null);
}

#[test]
fn the_table_of_a_curve_is_for_people() {
    let files = Files::new();
    let file = files.write("a.txt", skewed());
    let output = replay(&["--curve", &file, &files.write("b.txt", skewed())]);
    assert!(output.status.success() && output.stderr.is_empty());
    let table = String::from_utf8(output.stdout).expect("text");
    for part in [
        "trace",
        "capacity",
        "atomic-cache",
        "quick_cache",
        "optimum",
        "│ a",
        "│ b",
        "│ mean",
        "*",
    ] {
        assert!(table.contains(part), "{part} in\n{table}");
    }
}

#[test]
fn a_plot_has_every_trace() {
    let files = Files::new();
    let logs = ["one.txt", "two&three.txt", "x.log.txt"].map(|name| files.write(name, skewed()));
    let plot = files.path("plot.svg");
    let arguments = [&logs.each_ref().map(String::as_str)[..], &["--plot", &plot]].concat();
    curve(&arguments);
    let svg = fs::read_to_string(&plot).expect("a plot");
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
    for name in [
        "one",
        "two&amp;three",
        "x.log",
        "atomic-cache",
        "foyer lfu",
        "optimum",
    ] {
        assert!(svg.contains(&format!(">\n{name}\n</text>")), "{name}");
    }
}

#[test]
fn wrong_curves_are_refused() {
    let files = Files::new();
    let file = files.write("a.txt", "1\n");
    for option in [["--ttl", "1s"], ["--fill-time", "1ms"]] {
        let curve = [&file, "--curve", option[0], option[1]];
        refuses(&curve, &["--curve", option[0], "cannot be used with"]);
    }
    refuses(&[&file, "--plot", "a.svg"], &["--curve"]);
    for plot in [
        files.path("missing/a.svg"),
        files.path(""),
        files.path("no\nwhere/a.svg"),
    ] {
        let shown = plot.replace('\n', "\\n");
        refuses(
            &["--curve", &file, "--plot", &plot],
            &[&shown, "expected to write the plot"],
        );
    }
    let missing = files.path("missing.txt");
    refuses(
        &["--curve", &file, &missing],
        &[&missing, "expected a readable access log"],
    );
}

/// The directory of real access logs beside the repository, where there is one.
fn traces() -> Option<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/traces");
    directory.is_dir().then_some(directory)
}

#[test]
fn real_logs_are_replayed() {
    let Some(directory) = traces() else { return };
    let entries = fs::read_dir(directory)
        .expect("lists the logs")
        .map(|entry| entry.expect("an entry").path());
    for path in entries.filter(|path| path.extension().is_some_and(|extension| extension == "zst"))
    {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .expect("a plain name");
        let report = report(&[path.to_str().expect("a plain path"), "--limit", "50000"]);
        let expected = match name {
            "orm-busy.bin.zst" | "web07.bin.zst" => "u32",
            "scarab-recs.bin.zst" | "corda.bin.zst" => "u64",
            _ if name.ends_with(".lis.zst") => "arc",
            _ if name.ends_with(".oracleGeneral.zst") => "oracle",
            _ if name.ends_with(".txt.zst") => "text",
            _ => continue,
        };
        assert_eq!(report["format"], expected, "{name}");
    }
}
