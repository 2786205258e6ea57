//! Bounds of the wrong type, and of what cannot be weighed.

#[derive(Clone)]
struct Picture;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Site(String);

atomic_cache::memoize! {
    #[memoize(max_bytes = "1M")]
    fn value(n: u64) -> Picture {
        let _ = n;
        Picture
    }

    #[memoize(max_bytes = "1M")]
    fn argument(site: &Site) -> u64 {
        site.0.len() as u64
    }

    #[memoize(max_bytes = "1M", key = Site(name.to_owned()))]
    fn key(name: &str) -> u64 {
        name.len() as u64
    }

    #[memoize(max_capacity = "1000")]
    fn text(n: u64) -> u64 {
        n
    }
}

fn main() {}
