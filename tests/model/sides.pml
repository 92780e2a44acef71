/* SPDX-License-Identifier: Apache-2.0
 *
 * mutants: TWO_TURNS ONE_TURN ONE_SIDE COUNT_LATE READ_BEFORE
 *
 * When a name is freed that threads outside of the runtime may be looking at (src/runtime/names.c): they are counted on the side that the
 * turn says when they come, which may have gone on by the time that they are counted. Who frees has the turn go on when the other side is
 * seen empty, and another one that frees does the same, held up between its look and the change at any time. Bounds: one name, two
 * threads that look for it once each, two that free, of which one has the turn go on three times.
 *
 * Checked: nobody is looking at what is freed, and it is freed in the end.
 */
#ifdef MUTANT_ONE_TURN
#define TURNS 1
#else
#ifdef MUTANT_TWO_TURNS
#define TURNS 2
#else
#define TURNS 3
#endif
#endif

byte turn = 1;
byte foreign[2];
bool linked = true, freed;

proctype finder()
{
	byte side;
	bool found;

	side = turn % 2;
#ifdef MUTANT_COUNT_LATE
	found = linked;
	foreign[side]++;
#else
	foreign[side]++;
	found = linked;
#endif
	if
	:: found -> assert(!freed)
	:: else
	fi;
	foreign[side]--
}

/* Waits for the other side to be empty: it is tried again at each grace period. */
inline go_on(t)
{
	t = turn;
#ifdef MUTANT_ONE_SIDE
	foreign[0] == 0;
#else
	foreign[(t + 1) % 2] == 0;
#endif
	atomic {
		if
		:: turn == t -> turn++
		:: else
		fi
	}
}

proctype freer()
{
	byte t, until;

#ifdef MUTANT_READ_BEFORE
	until = turn + TURNS;
	linked = false;
#else
	linked = false;
	until = turn + TURNS;
#endif
	do
	:: turn >= until -> break
	:: else -> go_on(t)
	od;
	freed = true
}

proctype another()
{
	byte t, times;

	do
	:: times < 3 -> go_on(t); times++
	:: times == 3 -> break
	od
}

init {
	atomic { run finder(); run finder(); run freer(); run another() };
	_nr_pr == 1;
	assert(freed && foreign[0] == 0 && foreign[1] == 0)
}
