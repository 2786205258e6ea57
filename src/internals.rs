//! How it works: a guide for those who read the source before they trust it. Documentation only.
//!
//! # The house
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
//! * **slot knows no key, table knows no state.** The table deals in hashes and addresses, the
//!   slot in phases of one value. Each is modelled alone.
//! * **`sync.rs` is the only door** to atomics, locks and parking, so a model sees every access.
//! * **a pin covers one step**, never a fill or a wait. What must live longer is *held*.
//!
//! # The walk of a `get`
//!
//! (Instruction by instruction: [`how_a_hit_works`](crate::how_a_hit_works).)
//!
//! Hash the key; pin; probe the table's words for the hash's tag; follow the one that matches and
//! compare the key; load the slot's state (Acquire): live, and before its deadline? Clone the
//! value, unpin. Nothing is retried, and nothing is written but, in a bounded cache, the count of the
//! entry in its word, while that is below its maximum: one swap, which may fail and is then forgotten.
//! All else is marked cold:
//!
//! 1. Put a *filling* slot into the table, or find that somebody has.
//! 2. Ours: unpin, run the fill with nothing held but the lead, publish, wake who waits.
//! 3. Somebody else's: take part in its flight, unpin, enlist, look again, enter the wait-for graph
//!    if this thread leads a fill itself, sleep.
//!
//! A task does the same: the core has one step (`Core::turn`) and one wait (`Wait::poll`), and threads park
//! between two polls where tasks answer `Pending`.
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
//!    CUT: fenced off. A mark, set by invalidate, insert and their kin while it fills, and kept in
//!    whatever phase follows: those who joined get the outcome, newcomers never do.
//! ```
//! A slot never goes back: a refill is another slot in the same place of the table. Three holds keep
//! it: `LINKED` (the table points to it), `HELD` (a leader fills it, or those who waited still
//! read it) and, after `LINKED`, `TOLD` (the listener is still to be told). Whoever clears the last
//! retires it.
//!
//! The state word:
//!
//! ```text
//!  63                          16 15    9    8     7     6       5      4     3      2     1   0
//! +------------------------------+-------+------+-----+---------+--------+-----+------+--------+-------+
//! | filling: the leader's number | 9..12 | TOLD | gen | LINGERS | FLIGHT | CUT | HELD | LINKED | phase |
//! | or a flight; ready: a weight |       |      |     |         |        |     |      |        |       |
//! +------------------------------+-------+------+-----+---------+--------+-----+------+--------+-------+
//!   LINGERS: removed, and still to be read or told of, which `quiesce` waits for; gen: since when
//!   9, TASKS: tasks take part, which come when they are polled: such a slot does not linger
//!   10, SLOW: somebody has been told that the fill is slow; 11, TAKEN: cut by a takeover;
//!   12, RESTORES: and by nobody before, so what it is to replace is served until it is back in its place
//! ```
//! A second word is the deadline once the slot is `READY`. While it fills it says when the fill began; or,
//! with bit 63 set, it is the address of the slot it is to replace: a `refresh` or a compute leaves the old value to be
//! read until the new one is there, and puts it back when it fails.
//!
//! # A flight
//!
//! A fill that nobody waits for is a slot and nothing more. The first who must wait hangs a
//! *flight* on the slot's state word: a list of wakers under a small lock, the leader's number, the
//! outcome. Leader and waiters *take part*, counted; the last to leave lets go of the slot. When the
//! flight ends: publish to the slot, store the outcome and take the list under the lock, let
//! go, wake. When the leader is lost (a panic, a dropped guard) one waiter is handed the lead of the
//! *same* slot, and the others sleep on.
//!
//! An `AtomicCache`'s fill that is a future is not led in person: its flight keeps it, with the lead, and
//! whoever waits and is polled takes it out, polls it and puts it back (`flight.rs`). The last of
//! those who wait takes it away with it.
//!
//! The graph of who waits for whom has *actors*: threads, and fills that are futures. What such a fill waits
//! for, it waits for whoever polls it, so while it is polled the thread acts for it (`actor.rs`,
//! `cycle.rs`).
//!
//! # The table
//!
//! ```text
//!  63      56 55  53 52  51 50  48 47                                3   2   1   0
//! +----------+------+---+---+------+-----------------------------------+---+---+---+
//! |   tag    | s    | p | u |count |  address, 8-aligned               | f | t | z |
//! +----------+------+---+---+------+-----------------------------------+---+---+---+
//!   f fresh: copied, its source not yet sealed   t tentative: placed, not confirmed   z frozen
//!   s to count: the mark, which is the policy's: passed, on probation, used, how often
//! ```
//! Linear probing from the highest bits of the hash. An empty word ends a probe, and none appears
//! between a live word and its home: a removed word is a tomb, and becomes empty when what stands
//! behind it is (`table/clear.rs` has the argument). An insert
//! places a tentative word, walks back to its home and on, and confirms: `table.rs` has the argument
//! why one key never gets two words although tombs are reused. When a level is 5/8 used, a
//! next one hangs off it; writers move a block of words each, and first the whole probe of their own
//! key: `table/grow.rs` has the argument why each word is copied once, whoever helps.
//!
//! # Bounds
//!
//! An entry is *charged* with its weight before it can be seen, and *discharged* by whoever takes it
//! out. Who charges owes what then lies above the capacity, up to its own weight, and takes out as
//! much before it returns: what the policy names, or, if that finds nothing within its bound, its own
//! entry. `bound.rs` has the argument why the total keeps within the capacity and what is coming in.
//!
//! # The policy
//!
//! A clock whose face is the table itself: there are no queues, lists or shards beside it. Hands go
//! over the words in the order of positions, and several threads may move them at once: each claims
//! the words of up to sixteen cache lines with one `fetch_add`, and owns what it unlinks with its swap.
//!
//! A new key is on probation. If it is never asked for again, it goes; if it is, it contests the
//! weakest of the next few main entries, and the one with the lower count goes. Who goes leaves a
//! ghost in a small table of fingerprints, with its count, for when it comes back. Counts are halved
//! by a third hand, as misses come. How large probation is, and how much a newcomer is trusted, is
//! learnt from which ghosts come back: from misses alone. A key that is removed, or expires, leaves a ghost too: it goes on
//! where it was when it comes again. What has expired leaves before the policy is asked (`core/expiring.rs`), and a smaller
//! capacity takes out by rank, over all entries. `policy.rs` has the rules, where each
//! comes from, and what each constant was measured to be worth.
//!
//! # The listener
//!
//! Who removes an entry does not call the listener: it posts the entry, held, and whoever next has
//! nothing in hand tells of it, one thread at a time. `listener.rs` says what follows from that.
//!
//! # Orderings
//!
//! | where | ordering | pairs with | what it carries |
//! |---|---|---|---|
//! | `Slot::publish`: state | `SeqCst` swap | `Slot::state`, Acquire | value and deadline |
//! | `Slot::release`: state | `AcqRel` | itself | the last hold's owner comes after every other's last look |
//! | `Slot::hang`: state | the same swap | `Slot::state`, Acquire | the flight behind the address |
//! | `Slot::finish`, `Slot::cut`: state | the same swap | each other | one order of fence and end: a fence that comes first is seen |
//! | `Flight::leave`: parts | `AcqRel` | itself | the last to leave comes after everybody's use |
//! | `Flight`'s list | mutex | itself | the outcome; "on the list" against "list taken" |
//! | `Level::swap`: a word | `SeqCst` swap | `Level::load` | the object behind the address |
//! | place, then walk again | `SeqCst` swap, `SeqCst` loads | the same of a rival | of two inserts of one key, one sees the other |
//! | number a tomb, then look behind it | `SeqCst` swap, `SeqCst` load | place, then walk back | no word is hidden by one that becomes empty |
//! | `Level::settled` | Release (after the grace period) | Acquire | the last copy into the level |
//! | place a slot, then ask whether the cache is closed; close, then walk the table | `SeqCst` | each other | no fill begins after `close` |
//! | `Bound`: total, then capacity; capacity, then total | `SeqCst` | each other | of a charge and a smaller capacity, one sees both |
//! | `Bound`: leave a debt, then look at every entry; put one in, then ask what was left | `SeqCst` | each other | who puts in what was not looked at pays |
//! | `Bulletin`: post, then look who tells; end telling, then look what is posted | `SeqCst` | each other | nothing stays untold |
//! | a new policy | `AcqRel` swap | Acquire | its ghosts |
//! | marks, hands, ghosts | as the word's swap; Relaxed | - | nothing |
//! | `Level::growth` | `AcqRel` swap | Acquire | the next level's words |
//! | `Table::root` | `AcqRel` swap | Acquire | as above, for those who come later |
//! | ledger of a growth | `AcqRel` swap | Acquire | nothing but the number, which must not go back |
//! | a place: pinned; then what is read | Release, light barrier | heavy barrier, then Acquire | of a pin and a look at the places, one sees the other |
//! | all go over to fences; then the places' `taken` | Relaxed, full fence | full fence, Relaxed in `take` | who takes a place is asked, or knows |
//! | a place: `fenced` | Release | Acquire in `all_are_fenced` | the looks of its light pins |
//! | a place: unpinned, or pinned anew | Release | Acquire in `advance` | a pin's last looks |
//! | the epoch: a grace begins | `AcqRel` | Acquire by who pins, and who advances | what was unlinked before |
//! | graces that are over | `AcqRel` | Acquire | readers' last looks, before the drop |
//! | a turnstile | Acquire, Release | itself | what is inside |
//! | cells given back | Release | Acquire of all at once | the link; what was done to the cell |
//! | a batch's `reaped` | Release | Acquire in `quiesce` | the drops |
//! | counters | Relaxed | - | nothing |
//!
//! On x86-64 all of these but the swaps are plain loads and stores.
//!
//! # Reclamation
//!
//! *Unlinked* by its owner, *retired* to a queue of its cache, *sealed* with others into a batch, whose
//! *grace* begins; when everybody who was pinned then has been unpinned since, *reaped*: dropped with no
//! pin and no lock held, each destructor contained, and its cell given back to the cache's slab. When a grace is over an
//! engine says, and is asked for nothing else: on Linux our own (`reclaim/asymmetric.rs`), elsewhere
//! crossbeam-epoch. `reclaim.rs` says why.
//!
//! A queue is behind a turnstile, a flag that one thread at a time takes with one locked instruction: who finds it
//! taken goes to the next stripe's, so nobody waits for a thread that was preempted inside.
//!
//! # Who runs foreign code, and where
//!
//! | code | runs | if it panics |
//! |---|---|---|
//! | fill, compute | with the lead of its flight, nothing else | the next waiter leads; what was there before stays |
//! | `Hash` | before the pin; again, under it, when a word is moved | the caller's panic; when moved: the entry is out of reach and reclaimed |
//! | `Eq` | under the pin; in an insert between place and confirm | the tentative word is withdrawn |
//! | `Clone` of a value | under the pin, after the publish | the caller's panic; the value is there for all others |
//! | `Clone` of an error | with the lead | as a panic of the fill |
//! | making an owned key | under the pin, before anything is placed | the caller's panic |
//! | `Drop` | from a batch, nothing held | counted in `panicked_drops`; the next one is dropped |
//! | a fill that is a future | as a fill, at each poll | goes on in whoever polls it; the next waiter leads |
//! | wakers: woken, cloned, dropped | nothing held | contained, but for a clone's: the caller's panic |
//! | spawner, `on_slow_fill` | nothing held; at a fill's end, its lead | contained |
//! | weigher | with the lead, or with nothing held | contained and counted; the value is handed out, not kept |
//! | listener | nothing held | contained and counted; later removals are told |
//! | predicates, `with` | under the pin | the caller's panic |
//! | `Debug` of a key | before the wait-for graph's lock | a placeholder in the error |
