//! What does not say how many bytes it keeps.

use atomic_cache::Weigh;

struct Page(String);

fn weigh(value: impl Weigh) -> u64 {
    value.weigh()
}

fn main() {
    let page = Page("spam".to_owned());
    // A reference to it is none either: it would weigh nothing, unnoticed.
    weigh(&page);
    weigh(vec![page]);
}
