//! A key expression that cannot be looked up.

atomic_cache::memoize! {
    #[memoize(key = x)]
    fn f(x: f64) -> f64 {
        x.sqrt()
    }
}

fn main() {
    f(2.0);
}
