//! Does one kind of hit so many times, and nothing else: for tools that count instructions
//! (`scripts/instructions.sh`).

use std::{convert::Infallible, hint::black_box, process::ExitCode, time::Duration};

use foldhash::fast::FixedState;

/// The default hasher with a fixed seed: how far a key is from its home is part of the count.
type Cache = atomic_cache::Cache<u64, u64, FixedState>;
type AtomicCache = atomic_cache::AtomicCache<u64, u64, Infallible, FixedState>;

/// How many keys there are.
const KEYS: u64 = 1_000;

/// More than a count has room for.
const USES: usize = 9;

/// How the keys are asked for.
const WAYS: [&str; 5] = ["get", "fill", "with", "pin", "ttl"];

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let way = args.next().unwrap_or_default();
    let hits = args.next().and_then(|hits| hits.parse().ok());
    let (true, Some(hits)) = (WAYS.contains(&way.as_str()), hits) else {
        eprintln!(
            "usage: hits WAY HITS, where WAY is one of {}",
            WAYS.join(", ")
        );
        return ExitCode::from(2);
    };
    let hasher = FixedState::with_seed(7);
    let builder = atomic_cache::Cache::builder()
        .max_capacity(KEYS)
        .hasher(hasher.clone());
    let builder = if way == "ttl" {
        builder.time_to_live(Duration::from_hours(1))
    } else {
        builder
    };
    let cache: Cache = builder.build().expect("good settings");
    let filled = atomic_cache::AtomicCache::<u64, u64>::builder()
        .max_capacity(KEYS)
        .hasher(hasher)
        .build_with(|key| *key)
        .expect("good settings");
    for key in 0..KEYS {
        cache.insert(key, key);
    }
    for key in (0..KEYS).cycle().take(USES * 1_000) {
        black_box((cache.get(&key), filled.get(&key)));
    }
    match way.as_str() {
        "fill" => ask_to_fill(&filled, hits),
        "with" => show(&cache, hits),
        "pin" => ask_view(&cache, hits),
        _ => ask(&cache, hits),
    }
    ExitCode::SUCCESS
}

#[inline(never)]
fn ask(cache: &Cache, hits: u64) {
    for hit in 0..hits {
        black_box(black_box(cache).get(&(hit % KEYS)));
    }
}

#[inline(never)]
fn ask_to_fill(cache: &AtomicCache, hits: u64) {
    for hit in 0..hits {
        black_box(black_box(cache).get(&(hit % KEYS)));
    }
}

#[inline(never)]
fn show(cache: &Cache, hits: u64) {
    for hit in 0..hits {
        black_box(cache).with(&(hit % KEYS), |value| {
            black_box(value);
        });
    }
}

#[inline(never)]
fn ask_view(cache: &Cache, hits: u64) {
    let view = cache.pin();
    for hit in 0..hits {
        black_box(black_box(&view).get(&(hit % KEYS)));
    }
}
