//! The companions are as visible as the function, and no more.

mod inner {
    atomic_cache::memoize! {
        pub(self) fn private(n: u64) -> u64 {
            n
        }
    }

    pub fn ask() -> u64 {
        private(1)
    }
}

fn main() {
    inner::ask();
    inner::private(1);
    inner::private::invalidate(1);
}
