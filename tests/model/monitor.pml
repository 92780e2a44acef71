/* SPDX-License-Identifier: Apache-2.0
 *
 * mutants: DOWN_AT_CLOSED LATE_UNSEEN GIVE_BACK_BEFORE_DRAIN CLOSE_BEFORE_UNWATCH KEEP_CANCELLED
 *
 * A monitor against the deaths of both ends (src/runtime/monitor.c): the watcher watches at any time, may unwatch, may
 * end; the target sends notes, ends, and sends a last one from its stop. Mailboxes are channels with a closed flag: the
 * mailbox itself has a model of its own. Bounds: one watcher, one target, one monitor watched once, two notes.
 *
 * Checked: the token comes back exactly once, as a DOWN or a release, and never with its second envelope out; a DOWN
 * comes after all notes, and never after an unwatch; nobody touches the token after its release. If it is lost, the
 * watcher waits for ever: an invalid end state.
 */
mtype = { WATCH, UNWATCH, DOWN, NOTE };
mtype = { NONE, SOME, OVER };

chan to_target = [3] of { mtype };
chan to_watcher = [4] of { mtype };
bool target_closed, watcher_closed;

bool listed;        /* the target's own */
mtype late = NONE;
bool out, cancelled; /* the watcher's own */
bool unwatch_out;   /* the second envelope is in a mailbox */
bool back;          /* the token came back, for good */
byte sent, seen, downs, released;

inline release()
{
	assert(!back && !unwatch_out);
	back = true;
	released++
}

/* ty_send fails if and only if the mailbox is closed: one step */
inline give_back()
{
	atomic {
		assert(!unwatch_out);
		if
		:: watcher_closed -> release()
		:: else -> to_watcher!DOWN
		fi
	}
}

inline note()
{
	atomic {
		if
		:: watcher_closed
		:: else -> to_watcher!NOTE; sent++
		fi
	}
}

inline target_handles(m)
{
	if
	:: m == WATCH -> listed = true
	:: m == UNWATCH ->
		unwatch_out = false;
		assert(listed);
		listed = false;
		give_back()
	fi
}

inline give_back_listed()
{
	if
	:: listed -> listed = false; give_back()
	:: else
	fi
}

proctype target()
{
	mtype m, found;

	do
	:: to_target?m -> target_handles(m)
	:: sent == 0 -> note()
	:: break
	od;
	target_closed = true;
#ifdef MUTANT_GIVE_BACK_BEFORE_DRAIN
	give_back_listed();
#endif
	do
	:: to_target?m -> target_handles(m)
	:: empty(to_target) -> break
	od;
	note(); /* its stop */
	give_back_listed();
	atomic { found = late; late = OVER }
	if
	:: found == SOME -> give_back()
	:: else
	fi
}

inline watch()
{
	out = true;
	atomic {
		if
		:: !target_closed -> to_target!WATCH; joins = false
		:: else -> joins = true
		fi
	}
	if
	:: joins ->
#if defined(MUTANT_DOWN_AT_CLOSED)
		give_back()
#elif defined(MUTANT_LATE_UNSEEN)
		over = (late == OVER);
		if
		:: over -> give_back()
		:: else -> late = SOME
		fi
#else
		atomic { /* compare and swap */
			over = (late == OVER);
			if
			:: !over -> late = SOME
			:: else
			fi
		}
		if
		:: over -> give_back()
		:: else
		fi
#endif
	:: else
	fi
}

inline unwatch()
{
	atomic {
		assert(!back); /* it is touched */
		cancelled = true;
		if
		:: !target_closed -> to_target!UNWATCH; unwatch_out = true
		:: else
		fi
	}
}

inline watcher_handles(m)
{
	if
	:: m == NOTE -> seen++
	:: m == DOWN ->
		out = false;
#ifdef MUTANT_KEEP_CANCELLED
		if
#else
		if
		:: cancelled -> release()
#endif
		:: else ->
			assert(!cancelled && !back && !unwatch_out && seen == sent);
			back = true;
			downs++
		fi
	fi
}

proctype watcher()
{
	mtype m;
	bool joins, over;

	do
	:: to_watcher?m -> watcher_handles(m)
	:: break
	od;
	watch();
	do
	:: to_watcher?m -> watcher_handles(m)
	:: out && !cancelled -> unwatch()
	:: !out -> goto done
	:: out -> break /* it ends */
	od;
#ifndef MUTANT_CLOSE_BEFORE_UNWATCH
	if
	:: out && !cancelled -> unwatch()
	:: else
	fi;
#endif
	watcher_closed = true;
#ifdef MUTANT_CLOSE_BEFORE_UNWATCH
	if
	:: out && !cancelled -> unwatch()
	:: else
	fi;
#endif
	do
	:: to_watcher?m ->
		if
		:: m == DOWN -> release()
		:: else
		fi
	:: empty(to_watcher) -> break
	od;
	back == true; /* whoever has it releases it */
done:
	assert(back && downs + released == 1)
}

init {
	atomic { run target(); run watcher() }
}
