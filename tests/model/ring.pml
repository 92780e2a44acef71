/* SPDX-License-Identifier: Apache-2.0
 *
 * mutants: LOOK_BEFORE_TAIL PUT_IN_SILENCE CHECK_BEFORE_IDLE READ_AFTER_CAS FULL_UNSEEN POP_UNSEEN
 *
 * The ring of a run queue (src/runtime/runq.c), and that what is put into it wakes who sleeps (worker.c): an owner that puts
 * five actors into a ring of two places, and takes some itself; a thief that takes half at a time, and parks when
 * there is nothing. Head and tail count up, as the code's 64-bit ones do. Every step is one atomic access; LOOK_BEFORE_TAIL
 * is what a processor's store buffer does if the store of the tail is no more than a release.
 *
 * The owner's handler, which put them, runs until all is quiet: then the thief must not sleep beside a ring with something
 * in it. In the end each actor was taken once. What the owner finds no place for it runs itself (the code has a spill).
 *
 * Bounds: two places, five actors, one owner, one thief.
 */
#define PLACES 2
#define ACTORS 5

byte ring[PLACES], head, tail;
bool idle, sleeping, release;
byte wakes;
byte taken[ACTORS + 1];

/* The owner: take the oldest, if there is one. */
inline pop()
{
	do
	:: old = head;
		if
		:: old == tail -> break
		:: else -> skip
		fi;
		actor = ring[old % PLACES];
#ifdef MUTANT_POP_UNSEEN
		head = old + 1; taken[actor]++; break
#else
		if
		:: atomic { head == old -> head = old + 1; taken[actor]++ }; break
		:: atomic { head != old -> skip }
		fi
#endif
	od
}

inline notify()
{
	if
	:: atomic { idle -> idle = false }; wakes++
	:: atomic { !idle -> skip }
	fi
}

proctype owner()
{
	byte next, old, actor;
	bool saw;

	for (next : 1 .. ACTORS) {
		do
		:: pop() /* it may run some in between */
		:: break
		od;
		old = head;
#ifdef MUTANT_FULL_UNSEEN
		old = tail;
#endif
		if
		:: tail - old >= PLACES -> taken[next]++
		:: else ->
			ring[tail % PLACES] = next;
#ifdef MUTANT_LOOK_BEFORE_TAIL
			saw = idle;
			tail++;
			if
			:: saw -> notify()
			:: else -> skip
			fi
#else
			tail++;
#ifndef MUTANT_PUT_IN_SILENCE
			notify()
#endif
#endif
		fi
	};
	release; /* blocks until all is quiet */
	pop();
	pop()
}

proctype thief()
{
	byte old, last, n, actor, ticket;
	bool stay;

	do
	:: /* half of the ring, which is one: places are read before the CAS */
		old = head;
		last = tail;
		n = (last - old + 1) / 2;
		if
		:: n > PLACES / 2 -> skip /* head moved in between: again */
		:: n == 1 ->
#ifndef MUTANT_READ_AFTER_CAS
			actor = ring[old % PLACES];
#endif
			if
			:: atomic { head == old -> head = old + 1 };
#ifdef MUTANT_READ_AFTER_CAS
				actor = ring[old % PLACES];
#endif
				taken[actor]++
			:: atomic { head != old -> skip }
			fi
		:: n == 0 ->
			ticket = wakes;
#ifdef MUTANT_CHECK_BEFORE_IDLE
			stay = head != tail;
			idle = true;
#else
			idle = true;
			stay = head != tail;
#endif
			if
			:: stay -> skip
			:: else ->
				sleeping = true;
end:				wakes != ticket;
				sleeping = false
			fi;
			idle = false
		fi
	od
}

init
{
	byte i;

	atomic {
		run owner();
		run thief()
	};
	timeout ->
	assert(!(sleeping && head != tail));
	release = true;
	timeout ->
	for (i : 1 .. ACTORS) {
		assert(taken[i] == 1)
	}
}
