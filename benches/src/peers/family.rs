//! The abilities of a contender: a trait for each family of work. The loops in `loops.rs` are written against these.
//!
//! A trait says which operation is asked of a crate and not how; each crate's file under `contenders/` answers with the
//! operation that its documentation names for that.

use super::stage::make;

/// Look-ups by number of values that have been put in.
pub trait Look: Send + Sync + 'static {
    /// The value of `key`, if it is there.
    fn get(&self, key: u64) -> Option<u64>;

    /// Puts a value in, in the place of an older one.
    fn put(&self, key: u64, value: u64);
}

/// Look-ups that show the value to a closure and clone nothing.
pub trait Lend: Look {
    /// Returns the result of `read` for the value of `key`, if it is there.
    fn lend(&self, key: u64, read: impl FnOnce(&u64) -> u64) -> Option<u64>;
}

/// Many look-ups under one guard.
pub trait View: Look {
    /// The guard.
    type Guard<'a>;

    /// Takes the guard.
    fn view(&self) -> Self::Guard<'_>;

    /// The value of `key`, lent.
    fn see<'g>(guard: &'g Self::Guard<'_>, key: u64) -> Option<&'g u64>;
}

/// Look-ups by text.
pub trait Texts: Send + Sync + 'static {
    /// The value of `key`, if it is there.
    fn get(&self, key: &str) -> Option<u64>;

    /// Puts a value in.
    fn put(&self, key: String, value: u64);
}

/// Reading through: answer with the value of a key, making it when it is not there.
pub trait ReadThrough: Send + Sync + 'static {
    /// The value of `key`, made by `make` when it is not there.
    fn read_with(&self, key: u64, make: impl FnOnce() -> u64) -> u64;

    /// The value of `key`; adds one to `made` when it had to be made.
    #[inline]
    fn read(&self, key: u64, made: &mut usize) -> u64 {
        self.read_with(key, || {
            *made += 1;
            make(key)
        })
    }
}

/// Taking out.
pub trait Forget: ReadThrough {
    /// Takes `key` out.
    fn forget(&self, key: u64);
}

/// Reading through where how it is done does not matter: a trait of objects.
pub trait Ask: Send + Sync {
    /// The value of `key`, made by `make` when it is not there.
    fn ask(&self, key: u64, make: &dyn Fn() -> u64) -> u64;
}

impl<C: ReadThrough> Ask for C {
    fn ask(&self, key: u64, make: &dyn Fn() -> u64) -> u64 {
        self.read_with(key, make)
    }
}
