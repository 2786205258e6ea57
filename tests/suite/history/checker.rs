//! The rules that a history of concurrent operations must satisfy, and the check whether one does.
//!
//! A history lists the method, the answer and the times of each operation: stamps from one counter, taken before the
//! call and after the return, and at the start and the end of every fill. An operation takes effect on the cache at
//! some moment between its stamps, so a rule may only reject a history if it is broken wherever in their intervals the
//! operations took effect.
//!
//! # The rules
//! * **R1** A value was produced for its key, by something that began before the response.
//! * **R2** Fills of a key overlap only if an operation detached the first one: an `insert`, an `invalidate_nowait`, or
//!   an `invalidate` from inside a fill.
//! * **R3** A fill runs only if the value before it can have been taken away.
//! * **R4** Values from before an `invalidate` are not seen by operations that begin after it, and a fill that began
//!   before it ends before it does.
//! * **R5** The same for the values that an `insert` (or a refresh, or a compute) replaces.
//! * **R6** A value that was seen to be replaced or gone is not seen again.
//! * **R7** Nothing is seen at or after its deadline; nothing is lost before it.
//!   (R3 and this second half say nothing of a cache that evicts.)
//! * **R8** A caller that runs a fill has its outcome; a waiter has the outcome of a flight that was in progress; no
//!   caller runs two fills.
//! * **R11** A value is taken out once: of the removals that say which value they took, the computes that remove one
//!   and those that put another in its place, no two name the same. A compute that is superseded has taken none, and no
//!   operation sees the value it was to put in.
//!
//! # How they are checked
//! Most come down to *barriers*. A barrier `(since, from)` says: an operation called after `from` sees no value that
//! was begun before `since`. A value of a fill is begun when its fill starts (it was claimed earlier still), and one of
//! an insert when the insert has returned. So:
//!
//! * `invalidate`, `insert`: `(call, return)`. A flight that was claimed earlier is detached, an entry from before is
//!   gone. A waiter that still gets the old value called before the detach.
//! * a refresh or a compute that has put a value in: `(call, return)`; its claim was after its call. If it was
//!   detached, then by an operation newer yet.
//! * a fill: `(call, start)`. At its claim, after its caller's call, the key had no value and no other flight, so every
//!   earlier claim is gone or detached. (A waiter that is handed the lead saw that when it joined.)
//! * a read of a value w in the table: `(call of w's insert, return)`, or with the start of w's fill. When w was
//!   published its flight was the key's only one, so every value begun before it was gone or its flight detached. Reads
//!   that may be a waiter's are no barriers: the value of a detached flight may be older than the one in the table.
//! * a read that finds nothing: `(call, return)`, but only for values that were *published* before:
//!   a flight in progress may yet publish.
//!
//! For each value seen the strongest barrier that ended before the call is found by a binary
//! search. So are the removals that R3 asks for: O(n log n) a key.

use std::collections::{HashMap, HashSet};
use std::fmt;

/// A moment: the counter is the order of all of them.
pub(crate) type Stamp = u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) call: Stamp,
    pub(crate) ret: Stamp,
}

/// The method, or group of methods, that an operation called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// `get`, `peek` and their like.
    Look,
    /// `get_with` and its like.
    Fetch,
    Refresh,
    Compute,
    Insert(u64),
    Remove,
    Invalidate,
    Nowait,
    /// Of all keys.
    InvalidateAll,
    /// Of all keys: those with even numbers as values.
    InvalidateEven,
}

/// Its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Value(u64),
    /// No value.
    Absent,
    Error(u64),
    /// There was one, and which was not said.
    WasThere,
    Done,
    Panicked,
    Cycle,
    /// A compute was superseded, and has done nothing.
    Superseded,
}

/// How one execution of a fill ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Value(u64),
    Error(u64),
    /// The fill of `optionally_get_with` found none.
    Nothing,
    /// A compute removes the value it saw.
    Removes,
    /// A compute leaves everything as it is.
    Leaves,
    Panics,
}

/// One execution of a fill.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Execution {
    pub(crate) start: Stamp,
    pub(crate) end: Stamp,
    pub(crate) ending: Ending,
    /// The value a compute was shown.
    pub(crate) seen: Option<u64>,
}

/// One operation.
#[derive(Clone, Debug)]
pub(crate) struct Deed {
    pub(crate) span: Span,
    /// `None`: all keys.
    pub(crate) key: Option<u8>,
    pub(crate) verb: Verb,
    pub(crate) answer: Answer,
    /// The executions of its own fill.
    pub(crate) runs: Vec<Execution>,
    /// Called from inside a fill.
    pub(crate) inside: bool,
    pub(crate) thread: usize,
}

/// The clock was moved forward.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Move {
    pub(crate) span: Span,
    pub(crate) by: u64,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    pub(crate) ttl: Option<u64>,
    /// The cache is bounded: a value may go at any moment.
    pub(crate) evicts: bool,
    pub(crate) deeds: Vec<Deed>,
    pub(crate) moves: Vec<Move>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) rule: &'static str,
    pub(crate) key: u8,
    pub(crate) text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of key {}: {}", self.rule, self.key, self.text)
    }
}

impl History {
    /// The operations on one key, in the order of their calls, one a line.
    pub(crate) fn show(&self, key: u8) -> String {
        let mut lines: Vec<_> = self
            .deeds
            .iter()
            .filter(|deed| deed.concerns(key))
            .map(|deed| (deed.span.call, format!("{deed:?}\n")))
            .chain(
                self.moves
                    .iter()
                    .map(|moved| (moved.span.call, format!("{moved:?}\n"))),
            )
            .collect();
        lines.sort();
        lines.into_iter().map(|line| line.1).collect()
    }

    fn keys(&self) -> HashSet<u8> {
        self.deeds.iter().filter_map(|deed| deed.key).collect()
    }
}

impl Deed {
    fn concerns(&self, key: u8) -> bool {
        self.key.is_none_or(|concerned| concerned == key)
    }

    /// Takes values away.
    fn removes(&self) -> bool {
        let computed = self.runs.iter().any(|run| run.ending == Ending::Removes)
            && self.answer != Answer::Superseded;
        computed || self.fences() || self.verb == Verb::InvalidateEven
    }

    /// A removal that answers as one does which has taken this out.
    fn takes(&self, value: Option<u64>) -> bool {
        match (self.answer, value) {
            (Answer::Value(id), Some(value)) => id == value,
            (answer, Some(_)) => answer == Answer::WasThere,
            (answer, None) => matches!(answer, Answer::Absent | Answer::Done),
        }
    }

    /// Takes away the value that is there, and detaches the fill that runs.
    fn fences(&self) -> bool {
        matches!(
            self.verb,
            Verb::Remove | Verb::Invalidate | Verb::Nowait | Verb::InvalidateAll
        )
    }

    /// Lets a new fill start while the old one runs.
    fn cuts_off(&self) -> bool {
        match self.verb {
            Verb::Insert(_) | Verb::Nowait => true,
            // It would wait for the fill that it is called from, and lets go instead.
            Verb::Remove | Verb::Invalidate | Verb::InvalidateAll | Verb::InvalidateEven => {
                self.inside
            }
            _ => false,
        }
    }

    /// Waits for the fills that it finds running. (Among the keys it does not pick, `InvalidateEven` waits for
    /// refreshes only; it detaches first fills.)
    fn awaits_fills(&self) -> bool {
        !self.inside
            && matches!(
                self.verb,
                Verb::Remove | Verb::Invalidate | Verb::InvalidateAll
            )
    }
}

