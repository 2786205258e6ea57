#!/usr/bin/env bash
# Breaks each protocol on purpose and runs the models that must notice: scripts/mutants.sh [name...]
#
# A mutant is killed when one of its models fails. The script fails if a mutant survives, or if
# its expression no longer changes the file. MUTANT_SECONDS bounds one run; 300 if not set.
# With MUTANT_STALE=1 it only says which expressions no longer change their files, in a second.
set -uo pipefail
cd "$(dirname "$0")/.."

export LOOM_TARGET=${LOOM_TARGET:-$PWD/target/loom}
export LOOM_IN_PLACE=1
mkdir -p "$LOOM_TARGET"
LOOM_TARGET=$(cd "$LOOM_TARGET" && pwd)
copy=$LOOM_TARGET/mutants
good=$LOOM_TARGET/good
rm -rf "$copy" "$good"
mkdir "$copy" "$good"
tar --exclude=./target --exclude=./.git --exclude="$LOOM_TARGET" -cf - . | tar -xf - -C "$copy"
cp -r "$copy/src" "$good/src"

if [ -z "${MUTANT_STALE:-}" ] && ! LOOM_BUILD_ONLY=1 "$copy/scripts/loom.sh" >"$LOOM_TARGET/mutant.log" 2>&1; then
    cat "$LOOM_TARGET/mutant.log" >&2
    exit 1
fi

wanted=" $* "
failures=0
printf '%-34s %-52s %s\n' mutant 'killed by' seconds

# mutant NAME FILE EXPRESSION MODEL...
#   EXPRESSION is perl, with the whole file in $_.
mutant() {
    local name=$1 file=$2 expression=$3
    shift 3
    [[ $wanted == "  " || $wanted == *" $name "* ]] || return 0

    perl -0pi -e "$expression" "$copy/$file"
    local verdict='' start=$SECONDS
    if cmp -s "$good/$file" "$copy/$file"; then
        verdict='STALE: the expression changes nothing'
    elif [ -n "${MUTANT_STALE:-}" ]; then
        verdict='changes its file'
    elif ! LOOM_BUILD_ONLY=1 "$copy/scripts/loom.sh" >"$LOOM_TARGET/mutant.log" 2>&1; then
        verdict='STALE: does not compile'
    else
        for model in "$@"; do
            timeout "${MUTANT_SECONDS:-300}" "$copy/scripts/loom.sh" "$model" >"$LOOM_TARGET/mutant.log" 2>&1
            case $? in
            0) ;;
            124) verdict="NO VERDICT in time: $model" ;;
            *) verdict=$model && break ;;
            esac
        done
        verdict=${verdict:-SURVIVES}
    fi
    [[ $verdict == *[A-Z]* ]] && failures=$((failures + 1))
    printf '%-34s %-52s %s\n' "$name" "$verdict" $((SECONDS - start))
    # Written anew, so that cargo sees that it has changed back.
    cat "$good/$file" >"$copy/$file"
}

# ---- slot and flight -------------------------------------------------------------------------

# Readers see READY, and not what was written before it.
mutant publish-relaxed src/slot.rs \
    's/fetch_update\(Ordering::SeqCst, Ordering::Acquire/fetch_update(Ordering::Relaxed, Ordering::Relaxed/' \
    l01_one_fill_for_two
mutant state-relaxed src/slot.rs \
    's/State\(self\.state\.load\(Ordering::Acquire\)\)/State(self.state.load(Ordering::Relaxed))/' \
    l01_one_fill_for_two
# A flight that ends between the enlisting and the sleep wakes nobody.
mutant no-look-before-sleep src/core/wait.rs \
    's/ungiven = None;\n/return Poll::Pending;\n/' \
    l04_no_lost_wake_up_of_one
mutant wake-before-publish src/core/lead.rs \
    's/(        \/\/ SAFETY: we are the leader, have written the value \(`weigh`)/        if let Some(flight) = node.slot.state().flight() {\n            let flight = unsafe { &*flight };\n            let _ = flight.resolve(Outcome::Published);\n            flight.end();\n        }\n$1/' \
    l04_no_lost_wake_up_of_one
# Whoever lets go first retires, whatever hold there is still.
mutant retired-while-linked src/slot.rs \
    's/last: before\.is_held\(\) && !after\.is_held\(\),/last: before.is_held(),/' \
    l04_no_lost_wake_up_of_one
