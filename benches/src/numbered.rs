//! Logs with numbers as keys, which makes them small and the caches quick.

use std::{collections::HashMap, hash::Hash, path::Path};

use crate::{error::Error, trace::Accesses};

/// The endings that a log loses to get its name: those of compression, then those of formats.
const PACKED: [&str; 2] = [".zst", ".gz"];

/// See [`PACKED`].
const FORMATS: [&str; 7] = [
    ".lis",
    ".oracleGeneral",
    ".u32",
    ".u64",
    ".bin",
    ".txt",
    ".log",
];

/// A log with the numbers from 0 on as keys, in the order they first come.
#[derive(Debug, Clone)]
pub struct Numbered {
    /// Its name in tables and plots.
    pub name: String,
    /// The file as given; none for a made workload.
    pub file: Option<String>,
    /// The key of each access.
    pub keys: Vec<u32>,
    /// How many keys differ.
    pub distinct_keys: usize,
}

impl Numbered {
    /// Numbers the keys of `accesses`.
    ///
    /// # Errors
    ///
    /// When there are too many for 32 bits.
    pub fn new(file: Option<&Path>, accesses: &Accesses) -> Result<Self, Error> {
        if accesses.len() >= u32::MAX as usize {
            let message = "expected fewer than 4294967295 accesses with --curve, give --limit";
            return Err(Error::Usage(message.into()));
        }
        let (keys, distinct_keys) = match accesses {
            Accesses::Numbers(numbers) => number(numbers),
            Accesses::Strings(strings) => number(strings),
        };
        Ok(Self {
            name: file.map_or_else(|| "made".into(), short_name),
            file: file.map(|file| file.display().to_string()),
            keys,
            distinct_keys,
        })
    }
}

/// Each key as a number, and how many there are.
fn number<A: Eq + Hash>(accesses: &[A]) -> (Vec<u32>, usize) {
    let mut numbers = HashMap::new();
    let mut next = 0..;
    let keys = accesses.iter().map(|key| {
        *numbers
            .entry(key)
            .or_insert_with(|| next.next().unwrap_or(u32::MAX))
    });
    let keys = keys.collect();
    (keys, numbers.len())
}

/// The name of a file without its directory and the endings that tell its format.
fn short_name(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let name = strip(&name, &PACKED);
    strip(name, &FORMATS).to_owned()
}

/// `name` without the first of `endings` it has, unless nothing would be left.
fn strip<'a>(name: &'a str, endings: &[&str]) -> &'a str {
    let stripped = endings.iter().find_map(|ending| name.strip_suffix(ending));
    stripped.filter(|rest| !rest.is_empty()).unwrap_or(name)
}

/// Calls logs of the same name by their files instead.
pub fn tell_apart(logs: &mut [Numbered]) {
    let names: Vec<String> = logs.iter().map(|log| log.name.clone()).collect();
    for log in logs {
        let alike = names.iter().filter(|name| **name == log.name).count();
        if let (2.., Some(file)) = (alike, &log.file) {
            log.name.clone_from(file);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(file: &str) -> Numbered {
        let accesses = Accesses::Numbers(vec![7, 9, 7]);
        Numbered::new(Some(Path::new(file)), &accesses).expect("few accesses")
    }

    #[test]
    fn keys_are_numbered_in_the_order_they_come() {
        let numbered = log("a");
        assert_eq!((numbered.keys, numbered.distinct_keys), (vec![0, 1, 0], 2));
        let strings = Accesses::Strings(vec!["b".into(), "a".into(), "b".into()]);
        let numbered = Numbered::new(None, &strings).expect("few accesses");
        assert_eq!(numbered.keys, [0, 1, 0]);
        assert_eq!(numbered.name, "made");
    }

    #[test]
    fn names_are_short() {
        for (file, name) in [
            ("logs/OLTP.lis.zst", "OLTP"),
            ("vm.oracleGeneral", "vm"),
            ("access.log.1.gz", "access.log.1"),
            ("-", "-"),
            (".txt", ".txt"),
        ] {
            assert_eq!(log(file).name, name, "{file}");
        }
    }

    #[test]
    fn logs_of_one_name_are_told_apart() {
        let mut logs = ["a/x.txt", "b/x.txt", "a/y.txt"].map(log);
        tell_apart(&mut logs);
        assert_eq!(logs.map(|log| log.name), ["a/x.txt", "b/x.txt", "y"]);
    }
}
