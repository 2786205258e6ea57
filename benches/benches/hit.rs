//! Look-ups of keys that are there.

use atomic_cache_bench::peers::work::Work;
use criterion::{Criterion, criterion_group, criterion_main};

mod works;

fn hits(criterion: &mut Criterion) {
    let works = [
        Work::Hit,
        Work::HotKey,
        Work::Strings,
        Work::Ttl,
        Work::Pin,
        Work::With,
        Work::Through,
        Work::Inserts,
    ];
    works::bench(criterion, &works);
}

criterion_group!(benches, hits);
criterion_main!(benches);