mutant retired-while-held src/slot.rs \
    's/\(PHASE \| DETACHED \| POINTER \| HOLDS\) == READY \| DETACHED \| LINKED/(PHASE | DETACHED | LINKED) == READY | DETACHED | LINKED/' \
    l07_invalidate_waits_for_the_fill l08_insert_beats_a_fill_that_is_waited_for
mutant leader-leaves-before-its-pin src/core/lead.rs \
    's/(            pin = crate::reclaim::pin\(\);\n        \}\n        if kept \{)/            core.leave(node, before.flight());\n$1/; s/if before\.flight\(\)\.is_some\(\) \|\| !linked \{/if before.flight().is_none() \&\& !linked {/' \
    l07_invalidate_waits_for_the_fill
mutant waiter-leaves-before-its-pin src/core/wait.rs \
    's/Waited::Found\(unsafe \{ Found::new\(pin\(\), part\.node\) \}\)/let node = part.node;\n                self.give_up();\n                return Waited::Found(unsafe { Found::new(pin(), node) });/' \
    l07_nowait_cuts_a_fill_off
mutant reader-leaves-before-its-pin src/core/wait.rs \
    's/(Waited::Found\(unsafe \{ Found::new\(pin\(\), object as)/self.give_up();\n                return $1/' \
    l08_an_inserted_value_is_held_for_the_waiters
mutant publish-forgets-the-cut src/slot.rs \
    's/self\.with_payload\(0, 0\)\.0 & !PHASE \| phase/self.with_payload(0, 0).0 & !(PHASE | DETACHED) | phase/' \
    l07_invalidate_waits_for_the_fill
mutant leaver-drops-the-lead src/flight.rs \
    's/            had_baton,\n/            had_baton: false,\n/' \
    l05_a_leaver_passes_the_lead_on
mutant finish-without-the-flight src/slot.rs \
    's/\(state\.flight\(\) == seen\.flight\(\)\)\.then\(\|\| (state\.in_phase\(GONE, more\))\)/{ let _ = seen; Some($1) }/' \
    l02_an_error_is_shared_and_not_kept_by_two
mutant nobody-enters-the-graph src/core/wait.rs \
    's/self\.step\(&waker, who_blocks\(\)\)/self.step(&waker, None)/' \
    l13_a_cycle_over_two_threads_is_an_error
mutant waits-for-an-unhooked-fill src/core.rs \
    's/if fill\.is_unhooked\(\) \{/if false {/' \
    l08_nobody_waits_for_a_fill_that_was_replaced
mutant insert-keeps-a-hold src/core.rs \
    's/node\.slot\.set_held\(false\);\n\s*continue;/continue;/' \
    l08_insert_meets_a_lost_lead
mutant replacement-let-go-early src/flight.rs \
    's/if room\.readers == 0 => \{/if true => {/' \
    l08_an_inserted_value_is_let_go_of_by_its_last_reader
mutant deadline-over-the-parked-weight src/slot.rs \
    's/if !end\.is_successor \{/if true {/' \
    refresh_replaces_the_entry

# ---- tasks, and fills that are kept ----------------------------------------------------------

# Nobody is left to take a lead that was open to whoever came first.
mutant open-lead-is-left src/flight.rs \
    's/Baton::Open => room\.readers == 0,/Baton::Open => false,/' \
    task_l05_the_last_leaver_gives_an_open_lead_up
mutant lead-for-one-task src/flight.rs \
    's/room\.baton = Baton::Open;/room.baton = Baton::To(room.waiters.iter().position(|it| it.as_ref().is_some_and(waits)).unwrap_or(0));/' \
    task_l03_a_forgotten_task_does_not_keep_a_lost_lead
mutant panicked-fill-keeps-its-lead src/future/fetch.rs \
    's/(contain\(\|\| lead\.drop_fill\(\|\| fill\.as_mut\(\)\.end\(\)\)\);\n        \}\n)        \*\*stage = Stage::Over;\n/$1/' \
    task_l03_a_waiter_takes_the_lead_of_a_fill_that_panics
mutant nested-lead-without-its-edge src/core/polled.rs \
    's/self\.nested = waits\.map\(.*?\)\.transpose\(\)\?;//' \
    task_l13_a_cycle_through_a_nested_lead_is_an_error
mutant ring-is-lost-while-out src/flight.rs \
    's/Kept::Out \{ awake \} => \{\n                \*awake = true;\n/Kept::Out { .. } => {\n/' \
    stored_no_ring_is_lost
