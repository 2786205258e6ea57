//! The works of `cargo peers` as criterion benchmarks: a group for each work, with every contender that can do it.

use std::time::Duration;

use atomic_cache_bench::peers::{
    contenders::{ALL, Contender},
    lap::{Entrant, Lap, time},
    stage::Stage,
    work::Work,
};
use criterion::{BenchmarkGroup, Criterion, measurement::WallTime};

/// How many keys are in a cache that is hit.
const KEYS: usize = 100_000;

/// How many skewed keys no cache has seen before it is timed.
const SAMPLE: usize = 20_000_000;

/// Benchmarks `works` on one thread.
pub fn bench(criterion: &mut Criterion, works: &[Work]) {
    let stage = Stage::new(KEYS, SAMPLE);
    let tiny = Stage::new(1, 1);
    for &work in works {
        let mut group = criterion.benchmark_group(work.name());
        group
            .sample_size(20)
            .warm_up_time(Duration::from_millis(300))
            .measurement_time(Duration::from_secs(1));
        let able = |contender: &&Contender| (contender.enter)(work, &tiny).is_some();
        for contender in ALL.iter().filter(able) {
            contend(&mut group, contender, work, &stage);
        }
        group.finish();
    }
}

/// One contender, made ready only when it is asked for: a filter may leave it out.
fn contend(
    group: &mut BenchmarkGroup<'_, WallTime>,
    contender: &Contender,
    work: Work,
    stage: &Stage,
) {
    let mut entrant = None;
    let mut round = 0;
    group.bench_function(contender.name, |bencher| {
        let entrant = entrant.get_or_insert_with(|| {
            let entrant = (contender.enter)(work, stage);
            entrant.expect("who can do it with one key can do it with many")
        });
        bencher.iter_custom(|operations| {
            round += 1;
            elapsed(&mut **entrant, stage, round, operations)
        });
    });
}

/// Returns the time that so many operations take.
fn elapsed(entrant: &mut dyn Entrant, stage: &Stage, round: usize, operations: u64) -> Duration {
    let operations = usize::try_from(operations).expect("few operations");
    let lap = Lap {
        stage,
        thread: 0,
        threads: 1,
        round,
        operations,
        time: Duration::MAX,
    };
    time(entrant, lap).elapsed
}
