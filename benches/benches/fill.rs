//! Fills of new keys into a cache that was empty.

use std::time::Duration;

use atomic_cache_bench::{
    contenders::{Atomic, Dash, Moka, Papaya, Quick, ReadThrough, Scc},
    side_by_side::spread_key,
};
use criterion::{
    BatchSize, BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main,
    measurement::WallTime,
};

/// How many keys are filled into one cache.
const NEW_KEYS: usize = 10_000;

fn fill<C: ReadThrough>(group: &mut BenchmarkGroup<'_, WallTime>) {
    let fill_all = |cache: C| {
        for index in 0..NEW_KEYS {
            cache.get(spread_key(index));
        }
        cache
    };
    group.bench_function(C::NAME, |bencher| {
        bencher.iter_batched(|| C::growing(NEW_KEYS), fill_all, BatchSize::PerIteration);
    });
}

fn fills(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fill of new key");
    group
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    group.throughput(Throughput::Elements(NEW_KEYS as u64));
    fill::<Atomic>(&mut group);
    fill::<Moka>(&mut group);
    fill::<Quick>(&mut group);
    fill::<Papaya>(&mut group);
    fill::<Scc>(&mut group);
    fill::<Dash>(&mut group);
    group.finish();
}

criterion_group!(benches, fills);
criterion_main!(benches);