mutant ring-stays-with-who-polled src/flight.rs \
    's/let rung = if awake \{/let rung = if false {/' \
    stored_a_ring_goes_on_to_who_sleeps
mutant who-polled-sleeps-on-a-ring src/flight.rs \
    's/return Look::ComeBack;/return Look::Sleep;/' \
    stored_no_ring_is_lost
mutant ring-wakes-the-first src/flight.rs \
    's/(Kept::Here \{ awake, \.\. \} => \{\n\s*\*awake = true;\n\s*room\.take_wakers\(\|_\| true\))/$1.into_iter().take(1).collect()/' \
    stored_a_forgotten_waiter_holds_nobody_up
mutant unwanted-fill-stays src/flight.rs \
    's/let job = room\.take_unwanted\(\);/let job = None;/' \
    stored_the_last_waiter_takes_the_fill_with_it
mutant unwanted-fill-is-put-back src/flight.rs \
    's/let unwanted = room\.take_unwanted\(\);/let unwanted = None;/' \
    stored_invalidate_meets_the_last_waiter
# A wait that moves into another fill leaves a fill that is kept alone in between.
mutant leaves-before-it-comes-again src/core/wait.rs \
    's/            let enlisted = self\.enlist\(waits\);\n(.*?)(            if before.*?\n            \}\n)            enlisted\?;/$1$2            self.enlist(waits)?;/s' \
    stored_a_wait_that_moves_keeps_the_fill
# The next leader's fill is taken for the one that has panicked.
mutant forgets-the-next-fill src/core/wait.rs \
    's/(            self\.flight\.keep_none\(\);\n)(            contain\(\|\| drop\(job\)\);\n)/$2$1/' \
    stored_a_panic_goes_on_in_one_and_the_other_fills

# ---- fills that are given up, and closing ----------------------------------------------------

mutant leader-ends-what-was-unhooked src/core/lead.rs \
    's/if self\.current\.is_null\(\) \|\| seen\.is_unhooked\(\) \{/if self.current.is_null() {/' \
    takeover_of_a_refresh_leaves_the_old_value
# A leader asks before it has placed its slot, or not at all.
mutant fills-although-it-is-closed src/core/in_flight.rs \
    's/!self\.closed\.is\(\)/true/' \
    close_meets_a_fill
# Who closes looks at the flights first.
mutant closes-after-its-walk src/core/in_flight.rs \
    's/(        self\.closed\.0\.swap\(1, Ordering::SeqCst\);\n        store_load\(\);\n)(.*?)(        \/\/ `Awaited::new` hashes)/$2$1$3/s' \
    close_meets_a_fill
# A takeover leaves asleep who waits.
mutant takeover-wakes-nobody src/core/in_flight.rs \
    's/        let _ = flight\.resolve\(Outcome::Nothing\);\n        flight\.end\(\);\n//' \
    takeover_frees_who_waits_for_a_stuck_fill

# ---- table -----------------------------------------------------------------------------------

mutant no-second-walk src/table.rs \
    's/        store_load\(\);\n/        if true {\n            return withdraw.confirm();\n        }\n/' \
    table_one_winner_although_a_tomb_appears
mutant no-store-load-fence src/table.rs \
    's/        store_load\(\);\n//' \
    table_one_winner_although_a_tomb_appears
mutant rival-is-spared src/table.rs \
    's/let killed = \|\| other\.is_tentative\(\) && level\.swap\(at, other, Word::TOMB\);/let killed = || other.is_tentative();/' \
    table_one_winner_although_somebody_makes_a_tomb
mutant cleared-without-second-look src/table/clear.rs \
    's/if !ends_run\(at\) \{\n                self/if false {\n                self/' \
    table_a_run_is_cleared_under_an_insert
mutant numbers-are-left src/table.rs \
    's/if !other\.is_being_cleared\(\) \|\| /if !other.is_being_cleared() || true || /' \
    table_a_run_is_cleared_under_an_insert
mutant one-number-for-all src/table/clear.rs \
    's/tomb_of\(thread\(\)\)/tomb_of(1)/; s/ \|\| tomb\.is_being_cleared\(\)//' \
    table_two_clear_one_run
mutant empty-is-passed src/table.rs \
    's/other\.is_moving\(\) \|\| other\.is_empty\(\) \|\| is_rival/other.is_moving() || is_rival/' \
    table_a_run_is_cleared_under_an_insert