/// A value, and when it can have come into the table.
#[derive(Clone, Copy, Debug)]
struct Product {
    key: u8,
    /// When it was begun: a barrier with a later `since` hides it.
    begin: Stamp,
    /// The value of a compute. It comes after a removal that does not pick the value it has read.
    computed: bool,
    /// Published not before, and not after.
    low: Stamp,
    high: Stamp,
    /// Its operation was called: its flight was claimed later.
    call: Stamp,
}

/// A value, or none, was seen.
#[derive(Clone, Copy, Debug)]
struct Sight {
    call: Stamp,
    at: Stamp,
    id: Option<u64>,
    /// In the table, and not by a waiter of a flight.
    in_table: bool,
    /// It was why a fill was run.
    fills: bool,
}

/// The greatest of the values with a time before some moment.
struct Peak(Vec<(Stamp, Stamp, &'static str)>);

impl Peak {
    fn new(mut pairs: Vec<(Stamp, Stamp, &'static str)>) -> Self {
        pairs.sort_unstable();
        let mut peak = (0, "");
        for pair in &mut pairs {
            if pair.1 > peak.0 {
                peak = (pair.1, pair.2);
            }
            (pair.1, pair.2) = peak;
        }
        Self(pairs)
    }

    fn before(&self, moment: Stamp) -> (Stamp, &'static str) {
        let at = self.0.partition_point(|pair| pair.0 < moment);
        at.checked_sub(1)
            .map_or((0, ""), |at| (self.0[at].1, self.0[at].2))
    }
}

/// The times that the clock can have shown.
struct Times {
    /// Sums of the clock's moves: by the end of a move, and from its beginning.
    done: Vec<(Stamp, u64)>,
    begun: Vec<(Stamp, u64)>,
}

impl Times {
    fn new(moves: &[Move]) -> Self {
        let sums = |mut moves: Vec<(Stamp, u64)>| {
            moves.sort_unstable();
            let mut sum = 0;
            for moved in &mut moves {
                sum += moved.1;
                moved.1 = sum;
            }
            moves
        };
        Self {
            done: sums(
                moves
                    .iter()
                    .map(|moved| (moved.span.ret, moved.by))
                    .collect(),
            ),
            begun: sums(
                moves
                    .iter()
                    .map(|moved| (moved.span.call, moved.by))
                    .collect(),
            ),
        }
    }

    fn before(sums: &[(Stamp, u64)], moment: Stamp) -> u64 {
        let at = sums.partition_point(|sum| sum.0 < moment);
        at.checked_sub(1).map_or(0, |at| sums[at].1)
    }

    /// A clock read after this moment shows no less.
    fn least(&self, moment: Stamp) -> u64 {
        Self::before(&self.done, moment)
    }

    /// A clock read before this moment shows no more.
    fn most(&self, moment: Stamp) -> u64 {
        Self::before(&self.begun, moment)
    }
}

/// Checks R1 to R8.
pub(crate) fn check(history: &History) -> Result<(), Violation> {
    let times = Times::new(&history.moves);
    let products = products(history)?;
    cycles(history)?;
    for key in history.keys() {
        let deeds: Vec<_> = history
            .deeds
            .iter()
            .filter(|deed| deed.concerns(key))
            .collect();
        let line = Line {
            key,
            deeds,
            ttl: history.ttl,
            evicts: history.evicts,
            products: &products,
            times: &times,
        };
        line.check()?;
    }
    Ok(())
}

/// R8: a cycle error has a cycle. Its caller waited for a fill on some thread, from inside which that thread waited for
/// another in its turn, and so on, back to the first.
fn cycles(history: &History) -> Result<(), Violation> {
    for deed in &history.deeds {
        if let (Answer::Cycle, Some(key)) = (deed.answer, deed.key) {
            if !closes_cycle(history, deed) {
                return Err(Violation {
                    rule: "R8",
                    key,
                    text: format!("there is no cycle: {deed:?}"),
                });
            }
        }
    }
    Ok(())
}

fn closes_cycle(history: &History, last: &Deed) -> bool {
    let meets = |span: Span| span.call < last.span.ret && span.ret > last.span.call;
    let mut visited = HashSet::new();
    let mut waits = vec![last.key];
    while let Some(key) = waits.pop() {
        if !visited.insert(key) {
            continue;
        }
        // All fills that it may wait for, and all waits from inside those.
        for filler in history
            .deeds
            .iter()
            .filter(|deed| key.is_none_or(|key| deed.concerns(key)))
        {
            for run in &filler.runs {
                let span = Span {
                    call: run.start,
                    ret: run.end,
                };
                if !meets(span) {
                    continue;
                }
                if filler.thread == last.thread {
                    return true;
                }
                let within = |deed: &&Deed| {
                    deed.thread == filler.thread
                        && deed.span.call > span.call
                        && deed.span.ret < span.ret
                        && meets(deed.span)
                };
                waits.extend(history.deeds.iter().filter(within).map(|deed| deed.key));
            }
        }
    }
    false
}

fn products(history: &History) -> Result<HashMap<u64, Product>, Violation> {
    let mut products = HashMap::new();
    for deed in &history.deeds {
        let Some(key) = deed.key else { continue };
        let Span { call, ret } = deed.span;
        let computed = deed.verb == Verb::Compute;
        let inserted = match deed.verb {
            Verb::Insert(id) => Some((id, ret, call)),
            _ => None,
        };
        let filled = deed.runs.iter().filter_map(|run| match run.ending {
            // A value that was given back was never there: an operation that sees it has it from no source.
            Ending::Value(id) if deed.answer != Answer::Superseded => {
                Some((id, run.start, run.end))
            }
            _ => None,
        });
        for (id, begin, low) in filled.chain(inserted) {
            let product = Product {
                key,
                begin,
                computed,
                low,
                high: ret,
                call,
            };
            if products.insert(id, product).is_some() {
                let text = format!("value {id} was produced twice: the history is no good");
                return Err(Violation {
                    rule: "R1",
                    key,
                    text,
                });
            }
        }
    }
    Ok(products)
}

/// The history of one key.
struct Line<'h> {
    key: u8,
    deeds: Vec<&'h Deed>,
    ttl: Option<u64>,
    evicts: bool,
    products: &'h HashMap<u64, Product>,
    times: &'h Times,
}

impl<'h> Line<'h> {
    fn check(&self) -> Result<(), Violation> {
        self.answers()?;
        self.taken_once()?;
        let sights = self.sights()?;
        self.exclusion()?;
        self.fills_are_awaited()?;
        self.barriers(&sights)?;
        self.expiry(&sights)?;
        self.losses(&sights)
    }

    fn fail<T>(&self, rule: &'static str, text: String) -> Result<T, Violation> {
        Err(Violation {
            rule,
            key: self.key,
            text,
        })
    }

    /// The operations on this key by name; those on all keys have no runs and no values.
    fn own(&self) -> impl Iterator<Item = &'h Deed> {
        self.deeds.iter().copied().filter(|deed| deed.key.is_some())
    }

    fn own_products(&self) -> impl Iterator<Item = &Product> {
        self.products
            .values()
            .filter(|product| product.key == self.key)
    }

    fn spans(&self, which: impl Fn(&Deed) -> bool) -> Vec<Span> {
        let picked = self.deeds.iter().filter(|deed| which(deed));
        picked.map(|deed| deed.span).collect()
    }

    /// The product of an id that was seen, at the latest at `at`. R1.
    fn product(&self, id: u64, at: Stamp) -> Result<&'h Product, Violation> {
        match self.products.get(&id) {
            None => self.fail("R1", format!("value {id} was produced by nobody")),
            Some(product) if product.key != self.key => {
                self.fail("R1", format!("value {id} is of key {}", product.key))
            }
            Some(product) if product.low >= at => self.fail(
                "R1",
                format!("value {id} was seen before it was produced: {product:?}"),
            ),
            Some(product) => Ok(product),
        }
    }

    /// R8: each answer fits the actions of its operation.
    fn answers(&self) -> Result<(), Violation> {
        for deed in self.own() {
            if deed.runs.len() > 1 {
                return self.fail("R8", format!("two fills run by one caller: {deed:?}"));
            }
            let good = match deed.runs.first() {
                Some(run) => self.is_outcome(run, deed),
                None => match deed.answer {
                    Answer::Panicked | Answer::Superseded => false,
                    Answer::Cycle => deed.inside,
                    Answer::Value(_) | Answer::Absent | Answer::Error(_) => self.has_joined(deed),
                    Answer::WasThere | Answer::Done => true,
                },
            };
            if !good {
                return self.fail("R8", format!("an answer that nobody gave: {deed:?}"));
            }
        }
        Ok(())
    }

    /// Whether an answer is the outcome of the caller's own fill.
    fn is_outcome(&self, run: &Execution, deed: &Deed) -> bool {
        let answer = deed.answer;
        let kept = run.seen.map_or(Answer::Absent, Answer::Value);
        // A value that a compute has seen may have expired when it leaves or removes it.
        let gone = (self.ttl.is_some() || self.evicts) && answer == Answer::Absent;
        if answer == Answer::Superseded {
            return matches!(run.ending, Ending::Value(_) | Ending::Removes)
                && self.can_be_superseded(deed);
        }
        match run.ending {
            Ending::Value(id) => answer == Answer::Value(id),
            Ending::Error(id) => answer == Answer::Error(id),
            Ending::Nothing => answer == Answer::Absent,
            Ending::Removes | Ending::Leaves => answer == kept || gone,
            Ending::Panics => answer == Answer::Panicked,
        }
    }

    /// Whether an operation that comes before the compute took effect between its read and its end: a removal that does
    /// not wait, or an insert. (Those that wait do not wait for the fill that they are called from.) The compute has
    /// read at its claim, after its call, and before its closure is called.
    fn can_be_superseded(&self, compute: &Deed) -> bool {
        let mut cuts = self.deeds.iter().filter(|deed| deed.cuts_off());
        cuts.any(|deed| deed.span.ret > compute.span.call)
    }

    /// R11.
    fn taken_once(&self) -> Result<(), Violation> {
        let mut taken = HashMap::new();
        for deed in self.own() {
            let puts = |run: &&Execution| matches!(run.ending, Ending::Value(_) | Ending::Removes);
            let id = match (deed.verb, deed.answer) {
                (Verb::Remove | Verb::Nowait, Answer::Value(id)) => Some(id),
                (Verb::Compute, Answer::Value(_)) => {
                    deed.runs.iter().find(puts).and_then(|run| run.seen)
                }
                _ => None,
            };
            let Some(id) = id else { continue };
            if let Some(other) = taken.insert(id, deed) {
                return self.fail("R11", format!("{id} is taken by {other:?} and by {deed:?}"));
            }
        }
        Ok(())
    }

    /// Whether an answer without a fill of one's own can be had: for errors, and for values that
    /// a look into the table does not give, from a flight that was in progress meanwhile.
    fn has_joined(&self, deed: &Deed) -> bool {
        let flown = |ending: Ending| {
            self.own().any(|other| {
                let in_progress = other.span.ret > deed.span.call;
                let mut runs = other.runs.iter();
                in_progress && runs.any(|run| run.ending == ending && run.end < deed.span.ret)
            })
        };
        match (deed.verb, deed.answer) {
            (Verb::Fetch | Verb::Refresh, Answer::Error(error)) => flown(Ending::Error(error)),
            (Verb::Fetch, Answer::Absent) => flown(Ending::Nothing),
            (Verb::Refresh, Answer::Value(id)) => {
                let product = self.products.get(&id);
                product.is_none_or(|product| product.high > deed.span.call)
            }
            (Verb::Refresh | Verb::Compute, _) => false,
            _ => true,
        }
    }

    /// Everything that was seen of the key. R1.
    fn sights(&self) -> Result<Vec<Sight>, Violation> {
        let mut sights = Vec::new();
        for deed in self.own() {
            let Span { call, ret } = deed.span;
            let look = |id: Option<u64>, at: Stamp, fills: bool| Sight {
                call,
                at,
                id,
                in_table: true,
                fills,
            };
            match (deed.verb, deed.answer, deed.runs.first()) {
                (Verb::Compute, _, Some(run)) => sights.push(look(run.seen, run.start, false)),
                (Verb::Fetch, _, Some(run)) => sights.push(look(None, run.start, true)),
                (Verb::Look | Verb::Remove | Verb::Nowait, Answer::Value(id), None) => {
                    sights.push(look(Some(id), ret, false));
                }
                (Verb::Look | Verb::Remove | Verb::Nowait, Answer::Absent, None) => {
                    sights.push(look(None, ret, false));
                }
                (Verb::Fetch | Verb::Refresh, Answer::Value(id), None) => {
                    let product = self.product(id, ret)?;
                    sights.push(Sight {
                        in_table: call > product.high,
                        ..look(Some(id), ret, false)
                    });
                }
                _ => {}
            }
        }
        for sight in &sights {
            if let Some(id) = sight.id {
                self.product(id, sight.at)?;
            }
        }
        Ok(sights)
    }

    /// R2.
    fn exclusion(&self) -> Result<(), Violation> {
        let cuts = self.spans(Deed::cuts_off);
        let cuts = Peak::new(cuts.iter().map(|cut| (cut.call, cut.ret, "")).collect());
        let mut runs: Vec<_> = self
            .own()
            .flat_map(|deed| {
                deed.runs
                    .iter()
                    .map(|run| (run.start, run.end, deed.span.call))
            })
            .collect();
        runs.sort_unstable();
        let mut running: Vec<(Stamp, Stamp, Stamp)> = Vec::new();
        for run in runs {
            running.retain(|other| other.1 > run.0);
            for other in &running {
                // Each was claimed after its caller's call and before its start, in this order or the other: a waiter
                // that is handed a lead may be detached before it starts.
                if cuts.before(run.0).0 <= other.2.min(run.2) {
                    let text = format!("fills overlap (start, end, call): {other:?} and {run:?}");
                    return self.fail("R2", text);
                }
            }
            running.push(run);
        }
        Ok(())
    }

    /// R4, the second half.
    fn fills_are_awaited(&self) -> Result<(), Violation> {
        let cuts = self.spans(Deed::cuts_off);
        let cuts = Peak::new(cuts.iter().map(|cut| (cut.call, cut.ret, "")).collect());
        let mut waits = self.spans(Deed::awaits_fills);
        waits.sort_unstable_by_key(|wait| wait.call);
        // From each on, the one that returned first.
        let mut first = None;
        let mut firsts = vec![None; waits.len()];
        for (at, &wait) in waits.iter().enumerate().rev() {
            if first.is_none_or(|first: Span| wait.ret < first.ret) {
                first = Some(wait);
            }
            firsts[at] = first;
        }
        for deed in self.own() {
            for run in &deed.runs {
                let at = waits.partition_point(|wait| wait.call <= run.start);
                let Some(Some(wait)) = firsts.get(at) else {
                    continue;
                };
                if wait.ret < run.end && cuts.before(wait.ret).0 <= deed.span.call {
                    let text = format!("{wait:?} did not wait for the fill of {deed:?}");
                    return self.fail("R4", text);
                }
            }
        }
        Ok(())
    }

    /// R3 to R6, as far as they say which values may not be seen any more.
    fn barriers(&self, sights: &[Sight]) -> Result<(), Violation> {
        let mut begun = Vec::new();
        let mut published = Vec::new();
        let mut even = Vec::new();
        let mut removed = HashMap::new();
        for deed in &self.deeds {
            let Span { call, ret } = deed.span;
            let puts = |run: &Execution| matches!(run.ending, Ending::Value(_) | Ending::Removes);
            match deed.verb {
                Verb::InvalidateEven => even.push((ret, call, "R4")),
                Verb::Insert(_) => begun.push((ret, call, "R5")),
                Verb::Refresh | Verb::Compute
                    if deed.runs.iter().any(puts) && deed.answer != Answer::Superseded =>
                {
                    begun.push((ret, call, "R5"));
                }
                _ if deed.fences() => begun.push((ret, call, "R4")),
                _ => {}
            }
            // The operation that removes a value is the last to see it.
            if let (Verb::Remove | Verb::Nowait, Answer::Value(id)) = (deed.verb, deed.answer) {
                removed.insert(id, ret);
            }
        }
        for sight in sights.iter().filter(|sight| sight.in_table) {
            match sight.id {
                Some(id) => {
                    let product = self.product(id, sight.at)?;
                    begun.push((sight.at, product.begin.min(product.low), "R6"));
                }
                None if sight.fills => begun.push((sight.at, sight.call, "R3")),
                None => published.push((sight.at, sight.call, "R6")),
            }
        }
        let (begun, published, even) = (Peak::new(begun), Peak::new(published), Peak::new(even));
        for sight in sights {
            let Some(id) = sight.id else { continue };
            let product = self.product(id, sight.at)?;
            let mut over = vec![
                (begun.before(sight.call), product.begin),
                (published.before(sight.call), product.high),
            ];
            if id % 2 == 0 {
                // It may have been left alone up to the moment when it was put in.
                let begin = if product.computed {
                    product.high
                } else {
                    product.begin
                };
                over.push((even.before(sight.call), begin));
            }
            for ((since, rule), begin) in over {
                if begin < since {
                    let text = format!("{product:?} was over since {since}, and {sight:?}");
                    return self.fail(rule, text);
                }
            }
            if removed.get(&id).is_some_and(|&ret| ret < sight.call) {
                return self.fail("R4", format!("{product:?} was removed, and {sight:?}"));
            }
        }
        Ok(())
    }

    /// R7, the first half.
    fn expiry(&self, sights: &[Sight]) -> Result<(), Violation> {
        let Some(ttl) = self.ttl else { return Ok(()) };
        for sight in sights {
            let Some(id) = sight.id else { continue };
            let product = self.product(id, sight.at)?;
            // A waiter of a flight gets its value even after the deadline.
            if !sight.in_table && sight.call < product.high {
                continue;
            }
            let deadline = self.times.most(product.high).saturating_add(ttl);
            let now = self.times.least(sight.call);
            if now >= deadline {
                let text = format!("at {now} {sight:?} of {product:?}, over at {deadline}");
                return self.fail("R7", text);
            }
        }
        Ok(())
    }

    /// R3, and the second half of R7: an operation that saw nothing, although a value had been published before its
    /// call, saw it after a removal that can have taken that value away.
    ///
    /// If an insert detached that value's flight, then the insert's value was there, and must have been taken away in
    /// its turn.
    fn losses(&self, sights: &[Sight]) -> Result<(), Violation> {
        if self.evicts {
            return Ok(());
        }
        let removals = self.spans(Deed::removes);
        let removals = removals.iter().map(|span| (span.call, span.ret, ""));
        let removals = Peak::new(removals.collect());
        let calls = self
            .own_products()
            .map(|product| (product.high, product.call, ""));
        let calls = Peak::new(calls.collect());
        for sight in sights.iter().filter(|sight| sight.id.is_none()) {
            let (call, _) = calls.before(sight.call);
            if call == 0 || removals.before(sight.at).0 > call || self.can_expire(call, sight) {
                continue;
            }
            let rule = if sight.fills { "R3" } else { "R7" };
            let text = format!("what was put in by a call at {call} was lost by {sight:?}");
            return self.fail(rule, text);
        }
        Ok(())
    }

    /// Whether the value that was there since a call can have expired before a sight.
    fn can_expire(&self, call: Stamp, sight: &Sight) -> bool {
        let Some(ttl) = self.ttl else { return false };
        let now = self.times.most(sight.at);
        self.own_products()
            .filter(|product| product.high >= call && product.low < sight.at)
            .any(|product| now >= self.times.least(product.low).saturating_add(ttl))
    }
}

