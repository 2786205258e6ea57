//! The attributes of the function are still on it, and its visibility is its own.
#![deny(warnings)]

mod inner {
    atomic_cache::memoize! {
        #[must_use = "it was computed at some cost"]
        pub fn costly(n: u64) -> u64 {
            n
        }

        #[deprecated = "there is a better one"]
        pub fn old(n: u64) -> u64 {
            n
        }

        pub fn unused(n: u64, by_the_body: u64) -> u64 {
            n
        }
    }
}

fn main() {
    inner::costly(1);
    inner::old(1);
    inner::unused(1, 2);
}
