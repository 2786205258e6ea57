//! `memoize!`: a function that keeps its results in a cache of its own.

/// Keeps the results of a function: each is computed once for the same arguments.
///
/// ```
/// use atomic_cache::memoize;
///
/// memoize! {
///     /// The nth Fibonacci number.
///     pub fn fib(n: u64) -> u64 {
///         if n < 2 { n } else { fib(n - 1) + fib(n - 2) }
///     }
/// }
///
/// assert_eq!(fib(90), 2_880_067_194_370_816_120);
/// assert_eq!(fib::stats().fills, 91);
/// ```
///
/// `fib` stays a function, with its documentation, attributes and visibility. Every call by that
/// name goes through its cache, the ones in its own body included. Calls with the same arguments at
/// the same time wait for the one that computes; calls with other arguments do not. The macro takes
/// any number of functions.
///
/// # Arguments
///
/// An argument is `name: Type`, `mut name: Type` or `_: Type`. All together are the key:
///
/// | written | in the key | needs |
/// |---|---|---|
/// | `n: u64`, `name: String` | itself | `Hash + Eq + Clone + Debug + Send + Sync + 'static` |
/// | `name: &str`, `path: &Path`, `list: &[T]`, `site: &Site` | the owned form: `String`, `PathBuf`, `Vec<T>`, `Site` | [`ToOwned`], and the above of the owned form |
/// | `name: &'static str` | itself | as the first |
///
/// Twelve of them at most.
///
/// # Results
///
/// The result needs `Clone + Send + Sync + 'static`. **The `Err` of a `Result` is not kept**: every
/// caller that has joined the run gets a clone of it, and the next call runs the function anew. An
/// `Ok` is kept. Results of all other types are always kept: a `None` is as good as any other
/// value, and stays until it is invalidated. (For a `None` that is not kept return a `Result`.)
///
/// ```
/// use std::path::Path;
///
/// atomic_cache::memoize! {
///     fn depth(path: &Path, from: usize) -> Result<usize, String> {
///         path.components().count().checked_sub(from).ok_or_else(|| "too short".to_owned())
///     }
/// }
///
/// assert_eq!(depth(Path::new("a/b/c"), 1), Ok(2));
/// assert_eq!(depth::peek(Path::new("a/b/c"), 1), Some(Ok(2)));
/// assert!(depth(Path::new("a"), 2).is_err());
/// assert!(!depth::contains(Path::new("a"), 2));
/// ```
///
/// A `Result` is recognised by its type, not by its name: `std::io::Result<T>`, or an alias of your
/// own with any number of parameters, is one. A `Result` inside another type (an `Option`, an
/// `Arc`, a tuple) is kept with that. An error that is not `Clone` (`std::io::Error`,
/// `Box<dyn Error + Send + Sync>`) goes into an `Arc`: return `Result<T, Arc<E>>` and
/// `.map_err(Arc::new)`. The cache holds the whole `Result`: [`prime`](#companions) puts an `Err`
/// in, too, if it is given one.
///
/// # Options
///
/// They stand in `#[memoize(..)]` before the function, each function with its own.
///
/// **`ttl = expression`**, a [`Duration`](std::time::Duration) or an `Option` of one: a value older
/// than that is computed anew. Evaluated once, at the first use of the function.
///
/// ```
/// use std::time::Duration;
///
/// atomic_cache::memoize! {
///     #[memoize(ttl = Duration::from_secs(60))]
///     fn rate(currency: &str) -> u32 {
///         currency.len() as u32
///     }
/// }
///
/// assert_eq!(rate("EUR"), 3);
/// ```
///
/// **`clock = expression`**, a [`Clock`](crate::Clock) or a value that turns into one: the clock
/// that measures `ttl`. Not set: the system's clock. Evaluated once, at the first use of the
/// function. With the feature `test-util` it may be a `ManualClock`, which a test moves by hand.
/// (The cache is one for the whole program, and so is its clock: let tests that move it take turns,
/// or have one function each.)
///
/// ```
/// use atomic_cache::ManualClock;
/// use std::sync::LazyLock;
/// use std::time::Duration;
///
/// static CLOCK: LazyLock<ManualClock> = LazyLock::new(ManualClock::new);
///
/// atomic_cache::memoize! {
///     #[memoize(ttl = Duration::from_secs(60), clock = CLOCK.clone())]
///     fn rate(currency: &str) -> u32 {
///         currency.len() as u32
///     }
/// }
///
/// assert_eq!(rate("EUR"), 3);
/// CLOCK.advance(Duration::from_secs(59));
/// assert!(rate::contains("EUR"));
/// CLOCK.advance(Duration::from_secs(1));
/// assert!(!rate::contains("EUR"));
/// ```
///
/// A program with tests that need a clock of their own asks a function for the clock:
///
/// ```
/// use atomic_cache::Clock;
///
/// fn clock() -> Clock {
///     #[cfg(test)]
///     return tests::CLOCK.clone().into();
///     #[cfg(not(test))]
///     Clock::system()
/// }
///
/// atomic_cache::memoize! {
///     #[memoize(ttl = std::time::Duration::from_secs(60), clock = clock())]
///     fn rate(currency: &str) -> u32 {
///         currency.len() as u32
///     }
/// }
/// # assert_eq!(rate("EUR"), 3);
/// ```
///
/// **`max_capacity = expression`**, a `u64` or an `Option` of one: the largest number of results
/// that are kept. The cache chooses which of them make room for others: see
/// [`Builder::max_capacity`](crate::Builder::max_capacity). Not set: there is no bound. Evaluated
/// once, at the first use of the function; `f::cache().set_max_capacity(..)` changes it.
///
/// ```
/// atomic_cache::memoize! {
///     #[memoize(max_capacity = 1000)]
///     fn square(n: u64) -> u64 {
///         n * n
///     }
/// }
///
/// for n in 0..5000 {
///     assert_eq!(square(n), n * n);
/// }
/// assert_eq!(square::cache().len(), 1000);
/// ```
///
/// **`max_bytes = expression`**, a `u64` or a text such as `"64M"`: the largest amount of memory
/// that the results may keep, with their keys. Both have to be [`Weigh`](crate::Weigh).
/// [`Builder::max_bytes`](crate::Builder::max_bytes) says which bytes are counted. Evaluated once,
/// at the first use of the function, which panics if the text is no number of bytes. There is one
/// bound or the other, not both.
///
/// ```
/// atomic_cache::memoize! {
///     #[memoize(max_bytes = "1M")]
///     fn line(width: usize) -> String {
///         "-".repeat(width)
///     }
/// }
///
/// for width in 100_000..100_100 {
///     assert_eq!(line(width).len(), width);
/// }
/// assert_eq!(line::cache().len(), 10);
/// ```
///
/// **`skip(argument, ..)`**: not part of the key, but handed on to the function when it has to run.
/// Such an argument may be of any type but a `&mut` reference. The first call decides: the others
/// get its value, whatever they pass for a skipped argument.
///
/// ```
/// atomic_cache::memoize! {
///     #[memoize(skip(log))]
///     fn double(n: u64, log: &dyn Fn(u64)) -> u64 {
///         log(n);
///         2 * n
///     }
/// }
///
/// let logged = std::cell::Cell::new(0);
/// assert_eq!(double(4, &|n| logged.set(n)), 8);
/// assert_eq!(double(4, &|_| unreachable!("it is a hit")), 8);
/// assert_eq!(logged.get(), 4);
/// // A look-up needs no logger.
/// assert!(double::invalidate(4));
/// ```
///
/// **`key = expression`**: the key to look up in place of the arguments, computed from them
/// (without the skipped ones) at each call. It may be of any type that is
/// `Hash + Eq + Clone + Debug + Send + Sync + 'static`. It must not move the arguments:
/// `key = name.len()`, or `key = name.clone()`, but not `key = name` if `name` is a `String`. The
/// arguments themselves need no traits then.
///
/// ```
/// atomic_cache::memoize! {
///     #[memoize(key = (name.to_ascii_lowercase(), scale.to_bits()))]
///     fn width(name: &str, scale: f64) -> f64 {
///         name.len() as f64 * scale
///     }
///
///     #[memoize(key = n % 10)]
///     fn first_with_this_digit(n: u64) -> u64 {
///         n
///     }
/// }
///
/// assert_eq!(width("Title", 0.5), 2.5);
/// assert!(width::contains("TITLE", 0.5));
/// assert_eq!(first_with_this_digit(13), 13);
/// assert_eq!(first_with_this_digit(23), 13);
/// ```
///
/// **`cache_err`**, of a function that returns a `Result`: an `Err` is kept like an `Ok`, until it
/// is invalidated, refreshed, or older than `ttl`.
///
/// ```
/// use std::time::Duration;
///
/// atomic_cache::memoize! {
///     #[memoize(cache_err, ttl = Duration::from_secs(60))]
///     fn port(text: &str) -> Result<u16, std::num::ParseIntError> {
///         text.parse()
///     }
/// }
///
/// assert!(port("eighty").is_err());
/// assert!(port::contains("eighty"));
/// assert!(port::peek("eighty").unwrap().is_err());
/// ```
///
/// # Companions
///
/// The companions of `f` are found under its name, and are as visible as `f` is. (The name is also
/// that of an empty enum. So no type or module of that name can stand beside the function, and
/// importing `f` imports both.) The arguments are the ones of `f` without the skipped ones;
/// `refresh` and `uncached` take them all. `V` is the type that `f` returns.
///
/// | companion | effect |
/// |---|---|
/// | `f::peek(args) -> Option<V>` | returns the value if the cache has it; neither computes nor waits |
/// | `f::contains(args) -> bool` | returns whether the cache has a value |
/// | `f::refresh(args) -> V` | computes the value anew and replaces the old one, which other calls get meanwhile; an `Err` leaves the old one there |
/// | `f::prime(args, value)` | puts a value in, in place of any older one: an [`insert`](crate::Cache::insert) |
/// | `f::invalidate(args) -> bool` | drops the value, waits for a run in progress, and returns whether there was a value |
/// | `f::invalidate_all()` | drops every value, and waits for runs in progress |
/// | `f::invalidate_nowait(args) -> bool`, `f::invalidate_all_nowait()` | the same without waiting: runs in progress are detached |
/// | `f::uncached(args) -> V` | runs the function itself; the functions that it calls by name are still memoized |
/// | `f::stats() -> CacheStats` | returns the counts of the cache |
/// | `f::cache() -> &'static Cache<_, V>` | returns the [`Cache`](crate::Cache), for all other operations: `f::cache().remove(&(n,))` |
///
/// ```
/// atomic_cache::memoize! {
///     fn area(width: u64, height: u64) -> u64 {
///         width * height
///     }
/// }
///
/// assert_eq!(area::peek(2, 3), None);
/// assert_eq!(area(2, 3), 6);
/// assert_eq!(area::peek(2, 3), Some(6));
///
/// area::prime(4, 5, 21);
/// assert_eq!(area(4, 5), 21);
/// assert_eq!(area::uncached(4, 5), 20);
/// assert!(area::invalidate(4, 5));
/// assert_eq!(area(4, 5), 20);
///
/// assert_eq!(area::cache().len(), 2);
/// assert_eq!(area::stats().fills, 2);
/// area::invalidate_all();
/// assert!(!area::contains(2, 3));
/// ```
///
/// **For a newer value, call `refresh`.** It is one run for all callers that ask for these
/// arguments meanwhile, and no older value ever replaces its result. `prime` puts in the value that
/// it is given: it beats every run that has begun before. But of two threads that compute a value
/// by `uncached` and `prime` it, the one with the older value may come last.
///
/// ```
/// use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
///
/// static RATE: AtomicU32 = AtomicU32::new(7);
///
/// atomic_cache::memoize! {
///     fn rate() -> u32 {
///         RATE.load(Relaxed)
///     }
/// }
///
/// assert_eq!(rate(), 7);
/// RATE.store(8, Relaxed);
/// assert_eq!(rate(), 7);
/// assert_eq!(rate::refresh(), 8);
/// assert_eq!(rate(), 8);
/// ```
///
/// The key in `f::cache()` is the tuple of the owned arguments, `(u64,)` for a single one,
/// `(String,)` for a `&str`; with `key = ..` it is a type that has no name. In a task, a function
/// that is not async is invalidated without blocking the thread by
/// `f::cache().invalidate_async(&key).await`.
///
/// # What a hit costs
///
/// One load to see that the cache is there, the hash of the arguments, the look-up, and the `clone`
/// of the value: an `Arc` makes that cheap where it is not. A hit allocates nothing. The arguments
/// are looked up as they are, by reference, and owned ones are made on a miss only. An argument
/// that a caller would have to own for the call, such as a `String`, is better taken as `&str`. A
/// key of `key = ..` costs as much as its expression, and goes into a box on a miss.
///
/// # Recursion
///
/// A call that asks for itself, be it by way of other keys or of other threads, would wait for
/// ever. It panics instead, with the keys along the cycle:
///
/// ```should_panic
/// atomic_cache::memoize! {
///     fn chicken(n: u64) -> u64 { egg(n) }
///     fn egg(n: u64) -> u64 { chicken(n) }
/// }
/// chicken(1);
/// ```
///
/// Depth is the thread's own. Each level that has to be computed is a few frames on its stack,
/// about 1 KiB in an optimized build and 3 KiB in another. A stack that is full ends the process.
/// Either compute from the bottom up, or take a thread with a stack that is large enough:
///
/// ```
/// atomic_cache::memoize! {
///     fn fib(n: u64) -> u128 {
///         if n < 2 { n.into() } else { fib(n - 1).wrapping_add(fib(n - 2)) }
///     }
/// }
///
/// # fn main() -> std::io::Result<()> {
/// // From the bottom up: no call goes deeper than two levels.
/// for n in 0..1_000 {
///     fib(n);
/// }
/// // With room for the depth.
/// let thread = std::thread::Builder::new().stack_size(512 << 20).spawn(|| fib(10_000))?;
/// assert_eq!(thread.join().unwrap(), fib::peek(10_000).unwrap());
/// # Ok(())
/// # }
/// ```
///
/// # An `async fn`
///
/// It takes the same arguments and options and has the same companions, on any runtime. Callers of
/// one key share one run of the body. It needs the feature `async`, which is on unless turned off.
///
/// ```
/// atomic_cache::memoize! {
///     #[memoize(ttl = std::time::Duration::from_secs(60), skip(base))]
///     pub async fn page(base: &str, path: &str) -> Result<String, String> {
///         let found = !path.is_empty(); // ask a server, `.await` its answer
///         if found { Ok(format!("{base}/{path}")) } else { Err("no path".to_owned()) }
///     }
/// }
///
/// # futures_lite::future::block_on(async {
/// assert_eq!(page("http://a", "x").await, Ok("http://a/x".to_owned()));
/// assert!(page("http://a", "").await.is_err());
/// # });
/// ```
///
/// The run belongs to no caller: **every waiter that is polled polls it**. So
///
/// * a call does nothing before it is first polled;
/// * a caller that is dropped (by a timeout, a `select!`) loses nothing as long as another one
///   waits: the run goes on from where it is;
/// * a caller that was polled and then forgotten holds up no other;
/// * when the last waiter is dropped, the run is dropped with it, and nothing is kept. If it is to
///   go on, spawn the call: `tokio::spawn(page("http://a", "x"))`.
///
/// The run may outlive the call that began it. So that call makes clones of the arguments for it,
/// the skipped ones too: `T::clone` of a `T`, [`to_owned`](ToOwned::to_owned) of a `&T`, once on a
/// miss. They have to be `Send + Sync + 'static`, and the values that the body holds across an
/// `.await` have to be `Send`. A pool or a client is best skipped as `&Arc<Pool>`, or as a type
/// that is cheap to clone. A skipped argument cannot be of a borrowed type other than a plain
/// reference: no `Option<&str>`, no `&dyn Fn()`.
///
/// The run uses the timers and sockets of the runtime that it was first polled on. Its task-locals
/// are those of the caller that polls it at that moment: see
/// [`AtomicCache::new_async`](crate::AtomicCache::new_async). The cache is one for the whole
/// program. So two `#[tokio::test]`s, each with a runtime of its own, may meet in one run: let each
/// test use keys of its own, or share one runtime.
///
/// `f` becomes a plain function that returns `impl Future<Output = V> + Send`; it is called as if
/// it were an `async fn`. A hit never answers `Pending` and allocates nothing. A miss costs the
/// clones, the flight, and boxes for the run, on top of the costs in other functions.
///
/// **Companions.** `f::uncached` is an `async fn`, and so is `f::refresh`. `f::invalidate` and
/// `f::invalidate_all` wait for runs in progress and block the thread meanwhile. In a task call
/// `f::invalidate_async(args).await` and `f::invalidate_all_async().await`, which only async
/// functions have, or the `_nowait` twins. The other companions never wait.
///
/// **Recursion.** A call by the function's own name works as it stands and in a box. No box is
/// needed, because the future that is polled is in one already.
///
/// ```
/// atomic_cache::memoize! {
///     async fn fib(n: u64) -> u64 {
///         if n < 2 { n } else { Box::pin(fib(n - 1)).await + Box::pin(fib(n - 2)).await }
///     }
///
///     async fn tribonacci(n: u64) -> u64 {
///         match n {
///             0 | 1 => 0,
///             2 => 1,
///             _ => tribonacci(n - 1).await + tribonacci(n - 2).await + tribonacci(n - 3).await,
///         }
///     }
/// }
///
/// # futures_lite::future::block_on(async {
/// assert_eq!(fib(90).await, 2_880_067_194_370_816_120);
/// assert_eq!(tribonacci(40).await, 7_046_319_384);
/// # });
/// assert_eq!(fib::stats().fills, 91);
/// ```
///
/// Each level that has to be computed is polled inside the one that asks for it, on the thread's
/// own stack. The limits of depth above hold here, with about 2 KiB a level in an optimized build
/// and 8 KiB in another. A cycle is found as above, if the calls are awaited inside the body: a
/// task that the body spawns and then waits for is not seen.
///
/// A panic goes on in the caller that polls at that moment, which need not be the one that began
/// the run. One of the others runs the body anew, with its own arguments.
///
/// # Where it can stand
///
/// In a module and in a function. Not in an `impl` block, where a macro can make nothing but
/// methods; and a cache of a method would be one for all instances. Memoize a free function of the
/// fields that the method needs, and call that:
///
/// ```
/// struct Grid {
///     width: u64,
/// }
///
/// impl Grid {
///     fn paths(&self, height: u64) -> u64 {
///         paths(self.width, height)
///     }
/// }
///
/// atomic_cache::memoize! {
///     fn paths(width: u64, height: u64) -> u64 {
///         match (width, height) {
///             (0, _) | (_, 0) => 1,
///             _ => paths(width - 1, height) + paths(width, height - 1),
///         }
///     }
/// }
///
/// assert_eq!(Grid { width: 16 }.paths(16), 601_080_390);
/// ```
///
/// There is one cache for each function, and it lives as long as the program does. So a function
/// with type parameters, lifetimes or `impl Trait` is refused. So are `const`, `unsafe` and
/// `extern` ones, patterns for arguments and `&mut` references. The compiler says how to write them
/// instead. A lifetime that is not written, as in `Option<&str>`, is refused in the compiler's own
/// words: take `Option<String>`, or say `key = ..`.
///
/// Attributes go to the function. `cfg` and `doc(hidden)` go to its companions as well, lint levels
/// to the body as well, and `expect` to the body only.
///
/// # Panics
///
/// * If the call closes a cycle: see above.
/// * If it would have to wait for another caller's run where [a thread may not
///   wait](crate::Cache#where-a-thread-may-not-wait): memoize an `async fn` there.
/// * With the panic of the function itself, in the caller that ran it. Nothing is kept, and one of
///   the waiters runs the function anew.
#[macro_export]
macro_rules! memoize {
    ($($functions:tt)*) => {
        $crate::__memoize! { @items $($functions)* }
    };
}