// ---------------------------------------------------------------------------------------------
// The exhaustive search

/// Searches the orders in which the operations on each key can have taken effect, for one in
/// which every answer is right. For histories without expiry, panics and nested calls, of at most
/// 64 operations a key.
///
/// The sequential machine is that of the contract. A key has a value or none, and at most one *open* claim, which may
/// be detached. An operation takes effect in one step or two:
///
/// * a look: the value.
/// * an insert: puts its value in, and lets go of the open claim; then the waiters of that claim that have no outcome
///   yet have this value.
/// * an invalidate: takes the value, and detaches the open claim; then waits for its end. `nowait` lets go of the claim
///   instead. If the claim is a compute's, an invalidate that waits takes the value that is there when the compute has
///   ended, in the same step; a `nowait` supersedes the compute. An insert supersedes it too, if an invalidate waits:
///   the invalidate comes first.
/// * a fill: claims, if there is neither a value nor an open claim; then, when its closure has returned, publishes, if
///   its claim is still open and not detached. A refresh and a compute claim also if there is a value, which stays
///   there meanwhile.
/// * a fetch that runs no fill: sees the value; or, if there is none, joins the open claim, and
///   then has its outcome.
pub(crate) fn search(history: &History) -> Result<(), Violation> {
    for key in history.keys() {
        let deeds: Vec<_> = history
            .deeds
            .iter()
            .filter(|deed| deed.concerns(key))
            .collect();
        let mut search = Search {
            deeds,
            evicts: history.evicts,
            seen: HashSet::new(),
        };
        let start = Machine {
            value: None,
            open: None,
            fenced: false,
            steps: vec![Step::None; search.deeds.len()],
        };
        if !search.goes_on(&start) {
            return Err(Violation {
                rule: "linearizable",
                key,
                text: format!("no order of {} operations is right", search.deeds.len()),
            });
        }
    }
    Ok(())
}

