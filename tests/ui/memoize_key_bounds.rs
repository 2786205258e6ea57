//! An argument that cannot be looked up.

#[derive(Clone, Debug, PartialEq, Eq)]
struct NoHash(u64);

atomic_cache::memoize! {
    fn f(n: u64, no_hash: NoHash) -> u64 {
        n + no_hash.0
    }
}

fn main() {
    f(1, NoHash(2));
}
