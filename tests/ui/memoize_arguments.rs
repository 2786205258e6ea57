//! What an argument of a memoized function cannot be.

mod unique_reference {
    atomic_cache::memoize! {
        fn f(n: u64, out: &mut Vec<u64>) {
            out.push(n);
        }
    }
}

mod unique_reference_skipped {
    atomic_cache::memoize! {
        #[memoize(skip(out))]
        fn f(n: u64, out: &mut Vec<u64>) {
            out.push(n);
        }
    }
}

mod hidden_generic {
    atomic_cache::memoize! {
        fn f(n: u64, to: impl Into<u64>) -> u64 {
            n + to.into()
        }
    }
}

mod pattern {
    atomic_cache::memoize! {
        fn f((a, b): (u64, u64)) -> u64 {
            a + b
        }
    }
}

mod lifetime {
    atomic_cache::memoize! {
        fn f(name: &'a str) -> usize {
            name.len()
        }
    }
}

mod doubled {
    atomic_cache::memoize! {
        fn f(name: &&str) -> usize {
            name.len()
        }
    }
}

mod many {
    atomic_cache::memoize! {
        #[allow(clippy::too_many_arguments)]
        fn f(
            a: u8, b: u8, c: u8, d: u8, e: u8, f: u8, g: u8, h: u8, i: u8, j: u8, k: u8, l: u8, m: u8,
        ) -> u8 {
            a | b | c | d | e | f | g | h | i | j | k | l | m
        }
    }
}

fn main() {}