/// The rules behind [`memoize!`]; not part of the public interface.
///
/// The state is handed from rule to rule in brackets: `@items` takes the functions apart, `@attrs`
/// sorts the attributes of one, `@opts` reads its options, `@args`, `@type` and `@push` its
/// arguments, `@done` puts the key together, `@emit` writes everything out, and `@call`, or
/// [`__memoize_async!`], the function itself.
#[doc(hidden)]
#[macro_export]
macro_rules! __memoize {
    // ---- The functions. All in one step if all are in order, so that their number is not bounded
    // by the recursion limit; else one by one, to find the one that is not.
    // `async` stands beside the visibility. No lifetime ever comes after it, but a repetition has
    // to have a variable in it.
    (@items $(
        $(#[$($attr:tt)*])* $vis:vis $(async $($none:lifetime)?)? fn $name:ident ($($args:tt)*)
        $(-> $ret:ty)? $body:block
    )*) => {
        $($crate::__memoize! {
            @attrs [] [] [] [] [$(#[$($attr)*])*]
            [($vis $(async $($none)?)?) $name ($($args)*) ($($ret)?) $body]
        })*
    };
    (@items
        $(#[$($attr:tt)*])* $vis:vis $(async $($none:lifetime)?)? fn $name:ident ($($args:tt)*)
        $(-> $ret:ty)? $body:block
        $($rest:tt)+
    ) => {
        $crate::__memoize! {
            @attrs [] [] [] [] [$(#[$($attr)*])*]
            [($vis $(async $($none)?)?) $name ($($args)*) ($($ret)?) $body]
        }
        $crate::__memoize! { @items $($rest)+ }
    };
    (@items
        $(#[$($attr:tt)*])* $vis:vis $(async $($none:lifetime)?)? fn $name:ident
        < $lt:lifetime $($rest:tt)*
    ) => {
        $crate::__memoize! { @error $name
            "has a lifetime parameter: leave it out; an argument is written `&str`, `&[T]` or \
             `&T`, and the result has to be owned (or `&'static`)"
        }
    };
    (@items
        $(#[$($attr:tt)*])* $vis:vis $(async $($none:lifetime)?)? fn $name:ident < $($rest:tt)*
    ) => {
        $crate::__memoize! { @error $name
            "is generic: one static cache cannot hold the results of every type; \
             memoize a function for each concrete type and call that from the generic one"
        }
    };
    (@items
        $(#[$($attr:tt)*])* $vis:vis $(async $($none:lifetime)?)? fn $name:ident ($($args:tt)*)
        $(-> $ret:ty)? where $($rest:tt)*
    ) => {
        $crate::__memoize! { @error $name
            "has a `where` clause: a memoized function is not generic, so that there is nothing \
             to bound; leave it out"
        }
    };
    (@items
        $(#[$($attr:tt)*])* $vis:vis $(async $($none:lifetime)?)? fn $name:ident ($($args:tt)*)
        $(-> $ret:ty)? ; $($rest:tt)*
    ) => {
        $crate::__memoize! { @error $name "has no body to memoize" }
    };
    (@items $(#[$($attr:tt)*])* $vis:vis const fn $name:ident $($rest:tt)*) => {
        $crate::__memoize! { @error $name
            "is `const`: a cache is looked up at run time; leave `const` out, \
             or memoize a function that calls the const one"
        }
    };
    (@items
        $(#[$($attr:tt)*])* $vis:vis $(async $($none:lifetime)?)? unsafe $(extern $($abi:literal)?)? fn $name:ident
        $($rest:tt)*
    ) => {
        $crate::__memoize! { @error $name
            "is `unsafe`: memoize a safe function that calls the unsafe one and upholds what it \
             asks for"
        }
    };
    (@items $(#[$($attr:tt)*])* $vis:vis extern $($abi:literal)? fn $name:ident $($rest:tt)*) => {
        $crate::__memoize! { @error $name
            "is `extern`: memoize a plain function and call it from the extern one"
        }
    };
    (@items $($rest:tt)*) => {
        ::core::compile_error!(
            "memoize! takes functions and nothing else, each as \
             `#[memoize(..)] pub fn name(arg: Type, ..) -> Type { .. }` \
             with the `#[memoize(..)]` and the `pub` left out where they are not needed"
        );
    };

    // ---- The attributes: [of every item] [of the function] [of the body] [options] [those left]
    // [the function]. Documentation eight lines at a time, for the sake of the recursion limit.
    (@attrs $all:tt [$($func:tt)*] $body:tt $opts:tt [
        #[doc = $d0:tt] #[doc = $d1:tt] #[doc = $d2:tt] #[doc = $d3:tt]
        #[doc = $d4:tt] #[doc = $d5:tt] #[doc = $d6:tt] #[doc = $d7:tt]
        $($rest:tt)*
    ] $item:tt) => {
        $crate::__memoize! { @attrs $all [
            $($func)*
            #[doc = $d0] #[doc = $d1] #[doc = $d2] #[doc = $d3]
            #[doc = $d4] #[doc = $d5] #[doc = $d6] #[doc = $d7]
        ] $body $opts [$($rest)*] $item }
    };
    (@attrs $all:tt $func:tt $body:tt [$($opts:tt)*] [#[memoize] $($rest:tt)*] $item:tt) => {
        $crate::__memoize! { @attrs $all $func $body [$($opts)*] [$($rest)*] $item }
    };
    (@attrs $all:tt $func:tt $body:tt
        [$($opts:tt)*] [#[memoize($($opt:tt)*)] $($rest:tt)*] $item:tt
    ) => {
        $crate::__memoize! { @attrs $all $func $body [$($opts)* ($($opt)*)] [$($rest)*] $item }
    };
    (@attrs $all:tt $func:tt $body:tt $opts:tt
        [#[memoize $($opt:tt)*] $($rest:tt)*] [$vis:tt $name:ident $($item:tt)*]
    ) => {
        $crate::__memoize! { @error $name "has an option that is not written `#[memoize(..)]`" }
    };
    // Attributes that decide whether an item is there (or shown) at all go onto each item.
    (@attrs [$($all:tt)*] $func:tt $body:tt $opts:tt [#[cfg($($p:tt)*)] $($rest:tt)*] $item:tt) => {
        $crate::__memoize! { @attrs [$($all)* #[cfg($($p)*)]] $func $body $opts [$($rest)*] $item }
    };
    (@attrs [$($all:tt)*] $func:tt $body:tt $opts:tt [#[doc(hidden)] $($rest:tt)*] $item:tt) => {
        $crate::__memoize! { @attrs [$($all)* #[doc(hidden)]] $func $body $opts [$($rest)*] $item }
    };
    // Lint levels are for the body, too. An expectation is for the body alone, or it would have to
    // be met twice.
    (@attrs $all:tt $func:tt [$($body:tt)*]
        $opts:tt [#[expect($($p:tt)*)] $($rest:tt)*] $item:tt
    ) => {
        $crate::__memoize! {
            @attrs $all $func [$($body)* #[expect($($p)*)]] $opts [$($rest)*] $item
        }
    };
    (@attrs $all:tt $func:tt $body:tt $opts:tt [#[allow($($p:tt)*)] $($rest:tt)*] $item:tt) => {
        $crate::__memoize! {
            @attrs both $all $func $body $opts [#[allow($($p)*)]] [$($rest)*] $item
        }
    };
    (@attrs $all:tt $func:tt $body:tt $opts:tt [#[warn($($p:tt)*)] $($rest:tt)*] $item:tt) => {
        $crate::__memoize! {
            @attrs both $all $func $body $opts [#[warn($($p)*)]] [$($rest)*] $item
        }
    };
    (@attrs $all:tt $func:tt $body:tt $opts:tt [#[deny($($p:tt)*)] $($rest:tt)*] $item:tt) => {
        $crate::__memoize! {
            @attrs both $all $func $body $opts [#[deny($($p)*)]] [$($rest)*] $item
        }
    };
    (@attrs $all:tt $func:tt $body:tt $opts:tt [#[forbid($($p:tt)*)] $($rest:tt)*] $item:tt) => {
        $crate::__memoize! {
            @attrs both $all $func $body $opts [#[forbid($($p)*)]] [$($rest)*] $item
        }
    };
    (@attrs both $all:tt [$($func:tt)*] [$($body:tt)*]
        $opts:tt [$($attr:tt)*] $rest:tt $item:tt
    ) => {
        $crate::__memoize! {
            @attrs $all [$($func)* $($attr)*] [$($body)* $($attr)*] $opts $rest $item
        }
    };
    (@attrs $all:tt [$($func:tt)*] $body:tt $opts:tt [#[$($attr:tt)*] $($rest:tt)*] $item:tt) => {
        $crate::__memoize! { @attrs $all [$($func)* #[$($attr)*]] $body $opts [$($rest)*] $item }
    };
    (@attrs $all:tt $func:tt $body:tt $opts:tt []
        [$vis:tt $name:ident $args:tt () $block:block]
    ) => {
        $crate::__memoize! {
            @opts [Outcome] [] [] [] [] [] $opts [$all $func $body $vis $name $args [[] ()] $block]
        }
    };
    (@attrs $all:tt $func:tt $body:tt $opts:tt []
        [$vis:tt $name:ident $args:tt ($ret:ty) $block:block]
    ) => {
        $crate::__memoize! {
            @opts [Outcome] [] [] [] [] [] $opts [$all $func $body $vis $name $args [[-> $ret] $ret] $block]
        }
    };

    // ---- The options: [type that tells an error from a value] [ttl] [clock] [bound] [key] [skip]
    // [those still to be read] [the function].
    (@opts $err:tt $ttl:tt $clock:tt $bound:tt $key:tt $skip:tt [() $($opts:tt)*] $item:tt) => {
        $crate::__memoize! { @opts $err $ttl $clock $bound $key $skip [$($opts)*] $item }
    };
    (@opts $err:tt [] $clock:tt $bound:tt $key:tt $skip:tt [
        (ttl = $ttl:expr $(, $($opt:tt)*)?) $($opts:tt)*
    ] $item:tt) => {
        $crate::__memoize! { @opts $err [$ttl] $clock $bound $key $skip [($($($opt)*)?) $($opts)*] $item }
    };
    (@opts $err:tt $ttl:tt [] $bound:tt $key:tt $skip:tt [
        (clock = $clock:expr $(, $($opt:tt)*)?) $($opts:tt)*
    ] $item:tt) => {
        $crate::__memoize! { @opts $err $ttl [$clock] $bound $key $skip [($($($opt)*)?) $($opts)*] $item }
    };
    (@opts $err:tt $ttl:tt $clock:tt [] $key:tt $skip:tt [
        (max_capacity = $capacity:expr $(, $($opt:tt)*)?) $($opts:tt)*
    ] $item:tt) => {
        $crate::__memoize! {
            @opts $err $ttl $clock [max_capacity $capacity] $key $skip [($($($opt)*)?) $($opts)*] $item
        }
    };
    (@opts $err:tt $ttl:tt $clock:tt [] $key:tt $skip:tt [
        (max_bytes = $bytes:expr $(, $($opt:tt)*)?) $($opts:tt)*
    ] $item:tt) => {
        $crate::__memoize! {
            @opts $err $ttl $clock [max_bytes $bytes] $key $skip [($($($opt)*)?) $($opts)*] $item
        }
    };
    (@opts $err:tt $ttl:tt $clock:tt $bound:tt [] $skip:tt [
        (key = $key:expr $(, $($opt:tt)*)?) $($opts:tt)*
    ] $item:tt) => {
        $crate::__memoize! { @opts $err $ttl $clock $bound [$key] $skip [($($($opt)*)?) $($opts)*] $item }
    };
    (@opts $err:tt $ttl:tt $clock:tt $bound:tt $key:tt [$($skip:ident)*] [
        (skip($($more:ident),* $(,)?) $(, $($opt:tt)*)?) $($opts:tt)*
    ] $item:tt) => {
        $crate::__memoize! {
            @opts $err $ttl $clock $bound $key [$($skip)* $($more)*] [($($($opt)*)?) $($opts)*] $item
        }
    };
    (@opts [Outcome] $ttl:tt $clock:tt $bound:tt $key:tt $skip:tt [
        (cache_err $(, $($opt:tt)*)?) $($opts:tt)*
    ] $item:tt) => {
        $crate::__memoize! {
            @opts [KeptErrors] $ttl $clock $bound $key $skip [($($($opt)*)?) $($opts)*] $item
        }
    };
    (@opts [KeptErrors] $ttl:tt $clock:tt $bound:tt $key:tt $skip:tt [
        (cache_err $(, $($opt:tt)*)?) $($opts:tt)*
    ] [$all:tt $func:tt $battr:tt $vis:tt $name:ident $($item:tt)*]) => {
        $crate::__memoize! { @error $name "has the option `cache_err` twice" }
    };
    (@opts $err:tt [$old:expr] $clock:tt $bound:tt $key:tt $skip:tt [(ttl = $($opt:tt)*) $($opts:tt)*]
        [$all:tt $func:tt $battr:tt $vis:tt $name:ident $($item:tt)*]
    ) => {
        $crate::__memoize! { @error $name "has the option `ttl` twice" }
    };
    (@opts $err:tt $ttl:tt [$old:expr] $bound:tt $key:tt $skip:tt [(clock = $($opt:tt)*) $($opts:tt)*]
        [$all:tt $func:tt $battr:tt $vis:tt $name:ident $($item:tt)*]
    ) => {
        $crate::__memoize! { @error $name "has the option `clock` twice" }
    };
    (@opts $err:tt $ttl:tt $clock:tt [max_capacity $old:expr] $key:tt $skip:tt
        [(max_capacity = $($opt:tt)*) $($opts:tt)*]
        [$all:tt $func:tt $battr:tt $vis:tt $name:ident $($item:tt)*]
    ) => {
        $crate::__memoize! { @error $name "has the option `max_capacity` twice" }
    };
    (@opts $err:tt $ttl:tt $clock:tt [max_bytes $old:expr] $key:tt $skip:tt
        [(max_bytes = $($opt:tt)*) $($opts:tt)*]
        [$all:tt $func:tt $battr:tt $vis:tt $name:ident $($item:tt)*]
    ) => {
        $crate::__memoize! { @error $name "has the option `max_bytes` twice" }
    };
    (@opts $err:tt $ttl:tt $clock:tt [max_bytes $old:expr] $key:tt $skip:tt
        [(max_capacity = $($opt:tt)*) $($opts:tt)*] $item:tt
    ) => {
        $crate::__memoize! { @bounds $item }
    };
    (@opts $err:tt $ttl:tt $clock:tt [max_capacity $old:expr] $key:tt $skip:tt
        [(max_bytes = $($opt:tt)*) $($opts:tt)*] $item:tt
    ) => {
        $crate::__memoize! { @bounds $item }
    };
    (@opts $err:tt $ttl:tt $clock:tt $bound:tt [$old:expr] $skip:tt [(key = $($opt:tt)*) $($opts:tt)*]
        [$all:tt $func:tt $battr:tt $vis:tt $name:ident $($item:tt)*]
    ) => {
        $crate::__memoize! { @error $name "has the option `key` twice" }
    };
    (@opts $err:tt $ttl:tt $clock:tt $bound:tt $key:tt $skip:tt [(ttl $($opt:tt)*) $($opts:tt)*]
        [$all:tt $func:tt $battr:tt $vis:tt $name:ident $($item:tt)*]
    ) => {
        $crate::__memoize! { @error $name
            "has the option `ttl` in a form that is not `ttl = expression`"
        }
    };
    (@opts $err:tt $ttl:tt $clock:tt $bound:tt $key:tt $skip:tt [(clock $($opt:tt)*) $($opts:tt)*]
        [$all:tt $func:tt $battr:tt $vis:tt $name:ident $($item:tt)*]
    ) => {
        $crate::__memoize! { @error $name
            "has the option `clock` in a form that is not `clock = expression`"
        }
    };
    (@opts $err:tt $ttl:tt $clock:tt $bound:tt $key:tt $skip:tt [(max_capacity $($opt:tt)*) $($opts:tt)*]
        [$all:tt $func:tt $battr:tt $vis:tt $name:ident $($item:tt)*]
    ) => {
        $crate::__memoize! { @error $name
            "has the option `max_capacity` in a form that is not `max_capacity = expression`"
        }
    };
    (@opts $err:tt $ttl:tt $clock:tt $bound:tt $key:tt $skip:tt [(max_bytes $($opt:tt)*) $($opts:tt)*]
        [$all:tt $func:tt $battr:tt $vis:tt $name:ident $($item:tt)*]
    ) => {
        $crate::__memoize! { @error $name
            "has the option `max_bytes` in a form that is not `max_bytes = expression`"
        }
    };
    (@opts $err:tt $ttl:tt $clock:tt $bound:tt $key:tt $skip:tt [(key $($opt:tt)*) $($opts:tt)*]
        [$all:tt $func:tt $battr:tt $vis:tt $name:ident $($item:tt)*]
    ) => {
        $crate::__memoize! { @error $name
            "has the option `key` in a form that is not `key = expression`"
        }
    };
    (@opts $err:tt $ttl:tt $clock:tt $bound:tt $key:tt $skip:tt [(skip $($opt:tt)*) $($opts:tt)*]
        [$all:tt $func:tt $battr:tt $vis:tt $name:ident $($item:tt)*]
    ) => {
        $crate::__memoize! { @error $name
            "has the option `skip` in a form that is not `skip(argument, ..)`, with plain names of \
             arguments"
        }
    };
    (@opts $err:tt $ttl:tt $clock:tt $bound:tt $key:tt $skip:tt [(cache_err $($opt:tt)*) $($opts:tt)*]
        [$all:tt $func:tt $battr:tt $vis:tt $name:ident $($item:tt)*]
    ) => {
        $crate::__memoize! { @error $name
            "has the option `cache_err` in a form that is not `cache_err`: it takes nothing"
        }
    };
    (@opts $err:tt $ttl:tt $clock:tt $bound:tt $key:tt $skip:tt [($unknown:tt $($opt:tt)*) $($opts:tt)*]
        [$all:tt $func:tt $battr:tt $vis:tt $name:ident $($item:tt)*]
    ) => {
        ::core::compile_error!(::core::concat!(
            "memoize!: `", ::core::stringify!($name), "` has the unknown option `",
            ::core::stringify!($unknown),
            "`; the options are `ttl = expression`, `clock = expression`, \
             `max_capacity = expression`, `max_bytes = expression`, `key = expression`, \
             `skip(argument, ..)` and `cache_err`",
        ));
    };
    (@opts $err:tt $ttl:tt $clock:tt $bound:tt $key:tt [$($skip:ident)*] []
        [$all:tt $func:tt $battr:tt $vis:tt $name:ident $args:tt $ret:tt $body:block]
    ) => {
        $crate::__memoize! {
            @start ($) $key [$($skip)*] $args
            [$all $func $battr $vis $name $ret $body $ttl $clock $bound [$($skip)*] $err]
        }
    };

    // ---- A receiver. Refused before any item is written that an `impl` block could not have.
    (@start $d:tt $key:tt $skip:tt (self $($rest:tt)*) $item:tt) => {
        $crate::__memoize! { @receiver $item }
    };
    (@start $d:tt $key:tt $skip:tt (mut self $($rest:tt)*) $item:tt) => {
        $crate::__memoize! { @receiver $item }
    };
    (@start $d:tt $key:tt $skip:tt (& $($lt:lifetime)? self $($rest:tt)*) $item:tt) => {
        $crate::__memoize! { @receiver $item }
    };
    (@start $d:tt $key:tt $skip:tt (& $($lt:lifetime)? mut self $($rest:tt)*) $item:tt) => {
        $crate::__memoize! { @receiver $item }
    };

    // ---- The arguments. Only a macro that has the names of `skip` in its patterns can tell those
    // arguments apart. Its own name is hygienic and passed along, so no other code sees it.
    (@start ($d:tt) $key:tt [] $args:tt $item:tt) => {
        $crate::__memoize! { @args $key [] [[] [] [] [] [] []] $args $item }
    };
    (@start ($d:tt) $key:tt [$($skip:ident)+] $args:tt $item:tt) => {
        macro_rules! memoize_skips {
            $(($skip $d($d state:tt)*) => { $crate::__memoize! { @push skip $d($d state)* } };)+
            ($d arg:ident $d($d state:tt)*) => { $crate::__memoize! { @push keep $d($d state)* } };
        }
        $crate::__memoize! { @args $key [memoize_skips] [[] [] [] [] [] []] $args $item }
    };
    // [key] [macro for skips] [[arguments of the function] [of its look-ups] [of its body] [types
    // of key and query] [the query] [arguments of the call of the body]] (those left) [function]
    (@args $key:tt $skips:tt $acc:tt () $item:tt) => {
        $crate::__memoize! { @done $key $acc $item }
    };
    // Hygiene makes a name of its own of each `arg`.
    (@args $key:tt $skips:tt $acc:tt (_ : $($rest:tt)*) $item:tt) => {
        $crate::__memoize! { @type ($($rest)*) [arg] [_] $key $skips $acc $item }
    };
    (@args $key:tt $skips:tt $acc:tt (($($pat:tt)*) : $($rest:tt)*) $item:tt) => {
        $crate::__memoize! { @pattern $item }
    };
    (@args $key:tt $skips:tt $acc:tt ([$($pat:tt)*] : $($rest:tt)*) $item:tt) => {
        $crate::__memoize! { @pattern $item }
    };
    // As a token and not as an `ident`, so that lints find it where it was written.
    (@args $key:tt $skips:tt $acc:tt (mut $arg:tt : $($rest:tt)*) $item:tt) => {
        $crate::__memoize! { @type ($($rest)*) [$arg] [mut $arg] $key $skips $acc $item }
    };
    (@args $key:tt $skips:tt $acc:tt ($arg:tt : $($rest:tt)*) $item:tt) => {
        $crate::__memoize! { @type ($($rest)*) [$arg] [$arg] $key $skips $acc $item }
    };
    (@args $key:tt $skips:tt $acc:tt $args:tt $item:tt) => {
        $crate::__memoize! { @pattern $item }
    };

    (@type (& $($lt:lifetime)? mut $($rest:tt)*) [$arg:tt] $($state:tt)*) => {
        $crate::__memoize! { @refuse $arg
            "is a `&mut` reference: a hit would not change what it refers to; \
             return the change, or memoize the part of the function that computes it"
            $($state)*
        }
    };
    (@type ($(&)? impl $($rest:tt)*) [$arg:tt] $($state:tt)*) => {
        $crate::__memoize! { @refuse $arg
            "is `impl Trait`: a memoized function is not generic; name a concrete type" $($state)*
        }
    };
    (@type (&& $($rest:tt)*) [$arg:tt] $($state:tt)*) => {
        $crate::__memoize! { @refuse $arg
            "is a reference to a reference: take the inner one" $($state)*
        }
    };
    (@type (& 'static $ty:ty $(, $($rest:tt)*)?) $($state:tt)*) => {
        $crate::__memoize! { @push ask value [&'static $ty] ($($($rest)*)?) $($state)* }
    };
    (@type (& '_ $ty:ty $(, $($rest:tt)*)?) $($state:tt)*) => {
        $crate::__memoize! { @push ask reference [$ty] ($($($rest)*)?) $($state)* }
    };
    (@type (& $lt:lifetime $($rest:tt)*) [$arg:tt] $($state:tt)*) => {
        $crate::__memoize! { @refuse $arg
            "has a named lifetime: write the reference without one" $($state)*
        }
    };
    (@type (& $ty:ty $(, $($rest:tt)*)?) $($state:tt)*) => {
        $crate::__memoize! { @push ask reference [$ty] ($($($rest)*)?) $($state)* }
    };
    (@type ($ty:ty $(, $($rest:tt)*)?) $($state:tt)*) => {
        $crate::__memoize! { @push ask value [$ty] ($($($rest)*)?) $($state)* }
    };
    (@refuse $arg:tt $what:literal
        $pat:tt $key:tt $skips:tt $acc:tt
        [$all:tt $func:tt $battr:tt $vis:tt $name:ident $($item:tt)*]
    ) => {
        ::core::compile_error!(::core::concat!(
            "memoize!: the argument `", ::core::stringify!($arg),
            "` of `", ::core::stringify!($name), "` ", $what,
        ));
    };

    (@push ask $kind:tt $ty:tt $rest:tt [$arg:tt] $pat:tt $key:tt [$skips:ident] $($state:tt)*) => {
        $skips! { $arg $kind $ty $rest [$arg] $pat $key [$skips] $($state)* }
    };
    // Handed through to the body.
    (@push skip value [$ty:ty] $rest:tt [$arg:tt] [$($pat:tt)*] $key:tt $skips:tt
        [[$($sig:tt)*] $look:tt [$($inner:tt)*] $types:tt $query:tt [$($call:tt)*]] $item:tt
    ) => {
        $crate::__memoize! { @args $key $skips
            [
                [$($sig)* $arg: $ty,] $look [$($inner)* $($pat)*: $ty,]
                $types $query [$($call)* $arg,]
            ]
            $rest $item
        }
    };
    (@push skip reference [$ty:ty] $rest:tt [$arg:tt] [$($pat:tt)*] $key:tt $skips:tt
        [[$($sig:tt)*] $look:tt [$($inner:tt)*] $types:tt $query:tt [$($call:tt)*]] $item:tt
    ) => {
        $crate::__memoize! { @args $key $skips
            [
                [$($sig)* $arg: &$ty,] $look [$($inner)* $($pat)*: &$ty,]
                $types $query [$($call)* $arg,]
            ]
            $rest $item
        }
    };
    // Part of the key.
    (@push $keep:ident value [$ty:ty] $rest:tt [$arg:tt] [$($pat:tt)*] [] $skips:tt
        [
            [$($sig:tt)*] [$($look:tt)*] [$($inner:tt)*]
            [$($types:tt)*] [$($query:tt)*] [$($call:tt)*]
        ] $item:tt
    ) => {
        $crate::__memoize! { @args [] $skips
            [
                [$($sig)* $arg: $ty,] [$($look)* $arg: $ty,] [$($inner)* $($pat)*: $ty,]
                [$($types)* ($ty) (&$ty)] [$($query)* &$arg,]
                [$($call)* ::core::clone::Clone::clone(&$arg),]
            ]
            $rest $item
        }
    };
    (@push $keep:ident reference [$ty:ty] $rest:tt [$arg:tt] [$($pat:tt)*] [] $skips:tt
        [
            [$($sig:tt)*] [$($look:tt)*] [$($inner:tt)*]
            [$($types:tt)*] [$($query:tt)*] [$($call:tt)*]
        ] $item:tt
    ) => {
        $crate::__memoize! { @args [] $skips
            [
                [$($sig)* $arg: &$ty,] [$($look)* $arg: &$ty,] [$($inner)* $($pat)*: &$ty,]
                [$($types)* (<$ty as $crate::__memoize::ToOwned>::Owned) (&$ty)]
                [$($query)* $arg,] [$($call)* $arg,]
            ]
            $rest $item
        }
    };
    // With `key = ..` the expression makes the key.
    (@push $keep:ident value [$ty:ty] $rest:tt [$arg:tt] [$($pat:tt)*] $key:tt $skips:tt
        [
            [$($sig:tt)*] [$($look:tt)*] [$($inner:tt)*] $types:tt $query:tt [$($call:tt)*]
        ] $item:tt
    ) => {
        $crate::__memoize! { @args $key $skips
            [
                [$($sig)* $arg: $ty,] [$($look)* $arg: $ty,] [$($inner)* $($pat)*: $ty,]
                $types $query [$($call)* $arg,]
            ]
            $rest $item
        }
    };
    (@push $keep:ident reference [$ty:ty] $rest:tt [$arg:tt] [$($pat:tt)*] $key:tt $skips:tt
        [
            [$($sig:tt)*] [$($look:tt)*] [$($inner:tt)*] $types:tt $query:tt [$($call:tt)*]
        ] $item:tt
    ) => {
        $crate::__memoize! { @args $key $skips
            [
                [$($sig)* $arg: &$ty,] [$($look)* $arg: &$ty,] [$($inner)* $($pat)*: &$ty,]
                $types $query [$($call)* $arg,]
            ]
            $rest $item
        }
    };

    // ---- Key and query are known.
    (@done []
        [
            $sig:tt $look:tt $inner:tt
            [
                $k0:tt $r0:tt $k1:tt $r1:tt $k2:tt $r2:tt $k3:tt $r3:tt $k4:tt $r4:tt
                $k5:tt $r5:tt $k6:tt $r6:tt $k7:tt $r7:tt $k8:tt $r8:tt $k9:tt $r9:tt
                $k10:tt $r10:tt $k11:tt $r11:tt $k12:tt $($more:tt)*
            ]
            $query:tt $call:tt
        ]
        [$all:tt $func:tt $battr:tt $vis:tt $name:ident $($item:tt)*]
    ) => {
        $crate::__memoize! { @error $name
            "has more than twelve arguments in its key: put some into a struct, \
             leave some out with `skip(..)`, or say what to look up with `key = expression`"
        }
    };
    (@done []
        [$sig:tt $look:tt $inner:tt [$(($key:ty) ($ref:ty))*] [$($query:tt)*] $call:tt] $item:tt
    ) => {
        $crate::__memoize! { @same [($($key,)*)]
            [$crate::__memoize::Args<($($ref,)*)>]
            [$crate::__memoize::Args(($($query)*))]
            $sig $look $inner $call $item
        }
    };
    // The very same tokens, so that an error in them is one error.
    (@same $key:tt [$lookup:ty] $($state:tt)*) => {
        $crate::__memoize! { @emit $key [$lookup] [$lookup] $($state)* }
    };
    (@done [$key:expr] [$sig:tt $look:tt $inner:tt [] [] $call:tt]
        [
            $all:tt $func:tt $battr:tt $vis:tt $name:ident $ret:tt $body:block
            $ttl:tt $clock:tt [max_bytes $bytes:expr] $skip:tt $err:tt
        ]
    ) => {
        $crate::__memoize! { @emit [$crate::__memoize::WeighedKey]
            [$crate::__memoize::AnyKeyRef<'_, _>]
            [$crate::__memoize::AnyKeyRef<'_, ()>]
            [$crate::__memoize::AnyKeyRef::new(&$key)]
            $sig $look $inner $call
            [$all $func $battr $vis $name $ret $body $ttl $clock [max_bytes $bytes] $skip $err]
        }
    };
    (@done [$key:expr] [$sig:tt $look:tt $inner:tt [] [] $call:tt] $item:tt) => {
        $crate::__memoize! { @emit [$crate::__memoize::AnyKey]
            [$crate::__memoize::AnyKeyRef<'_, _>]
            [$crate::__memoize::AnyKeyRef<'_, ()>]
            [$crate::__memoize::AnyKeyRef::new(&$key)]
            $sig $look $inner $call $item
        }
    };

    // ---- The items.
    (@emit [$key:ty] [$lookup:ty] [$any:ty] [$query:expr]
        [$($sig:tt)*] [$($look:tt)*] [$($inner:tt)*] [$($call:tt)*]
        [
            [$($all:tt)*] [$($func:tt)*] [$($battr:tt)*]
            ($vis:vis $($async:ident)?) $name:ident [[$($arrow:tt)*] $value:ty] $body:block
            [$($ttl:expr)?] [$($clock:expr)?] $bound:tt [$($skip:ident)*] [$err:ident]
        ]
    ) => {
        $($all)*
        #[doc = ::core::concat!(
            "The companions of the memoized function `", ::core::stringify!($name),
            "`: its cache, and the function without it."
        )]
        #[allow(
            dead_code, non_camel_case_types,
            missing_copy_implementations, missing_debug_implementations,
            clippy::all, clippy::pedantic, clippy::nursery, clippy::restriction
        )]
        $vis enum $name {}

        $($all)*
        #[allow(
            dead_code, unused_variables, unused_qualifications, unused_results,
            clippy::all, clippy::pedantic, clippy::nursery, clippy::restriction
        )]
        impl $name {
            /// Returns the cache: one for the whole program, made at the first call.
            #[must_use]
            #[inline]
            $vis fn cache() -> &'static $crate::Cache<$key, $value> {
                // Refused where there are no errors to keep, and where one cannot be shared.
                const _: () = $crate::__memoize::$err::<$value>::allowed();
                const _: fn() = || {
                    #[allow(unused_imports)]
                    use $crate::__memoize::{CannotBeShared as _, Whole as _};
                    $crate::__memoize::shared(
                        $crate::__memoize::Outcome::<$value>::error().can_be_shared()
                    );
                };
                static MEMOIZE_CACHE: $crate::__memoize::LazyLock<$crate::Cache<$key, $value>> =
                    $crate::__memoize::LazyLock::new(|| {
                        let name = ::core::concat!(
                            ::core::module_path!(), "::", ::core::stringify!($name)
                        );
                        let options =
                            $crate::__memoize::Options::new(name)$(.ttl($ttl))?$(.clock($clock))?;
                        $crate::__memoize! { @build $bound options [$any] [$key] [$value] }
                    });
                &MEMOIZE_CACHE
            }

            /// Returns the value of these arguments if the cache has it; neither computes it nor
            /// waits for it.
            #[must_use]
            $vis fn peek($($look)*) -> ::core::option::Option<$value> {
                <$lookup as $crate::__memoize::Lookup<$key, $value>>::peek(&$query, $name::cache())
            }

            /// Returns whether the cache has a value of these arguments.
            #[must_use]
            $vis fn contains($($look)*) -> ::core::primitive::bool {
                <$lookup as $crate::__memoize::Lookup<$key, $value>>::contains(
                    &$query, $name::cache(),
                )
            }

            /// Puts the value of these arguments in, in place of any older one: an insert. To have
            /// the newer of two values stay, use `refresh`.
            $vis fn prime($($look)* value: $value) {
                <$lookup as $crate::__memoize::Lookup<$key, $value>>::insert(
                    &$query, $name::cache(), value,
                );
            }

            /// Drops the value of these arguments, so that the next call computes it anew, and
            /// waits for a run in progress. Returns whether there was a value. `invalidate_nowait`
            /// never waits.
            $vis fn invalidate($($look)*) -> ::core::primitive::bool {
                <$lookup as $crate::__memoize::Lookup<$key, $value>>::invalidate(
                    &$query, $name::cache(),
                )
            }

            /// Drops the value of these arguments and never waits: a run in progress is detached.
            /// Returns whether there was a value. `invalidate` waits.
            $vis fn invalidate_nowait($($look)*) -> ::core::primitive::bool {
                <$lookup as $crate::__memoize::Lookup<$key, $value>>::invalidate_nowait(
                    &$query, $name::cache(),
                )
            }

            /// Drops every value, and waits for runs in progress. `invalidate_all_nowait` never
            /// waits.
            $vis fn invalidate_all() {
                <$any as $crate::__memoize::Lookup<$key, $value>>::invalidate_all($name::cache());
            }

            /// Drops every value and never waits: runs in progress are detached. `invalidate_all`
            /// waits.
            $vis fn invalidate_all_nowait() {
                <$any as $crate::__memoize::Lookup<$key, $value>>::invalidate_all_nowait(
                    $name::cache(),
                );
            }

            /// Returns the counts of the cache.
            #[must_use]
            $vis fn stats() -> $crate::CacheStats {
                <$any as $crate::__memoize::Lookup<$key, $value>>::stats($name::cache())
            }
        }

        $crate::__memoize! { @call $($async)? [$key] [$value] [$lookup] [$any] [$query]
            [$($sig)*] [$($look)*] [$($inner)*] [$($call)*]
            [$($all)*] [$($func)*] [$($battr)*] ($vis) $name [$($arrow)*] $body [$($skip)*] $err
        }
    };

    // The function itself, with its body and without.
    (@call [$key:ty] [$value:ty] [$lookup:ty] $any:tt [$query:expr]
        [$($sig:tt)*] $look:tt [$($inner:tt)*] [$($call:tt)*]
        [$($all:tt)*] [$($func:tt)*] [$($battr:tt)*]
        ($vis:vis) $name:ident [$($arrow:tt)*] $body:block [$($skip:ident)*] $err:ident
    ) => {
        $($all)*
        #[allow(
            dead_code, clippy::multiple_inherent_impl, clippy::must_use_candidate,
            clippy::missing_errors_doc, clippy::missing_panics_doc
        )]
        impl $name {
            /// Runs the function itself: computes the value without asking the cache or telling it.
            /// Functions that it calls by name are memoized, its own name included.
            $($battr)*
            $vis fn uncached($($inner)*) $($arrow)* $body
        }

        $($all)*
        #[allow(
            dead_code, unused_variables, unused_qualifications, unused_results,
            clippy::all, clippy::pedantic, clippy::nursery, clippy::restriction
        )]
        impl $name {
            /// Computes the value of these arguments anew, and puts it in place of the old one,
            /// which other calls get meanwhile. If a run of these arguments is in progress, waits
            /// for that one and takes its value.
            $vis fn refresh($($sig)*) $($arrow)* {
                #[allow(unused_imports)]
                use $crate::__memoize::Whole as _;
                <$lookup as $crate::__memoize::Lookup<$key, $value>>::ask(
                    &$query,
                    $name::cache(),
                    true,
                    || $crate::__memoize::$err::<$value>::of($name::uncached($($call)*)),
                )
            }
        }

        $($all)*
        // Lints of the signature are reported for the body's.
        #[allow(clippy::all, clippy::pedantic, clippy::nursery, clippy::restriction)]
        $($func)*
        $vis fn $name($($sig)*) $($arrow)* {
            #[allow(unused_imports)]
            use $crate::__memoize::Whole as _;
            $(let _ = &$skip;)*
            <$lookup as $crate::__memoize::Lookup<$key, $value>>::ask(
                &$query,
                $name::cache(),
                false,
                || $crate::__memoize::$err::<$value>::of($name::uncached($($call)*)),
            )
        }
    };
    (@call async $key:tt $value:tt $lookup:tt $any:tt $query:tt [$($sig:tt)*] $($state:tt)*) => {
        $crate::__memoize_async! { @owned [] [] [] [] ($($sig)*)
            $key $value $lookup $any $query [$($sig)*] $($state)*
        }
    };

    // The cache, with its bound.
    (@build [] $options:ident [$any:ty] [$key:ty] [$value:ty]) => {
        <$any as $crate::__memoize::Lookup<$key, $value>>::build($options)
    };
    (@build [max_capacity $capacity:expr] $options:ident [$any:ty] [$key:ty] [$value:ty]) => {
        <$any as $crate::__memoize::Lookup<$key, $value>>::build($options.max_capacity($capacity))
    };
    (@build [max_bytes $bytes:expr] $options:ident [$any:ty] [$key:ty] [$value:ty]) => {
        $crate::__memoize::build_in_bytes::<$any, $key, $value>($options, $bytes)
    };

    // ---- Inputs that are refused.
    (@bounds [$all:tt $func:tt $battr:tt $vis:tt $name:ident $($item:tt)*]) => {
        $crate::__memoize! { @error $name
            "has both `max_capacity` and `max_bytes`: a cache has one bound, in entries or in bytes; \
             leave one of them out"
        }
    };
    (@receiver [$all:tt $func:tt $battr:tt $vis:tt $name:ident $($item:tt)*]) => {
        $crate::__memoize! { @error $name
            "takes `self`: memoize a free function outside of the `impl`, \
             with what it needs of `self` as arguments, and call it from the method"
        }
    };
    (@pattern [$all:tt $func:tt $battr:tt $vis:tt $name:ident $($item:tt)*]) => {
        $crate::__memoize! { @error $name
            "has an argument that is not `name: Type` or `mut name: Type`: \
             give it a name, and take it apart in the body"
        }
    };
    (@error $name:ident $what:literal) => {
        ::core::compile_error!(::core::concat!(
            "memoize!: `", ::core::stringify!($name), "` ", $what,
        ));
    };
}

/// The rules for an `async fn`. The run outlives the call, so it has clones of the arguments:
/// `@owned` says [how it takes them] [how they are made] [how the body gets them] [their names].
#[cfg(feature = "async")]
#[doc(hidden)]
#[macro_export]
macro_rules! __memoize_async {
    (@owned [$($run:tt)*] [$($own:tt)*] [$($lend:tt)*] [$($pass:tt)*]
        ($arg:tt : & $ty:ty, $($rest:tt)*) $($state:tt)*
    ) => {
        $crate::__memoize_async! { @owned
            [$($run)* $arg: <$ty as $crate::__memoize::ToOwned>::Owned,]
            [$($own)* <$ty as $crate::__memoize::ToOwned>::to_owned($arg),]
            [$($lend)* $crate::__memoize::lend::<$ty>(&$arg),]
            [$($pass)* $arg,]
            ($($rest)*) $($state)*
        }
    };
    (@owned [$($run:tt)*] [$($own:tt)*] [$($lend:tt)*] [$($pass:tt)*]
        ($arg:tt : $ty:ty, $($rest:tt)*) $($state:tt)*
    ) => {
        $crate::__memoize_async! { @owned
            [$($run)* $arg: $ty,]
            [$($own)* <$ty as ::core::clone::Clone>::clone(&$arg),]
            [$($lend)* $arg,]
            [$($pass)* $arg,]
            ($($rest)*) $($state)*
        }
    };
    (@owned [$($run:tt)*] [$($own:tt)*] [$($lend:tt)*] [$($pass:tt)*] ()
        [$key:ty] [$value:ty] [$lookup:ty] [$any:ty] [$query:expr]
        [$($sig:tt)*] [$($look:tt)*] [$($inner:tt)*] $call:tt
        [$($all:tt)*] [$($func:tt)*] [$($battr:tt)*]
        ($vis:vis) $name:ident [$($arrow:tt)*] $body:block [$($skip:ident)*] $err:ident
    ) => {
        $($all)*
        #[allow(
            dead_code, unused_variables, unused_qualifications, unused_results,
            clippy::all, clippy::pedantic, clippy::nursery, clippy::restriction
        )]
        impl $name {
            /// Drops the value of these arguments, and waits for a run in progress without blocking
            /// the thread. Returns whether there was a value.
            $vis async fn invalidate_async($($look)*) -> ::core::primitive::bool {
                <$lookup as $crate::__memoize::Lookup<$key, $value>>::invalidate_async(
                    &$query, $name::cache(),
                ).await
            }

            /// Drops every value, and waits for runs in progress without blocking the thread.
            $vis async fn invalidate_all_async() {
                <$any as $crate::__memoize::Lookup<$key, $value>>::invalidate_all_async(
                    $name::cache(),
                ).await
            }

            /// Computes the value of these arguments anew, and puts it in place of the old one,
            /// which other calls get meanwhile. If a run of these arguments is in progress, waits
            /// for that one and takes its value.
            $vis fn refresh($($sig)*)
                -> impl ::core::future::Future<Output = $value> + ::core::marker::Send
            {
                $name::memoize_ask(true, $($pass)*)
            }

            fn memoize_ask(memoize_anew: ::core::primitive::bool, $($sig)*)
                -> impl ::core::future::Future<Output = $value> + ::core::marker::Send
            {
                #[allow(unused_imports)]
                use $crate::__memoize::Whole as _;
                // A function, for the sake of the compiler's message about a future that is not
                // `Send`.
                async fn memoize_run($($run)*) $($arrow)* {
                    $name::uncached($($lend)*).await
                }
                async move {
                    $(let _ = &$skip;)*
                    <$lookup as $crate::__memoize::Lookup<$key, $value>>::ask_async(
                        &$query,
                        $name::cache(),
                        memoize_anew,
                        || $crate::__memoize::run(
                            memoize_run($($own)*), $crate::__memoize::$err::<$value>::of,
                        ),
                    ).await
                }
            }
        }

        $($all)*
        #[allow(
            dead_code, clippy::multiple_inherent_impl, clippy::must_use_candidate,
            clippy::missing_errors_doc, clippy::missing_panics_doc
        )]
        impl $name {
            /// Runs the function itself: computes the value without asking the cache or telling it.
            /// Functions that it calls by name are memoized, its own name included.
            $($battr)*
            $vis async fn uncached($($inner)*) $($arrow)* $body
        }

        $($all)*
        // Lints of the signature are reported for the body's.
        #[allow(clippy::all, clippy::pedantic, clippy::nursery, clippy::restriction)]
        $($func)*
        // Not an `async fn`: one that calls itself is `Send` only if it says so.
        $vis fn $name($($sig)*)
            -> impl ::core::future::Future<Output = $value> + ::core::marker::Send
        {
            $name::memoize_ask(false, $($pass)*)
        }
    };
}

/// Without the feature the crate cannot wait for an `async fn`.
#[cfg(not(feature = "async"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __memoize_async {
    (@owned $run:tt $own:tt $lend:tt $pass:tt $args:tt
        $key:tt $value:tt $lookup:tt $any:tt $query:tt $sig:tt $look:tt $inner:tt $call:tt
        $all:tt $func:tt $battr:tt $vis:tt $name:ident $($state:tt)*
    ) => {
        $crate::__memoize! { @error $name
            "is `async`, which needs the feature `async` of atomic-cache"
        }
    };
}

/// The items that the macro's expansion names.
#[doc(hidden)]
pub mod __memoize {
    use std::any::Any;
    use std::borrow::Borrow;
    use std::fmt;
    use std::hash::{Hash, Hasher};
    use std::marker::PhantomData;
    use std::time::Duration;

    use crate::blocking::verbs;
    use crate::core::Aim;
    use crate::{
        Builder, ByteSize, Cache, CacheStats, Clock, Equivalent, ToKey, TryGetError, Weigh,
    };

    pub use std::borrow::ToOwned;
    pub use std::sync::LazyLock;

    /// The settings of one function's cache.
    #[derive(Debug)]
    pub struct Options {
        name: &'static str,
        ttl: Option<Duration>,
        clock: Option<Clock>,
        max_capacity: Option<u64>,
    }

    impl Options {
        #[must_use]
        pub fn new(name: &'static str) -> Self {
            Options {
                name,
                ttl: None,
                clock: None,
                max_capacity: None,
            }
        }

        /// Sets the TTL. Also takes an `Option`, so that a program can decide when it starts.
        #[must_use]
        pub fn ttl(mut self, ttl: impl Into<Option<Duration>>) -> Self {
            self.ttl = ttl.into();
            self
        }

        #[must_use]
        pub fn clock(mut self, clock: impl Into<Clock>) -> Self {
            self.clock = Some(clock.into());
            self
        }

        /// Sets the capacity. Also takes an `Option`, as `ttl` does.
        #[must_use]
        pub fn max_capacity(mut self, capacity: impl Into<Option<u64>>) -> Self {
            self.max_capacity = capacity.into();
            self
        }

        fn builder<K, V>(self) -> Builder<K, V> {
            let mut builder = Cache::builder().name(self.name);
            if let Some(ttl) = self.ttl {
                builder = builder.time_to_live(ttl);
            }
            if let Some(clock) = self.clock {
                builder = builder.clock(clock);
            }
            if let Some(capacity) = self.max_capacity {
                builder = builder.max_capacity(capacity);
            }
            builder
        }
    }

    fn finish<K, V>(name: &str, builder: Builder<K, V>) -> Cache<K, V>
    where
        K: Hash + Eq + fmt::Debug,
    {
        let built = builder.build();
        built.unwrap_or_else(|error| panic!("memoize!: the cache of `{name}`: {error}"))
    }

    /// Makes the cache of a function with a bound in bytes, for which key and value have to be
    /// weighed.
    ///
    /// # Panics
    /// If `bytes` is a text that is not a number of bytes.
    #[must_use]
    pub fn build_in_bytes<Q, K, V>(options: Options, bytes: impl Into<ByteSize>) -> Cache<K, V>
    where
        Q: Lookup<K, V>,
        K: Hash + Eq + fmt::Debug + Weigh,
        V: Weigh,
    {
        let name = options.name;
        finish(name, options.builder().max_bytes(bytes))
    }

    /// All operations of a function and its companions on its cache. One trait with every bound in
    /// it, so that an argument or a result that will not do is reported once.
    pub trait Lookup<K, V> {
        fn build(options: Options) -> Cache<K, V>;
        fn invalidate_all(cache: &Cache<K, V>);
        fn invalidate_all_nowait(cache: &Cache<K, V>);
        fn stats(cache: &Cache<K, V>) -> CacheStats;
        fn ask(
            &self,
            cache: &Cache<K, V>,
            anew: bool,
            fill: impl FnOnce() -> Result<V, NotKept<V>>,
        ) -> V;
        fn peek(&self, cache: &Cache<K, V>) -> Option<V>;
        fn contains(&self, cache: &Cache<K, V>) -> bool;
        fn insert(&self, cache: &Cache<K, V>, value: V);
        fn invalidate(&self, cache: &Cache<K, V>) -> bool;
        fn invalidate_nowait(&self, cache: &Cache<K, V>) -> bool;
        #[cfg(feature = "async")]
        fn ask_async(
            &self,
            cache: &Cache<K, V>,
            anew: bool,
            run: impl Fn() -> Run<V>,
        ) -> impl Future<Output = V>;
        #[cfg(feature = "async")]
        fn invalidate_async(&self, cache: &Cache<K, V>) -> impl Future<Output = bool>;
        #[cfg(feature = "async")]
        fn invalidate_all_async(cache: &Cache<K, V>) -> impl Future<Output = ()>;
    }

    impl<Q, K, V> Lookup<K, V> for Q
    where
        Q: Hash + Equivalent<K> + MakeKey<K>,
        K: Hash + Eq + fmt::Debug + Send + Sync + 'static,
        V: Clone + Send + Sync + 'static,
    {
        fn build(options: Options) -> Cache<K, V> {
            let name = options.name;
            finish(name, options.builder())
        }

        fn invalidate_all(cache: &Cache<K, V>) {
            cache.invalidate_all();
        }

        fn invalidate_all_nowait(cache: &Cache<K, V>) {
            cache.invalidate_all_nowait();
        }

        fn stats(cache: &Cache<K, V>) -> CacheStats {
            cache.stats()
        }

        #[inline]
        #[track_caller]
        fn ask(
            &self,
            cache: &Cache<K, V>,
            anew: bool,
            fill: impl FnOnce() -> Result<V, NotKept<V>>,
        ) -> V {
            let verb = &verbs::MEMOIZE;
            whole(cache.fetch(&Query(self), aim(anew), |_| fill(), V::clone, verb))
        }

        fn peek(&self, cache: &Cache<K, V>) -> Option<V> {
            cache.peek(self)
        }

        fn contains(&self, cache: &Cache<K, V>) -> bool {
            cache.contains(self)
        }

        fn insert(&self, cache: &Cache<K, V>, value: V) {
            // A value that is too heavy to be kept would not be kept if it had been computed,
            // either.
            cache.insert(self.make_key(), value);
        }

        fn invalidate(&self, cache: &Cache<K, V>) -> bool {
            cache.invalidate(self)
        }

        fn invalidate_nowait(&self, cache: &Cache<K, V>) -> bool {
            cache.invalidate_nowait(self)
        }

        #[cfg(feature = "async")]
        async fn ask_async(&self, cache: &Cache<K, V>, anew: bool, run: impl Fn() -> Run<V>) -> V {
            whole(cache.fetch_run(&Query(self), aim(anew), || run().0).await)
        }

        #[cfg(feature = "async")]
        async fn invalidate_async(&self, cache: &Cache<K, V>) -> bool {
            cache.invalidate_async(self).await
        }

        #[cfg(feature = "async")]
        async fn invalidate_all_async(cache: &Cache<K, V>) {
            cache.invalidate_all_async().await;
        }
    }

    /// A result that goes to all callers that have joined the run, and that is not kept.
    #[derive(Clone)]
    pub struct NotKept<V>(V);

    /// Tells the results that are kept from those that are not. By the type and not by its tokens:
    /// so an alias of `Result` is one, whatever its name.
    ///
    /// For a `Result` the compiler takes the functions below, because those of a type itself go
    /// before those of a trait; for every other type it takes those of [`Whole`].
    pub struct Outcome<V>(PhantomData<V>);

    impl<T, E> Outcome<Result<T, E>> {
        /// Returns the result, to be kept if it is an `Ok`.
        ///
        /// # Errors
        /// An `Err` is not kept.
        pub fn of(result: Result<T, E>) -> Result<Result<T, E>, NotKept<Result<T, E>>> {
            if result.is_ok() {
                Ok(result)
            } else {
                Err(NotKept(result))
            }
        }

        pub fn error() -> Error<E> {
            Error(PhantomData)
        }
    }

    impl<V> Outcome<V> {
        pub const fn allowed() {}
    }

    /// Does the same as [`Outcome`] with `cache_err`.
    pub struct KeptErrors<V>(PhantomData<V>);

    impl<V> KeptErrors<V> {
        pub const fn allowed()
        where
            V: HasErrors,
        {
        }
    }

    /// Results that are kept, whatever they are.
    pub trait Whole<V> {
        /// Returns the result, to be kept.
        ///
        /// # Errors
        /// None.
        fn of(result: V) -> Result<V, NotKept<V>> {
            Ok(result)
        }

        fn error() -> Error<()> {
            Error(PhantomData)
        }
    }

    impl<V> Whole<V> for Outcome<V> {}
    impl<V> Whole<V> for KeptErrors<V> {}

    /// Whether a function's error can be handed to all its waiters: a question to the compiler.
    /// Below are both answers; that of the type itself goes before that of the trait, if its bounds
    /// hold.
    pub struct Error<E>(PhantomData<E>);

    impl<E: Clone + Send + Sync + 'static> Error<E> {
        pub fn can_be_shared(self) -> Shared {
            Shared
        }
    }

    pub trait CannotBeShared<E> {
        fn can_be_shared(self) -> NotShared<E>;
    }

    impl<E> CannotBeShared<E> for Error<E> {
        fn can_be_shared(self) -> NotShared<E> {
            NotShared(PhantomData)
        }
    }

    pub struct Shared;
    pub struct NotShared<E>(PhantomData<E>);

    /// The compiler's message then, beside the name of the bound that does not hold.
    #[diagnostic::on_unimplemented(
        message = "the error of a memoized function goes to every caller that waits for it: it has to be `Clone + Send + Sync + 'static`",
        note = "`{Self}` holds the type of the error",
        note = "if it lacks `Clone`, return `Result<_, Arc<_>>`, with `.map_err(Arc::new)` in the body"
    )]
    pub trait SharedError {}

    impl SharedError for Shared {}

    pub fn shared(_: impl SharedError) {}

    /// The types that `cache_err` is for.
    #[diagnostic::on_unimplemented(
        message = "`cache_err` of a function that returns `{Self}`, which is no `Result`",
        label = "has no errors to keep",
        note = "leave `cache_err` out: everything but the `Err` of a `Result` is kept anyway"
    )]
    pub trait HasErrors {}

    impl<T, E> HasErrors for Result<T, E> {}

    fn aim(anew: bool) -> Aim {
        if anew { Aim::Refresh } else { Aim::Value }
    }

    /// The value that the function returns; a cycle and a closed cache are a panic.
    #[track_caller]
    fn whole<V>(result: Result<V, TryGetError<NotKept<V>>>) -> V {
        match result {
            Ok(value) | Err(TryGetError::Fill(NotKept(value))) => value,
            Err(TryGetError::Cycle(cycle)) => panic!("{cycle}"),
            Err(TryGetError::Closed(closed)) => panic!("{closed}"),
        }
    }

    /// A run of the body of an `async fn`, which every caller that waits can poll.
    #[cfg(feature = "async")]
    pub struct Run<V>(crate::core::BoxFill<V, NotKept<V>>);

    #[cfg(feature = "async")]
    pub fn run<V: 'static>(
        body: impl Future<Output = V> + Send + 'static,
        outcome: fn(V) -> Result<V, NotKept<V>>,
    ) -> Run<V> {
        Run(Box::pin(async move { outcome(body.await) }))
    }

    /// Returns an argument in the form that it had before it was made an owned one.
    #[cfg(feature = "async")]
    pub fn lend<T: ?Sized + ToOwned>(owned: &T::Owned) -> &T {
        owned.borrow()
    }

    /// [`ToKey`] without its bounds, so that the compiler names the bound that an argument lacks,
    /// and not the implementations of [`ToKey`].
    pub trait MakeKey<K> {
        fn make_key(&self) -> K;
    }

    /// Adds these bounds.
    #[derive(Hash)]
    struct Query<'a, Q>(&'a Q);

    impl<Q: Equivalent<K>, K> Equivalent<K> for Query<'_, Q> {
        #[inline]
        fn equivalent(&self, key: &K) -> bool {
            self.0.equivalent(key)
        }
    }

    impl<Q: Hash + Equivalent<K> + MakeKey<K>, K> ToKey<K> for Query<'_, Q> {
        fn to_key(&self) -> K {
            self.0.make_key()
        }
    }

    /// The arguments of one call by reference, as a tuple of references. It hashes as the tuple of
    /// the values that they refer to, and so finds the tuple of the owned arguments.
    ///
    /// Not `Eq`, or the blanket implementation of [`Equivalent`] would overlap with the ones below.
    #[derive(Debug, Hash)]
    pub struct Args<T>(pub T);

    macro_rules! args {
        ($($arg:ident $owned:ident $i:tt),*) => {
            impl<$($arg: ?Sized + Eq, $owned: Borrow<$arg>),*> Equivalent<($($owned,)*)>
                for Args<($(&$arg,)*)>
            {
                #[inline]
                fn equivalent(&self, _key: &($($owned,)*)) -> bool {
                    true $(&& *self.0.$i == *_key.$i.borrow())*
                }
            }

            // For no argument there is a unit.
            #[allow(clippy::unused_unit)]
            impl<$($arg: ?Sized + ToOwned),*> MakeKey<($($arg::Owned,)*)> for Args<($(&$arg,)*)> {
                fn make_key(&self) -> ($($arg::Owned,)*) {
                    ($(self.0.$i.to_owned(),)*)
                }
            }
        };
    }

    args!();
    args!(A OA 0);
    args!(A OA 0, B OB 1);
    args!(A OA 0, B OB 1, C OC 2);
    args!(A OA 0, B OB 1, C OC 2, D OD 3);
    args!(A OA 0, B OB 1, C OC 2, D OD 3, E OE 4);
    args!(A OA 0, B OB 1, C OC 2, D OD 3, E OE 4, F OF 5);
    args!(A OA 0, B OB 1, C OC 2, D OD 3, E OE 4, F OF 5, G OG 6);
    args!(A OA 0, B OB 1, C OC 2, D OD 3, E OE 4, F OF 5, G OG 6, H OH 7);
    args!(A OA 0, B OB 1, C OC 2, D OD 3, E OE 4, F OF 5, G OG 6, H OH 7, I OI 8);
    args!(A OA 0, B OB 1, C OC 2, D OD 3, E OE 4, F OF 5, G OG 6, H OH 7, I OI 8, J OJ 9);
    args!(A OA 0, B OB 1, C OC 2, D OD 3, E OE 4, F OF 5, G OG 6, H OH 7, I OI 8, J OJ 9, K OK 10);
    args!(A OA 0, B OB 1, C OC 2, D OD 3, E OE 4, F OF 5, G OG 6, H OH 7, I OI 8, J OJ 9, K OK 10,
        L OL 11);

    /// The value of `key = ..`. Its type has no name in the macro, so the cache has to erase it.
    trait DynKey: fmt::Debug + Send + Sync {
        fn as_any(&self) -> &dyn Any;
        fn dyn_hash(&self, state: &mut dyn Hasher);
        fn dyn_eq(&self, other: &AnyKey) -> bool;
        fn dyn_clone(&self) -> AnyKey;
    }

    impl<T: Any + fmt::Debug + Hash + Eq + Clone + Send + Sync> DynKey for T {
        fn as_any(&self) -> &dyn Any {
            self
        }

        fn dyn_hash(&self, mut state: &mut dyn Hasher) {
            self.hash(&mut state);
        }

        fn dyn_eq(&self, other: &AnyKey) -> bool {
            other.downcast() == Some(self)
        }

        fn dyn_clone(&self) -> AnyKey {
            AnyKey(Box::new(self.clone()))
        }
    }

    /// A key that `key = ..` has computed.
    pub struct AnyKey(Box<dyn DynKey>);

    impl AnyKey {
        #[inline]
        fn downcast<T: Any>(&self) -> Option<&T> {
            (*self.0).as_any().downcast_ref()
        }
    }

    impl Hash for AnyKey {
        fn hash<H: Hasher>(&self, state: &mut H) {
            (*self.0).dyn_hash(state);
        }
    }

    impl PartialEq for AnyKey {
        fn eq(&self, other: &Self) -> bool {
            (*self.0).dyn_eq(other)
        }
    }

    impl Eq for AnyKey {}

    impl Clone for AnyKey {
        fn clone(&self) -> Self {
            (*self.0).dyn_clone()
        }
    }

    impl fmt::Debug for AnyKey {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.fmt(f)
        }
    }

    /// The same before it is put into a box. Not `Eq`, as [`Args`].
    #[derive(Debug)]
    pub struct AnyKeyRef<'a, T>(&'a T);

    impl<'a, T> AnyKeyRef<'a, T> {
        #[inline]
        #[must_use]
        pub fn new(key: &'a T) -> Self {
            AnyKeyRef(key)
        }
    }

    // The `Hasher` sees the same calls as through the `dyn`, so that the hashes are equal.
    impl<T: Hash> Hash for AnyKeyRef<'_, T> {
        #[inline]
        fn hash<H: Hasher>(&self, state: &mut H) {
            self.0.hash(state);
        }
    }

    impl<T: Any + Eq> Equivalent<AnyKey> for AnyKeyRef<'_, T> {
        #[inline]
        fn equivalent(&self, key: &AnyKey) -> bool {
            key.downcast() == Some(self.0)
        }
    }

    impl<T: Any + fmt::Debug + Hash + Eq + Clone + Send + Sync> MakeKey<AnyKey> for AnyKeyRef<'_, T> {
        fn make_key(&self) -> AnyKey {
            AnyKey(Box::new(self.0.clone()))
        }
    }
    /// An [`AnyKey`] that knows how many bytes it keeps: for a cache with a bound in bytes.
    pub struct WeighedKey {
        key: AnyKey,
        bytes: u64,
    }

    impl Hash for WeighedKey {
        fn hash<H: Hasher>(&self, state: &mut H) {
            self.key.hash(state);
        }
    }

    impl PartialEq for WeighedKey {
        fn eq(&self, other: &Self) -> bool {
            self.key == other.key
        }
    }

    impl Eq for WeighedKey {}

    impl Clone for WeighedKey {
        fn clone(&self) -> Self {
            WeighedKey {
                key: self.key.clone(),
                bytes: self.bytes,
            }
        }
    }

    impl fmt::Debug for WeighedKey {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.key.fmt(f)
        }
    }

    impl Weigh for WeighedKey {
        fn heap_bytes(&self) -> u64 {
            self.bytes
        }
    }

    impl<T: Any + Eq> Equivalent<WeighedKey> for AnyKeyRef<'_, T> {
        #[inline]
        fn equivalent(&self, key: &WeighedKey) -> bool {
            key.key.downcast() == Some(self.0)
        }
    }

    impl<T: Any + fmt::Debug + Hash + Eq + Clone + Send + Sync + Weigh> MakeKey<WeighedKey>
        for AnyKeyRef<'_, T>
    {
        fn make_key(&self) -> WeighedKey {
            let key = Box::new(self.0.clone());
            WeighedKey {
                bytes: key.heap_bytes(),
                key: AnyKey(key),
            }
        }
    }
}