mutant home-first src/table.rs \
    's/in \(probe\.start\.\.ours\)\.rev\(\)/in probe.start..ours/' \
    table_a_run_is_cleared_under_two_inserts
mutant clears-while-copied src/table/grow.rs \
    's/settled: Arc::new\(AtomicUsize::new\(0\)\)/settled: Arc::new(AtomicUsize::new(1))/' \
    table_l16_two_removed_while_words_move table_l16_removed_while_words_move table_l16_insert_remove_read_while_words_move
mutant no-ledger src/table/grow.rs \
    's/let ledger = &growth\.ledger\[.*?;/let ledger = \&AtomicU64::new(0);/' \
    table_l16_two_removed_while_words_move table_l16_insert_remove_read_while_words_move
mutant fresh-is-ignored src/table/word.rs \
    's/self\.pointer\(\) != 0 && self\.0 & FRESH != 0/self.0 == u64::MAX/' \
    table_l16_a_key_that_lies_is_removed_while_words_move
mutant reader-stops-at-moved src/table/word.rs \
    's/self\.0 == Self::EMPTY\.0 \|\| self\.0 == Self::MOVED_END\.0/self.0 == Self::EMPTY.0 || self.is_moved()/' \
    table_l16_insert_remove_read_while_words_move table_l16_replaced_while_words_move
mutant writer-stops-at-moved src/table/grow.rs \
    's/self\.move_word\(level, growth, at, rehash\) == Word::MOVED_END/self.move_word(level, growth, at, rehash).is_moved()/' \
    table_l16_two_removed_while_words_move table_l16_insert_remove_read_while_words_move

# ---- a refresh that hangs on its current value -----------------------------------------------

# A thread that finds a successor by its current slot does not see it whole.
mutant refresh-begun-relaxed src/slot.rs \
    's/compare_exchange\(seen\.0, to\.0, Ordering::SeqCst/compare_exchange(seen.0, to.0, Ordering::Relaxed/' \
    refresh_begins_beside_invalidate_nowait
mutant deadline-before-its-slot-is-ready src/slot.rs \
    's/self\.aux\.store\(deadline\.to_bits\(\), Ordering::Release\)/self.aux.store(deadline.to_bits(), Ordering::Relaxed)/' \
    refresh_shows_one_weight_or_the_other

# The end of a refresh that a removal has detached removes the current value, and takes its place.
mutant detached-is-committed src/slot.rs \
    's/let commits = end\.is_successor && !state\.is_detached\(\);/let commits = end.is_successor;/' \
    refresh_publishes_beside_remove
# A removal passes by the successor that is about to be put in.
mutant removal-passes-the-committed src/core/remove.rs \
    's/if fill\.is_committed\(\) \{/if false {/' \
    refresh_publishes_beside_remove
# A removal does not see that a refresh has begun.
mutant removal-passes-a-refresh src/core/release.rs \
    's/ \|\| state\.successor\(\) != expected \{/ {/' \
    refresh_begins_beside_invalidate_if refresh_meets_insert_and_nowait refresh_publishes_beside_remove
# An insert unhooks a refresh, and does not take it off.
mutant unhooked-by-nobody src/core.rs \
    's/if before\.unhooks\(\) \{/if false {/' \
    refresh_meets_insert_and_nowait
# A removal finds nothing, although an insert has taken the place.
mutant absent-although-replaced src/core/remove.rs \
    's/(or an insert has taken its place, [^\n]*\n *)return Tried::Lost;/$1return Tried::Removed(false, None);/' \
    insert_over_a_compute_that_puts_beside_a_removal
mutant judges-what-is-being-replaced src/core/remove.rs \
    's/let judged = newer\.filter\(.*?\)\.unwrap_or\(node\);/let judged = newer.filter(|_| false).unwrap_or(node);/' \
    refresh_publishes_beside_invalidate_all refresh_publishes_beside_invalidate_if

# ---- removals beside computes ----------------------------------------------------------------

mutant two-answer-with-one-value src/core/remove.rs \
    's/let claims = before\.is_compute\(\) && !before\.is_detached\(\);/let claims = before.is_compute();/' \
    two_removals_beside_a_compute
mutant removal-forgets-what-is-put-in src/core/remove.rs \
    's/let left = slot\.read\(\);/let left = slot.read().filter(|_| false);/' \
    compute_puts_beside_remove
mutant superseded-puts-all-the-same src/slot.rs \
    's/if state\.is_superseded\(\) \{\n( *)return None;/if false {\n$1return None;/' \
    compute_puts_beside_remove_nowait
