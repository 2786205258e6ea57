//! Reads of values that are there: of keys drawn uniformly from 100,000, and of one hot key.

use std::{hint::black_box, time::Duration};

use atomic_cache_bench::{
    contenders::{Atomic, Dash, Moka, Papaya, Quick, ReadThrough, Scc},
    side_by_side::{KEYS, filled, spread_key},
};
use criterion::{
    BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime,
};
use rand::{RngExt, SeedableRng, rngs::SmallRng};

fn uniform<C: ReadThrough>(group: &mut BenchmarkGroup<'_, WallTime>) {
    let cache = filled::<C>();
    let mut random = SmallRng::seed_from_u64(1);
    group.bench_function(C::NAME, |bencher| {
        bencher.iter(|| cache.get(spread_key(random.random_range(0..KEYS))));
    });
}

fn hot<C: ReadThrough>(group: &mut BenchmarkGroup<'_, WallTime>) {
    let cache = filled::<C>();
    group.bench_function(C::NAME, |bencher| {
        bencher.iter(|| cache.get(black_box(spread_key(0))));
    });
}

fn group<'a>(criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    group
}

fn hits(criterion: &mut Criterion) {
    let mut uniformly = group(criterion, "hit uniform");
    uniform::<Atomic>(&mut uniformly);
    uniform::<Moka>(&mut uniformly);
    uniform::<Quick>(&mut uniformly);
    uniform::<Papaya>(&mut uniformly);
    uniform::<Scc>(&mut uniformly);
    uniform::<Dash>(&mut uniformly);
    uniformly.finish();
    let mut one = group(criterion, "hit hot key");
    hot::<Atomic>(&mut one);
    hot::<Moka>(&mut one);
    hot::<Quick>(&mut one);
    hot::<Papaya>(&mut one);
    hot::<Scc>(&mut one);
    hot::<Dash>(&mut one);
    one.finish();
}

criterion_group!(benches, hits);
criterion_main!(benches);
