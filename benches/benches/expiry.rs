//! How the janitor can find expired entries: it looks at every entry once an interval, as it does now, or reads an
//! index in the order of deadlines, which every fill keeps.
//!
//! Both are for one entry: a round over a cache in which nothing has expired, divided by its entries;
//! and one insert into the index with the removal of its first, as every fill of a full cache and
//! the expiry of its entry would do. A fill of a new key into that cache stands beside them.

use std::{hint::black_box, time::Duration};

use atomic_cache::Cache;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use crossbeam_skiplist::SkipMap;

const HOUR: Duration = Duration::from_hours(1);

fn full(entries: u64) -> Cache<u64, u64> {
    let cache = Cache::builder()
        .max_capacity(entries)
        .time_to_live(HOUR)
        .build()
        .expect("good settings");
    for key in 0..entries {
        cache.get_with(&key, || key);
    }
    cache
}

fn expiry(criterion: &mut Criterion) {
    for entries in [10_000, 1_000_000] {
        let mut group = criterion.benchmark_group(format!("expiry of {entries} entries"));
        group
            .sample_size(10)
            .warm_up_time(Duration::from_millis(500))
            .measurement_time(Duration::from_secs(3));

        let cache = full(entries);
        group.throughput(Throughput::Elements(entries));
        group.bench_function("round, an entry", |bencher| {
            bencher.iter(|| cache.run_pending_tasks());
        });

        group.throughput(Throughput::Elements(1));
        let index = SkipMap::new();
        for deadline in 0..entries {
            index.insert((deadline, deadline), ());
        }
        let mut deadline = entries;
        group.bench_function("index, an entry", |bencher| {
            bencher.iter(|| {
                index.insert((deadline, deadline), ());
                deadline += 1;
                black_box(index.pop_front());
            });
        });

        let mut key = entries;
        group.bench_function("fill, an entry", |bencher| {
            bencher.iter(|| {
                black_box(cache.get_with(&key, || key));
                key += 1;
            });
        });
        group.finish();
    }
}

criterion_group!(benches, expiry);
criterion_main!(benches);