mutant superseded-removes-all-the-same src/core/lead.rs \
    's/!before\.is_superseded\(\)\n/true\n/' \
    compute_removes_beside_remove_nowait
mutant detaches-before-it-takes-part src/core/remove.rs \
    's/let part = if waits \{/let _ = waits && node.slot.detach(true).is_ok();\n        let part = if waits {/' \
    compute_puts_beside_remove
mutant insert-unhooks-an-awaited-compute src/slot.rs \
    's/\(UNHOOKED \| AWAITED\) == 0/UNHOOKED == 0/' \
    insert_over_a_compute_that_puts_beside_a_removal insert_over_a_compute_that_a_removal_waits_for

mutant takes-what-it-has-not-picked src/core/remove.rs \
    's/if value\.is_some\(\) && is_other \{/if false {/' \
    refresh_begins_beside_invalidate_if

# ---- reclamation -----------------------------------------------------------------------------

mutant pin-without-its-barrier src/reclaim/asymmetric.rs \
    's/(fn enter\(.*?)            barrier::light\(\);\n/$1/s' \
    l17_nothing_is_freed_under_a_pin
mutant brief-pin-without-its-barrier src/reclaim/asymmetric.rs \
    's/        barrier::light\(\);\n        true/        true/' \
    l17_a_pin_inside_a_brief_pin
mutant inner-pin-unpins-the-brief-one src/reclaim/asymmetric.rs \
    's/if depth & Self::WITHIN != 0 \{/if false {/' \
    l17_a_pin_inside_a_brief_pin
mutant brief-pin-unpins-the-inner-one src/reclaim/asymmetric.rs \
    's/if self\.depth\.get\(\) == 0 \{\n            self\.unpublish/if true {\n            self.unpublish/' \
    l17_a_pin_outlives_the_brief_one_around_it
mutant freed-without-its-barrier src/reclaim/asymmetric.rs \
    's/let known = [^;]*;/let known = true;/' \
    l17_nothing_is_freed_under_a_pin
mutant pin-forgets-those-before src/reclaim/asymmetric.rs \
    's/self\.pinned\.store\(epoch, Ordering::Release\)/self.pinned.store(epoch, Ordering::Relaxed)/' \
    l17_nothing_is_freed_under_a_pin
mutant unpinned-before-the-last-read src/reclaim/asymmetric.rs \
    's/self\.pinned\.store\(IDLE, Ordering::Release\)/self.pinned.store(IDLE, Ordering::Relaxed)/' \
    l17_nothing_is_freed_under_a_pin
mutant place-looked-at-relaxed src/reclaim/asymmetric.rs \
    's/place\.pinned\.load\(Ordering::Acquire\)/place.pinned.load(Ordering::Relaxed)/' \
    l17_nothing_is_freed_under_a_pin
mutant grace-begins-before-the-unlink src/reclaim/asymmetric.rs \
    's/self\.now\.fetch_add\(1, Ordering::AcqRel\)/self.now.fetch_add(1, Ordering::Relaxed)/' \
    l17_a_grace_is_ended_by_another l17_nothing_is_freed_under_a_pin
mutant grace-begins-after-the-barrier src/reclaim/asymmetric.rs \
    's/(        let mut oldest = [^\n]*\n)(.*?        let known = [^;]*;\n)/$2$1/s' \
    l17_a_grace_is_ended_by_another
mutant inner-pin-unpins src/reclaim/asymmetric.rs \
    's/if depth & Self::PINS != 0 \{\n            return false;\n        \}//' \
    l17_a_pin_inside_a_pin
mutant relied-on-before-all-go-over src/reclaim/asymmetric.rs \
    's/                all = false;\n//' \
    l17_all_go_over_to_fences
mutant goes-over-without-a-fence src/reclaim/asymmetric.rs \
    's/        if depth & Self::FENCED == 0 \{/        if true {/' \
    l17_all_go_over_to_fences l17_who_has_gone_over_is_looked_at
mutant goes-over-before-its-last-read src/reclaim/asymmetric.rs \
    's/self\.fenced\.store\(1, Ordering::Release\)/self.fenced.store(1, Ordering::Relaxed)/; s/place\.fenced\.load\(Ordering::Acquire\)/place.fenced.load(Ordering::Relaxed)/' \
    l17_who_has_gone_over_is_looked_at l17_all_go_over_to_fences
