//! How it works: a guide for readers that check the source before they trust it. Documentation only.
//!
//! # The layers
//!
//! ```text
//! memoize ─► future ─► atomic_cache ─► cache, pinned, entry, guard ─► fill ─► core ─► table ─► reclaim ─► sync
//!                                                                    │
//!                                                                    ├────► slot ─► flight ─► sync
//!                                                                    ├────► slab ─► turnstile, pages
//!                                                                    ├────► cycle ─► flight
//!                                                                    ├────► bound, policy
//!                                                                    ├────► listener, janitor
//!                                                                    └────► stats, time
//! ```
//! An arrow means "uses"; nothing points back. Three boundaries do the work:
//!
//! * **slot knows no key, table knows no state.** The table deals in hashes and addresses, the slot
//!   in phases of one value. Each is modelled alone.
//! * **`sync.rs` is the only door** to atomics, locks and parking, so a model sees every access.
//! * **a pin covers one step**, never a fill or a wait. An object that must live longer is *held*.
//!
//! # The path of a `get`
//!
//! (Instruction by instruction: [`how_a_hit_works`](crate::how_a_hit_works).)
//!
//! Hash the key; pin; probe the table's words for the hash's tag; follow the one that matches and
//! compare the key; load the slot's state (Acquire): live, and before its deadline? Clone the
//! value, unpin.
//!
//! Nothing is retried. In an unbounded cache nothing is written. In a bounded one the hit raises
//! the count of the entry in its word, while that is below its maximum: one swap, which may fail
//! and is not repeated. All other cases are marked cold:
//!
//! 1. Put a *filling* slot into the table, or find that another caller has.
//! 2. If it is ours: unpin, run the fill with nothing held but the lead, publish, wake the waiters.
//! 3. If it is another caller's: take part in its flight, unpin, enlist, look again, enter the
//!    wait-for graph if this thread leads a fill itself, sleep.
//!
//! A task does the same: the core has one step (`Core::turn`) and one wait (`Wait::poll`). Threads
//! park between two polls where tasks answer `Pending`.
//!
//! # The life of a slot
//!
//! ```text
//!                  publish
//!    ┌─────────┐ ───────────► ┌───────┐
//!    │ FILLING │              │ READY │ a value, a deadline
//!    └─────────┘ ─────┐       └───────┘
//!         │    finish └─────► ┌───────┐
//!         │                   │ GONE  │ no value
//!         ▼                   └───────┘
//!    CUT: detached. A mark, set by invalidate, insert and their kin while it fills, and kept in
//!    all later phases: callers that have joined get the outcome, newcomers never do.
//! ```
//! A slot never goes back: a refill is another slot in the same place of the table. Three holds
//! keep it: `LINKED` (the table points to it), `HELD` (a leader fills it, or the waiters still read
//! it) and, after `LINKED`, `TOLD` (the listener is still to be told). The thread that clears the
//! last hold retires the slot.
//!
//! The state word:
//!
//! ```text
//!  63                          16 15    9    8     7     6       5      4     3      2     1   0
//! +------------------------------+-------+------+-----+---------+--------+-----+------+--------+-------+
//! | filling: the leader's number | 9..15 | TOLD | gen | LINGERS | FLIGHT | CUT | HELD | LINKED | phase |
//! | or a flight; ready: a weight |       |      |     |         |        |     |      |        |       |
//! +------------------------------+-------+------+-----+---------+--------+-----+------+--------+-------+
//!   LINGERS: removed, and still to be read or told of, which `quiesce` waits for; gen: its generation
//!   9, TASKS: tasks take part, and leave only when they are polled: such a slot does not linger
//!   10, SLOW: `on_slow_fill` has been told of the fill; 11, TAKEN: detached by a takeover
//!   12, RESTORES: and not detached before, so the previous value is served until it is restored
//!   13, COMPUTE: the fill is a compute; 14, SUPERSEDED: the value that it has read was removed
//!   15, CLAIMED: a removal has answered with the value that the compute has left, or none may
//! ```
//! A second word is the deadline once the slot is `READY`. While the slot fills, the word is the
//! time at which the fill began. Or, with bit 63 set, it is the address of the slot that this one
//! is to replace: a `refresh` or a compute leaves the old value to be read until the new one is
//! there, and restores it when it fails.
//!
//! # A flight
//!
//! A fill without waiters is a slot and nothing more. The first caller that must wait hangs
//! a *flight* on the slot's state word: a list of wakers under a small lock, the leader's number,
//! the outcome. Leader and waiters *take part*, counted; the last to leave releases the slot.
//!
//! When the flight ends, the leader publishes to the slot, stores the outcome and takes the list
//! under the lock, unlocks, and wakes. When the leader is lost (a panic, a dropped guard) one
//! waiter is handed the lead of the *same* slot, and the others sleep on.
//!
//! A fill of an `AtomicCache` that is a future has no caller as its leader. Its flight stores it,
//! with the lead; a waiter that is polled takes it out, polls it and puts it back (`flight.rs`).
//! The last waiter takes it away when it leaves.
//!
//! The nodes of the wait-for graph are *actors*: threads, and fills that are futures. A fill that
//! is a future waits through the thread that polls it, so while it is polled the thread acts for it
//! (`actor.rs`, `cycle.rs`).
//!
//! # The table
//!
//! ```text
//!  63      56 55  53 52  51 50  48 47                                3   2   1   0
//! +----------+------+---+---+------+-----------------------------------+---+---+---+
//! |   tag    | s    | p | u |count |  address, 8-aligned               | f | t | z |
//! +----------+------+---+---+------+-----------------------------------+---+---+---+
//!   f copied, and its source not yet sealed   t tentative: placed, not confirmed   z frozen
//!   s, p, u, count: the mark, for the policy: passed, on probation, used, how often
//! ```
//! Linear probing from the highest bits of the hash. An empty word ends a probe, and none appears
//! between a live word and its home. So a removed word is a tombstone, and becomes empty only when
//! the word behind it is empty (`table/clear.rs` has the argument). An insert places a tentative
//! word, walks back to its home and on, and confirms: `table.rs` has the argument why one key never
//! gets two words although tombstones are reused.
//!
//! When a level is 5/8 used, a next one hangs off it. Writers move a block of words each, and first
//! the whole probe of their own key: `table/grow.rs` has the argument why each word is copied once,
//! whichever threads help.
//!
//! # Bounds
//!
//! An entry is *charged* with its weight before it can be seen, and *discharged* by the thread that
//! removes it. A thread that charges owes the weight that is then above the capacity, up to its own
//! entry's weight, and evicts as much before it returns. It evicts the entries that the policy
//! names, or, if it finds none within its bound, its own entry. `bound.rs` has the argument why the
//! total keeps within the capacity and the weight that is coming in.
//!
//! # The policy
//!
//! A CLOCK over the table itself: there are no queues, lists or shards beside it. Hands go over the
//! words in the order of positions, and several threads may move them at once. Each claims the
//! words of up to sixteen cache lines with one `fetch_add`, and owns an entry that it unlinks with
//! its swap.
//!
//! A new key is on probation. If it is not asked for again, it is evicted. If it is, it contests
//! the weakest of the next few main entries, and the one with the lower count is evicted. An
//! evicted key leaves a ghost in a small table of fingerprints, with its count, for when it comes
//! back. Counts are halved by a third hand, as misses come. The size of probation, and the trust in
//! a newcomer, are learnt from the ghosts that come back: from misses alone.
//!
//! A key that is removed, or expires, leaves a ghost too: when it comes again, it has its class and
//! count back. Expired entries leave before the policy is asked (`core/expiring.rs`), and a smaller
//! capacity evicts by rank, over all entries. `policy.rs` has the rules, the source of each, and
//! the measured worth of each constant.
//!
//! # The listener
//!
//! The thread that removes an entry does not call the listener. It posts the entry, which is held,
//! and the next thread that holds nothing tells the listener, one thread at a time. `listener.rs`
//! has the consequences.
//!
//! # Orderings
//!
//! | where | ordering | pairs with | it carries |
//! |---|---|---|---|
//! | `Slot::publish`: state | `SeqCst` swap | `Slot::state`, Acquire | value and deadline |
//! | `Slot::release`: state | `AcqRel` | itself | the release of the last hold comes after every other holder's last read |
//! | `Slot::hang`: state | the same swap | `Slot::state`, Acquire | the flight behind the address |
//! | `Slot::finish`, `Slot::cut`: state | the same swap | each other | one order of detach and end: a detach that comes first is seen |
//! | `Flight::leave`: parts | `AcqRel` | itself | the last to leave comes after all others' use |
//! | `Flight`'s list | mutex | itself | the outcome; "on the list" against "list taken" |
//! | `Level::swap`: a word | `SeqCst` swap | `Level::load` | the object behind the address |
//! | place, then walk again | `SeqCst` swap, `SeqCst` loads | the same of a rival | of two inserts of one key, one sees the other |
//! | number a tombstone, then read the word behind it | `SeqCst` swap, `SeqCst` load | place, then walk back | no word is hidden by one that becomes empty |
//! | `Level::settled` | Release (after the grace period) | Acquire | the last copy into the level |
//! | place a slot, then ask whether the cache is closed; close, then walk the table | `SeqCst` | each other | no fill begins after `close` |
//! | `Bound`: total, then capacity; capacity, then total | `SeqCst` | each other | of a charge and a smaller capacity, one sees both |
//! | `Bound`: leave a debt, then read every entry; put an entry in, then read the debts left | `SeqCst` | each other | the thread that puts in an entry which the other has missed pays |
//! | `Bulletin`: post, then read the count of telling threads; end telling, then read the queue | `SeqCst` | each other | no removal stays untold |
//! | a new policy | `AcqRel` swap | Acquire | its ghosts |
//! | marks, hands, ghosts | as the word's swap; Relaxed | - | nothing |
//! | `Level::growth` | `AcqRel` swap | Acquire | the next level's words |
//! | `Table::root` | `AcqRel` swap | Acquire | as above, for threads that come later |
//! | ledger of a resize | `AcqRel` swap | Acquire | nothing but the number, which must not go back |
//! | a place: pinned; then the pin's reads | Release, light barrier | heavy barrier, then Acquire | of a pin and a look at the places, one sees the other |
//! | all go over to fences; then the places' `taken` | Relaxed, full fence | full fence, Relaxed in `take` | a thread that takes a place is asked, or knows |
//! | a place: `fenced` | Release | Acquire in `all_are_fenced` | the reads of its light pins |
//! | a place: unpinned, or pinned anew | Release | Acquire in `advance` | a pin's last reads |
//! | the epoch: a grace begins | `AcqRel` | Acquire by a thread that pins, and by one that advances | the unlinks before it |
//! | graces that are over | `AcqRel` | Acquire | readers' last reads, before the drop |
//! | a turnstile | Acquire, Release | itself | the data inside |
//! | cells given back | Release | Acquire of all at once | the link; the last use of the cell |
//! | a batch's `reaped` | Release | Acquire in `quiesce` | the drops |
//! | counters | Relaxed | - | nothing |
//!
//! On x86-64 all of these but the swaps are plain loads and stores.
//!
//! # Reclamation
//!
//! An object is *unlinked* by its owner, *retired* to a queue of its cache, and *sealed* with
//! others into a batch. Then the batch's *grace* begins. When every thread that was pinned then has
//! been unpinned since, the batch is *reaped*: its objects are dropped with no pin and no lock
//! held, each destructor contained, and their cells given back to the cache's slab.
//!
//! An engine says when a grace is over, and is asked for nothing else: on Linux our own
//! (`reclaim/asymmetric.rs`), elsewhere crossbeam-epoch. `reclaim.rs` says why.
//!
//! A queue is behind a turnstile, a flag that one thread at a time takes with one locked
//! instruction. A thread that finds it taken goes to the next stripe's, so no thread waits for one
//! that was preempted inside.
//!
//! # User code: where it runs
//!
//! | code | runs | if it panics |
//! |---|---|---|
//! | fill, compute | with the lead of its flight, nothing else | the next waiter leads; the value that was there before stays |
//! | `Hash` | before the pin; again, under it, when a word is moved | the caller's panic; when moved: the entry is out of reach and reclaimed |
//! | `Eq` | under the pin; in an insert between place and confirm | the tentative word is withdrawn |
//! | `Clone` of a value | under the pin, after the publish | the caller's panic; the value is there for all others |
//! | `Clone` of an error | with the lead | as a panic of the fill |
//! | making an owned key | under the pin, before any word is placed | the caller's panic |
//! | `Drop` | from a batch, nothing held | counted in `panicked_drops`; the next one is dropped |
//! | a fill that is a future | as a fill, at each poll | goes on in the caller that polls it; the next waiter leads |
//! | wakers: woken, cloned, dropped | nothing held | contained, but for a clone's: the caller's panic |
//! | spawner, `on_slow_fill` | nothing held; at a fill's end, its lead | contained |
//! | weigher | with the lead, or with nothing held | contained and counted; the value is handed out, not kept |
//! | listener | nothing held | contained and counted; later removals are told |
//! | predicates, `with` | under the pin | the caller's panic |
//! | `Debug` of a key | before the wait-for graph's lock | a placeholder in the error |
