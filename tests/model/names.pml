/* SPDX-License-Identifier: Apache-2.0
 *
 * mutants: NO_ATTACHED DETACH_UNASKED UNLINK_PLAIN FREE_AT_ONCE HOME_KEEPS
 *
 * A name (src/runtime/names.c) against who takes it away, its actor's end, and memory that is freed a grace period later.
 * The namer lists it, then gives the token to the actor; the taker looks it up at any time and may take it away; the actor
 * takes the token in, may be asked for it, and ends at any time. Bounds: one name, named once, two takers, one actor.
 * The monitor's way of a token has a model of its own (monitor.pml): here a send is one step.
 *
 * Checked: the name is unlinked exactly once; UNWATCH comes after WATCH, at most once; the token comes home exactly once
 * and is freed after that, when nobody is in a section that began before; nobody touches it afterwards.
 */
mtype = { WATCH, UNWATCH };
mtype = { LISTED, ATTACHED, GONE };

chan box = [4] of { mtype };
bool closed, over;
#ifdef MUTANT_NO_ATTACHED
mtype state = ATTACHED;
#else
mtype state = LISTED;
#endif
bool linked;                    /* in the table */
bool holds;                     /* the actor has the token */
bool named_failed;              /* the actor was over: the token stayed with the namer */
bool home, freed;
byte sections, unlinks, unwatches;

inline enter() { sections++ }
inline leave() { sections-- }
inline touch() { assert(!freed) }

/* exchange, and the one that changed it unlinks */
inline unlink_name(old)
{
	touch();
#ifdef MUTANT_UNLINK_PLAIN
	old = state;
	state = GONE;
#else
	atomic { old = state; state = GONE }
#endif
	if
	:: old != GONE -> atomic { assert(linked); linked = false; unlinks++ }
	:: else
	fi
}

inline detach()
{
	touch();
	atomic {
		if
		:: !closed -> assert(unwatches == 0); unwatches++; box!UNWATCH
		:: else
		fi
	}
}

inline come_home(old)
{
	assert(!home);
	home = true;
	enter();
#ifndef MUTANT_HOME_KEEPS
	unlink_name(old);
#endif
	leave();
#ifndef MUTANT_FREE_AT_ONCE
	sections == 0; /* whoever enters later does not find it */
#endif
	freed = true
}

proctype namer()
{
	mtype old;
	bool given;

	enter();
	linked = true;
	atomic { /* to the mailbox, or among the latecomers, or the actor is over */
		given = true;
		if
		:: !closed -> box!WATCH
		:: closed && !over -> holds = true
		:: over -> given = false
		fi
	}
	if
	:: given ->
		atomic {
			old = state;
			if
			:: old == LISTED -> state = ATTACHED
			:: else
			fi
		}
#ifdef MUTANT_DETACH_UNASKED
		detach();
#else
		if
		:: old == GONE -> detach()
		:: else
		fi;
#endif
		leave()
	:: else ->
		unlink_name(old);
		leave();
		named_failed = true;
		sections == 0;
		freed = true
	fi
}

proctype taker()
{
	mtype old;

	atomic { /* looks it up */
		if
		:: linked -> enter()
		:: !linked -> goto done
		fi
	}
	unlink_name(old);
	if
	:: old == ATTACHED -> detach()
	:: else
	fi;
	leave();
done:
	skip
}

proctype actor()
{
	mtype m, old;

	do
	:: box?m ->
		if
		:: m == WATCH -> holds = true
		:: m == UNWATCH ->
			assert(holds);
			holds = false;
			come_home(old)
		fi
	:: closed = true; break
	od;
	do
	:: box?m ->
		if
		:: m == WATCH -> holds = true
		:: m == UNWATCH ->
			assert(holds);
			holds = false;
			come_home(old)
		fi
	:: empty(box) -> break
	od;
	atomic { over = true; m = (holds -> WATCH : UNWATCH); holds = false }
	if
	:: m == WATCH -> come_home(old)
	:: else
	fi
}

init {
	atomic { run namer(); run taker(); run taker(); run actor() };
	_nr_pr == 1;
	assert(unlinks == 1 && !linked && freed);
	assert(home != named_failed)
}
