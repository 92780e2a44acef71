/* SPDX-License-Identifier: Apache-2.0
 *
 * mutants: DEAD_BEFORE_GONE LOOK_FIRST TICKET_LATE BORN_FIRST LOOK_BEFORE_BORN UNREF_ANYWAY FREE_UNJOINED
 *
 * Who is alive while a runtime stops: ty_spawn and ty_actor_retire (src/runtime/actor.c), ty_alive (src/runtime/stats.c),
 * and who stops it (src/runtime/stop.c) and frees it. One thread spawns an actor, one runs it to its end, which may come
 * by itself or only with a stop, one has another actor come and go (or be refused; the counters are the same).
 * Every step is one atomic access. The code makes those that decide sequentially consistent: LOOK_FIRST and
 * LOOK_BEFORE_BORN are what a processor might do if it did not.
 *
 * Bounds: one actor that is spawned once, another that comes and goes once, three threads that count, one that stops the runtime once.
 *
 * Checked: who stops is not left asleep (no invalid end state); it says that all is over only when every actor whose spawn
 * went well has been counted as gone; who sees an actor dead sees it counted; the registry's reference is given up once, and the
 * actor not touched after it; nothing of the runtime is touched once it is freed.
 */
#define THREADS 3
#define SPAWNER 0
#define RUNNER 1
#define PASSER 2

byte born[THREADS], gone[THREADS]; /* each is written by its thread alone */
bool stopping, in_registry, scheduled, stop_sent, dead, freed;
byte wakes;                        /* the event count */
byte refs = 1;                     /* the registry's */
bool accepted, counted;            /* the spawn went well; its end is counted. For the checks */
bool over[THREADS];                /* the thread has ended, or is the runtime's user no more */
bool by_itself;

proctype spawner()
{
	bool saw;

#ifdef MUTANT_LOOK_BEFORE_BORN
	atomic { saw = stopping; accepted = !saw };
	born[SPAWNER]++;
#else
	born[SPAWNER]++;
	atomic { saw = stopping; accepted = !saw };
#endif
	if
	:: saw ->
		gone[SPAWNER]++;
		wakes++
	:: else ->
		in_registry = true;
		scheduled = true
	fi;
	over[SPAWNER] = true
}

proctype passer()
{
	born[PASSER]++;
	gone[PASSER]++;
	wakes++;
	over[PASSER] = true
}

proctype runner()
{
	bool ours, saw;

	if
	:: scheduled -> (by_itself || stop_sent)
	:: over[SPAWNER] && !scheduled -> goto done
	fi;
#ifdef MUTANT_LOOK_FIRST
	saw = stopping;
#endif
	atomic { ours = in_registry; in_registry = false };
#ifdef MUTANT_DEAD_BEFORE_GONE
	dead = true;
	atomic { gone[RUNNER]++; counted = true };
#else
	atomic { gone[RUNNER]++; counted = true };
	dead = true;
#endif
#ifdef MUTANT_UNREF_ANYWAY
	ours = true;
#endif
	if
	:: ours -> assert(refs > 0); refs--
	:: else
	fi;
	assert(!freed);
#ifndef MUTANT_LOOK_FIRST
	saw = stopping;
#endif
	if
	:: saw -> assert(!freed); wakes++
	:: else
	fi;
done:
	over[RUNNER] = true
}

inline sum_born()
{
	b = born[SPAWNER];
	b = b + born[RUNNER];
	b = b + born[PASSER]
}

inline sum_gone()
{
	g = gone[SPAWNER];
	g = g + gone[RUNNER];
	g = g + gone[PASSER]
}

/* ty_alive */
inline count()
{
#ifdef MUTANT_BORN_FIRST
	sum_born();
	sum_gone()
#else
	sum_gone();
	sum_born();
	assert(b >= g)
#endif
}

proctype stopper()
{
	byte ticket, b, g;
	bool mine, ended;

	stopping = true;
	do
	:: true ->
		atomic { mine = in_registry; in_registry = false };
		if
		:: mine ->
			assert(refs > 0);
			stop_sent = true;
			do
			:: true ->
#ifdef MUTANT_TICKET_LATE
				ended = dead;
				ticket = wakes;
#else
				ticket = wakes;
				ended = dead;
#endif
				if
				:: ended -> break
				:: else -> wakes != ticket /* it sleeps */
				fi
			od;
			assert(counted);
			assert(refs > 0);
			refs--
		:: else ->
			count();
			if
			:: b == g -> break
			:: else /* a millisecond passes, at most */
			fi
		fi
	od;
	assert(!accepted || counted);
	over[SPAWNER] && over[PASSER]; /* the caller's to see to */
#ifndef MUTANT_FREE_UNJOINED
	over[RUNNER];
#endif
	freed = true
}

init {
	atomic {
		if
		:: by_itself = true
		:: by_itself = false
		fi;
		run spawner();
		run passer();
		run runner();
		run stopper()
	};
	_nr_pr == 1;
	assert(!accepted || (dead && refs == 0));
	assert(!in_registry)
}
