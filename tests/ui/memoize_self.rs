//! A cache of a method would be one for all instances; and an `impl` block has no room for what a
//! memoized function needs.

struct Site {
    depth: u64,
}

impl Site {
    atomic_cache::memoize! {
        pub fn by_reference(&self, n: u64) -> u64 {
            self.depth + n
        }
    }

    atomic_cache::memoize! {
        fn by_value(self) -> u64 {
            self.depth
        }
    }

    atomic_cache::memoize! {
        #[memoize(skip(n))]
        fn by_unique_reference(&mut self, n: u64) {
            self.depth = n;
        }
    }

    atomic_cache::memoize! {
        fn typed(self: Box<Self>) -> u64 {
            self.depth
        }
    }
}

fn main() {}
