//! Reading through of keys that are missing, always or now and then.

use atomic_cache_bench::peers::work::Work;
use criterion::{Criterion, criterion_group, criterion_main};

mod works;

fn fills(criterion: &mut Criterion) {
    let works = [
        Work::Zipf,
        Work::NewKeys,
        Work::Refill,
        Work::Fill,
        Work::FillSized,
    ];
    works::bench(criterion, &works);
}

criterion_group!(benches, fills);
criterion_main!(benches);
