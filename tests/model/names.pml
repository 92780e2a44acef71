/* SPDX-License-Identifier: Apache-2.0
 *
 * mutants: NO_ATTACHED DETACH_UNASKED UNLINK_PLAIN FREE_AT_ONCE HOME_KEEPS ONE_SIDE FREE_WHILE_LISTED
 *
 * A name (src/runtime/names.c) against who takes it away, its actor's end, and memory that is freed a grace period later.
 * The namer lists it, then gives the token to the actor; the taker looks it up at any time and may take it away; the actor
 * takes the token in, may be asked for it, and ends at any time. A grace period is no moment at which nobody is inside: who is,
 * is counted on one side or the other, newcomers are turned from one to the other, and each side is empty once. Bounds: one name, named once, two takers, one actor, three turns.
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
bool home, deleted, to_free, freed;
byte side, sections[2];         /* newcomers count on `side` */
byte unlinks, unwatches;

inline enter(s) { s = side; sections[s]++ }
inline leave(s) { sections[s]-- }

/* Whoever is in a section now has left it: each side was empty once. */
inline grace_period()
{
	if
#ifdef MUTANT_ONE_SIDE
	:: sections[0] == 0
	:: sections[1] == 0
#else
	:: sections[0] == 0 -> sections[1] == 0
	:: sections[1] == 0 -> sections[0] == 0
#endif
	fi
}
inline touch() { assert(!freed) }

/* Of the two, the name is out of the table and its token is home, whoever comes second has it freed. */
inline through(mine_of_two)
{
	atomic {
		mine_of_two = true;
#ifdef MUTANT_FREE_WHILE_LISTED
		to_free = home || named_failed
#else
		to_free = deleted && (home || named_failed)
#endif
	}
}

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
	:: old != GONE ->
		atomic { assert(linked); linked = false; unlinks++ };
		through(deleted)
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
	enter(mine);
#ifndef MUTANT_HOME_KEEPS
	unlink_name(old);
#endif
	leave(mine);
	assert(!home);
	through(home)
}

proctype freer()
{
	to_free;
#ifndef MUTANT_FREE_AT_ONCE
	grace_period(); /* whoever enters later does not find it */
#endif
	freed = true
}

proctype namer()
{
	mtype old;
	bool given;
	byte mine;

	enter(mine);
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
		leave(mine)
	:: else ->
		unlink_name(old);
		leave(mine);
		through(named_failed)
	fi
}

proctype taker()
{
	mtype old;
	byte mine;

	enter(mine);
	if /* looks it up */
	:: !linked -> goto done
	:: linked -> skip
	fi;
	unlink_name(old);
	if
	:: old == ATTACHED -> detach()
	:: else
	fi;
done:
	leave(mine)
}

/* Who frees has those that come now use one side or the other. */
proctype turner()
{
	byte turns;

	do
	:: turns < 3 -> side = 1 - side; turns++
	:: break
	od
}

proctype actor()
{
	mtype m, old;
	byte mine;

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
	atomic { run namer(); run taker(); run taker(); run actor(); run turner(); run freer() };
	_nr_pr == 1;
	assert(unlinks == 1 && !linked && freed);
	assert(home != named_failed)
}