/// How far an operation has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    None,
    /// Of one's own fill.
    Claimed,
    /// An insert has let go of this claim; an invalidate waits for it.
    Fenced(usize),
    Joined(usize),
    /// A removal that gets the value this compute leaves; and the value that is hidden until then.
    Awaits(usize, Option<u64>),
    /// A compute that has no effect.
    Superseded,
    /// Has joined, and has this value.
    Resolved(u64),
    /// Has joined, and the flight came to this error.
    Failed(u64),
    /// Has joined, and the flight came to nothing.
    Vain,
    Done,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Machine {
    value: Option<u64>,
    open: Option<usize>,
    fenced: bool,
    steps: Vec<Step>,
}

struct Search<'h> {
    deeds: Vec<&'h Deed>,
    /// A value may go at any moment.
    evicts: bool,
    /// From here there is no way.
    seen: HashSet<Machine>,
}

impl Search<'_> {
    fn goes_on(&mut self, machine: &Machine) -> bool {
        if machine.steps.iter().all(|&step| step == Step::Done) {
            return true;
        }
        if !self.seen.insert(machine.clone()) {
            return false;
        }
        let windows: Vec<_> = (0..self.deeds.len())
            .map(|at| self.window(machine, at))
            .collect();
        // The steps that can be next: no step that is still to come has to be before them.
        let limit = windows.iter().flatten().map(|window| window.ret).min();
        let limit = limit.unwrap_or(Stamp::MAX);
        for (at, window) in windows.iter().enumerate() {
            if window.is_some_and(|window| window.call <= limit) {
                for next in self.steps(machine, at) {
                    if self.goes_on(&next) {
                        return true;
                    }
                }
            }
        }
        let evicted = Machine {
            value: None,
            ..machine.clone()
        };
        self.evicts && machine.value.is_some() && self.goes_on(&evicted)
    }

    /// When the next step of an operation is to be.
    fn window(&self, machine: &Machine, at: usize) -> Option<Span> {
        let deed = self.deeds[at];
        let Span { call, ret } = deed.span;
        match (machine.steps[at], deed.runs.first()) {
            (Step::Done, _) => None,
            (Step::None, Some(run)) => Some(Span {
                call,
                ret: run.start,
            }),
            (Step::Claimed | Step::Superseded, Some(run)) => Some(Span { call: run.end, ret }),
            _ => Some(Span { call, ret }),
        }
    }

    /// The states to which the next step of an operation can lead.
    fn steps(&self, machine: &Machine, at: usize) -> Vec<Machine> {
        let deed = self.deeds[at];
        let mut next = machine.clone();
        next.steps[at] = Step::Done;
        let found = match machine.value {
            Some(id) => Answer::Value(id),
            None => Answer::Absent,
        };
        let right = match machine.steps[at] {
            Step::None => match (deed.verb, deed.runs.first()) {
                (Verb::Look, _) => deed.answer == found,
                (Verb::Insert(id), _) => {
                    next.leave(at);
                    next.value = Some(id);
                    true
                }
                (Verb::Remove | Verb::Invalidate, _) if self.free_compute(machine).is_some() => {
                    let open = machine.open.expect("matched");
                    next.fenced = true;
                    next.steps[at] = Step::Awaits(open, next.value.take());
                    true
                }
                (Verb::Remove | Verb::Invalidate | Verb::Nowait, _) => {
                    if let Some(open) = self.free_compute(machine) {
                        next.steps[open] = Step::Superseded;
                    }
                    next.value = None;
                    if deed.verb == Verb::Nowait {
                        next.open = None;
                    } else if let Some(open) = next.open {
                        next.fenced = true;
                        next.steps[at] = Step::Fenced(open);
                    }
                    deed.takes(machine.value)
                }
                (verb, Some(run)) => {
                    next.open = Some(at);
                    next.fenced = false;
                    next.steps[at] = Step::Claimed;
                    let claimed = machine.open.is_none();
                    match verb {
                        Verb::Fetch => claimed && machine.value.is_none(),
                        Verb::Compute => claimed && machine.value == run.seen,
                        _ => claimed,
                    }
                }
                (_, None) => return self.fetches(machine, at),
            },
            Step::Claimed => {
                let ending = deed.runs[0].ending;
                next.close(at, ending);
                self.give(&mut next, at, ending) && deed.answer != Answer::Superseded
            }
            Step::Superseded => {
                let run = &deed.runs[0];
                next.resolve(at, Step::None);
                match run.ending {
                    Ending::Leaves | Ending::Panics => true,
                    Ending::Removes if run.seen.is_none() => true,
                    _ => deed.answer == Answer::Superseded,
                }
            }
            Step::Fenced(claim) => match deed.verb {
                Verb::Insert(id) => {
                    next.resolve(claim, Step::Resolved(id));
                    true
                }
                _ => machine.steps[claim] == Step::Done,
            },
            Step::Resolved(id) => deed.answer == Answer::Value(id),
            Step::Failed(error) => deed.answer == Answer::Error(error),
            Step::Vain => deed.answer == Answer::Absent,
            Step::Joined(_) | Step::Awaits(..) | Step::Done => false,
        };
        if right { vec![next] } else { vec![] }
    }

    /// The open claim, if that is a compute's that nothing has detached.
    fn free_compute(&self, machine: &Machine) -> Option<usize> {
        let compute = |&open: &usize| self.deeds[open].verb == Verb::Compute;
        machine.open.filter(compute).filter(|_| !machine.fenced)
    }

    /// A claim has ended: gives the value it leaves to the removal that waits for it, if one does. False: the removal
    /// answered otherwise.
    fn give(&self, next: &mut Machine, claim: usize, ending: Ending) -> bool {
        for (step, deed) in next.steps.iter_mut().zip(&self.deeds) {
            if let Step::Awaits(awaited, hidden) = *step {
                if awaited == claim {
                    *step = Step::Done;
                    return deed.takes(match ending {
                        Ending::Value(id) => Some(id),
                        Ending::Removes => None,
                        _ => hidden,
                    });
                }
            }
        }
        true
    }

    /// A fetch or refresh that runs no fill.
    fn fetches(&self, machine: &Machine, at: usize) -> Vec<Machine> {
        let deed = self.deeds[at];
        let mut ways = Vec::new();
        let mut next = machine.clone();
        if let (Verb::Fetch, Some(id)) = (deed.verb, machine.value) {
            if deed.answer == Answer::Value(id) {
                next.steps[at] = Step::Done;
                ways.push(next);
            }
        } else if let (Some(open), false) = (machine.open, machine.fenced) {
            next.steps[at] = Step::Joined(open);
            ways.push(next);
        }
        ways
    }
}

