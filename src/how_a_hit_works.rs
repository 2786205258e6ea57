//! How a hit works, instruction by instruction. Documentation only.
//!
//! `cache.get(&key)` of a `Cache<u64, u64>`, for an entry that is there and has been asked for a
//! few times. All of it is one straight line of some seventy instructions, with no call, no locked
//! instruction, and no store to a line that other hits touch. (`scripts/instructions.sh` counts
//! them, with the loop around, and fails if they become more; `tests/suite/contract/c07_quiet.rs` runs hits over
//! a cache in write-protected memory.) All other cases, from the first pin of a thread to a table
//! that is resized, are in functions of their own, and are reached by a jump.
//!
//! ```text
//!  step                           instructions   memory, and its owner
//!  1 may I take the fast path?        3          the cache's settings, never written
//!  2 pin                              9          the thread's own place (one store); the epoch
//!  3 hash                            11          the hasher's seed
//!  4 where?                           8          the table's head
//!  5 the word                         8          *the table*: a line of eight words
//!  6 the key                          3          *the node*: its line
//!  7 live, unexpired?                 8          the node, the same line
//!  8 a use to be counted?             4          nothing: the word is in a register
//!  9 the value                        1          the node, the same line
//! 10 unpin                            4          the thread's own place (one store)
//!    in and out                      10          the stack
//! ```
//!
//! 1. **The fast path** is for caches that count no look-ups and threads that hold no pin. All
//!    others take the slow path, which does the same with more questions.
//! 2. **Pin.** A thread says "I am reading, since epoch 7" in a place of its own: a load of the
//!    epoch, a store. The reads that follow must not be made before that is said. That would take a
//!    fence, and a fence is 11 ns of waiting. So the fence is left to the thread that frees. Before
//!    it looks at the places it has the kernel run a fence on every processor (`membarrier`): about
//!    a microsecond for hundreds of removed entries. The reader is left with an instruction to the
//!    compiler. `reclaim/asymmetric.rs` has the argument, in two cases.
//! 3. **Hash**, by whichever hasher the cache has, and one multiplication more, because the table
//!    wants all 64 bits and not every hasher gives them. There is no second hash.
//! 4. **The position.** The root level of the table; the highest bits of the hash are the home
//!    position.
//! 5. **The word** there holds the node's address, seven bits of the hash (the *tag*), and the
//!    policy's count. Tag and state are compared at once, before any pointer is followed. If the
//!    word is another key's, the hit looks at the next one, on the same line mostly; after four the
//!    slow path goes on.
//! 6. **The key.** Only now memory of the node is read. With a tag of seven bits this is the wrong
//!    node once in 128 words of other keys.
//! 7. **Live, unexpired?** One load, with Acquire, of the state: the value is there, and has not
//!    been detached. One of the deadline: there is none, or the hit reads the coarse clock
//!    ([`Clock`](crate::Clock)).
//! 8. **A use to count?** The count came with the word. At its maximum there is nothing to do;
//!    below, one swap raises it. So a hot entry is written seven times, and then no more until the
//!    policy lowers its count, as others are evicted.
//! 9. **The value** is cloned, or lent ([`Cache::with`](crate::Cache::with)), under the pin.
//! 10. **Unpin**: "I am not reading".
//!
//! # What it waits for
//!
//! Two lines of memory that may be anywhere, one after the other: the word's and the node's. All
//! other lines are in the processor's nearest cache, because every hit reads them and none writes
//! them. So a hit costs as much as those two. For a thousand entries they cost nothing, and the hit
//! is bound by its instructions. For a hundred thousand they cost some tens of nanoseconds. A
//! processor overlaps two or three hits, if they are short enough to be in its window at once. That
//! is why instructions count even where memory decides, why none in between may be a locked one (no
//! load goes ahead of that), and why:
//!
//! * nodes of two to four words have no allocator's header between them, and lie on one line each
//!   (`slab.rs`);
//! * they, and the words of large tables, lie in huge pages (`pages.rs`): a page is found by a walk
//!   through memory too, in a virtual machine two;
//! * the whole of it is 50 bytes an entry, so that more of them are near.
//!
//! # Why it scales
//!
//! A hit writes its thread's place, on a line that only the thread that frees looks at, once in
//! hundreds of removals. The lines of others that it reads are written by misses alone: a word when
//! its entry changes, the epoch once for a batch of garbage, the table's head when the table is
//! resized. Counters that misses change have lines of their own. So hits on as many processors as
//! there are cost the same as on one. They share the memory only, and the sockets' way to it. A
//! read lock, or a count of references, is a store to a line that every reader needs for itself.
//! Two readers of one key take turns there, and each turn is as long as the way between their
//! processors.
//!
//! # Its cost to others
//!
//! * A reader that is preempted while it is pinned holds up the freeing of entries that are removed
//!   meanwhile, on all caches: a writer that meets much garbage makes way for it. One that *sleeps*
//!   with a pinned guard holds it up for as long.
//! * Each heavy fence interrupts every processor that runs a thread of the program, for about a
//!   microsecond. It is made once for 32 to 256 removed entries, and by one thread at a time for
//!   all.
