//! A result that cannot be handed out twice.

struct NoClone;

atomic_cache::memoize! {
    fn f(n: u64) -> NoClone {
        let _ = n;
        NoClone
    }
}

fn main() {
    f(1);
}