impl Machine {
    /// An insert lets go of the open claim.
    fn leave(&mut self, at: usize) {
        if let Some(open) = self.open.take() {
            self.steps[at] = Step::Fenced(open);
        }
    }

    /// The fill of a claim has ended.
    fn close(&mut self, at: usize, ending: Ending) {
        if self.open == Some(at) {
            self.open = None;
            match ending {
                Ending::Value(id) if !self.fenced => self.value = Some(id),
                Ending::Removes if !self.fenced => self.value = None,
                _ => {}
            }
        }
        let outcome = match ending {
            Ending::Value(id) => Step::Resolved(id),
            Ending::Error(error) => Step::Failed(error),
            Ending::Nothing => Step::Vain,
            // They look again. (So do waiters with fills that fail in another way than this one, and they might as well
            // not have joined.)
            _ => Step::None,
        };
        self.resolve(at, outcome);
    }

    fn resolve(&mut self, claim: usize, outcome: Step) {
        for step in &mut self.steps {
            if *step == Step::Joined(claim) {
                *step = outcome;
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------
// Histories by hand

/// A history by hand, of key 0 where nothing else is said.
#[derive(Default)]
struct ByHand(History);

impl ByHand {
    fn ttl(ttl: u64) -> Self {
        Self(History {
            ttl: Some(ttl),
            ..History::default()
        })
    }

    fn on(mut self, key: u8, (call, ret): (Stamp, Stamp), verb: Verb, answer: Answer) -> Self {
        self.0.deeds.push(Deed {
            span: Span { call, ret },
            key: Some(key),
            verb,
            answer,
            runs: vec![],
            inside: false,
            thread: 0,
        });
        self
    }

    fn then(self, span: (Stamp, Stamp), verb: Verb, answer: Answer) -> Self {
        self.on(0, span, verb, answer)
    }

    fn insert(self, span: (Stamp, Stamp), id: u64) -> Self {
        self.then(span, Verb::Insert(id), Answer::Done)
    }

    fn look(self, span: (Stamp, Stamp), id: Option<u64>) -> Self {
        self.then(span, Verb::Look, id.map_or(Answer::Absent, Answer::Value))
    }

    fn invalidate(self, span: (Stamp, Stamp)) -> Self {
        self.then(span, Verb::Invalidate, Answer::Done)
    }

    /// The operation that began last runs a fill.
    fn run(mut self, (start, end): (Stamp, Stamp), ending: Ending, seen: Option<u64>) -> Self {
        let deed = self.0.deeds.last_mut().expect("somebody who runs it");
        deed.runs.push(Execution {
            start,
            end,
            ending,
            seen,
        });
        self
    }

    /// A fetch that fills.
    fn fill(self, (call, ret): (Stamp, Stamp), run: (Stamp, Stamp), id: u64) -> Self {
        self.then((call, ret), Verb::Fetch, Answer::Value(id))
            .run(run, Ending::Value(id), None)
    }

    fn inside(mut self) -> Self {
        self.0.deeds.last_mut().expect("somebody inside").inside = true;
        self
    }

    fn by(mut self, thread: usize) -> Self {
        self.0.deeds.last_mut().expect("somebody").thread = thread;
        self
    }

    fn moved(mut self, (call, ret): (Stamp, Stamp), by: u64) -> Self {
        let span = Span { call, ret };
        self.0.moves.push(Move { span, by });
        self
    }

    fn rule(&self) -> &'static str {
        check(&self.0).map_or_else(|violation| violation.rule, |()| "good")
    }

    fn found(&self) -> bool {
        search(&self.0).is_ok()
    }
}

fn hand() -> ByHand {
    ByHand::default()
}

const FETCH: Verb = Verb::Fetch;

#[test]
fn r01_rejects_values_from_nowhere() {
    assert_eq!(hand().look((1, 2), Some(7)).rule(), "R1");
    let of_another_key = hand().on(1, (1, 2), Verb::Insert(7), Answer::Done);
    assert_eq!(of_another_key.look((3, 4), Some(7)).rule(), "R1");
    assert_eq!(hand().look((1, 2), Some(7)).insert((3, 4), 7).rule(), "R1");
    assert_eq!(
        hand().look((1, 3), Some(7)).insert((2, 4), 7).rule(),
        "good"
    );
    let early = hand().fill((1, 6), (2, 5), 7).look((3, 4), Some(7));
    assert_eq!(early.rule(), "R1");
}

#[test]
fn r02_rejects_fills_that_overlap() {
    let overlap = || hand().fill((1, 10), (2, 8), 1).fill((3, 11), (4, 9), 2);
    assert_eq!(overlap().rule(), "R2");
    // One that waits lets none start beside it.
    assert_eq!(overlap().invalidate((3, 12)).rule(), "R2");
    let nowait = overlap().then((3, 12), Verb::Nowait, Answer::Done);
    assert_eq!(nowait.rule(), "good");
    assert_eq!(overlap().invalidate((3, 4)).inside().rule(), "good");
    // A waiter that was handed the lead starts late, when it has been detached already.
    let late = hand()
        .then((1, 4), FETCH, Answer::Panicked)
        .run((2, 3), Ending::Panics, None);
    let late = late.fill((2, 12), (9, 10), 1).fill((7, 12), (8, 11), 2);
    assert_eq!(late.rule(), "R2");
    assert_eq!(late.then((5, 6), Verb::Nowait, Answer::Done).rule(), "good");
    // Too early, and too late.
    let early = hand()
        .insert((1, 2), 5)
        .fill((3, 10), (4, 8), 1)
        .fill((5, 11), (6, 9), 2);
    assert_eq!(early.invalidate((3, 12)).rule(), "R2");
    assert_eq!(overlap().insert((5, 6), 5).rule(), "R2");
}

#[test]
fn r03_rejects_a_second_fill() {
    let twice = || hand().fill((1, 4), (2, 3), 1).fill((5, 8), (6, 7), 2);
    assert_eq!(twice().rule(), "R3");
    assert!(!twice().found());
    assert_eq!(twice().invalidate((4, 5)).rule(), "good");
    // An insert takes nothing away.
    assert_eq!(twice().insert((2, 5), 5).rule(), "R3");
    // A refresh and a compute run all the same.
    let refreshed = hand()
        .fill((1, 4), (2, 3), 1)
        .then((5, 8), Verb::Refresh, Answer::Value(2));
    assert_eq!(refreshed.run((6, 7), Ending::Value(2), None).rule(), "good");
    let removed = hand()
        .fill((1, 4), (2, 3), 1)
        .then((5, 8), Verb::Compute, Answer::Value(1))
        .run((6, 7), Ending::Removes, Some(1))
        .fill((9, 12), (10, 11), 2);
    assert_eq!(removed.rule(), "good");
    assert!(removed.found());
    // Old values do not come back after a fill has shown that they are gone.
    let back = hand()
        .insert((1, 2), 1)
        .invalidate((3, 20))
        .fill((4, 7), (5, 6), 2)
        .look((8, 9), Some(1));
    assert_eq!(back.rule(), "R3");
    assert!(!back.found());
}

#[test]
fn r04_rejects_what_an_invalidate_has_ended() {
    let seen = hand()
        .insert((1, 2), 1)
        .invalidate((3, 4))
        .look((5, 6), Some(1));
    assert_eq!(seen.rule(), "R4");
    assert!(!seen.found());
    for verb in [Verb::Remove, Verb::Nowait] {
        let seen = hand()
            .insert((1, 2), 1)
            .then((3, 4), verb, Answer::Value(1));
        assert_eq!(seen.look((5, 6), Some(1)).rule(), "R4");
    }
    let all = |id| {
        let mut all = hand()
            .insert((1, 2), id)
            .then((3, 4), Verb::InvalidateAll, Answer::Done);
        all.0.deeds[1].key = None;
        all.look((5, 6), Some(id))
    };
    assert_eq!(all(1).rule(), "R4");
    let even = |id| {
        let mut even = all(id);
        even.0.deeds[1].verb = Verb::InvalidateEven;
        even
    };
    assert_eq!(even(2).rule(), "R4");
    assert_eq!(even(1).rule(), "good");
    // A flight that had been claimed before, too.
    let flight = hand()
        .fill((1, 9), (2, 8), 1)
        .then((3, 4), Verb::Nowait, Answer::Done);
    assert_eq!(flight.look((10, 11), Some(1)).rule(), "R4");
    // A caller that had called before may still get it, from any flight it waited for.
    let waiter = hand()
        .fill((1, 9), (2, 8), 1)
        .then((3, 4), Verb::Nowait, Answer::Done)
        .then((2, 10), FETCH, Answer::Value(1));
    assert_eq!(waiter.rule(), "good");
    assert!(!waiter.look((11, 12), Some(1)).found());
    // A fill that began meanwhile may go either way.
    let meanwhile = hand()
        .invalidate((1, 8))
        .fill((2, 5), (3, 4), 1)
        .look((9, 10), Some(1));
    assert_eq!(meanwhile.rule(), "good");
    assert!(meanwhile.found());
    // A value that one operation has removed is not seen again, though it came while the removal went on.
    let removed = hand()
        .insert((2, 3), 1)
        .then((1, 4), Verb::Remove, Answer::Value(1));
    assert_eq!(removed.look((5, 6), Some(1)).rule(), "R4");
}

#[test]
fn r04_rejects_an_invalidate_that_does_not_wait() {
    let left = || hand().fill((1, 8), (2, 7), 1).invalidate((3, 4));
    assert_eq!(left().rule(), "R4");
    assert!(!left().found());
    assert_eq!(left().inside().rule(), "good");
    let cut = left().insert((3, 4), 9);
    assert_eq!(cut.rule(), "good");
    assert_eq!(left().insert((5, 6), 9).rule(), "R4");
    assert_eq!(
        hand().fill((1, 8), (3, 7), 1).invalidate((2, 4)).rule(),
        "good"
    );
}

#[test]
fn r05_rejects_what_an_insert_has_replaced() {
    let older = hand()
        .insert((1, 2), 1)
        .insert((3, 4), 2)
        .look((5, 6), Some(1));
    assert_eq!(older.rule(), "R5");
    let flight = hand()
        .fill((1, 8), (2, 7), 1)
        .insert((3, 4), 2)
        .look((9, 10), Some(1));
    assert_eq!(flight.rule(), "R5");
    assert!(!flight.found());
    let at_once = hand()
        .insert((1, 4), 1)
        .insert((2, 3), 2)
        .look((5, 6), Some(1));
    assert_eq!(at_once.rule(), "good");
    let waiter = hand()
        .fill((1, 8), (3, 7), 1)
        .insert((4, 5), 2)
        .then((2, 6), FETCH, Answer::Value(2))
        .look((9, 10), Some(2));
    assert_eq!(waiter.rule(), "good");
    assert!(waiter.found());
    for (verb, seen) in [(Verb::Compute, Some(1)), (Verb::Refresh, None)] {
        let older = hand()
            .insert((1, 2), 1)
            .then((3, 6), verb, Answer::Value(2))
            .run((4, 5), Ending::Value(2), seen)
            .look((7, 8), Some(1));
        assert_eq!(older.rule(), "R5");
        assert!(!older.found());
    }
}

#[test]
fn r06_rejects_what_was_seen_to_be_over() {
    // Neither insert has returned; the reads are one after the other.
    let seen = |second| {
        let reads = hand()
            .insert((1, 2), 1)
            .insert((3, 20), 2)
            .look((4, 5), Some(2));
        reads.look((6, 7), Some(second))
    };
    assert_eq!(seen(1).rule(), "R6");
    assert_eq!(seen(2).rule(), "good");
    let gone = hand()
        .insert((1, 2), 1)
        .invalidate((3, 20))
        .look((4, 5), None);
    assert_eq!(gone.look((6, 7), Some(1)).rule(), "R6");
    // The value of a detached flight is in the way of no other: it was never there.
    let waiter = hand()
        .fill((1, 8), (2, 7), 1)
        .insert((3, 4), 2)
        .then((2, 9), FETCH, Answer::Value(1))
        .look((10, 11), Some(2));
    assert_eq!(waiter.rule(), "good");
}

#[test]
fn r07_rejects_what_is_served_late_or_lost_early() {
    let late = ByHand::ttl(10)
        .insert((1, 2), 1)
        .moved((3, 4), 10)
        .look((5, 6), Some(1));
    assert_eq!(late.rule(), "R7");
    let in_time = ByHand::ttl(10)
        .insert((1, 2), 1)
        .moved((3, 4), 9)
        .look((5, 6), Some(1));
    assert_eq!(in_time.rule(), "good");
    let either = ByHand::ttl(10).insert((1, 2), 1).moved((3, 6), 10);
    assert_eq!(
        either.look((4, 5), Some(1)).look((7, 8), None).rule(),
        "good"
    );
    let early = ByHand::ttl(10)
        .insert((1, 2), 1)
        .moved((3, 4), 9)
        .look((5, 6), None);
    assert_eq!(early.rule(), "R7");
    let expired = ByHand::ttl(10)
        .insert((1, 2), 1)
        .moved((3, 4), 10)
        .look((5, 6), None);
    assert_eq!(expired.rule(), "good");
    let lost = hand().insert((1, 2), 1).look((3, 4), None);
    assert_eq!(lost.rule(), "R7");
    assert!(!lost.found());
    let filled_early = ByHand::ttl(10).insert((1, 2), 1).fill((3, 6), (4, 5), 2);
    assert_eq!(filled_early.rule(), "R3");
    // A waiter gets the value with any TTL.
    let waiter = ByHand::ttl(0)
        .fill((1, 6), (2, 5), 1)
        .then((3, 7), FETCH, Answer::Value(1));
    assert_eq!(waiter.rule(), "good");
    let kept = ByHand::ttl(0)
        .fill((1, 4), (2, 3), 1)
        .then((5, 6), FETCH, Answer::Value(1));
    assert_eq!(kept.rule(), "R7");
}

#[test]
fn r08_rejects_answers_that_nobody_gave() {
    let failed = |span, answer| {
        let failed =
            hand()
                .then((1, 4), FETCH, Answer::Error(1))
                .run((2, 3), Ending::Error(1), None);
        failed.then(span, FETCH, answer)
    };
    assert_eq!(failed((2, 5), Answer::Error(1)).rule(), "good");
    assert!(failed((2, 5), Answer::Error(1)).found());
    // Errors are not cached, and come from somewhere.
    assert_eq!(failed((5, 6), Answer::Error(1)).rule(), "R8");
    assert!(!failed((5, 6), Answer::Error(1)).found());
    assert_eq!(failed((2, 5), Answer::Error(2)).rule(), "R8");
    assert_eq!(failed((2, 5), Answer::Absent).rule(), "R8");
    assert_eq!(failed((2, 5), Answer::Panicked).rule(), "R8");
    assert_eq!(failed((2, 5), Answer::Cycle).rule(), "R8");
    let own = hand()
        .insert((1, 2), 1)
        .then((1, 6), FETCH, Answer::Value(1));
    assert_eq!(own.run((3, 4), Ending::Value(2), None).rule(), "R8");
    let twice = hand()
        .fill((1, 8), (2, 3), 1)
        .run((4, 5), Ending::Value(2), None);
    assert_eq!(twice.rule(), "R8");
    // A refresh does not accept the value that is there.
    let old = hand()
        .insert((1, 2), 1)
        .then((3, 4), Verb::Refresh, Answer::Value(1));
    assert_eq!(old.rule(), "R8");
    let mistaken = hand()
        .insert((1, 2), 1)
        .then((3, 6), Verb::Compute, Answer::Absent);
    assert_eq!(mistaken.run((4, 5), Ending::Leaves, Some(1)).rule(), "R8");
}

#[test]
fn r08_rejects_cycles_that_are_none() {
    // Thread 1 fills key 0 and asks for key 1. Thread 2 fills that, and asks for key 0; or not.
    let told = |asks: bool| {
        let filled = hand().fill((1, 11), (2, 10), 1).by(1);
        let filled = filled.on(1, (3, 14), FETCH, Answer::Value(2)).by(2);
        let filled = filled.run((4, 13), Ending::Value(2), None);
        let told = filled.on(1, (6, 7), FETCH, Answer::Cycle).by(1).inside();
        if asks {
            told.then((5, 12), FETCH, Answer::Value(1)).by(2).inside()
        } else {
            told
        }
    };
    assert_eq!(told(true).rule(), "good");
    assert_eq!(told(false).rule(), "R8");
    let own = hand()
        .fill((1, 6), (2, 5), 1)
        .then((3, 4), FETCH, Answer::Cycle);
    assert_eq!(own.inside().rule(), "good");
}

#[test]
fn the_search_rejects_a_lost_increment() {
    let increments = |seen| {
        hand()
            .then((1, 8), Verb::Compute, Answer::Value(1))
            .run((3, 4), Ending::Value(1), None)
            .then((2, 9), Verb::Compute, Answer::Value(2))
            .run((6, 7), Ending::Value(2), seen)
    };
    assert!(increments(Some(1)).found());
    assert!(!increments(None).found());
}

/// A compute that has read 1 and is to put in 2, or to remove that; and the answers of the removals beside it.
fn beside_a_compute(
    (ending, answer): (Ending, Answer),
    removals: &[(Verb, Answer)],
    after: Option<u64>,
) -> ByHand {
    let mut history = hand()
        .insert((1, 2), 1)
        .then((3, 20), Verb::Compute, answer)
        .run((4, 15), ending, Some(1));
    for (&(verb, answer), at) in removals.iter().zip(5..) {
        let ret = if verb == Verb::Nowait {
            at + 5
        } else {
            at + 20
        };
        history = history.then((at, ret), verb, answer);
    }
    history.look((30, 31), after)
}

#[test]
fn r11_rejects_what_is_taken_out_twice_or_lost() {
    use Answer::{Absent, Done, Superseded, Value, WasThere};
    use Verb::{Invalidate, Nowait, Remove};
    let put = (Ending::Value(2), Value(2));
    let gone = (Ending::Removes, Value(1));
    let nop = (Ending::Leaves, Value(1));
    let not_put = (Ending::Value(2), Superseded);
    let not_gone = (Ending::Removes, Superseded);
    for (compute, removals, after) in [
        (put, &[(Remove, Value(2))][..], None),
        (put, &[(Remove, Value(2)), (Remove, Absent)], None),
        (put, &[(Remove, Absent), (Invalidate, WasThere)], None),
        (gone, &[(Remove, Absent)], None),
        (gone, &[(Invalidate, Done), (Remove, Absent)], None),
        (nop, &[(Remove, Value(1)), (Remove, Absent)], None),
        (not_put, &[(Nowait, Value(1))], None),
        (not_put, &[(Nowait, WasThere), (Remove, Absent)], None),
        (not_gone, &[(Nowait, Value(1))], None),
        (nop, &[(Nowait, Value(1))], None),
    ] {
        let history = beside_a_compute(compute, removals, after);
        assert!(history.found(), "{compute:?} {removals:?}");
        assert_eq!(history.rule(), "good", "{compute:?} {removals:?}");
    }
    // The update is lost; it is taken out, and no removal says so, or two do; a value that was given back is there.
    for (compute, removals, after, rule) in [
        (put, &[(Remove, Value(1))][..], None, "R11"),
        (put, &[(Remove, Absent)], None, ""),
        (put, &[(Remove, Value(2)), (Remove, Value(2))], None, "R11"),
        (put, &[(Invalidate, WasThere), (Remove, Value(2))], None, ""),
        (put, &[(Nowait, Value(1))], None, "R11"),
        (gone, &[(Remove, Value(1))], None, "R11"),
        (gone, &[(Invalidate, WasThere)], None, ""),
        (gone, &[(Nowait, Value(1))], None, "R11"),
        (nop, &[(Remove, Absent)], None, ""),
        (nop, &[(Remove, Value(1))], Some(1), "R4"),
        (not_put, &[(Nowait, Value(1))], Some(2), "R1"),
        (
            not_put,
            &[(Nowait, Value(1)), (Remove, Value(1))],
            None,
            "R11",
        ),
        (not_put, &[(Remove, Value(1))], None, "R8"),
        (not_put, &[], Some(1), "R8"),
    ] {
        let history = beside_a_compute(compute, removals, after);
        assert!(!history.found(), "{compute:?} {removals:?}");
        if !rule.is_empty() {
            assert_eq!(history.rule(), rule, "{compute:?} {removals:?}");
        }
    }
    // An insert beside a compute is after it, and after a removal that waits for it.
    let inserted = |(ending, answer), removed, after| {
        hand()
            .insert((1, 2), 1)
            .then((3, 20), Verb::Compute, answer)
            .run((4, 15), ending, Some(1))
            .then((5, 21), Remove, removed)
            .insert((6, 7), 3)
            .look((30, 31), after)
            .found()
    };
    assert!(inserted(put, Value(2), Some(3)));
    assert!(inserted(put, Value(3), None));
    assert!(!inserted(put, Value(1), Some(3)));
    assert!(!inserted(not_put, Value(1), Some(3)));
    assert!(!inserted(not_put, Value(2), Some(3)));
}

#[test]
fn the_search_rejects_what_no_order_explains() {
    // Two reads that see two inserts in opposite orders; no rule of intervals says so.
    let reads = hand()
        .insert((1, 20), 1)
        .insert((2, 21), 2)
        .look((3, 4), Some(1))
        .look((5, 6), Some(2))
        .look((7, 8), Some(1));
    assert!(!reads.found());
    // Two removals of one value.
    let removals = hand()
        .insert((1, 2), 1)
        .then((3, 6), Verb::Remove, Answer::Value(1))
        .then((4, 5), Verb::Remove, Answer::Value(1));
    assert!(!removals.found());
}

#[test]
fn the_search_knows_what_races_allow() {
    // A caller that had joined has the flight's value or the insert's, for as long as that goes on.
    for got in [1, 2] {
        let waiter = hand()
            .fill((1, 9), (3, 7), 1)
            .insert((4, 12), 2)
            .look((5, 6), Some(2))
            .then((2, 10), FETCH, Answer::Value(got))
            .look((13, 14), Some(2));
        assert!(waiter.found(), "{got}");
        assert_eq!(waiter.rule(), "good");
    }
    // A removal that waits for a compute has the value it leaves, and hides the value it has read until then.
    let waited_for = hand()
        .insert((1, 2), 1)
        .then((3, 9), Verb::Compute, Answer::Value(2))
        .run((4, 8), Ending::Value(2), Some(1))
        .then((5, 10), Verb::Remove, Answer::Value(2))
        .look((5, 6), Some(1))
        .look((6, 7), None)
        .look((11, 12), None);
    assert!(waited_for.found());
    assert_eq!(waited_for.rule(), "good");
    // After a caller that waited in vain others run their own fills.
    let again = hand()
        .then((1, 4), FETCH, Answer::Absent)
        .run((2, 3), Ending::Nothing, None)
        .fill((2, 8), (5, 6), 1)
        .look((9, 10), Some(1));
    assert!(again.found());
    let vain = again.then((3, 6), FETCH, Answer::Absent);
    assert!(vain.found());
    assert!(!vain.then((11, 12), FETCH, Answer::Absent).found());
}
