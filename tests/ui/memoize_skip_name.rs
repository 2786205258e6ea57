//! `skip` of what is no argument.

atomic_cache::memoize! {
    #[memoize(skip(logger))]
    fn f(n: u64, log: &str) -> usize {
        n as usize + log.len()
    }
}

fn main() {
    f(1, "");
}
