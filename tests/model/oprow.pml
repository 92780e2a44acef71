/* SPDX-License-Identifier: Apache-2.0
 *
 * mutants: NO_ODD NO_SECOND_LOOK EVEN_EARLY GIVE_LATE
 *
 * A row of the table of operations (actors/operations.c): two engines take it in turns, write it and give it back, while metrics
 * reads it. Two fields stand for all; each store is a release and each load an acquire, so the orders are those below.
 *
 * Bounds: one row of two fields, two engines that use it twice each, three looks.
 *
 * Checked: what metrics took for a row was one: both fields of the same operation. And a row has one writer at a time.
 */
byte version = 1;
byte a, b;      /* fields: the writer's mark in both */
bool taken;     /* its bit */
byte writers;

proctype engine(byte mark)
{
	byte round, v;

	round = 0;
	do
	:: round < 2 ->
		d_step { !taken; taken = true };
		writers++;
		assert(writers == 1);
		v = version;
#ifdef EVEN_EARLY
		version = v + 1;
#endif
		a = mark * 2 + round;
		b = mark * 2 + round;
#ifndef EVEN_EARLY
		version = v + 1;
#endif
		/* it is out, and lands */
#ifdef GIVE_LATE
		writers--;
		taken = false;
		v = version;
		version = v + 1;
#else
		v = version;
#ifndef NO_ODD
		version = v + 1;
#else
		version = v + 2; /* even, as before: free, and looks as if it were not */
#endif
		writers--;
		taken = false;
#endif
#ifdef NO_ODD
		version = version + 1;
#endif
		round++
	:: else -> break
	od
}

proctype metrics()
{
	byte v, x, y;
	byte looks = 0;

	do
	:: looks < 3 ->
		v = version;
		if
		:: v % 2 == 0 ->
			x = a;
			y = b;
#ifndef NO_SECOND_LOOK
			if
			:: version == v -> assert(x == y)
			:: else -> skip
			fi
#else
			assert(x == y)
#endif
		:: else -> skip
		fi;
		looks++
	:: else -> break
	od
}

init
{
	run engine(1);
	run engine(2);
	run metrics()
}
