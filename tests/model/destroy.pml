/* SPDX-License-Identifier: Apache-2.0
 *
 * mutants: COUNTED_LATE RELEASED_EARLY RELEASED_ELSEWHERE NO_WAIT WAITS_FOR_ONE WAIT_FIRST LOOK_BEFORE_PUSH JOIN_UNSEEN TICKET_LATE
 *
 * ty_runtime_destroy beside threads of the program's that send (ty_pool_schedule in src/runtime/worker.c, wait_for_callers
 * in runtime.c). Such a thread may be held up between its push to a run queue and the look at the idle workers, or between that
 * and the wake-up, while the actor runs, perhaps on another worker, ends and is the last, the runtime stops, the workers are joined
 * and all is freed. What keeps it is its count at the worker that it pushes to. The actor itself is not freed: whoever sends has
 * a reference.
 *
 * Bounds: two workers, one actor, two senders of one message each, each of which may end it or not, one thread that stops and
 * destroys. With one actor, a queue is its inbox. Workers have no patience, say that they search whenever they look, and
 * look at everything in one step (park.pml has all that). An event count is a bit: to draw a ticket clears it.
 *
 * Every other step is one atomic access. The code makes those that decide sequentially consistent, and has the push publish the count:
 * LOOK_BEFORE_PUSH and COUNTED_LATE are what a processor might do if it did not.
 *
 * Checked: nothing of the runtime is touched once it is freed; who sent returns, the workers end, and destroy with them, so that
 * no wake is lost (no invalid end state: whoever stops the actor relies on an earlier send's wake, if there was one); a count is
 * given back where it was taken; the actor is in one queue, and nobody runs it once it is dead.
 */
#define WORKERS 2

mtype = { IDLE, EMPTY, SOME, DEAD };

mtype word = IDLE;          /* the mailbox's */
bool stop_in;               /* stop_msg is in it, or was handed over */
bit last;                   /* worker that ran the actor */
bool registered = true, gone;

bool inbox[WORKERS], idle[WORKERS];
byte searching, callers[WORKERS];
bool woken[WORKERS];        /* the event counts */
bool joining, ended[WORKERS];
bool stopping;
bool main_woken;            /* rt->park */
bool freed;
bool first_sent;            /* the senders are alike: one is the first */

#define stealable (inbox[0] || inbox[1])

inline notify(preferred)
{
	do
	:: atomic { !idle[0] && !idle[1] -> assert(!freed); break }
	:: atomic { idle[0] || idle[1] };
		if
		:: atomic { searching > 0 -> assert(!freed); break }
		:: searching == 0
		fi;
		if
		:: atomic { idle[preferred] -> assert(!freed); idle[preferred] = false };
			atomic { assert(!freed); woken[preferred] = true; break }
		:: atomic { !idle[preferred] && idle[1 - preferred] -> assert(!freed); idle[1 - preferred] = false };
			atomic { assert(!freed); woken[1 - preferred] = true; break }
		:: atomic { !idle[0] && !idle[1] -> assert(!freed); break }
		fi
	od
}

inline release(worker)
{
	atomic {
		assert(!freed && callers[worker] > 0);
		callers[worker]--
	}
}

/* A thread that is none of the runtime's */
inline pool_schedule()
{
	at = last; /* before the push: then it may run */
#ifndef MUTANT_COUNTED_LATE
	atomic { assert(!freed); callers[at]++ };
#endif
#ifdef MUTANT_LOOK_BEFORE_PUSH
	saw = idle[0] || idle[1];
#endif
	atomic { assert(!freed && !inbox[0] && !inbox[1]); inbox[at] = true };
#ifdef MUTANT_COUNTED_LATE
	atomic { assert(!freed); callers[at]++ };
#endif
#ifdef MUTANT_RELEASED_EARLY
	release(at);
#endif
#ifdef MUTANT_LOOK_BEFORE_PUSH
	if
	:: saw -> notify(at)
	:: else
	fi;
#else
	notify(at);
#endif
#ifdef MUTANT_RELEASED_ELSEWHERE
	at = last;
#endif
#ifndef MUTANT_RELEASED_EARLY
	release(at)
#endif
}

/* ty_mailbox_push. Sets woke. */
inline push(stop)
{
	atomic {
		woke = (word == IDLE);
		if
		:: word == IDLE -> word = EMPTY
		:: word == EMPTY -> word = SOME
		:: else
		fi;
		stop_in = stop_in || (stop && word != DEAD)
	}
}

proctype sender(bit me)
{
	bit at;
	bool woke, saw;

	atomic {
		!me || first_sent;
		first_sent = true;
		push(false)
	};
	if
	:: woke -> pool_schedule()
	:: else /* it is scheduled already, or dead */
	fi
}

/* ty_actor_run and what follows, up to its being IDLE, or dead */
inline run_actor()
{
	last = me;
	do
	:: atomic {
			assert(word == EMPTY || word == SOME);
			word = EMPTY
		};
		if
		:: true -> /* stop_msg, or what ends it */
			atomic { registered = false; gone = true }; /* alive.pml has them apart */
			word = DEAD;
			if
			:: stopping -> main_woken = true
			:: else
			fi;
			break
		:: !stop_in ->
			if
			:: atomic { word == EMPTY -> word = IDLE }; break
			:: word == SOME /* to the back, which is the front */
			fi
		fi
	od
}

proctype worker(bit me)
{
	bool found, stay;

	do
	:: searching++;
		atomic { found = stealable; inbox[0] = false; inbox[1] = false };
		if
		:: found -> atomic { found = false; searching-- }; run_actor() /* there is no other: nothing more to look for */
		:: !found && joining -> searching--; break
		:: !found && !joining ->
#ifdef MUTANT_TICKET_LATE
			idle[me] = true;
#else
			atomic { woken[me] = false; idle[me] = true };
#endif
			searching--;
#ifdef MUTANT_JOIN_UNSEEN
			stay = stealable && searching == 0;
#else
			stay = joining || (stealable && searching == 0);
#endif
#ifdef MUTANT_TICKET_LATE
			woken[me] = false;
#endif
			if
			:: stay -> stay = false
			:: else -> woken[me] /* it sleeps */
			fi;
			idle[me] = false;
			if
			:: joining -> break
			:: else
			fi
		fi
	od;
	assert(!freed);
	ended[me] = true
}

proctype destroyer()
{
	bit at;
	bool mine, woke, saw;

#ifdef MUTANT_WAIT_FIRST
	callers[0] == 0;
	callers[1] == 0;
#endif
	stopping = true;
	atomic { mine = registered; registered = false };
	if
	:: atomic { mine -> mine = false };
		push(true);
		if
		:: atomic { woke -> woke = false };
			pool_schedule();
			at = 0
		:: else
		fi;
		do
		:: main_woken = false;
			if
			:: word == DEAD -> break
			:: else -> main_woken /* it sleeps */
			fi
		od
	:: else -> gone /* a millisecond, and it looks again */
	fi;
	joining = true;
	woken[0] = true;
	woken[1] = true;
	ended[0];
	ended[1];
#if !defined(MUTANT_NO_WAIT) && !defined(MUTANT_WAIT_FIRST)
	callers[0] == 0;
#ifndef MUTANT_WAITS_FOR_ONE
	callers[1] == 0;
#endif
#endif
	freed = true
}

init {
	atomic {
		run worker(0);
		run worker(1);
		run sender(0);
		run sender(1);
		run destroyer()
	};
	_nr_pr == 1;
	assert(freed && word == DEAD && !inbox[0] && !inbox[1] && callers[0] == 0 && callers[1] == 0)
}