mutant takes-a-place-unasked src/reclaim/asymmetric.rs \
    's/(self\.make\(\)\);\n)        barrier::whole\(\);\n/$1/' \
    l17_who_takes_a_place_goes_over

# ---- memory ----------------------------------------------------------------------------------

mutant turnstile-left-too-early src/turnstile.rs \
    's/self\.0\.store\(0, Ordering::Release\)/self.0.store(0, Ordering::Relaxed)/' \
    slab_no_cell_is_of_two slab_a_new_chunk_by_two
mutant turnstile-for-two src/turnstile.rs \
    's/if self\.taken\.swap\(1, Ordering::Acquire\) != 0 \{/self.taken.store(1, Ordering::Relaxed); if false {/' \
    slab_no_cell_is_of_two slab_a_new_chunk_by_two
mutant cells-come-back-unfinished src/slab.rs \
    's/free,\n( *)Ordering::Release,/free,\n$1Ordering::Relaxed,/' \
    slab_what_is_given_back_is_used_again slab_no_cell_is_of_two
mutant cells-taken-unseen src/slab.rs \
    's/self\.returned\.swap\(null_mut\(\), Ordering::Acquire\)/self.returned.swap(null_mut(), Ordering::Relaxed)/' \
    slab_what_is_given_back_is_used_again slab_no_cell_is_of_two
mutant cells-dealt-twice src/slab.rs \
    's/let first = chunk\.dealt\.fetch_add\(most, Ordering::Relaxed\);/let first = chunk.dealt.load(Ordering::Relaxed); chunk.dealt.store(first + most, Ordering::Relaxed);/' \
    slab_a_new_chunk_by_two slab_no_cell_is_of_two

# ---- bounds ----------------------------------------------------------------------------------

mutant capacity-not-looked-at-again src/bound.rs \
    's/        store_load\(\);\n//g' \
    l12_the_capacity_is_made_less
mutant debt-not-left src/core/room.rs \
    's/ +room\.bound\.leave\(\);\n//' \
    l12_a_debt_is_left_to_an_insert
mutant debt-not-asked-for src/bound.rs \
    's/if left % 2 == 0/if true/' \
    l12_a_debt_is_left_to_a_fill
mutant debt-asked-for-too-early src/bound.rs \
    's/(fn left_to[^}]*?)        store_load\(\);\n/$1/s' \
    l12_a_debt_is_left_to_a_fill
mutant debt-left-too-late src/bound.rs \
    's/(fn leave[^?]*?)        store_load\(\);\n/$1/s' \
    l12_a_debt_is_left_to_an_insert l12_a_debt_is_left_to_a_fill l12_a_debt_is_left_to_a_compute
mutant debt-forgotten-for-another src/bound.rs \
    's/\.compare_exchange\(left, left \+ 1, Ordering::SeqCst, Ordering::Relaxed\)/.swap(left + 1, Ordering::SeqCst)/' \
    l12_a_debt_that_is_left_again
mutant list-not-told src/core/expiring.rs \
    's/if deadline < newcomers\.load\(Ordering::Relaxed\)/if false/' \
    l12_what_comes_beside_a_walk
mutant gives-up-without-paying src/core/room.rs \
    's/if self\.remove_live\(own, None, Event::Evicted\) \{/if true {/' \
    l10_who_finds_no_victim_goes
mutant counted-unless-it-is-gone src/core.rs \
    's/if kept \{\n( *)self\.counts_in/if kept \&\& node.slot.state().is_live() {\n$1self.counts_in/' \
    l10_who_finds_no_victim_goes
mutant evicts-what-fills src/slot.rs \
    's/self\.0 & \(PHASE \| DETACHED\) == READY/self.0 \& DETACHED == 0/' \
    l11_a_filling_slot_is_not_evicted
mutant victim-of-two src/core/release.rs \
    's/if !state\.is_live\(\) \|\| state/if state/' \
    l10_one_victim_for_two
mutant discharged-by-nobody src/core/release.rs \
    's/        self\.discharge\(weight\);\n//' \
    l12_charged_once_and_discharged_once
mutant charged-after-it-is-seen src/core.rs \
    's/let charge = Charge::new\(self, if kept \{ weight \} else \{ 0 \}\);//; s/let owed = charge\.passes_to_the_entry\(\)/let owed = Charge::new(self, weight).passes_to_the_entry()/' \
    l12_charged_once_and_discharged_once

if [ "$failures" -gt 0 ]; then
    echo "$failures mutants were not killed" >&2
    exit 1
fi
