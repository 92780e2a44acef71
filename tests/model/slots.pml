/* SPDX-License-Identifier: Apache-2.0
 *
 * mutants: NO_COUNT ONE_LINK_SHORT LINK_STALE
 *
 * The registry's stack of free slots (src/runtime/registry.c): a thread takes up to two by walking down from the top and
 * one compare-and-swap of the whole, and gives back one, or two in one piece. Three slots, two threads, each of which takes and
 * gives a few times. A slot that somebody has says anything. Every step is one atomic access.
 *
 * Bounds: three slots, two threads of four turns each, two slots in a piece.
 *
 * Checked: a slot has one owner; in the end every slot that nobody has is on the stack, once.
 */
#define SLOTS 3
#define TURNS 4

byte top = 1, pops;       /* one word */
byte next[SLOTS + 1];     /* by number, from 1; 0: none */
bool free[SLOTS + 1];     /* the word says FREE; else it is an actor's */
bool owned[SLOTS + 1];    /* for the check */

inline take()
{
	do
	:: true ->
		atomic { t = top; was = top; count = pops };
		n = 0;
		do
		:: n < 2 && t != 0 ->
			atomic {
				if
				:: free[t] -> had[n] = t; n++; t = next[t]
				:: else -> n = 0; break
				fi
			}
		:: else -> break
		od;
		if
		:: was == 0 -> break
		:: was != 0 && n == 0 -> skip /* it changed: again */
		:: else ->
			atomic {
				if
#ifdef MUTANT_NO_COUNT
				:: top == was ->
#else
				:: top == was && pops == count ->
#endif
					top = t;
					pops++;
					assert(!owned[had[0]]);
					owned[had[0]] = true;
					if
					:: n == 2 -> assert(!owned[had[1]]); owned[had[1]] = true
					:: else
					fi;
					break
				:: else
				fi
			}
		fi
	od
}

/* One of those it has, or both in one piece. */
inline give(both)
{
	if
	:: n == 2 -> atomic { t = had[0]; had[0] = had[1]; had[1] = t }
	:: true
	fi;
	n--;
	last = had[n];
	first = last;
	owned[last] = false;
	if
	:: both && n == 1 ->
		n--;
		first = had[0];
		owned[first] = false;
#ifndef MUTANT_ONE_LINK_SHORT
		atomic { next[first] = last; free[first] = true }
#endif
	:: else
	fi;
	was = top;
#ifdef MUTANT_LINK_STALE
	atomic { next[last] = was; free[last] = true };
#endif
	do
	:: true ->
#ifndef MUTANT_LINK_STALE
		atomic { next[last] = was; free[last] = true };
#endif
		atomic {
			if
			:: top == was -> top = first; break
			:: else -> was = top
			fi
		}
	od
}

/* They are an actor's now. */
inline use()
{
	if
	:: n > 0 -> free[had[0]] = false
	:: else
	fi;
	if
	:: n > 1 -> free[had[1]] = false
	:: else
	fi
}

proctype user()
{
	byte had[2], n, t, was, count, first, last, turn;

	do
	:: turn < TURNS ->
		turn++;
		if
		:: n == 0 -> take(); use()
		:: n > 0 -> give(true)
		:: n > 0 -> give(false)
		fi
	:: else -> break
	od
}

init {
	byte at, seen;

	atomic {
		next[1] = 2;
		next[2] = 3;
		free[1] = true;
		free[2] = true;
		free[3] = true;
		run user();
		run user()
	};
	_nr_pr == 1;
	at = top;
	do
	:: at != 0 ->
		assert(free[at] && !owned[at] && seen < SLOTS);
		seen++;
		at = next[at]
	:: else -> break
	od;
	at = 1;
	do
	:: at <= SLOTS -> seen = seen + owned[at]; at++
	:: else -> break
	od;
	assert(seen == SLOTS)
}
