/* SPDX-License-Identifier: Apache-2.0
 *
 * mutants: CHECK_THEN_PUSH IDLE_LOST NO_LOOK_AFTER_ASKED FORGET_DRAIN CUT_RESENDS CLOSE_AFTER_DRAIN DEAD_BEFORE_DRAIN GONE_BEFORE_DRAIN DEAD_UNSEEN
 *
 * Stopping a runtime (src/runtime/stop.c) against an actor that is sent to, and that may put off its stop: drained at
 * first, cut short when that takes too long, given up at a deadline and stopped again; and how the actor's end is told
 * (ty_actor_finish, ty_actor_retire): mailbox closed, drained, over, out of the registry, counted, dead.
 *
 * Bounds: one actor, one sender of two messages, one thread that runs the actor, one that stops the runtime, twice at most, one
 * that stops the actor; the actor may put off its stop, and then end by itself at any time or never. Which messages are
 * ordinary is all that is told apart; the mailbox's word has a model of its own, so a push is one step. Time may have come at
 * any moment: that who waits is woken is alive.pml's, with who is alive.
 *
 * Checked: every message is delivered, returned by the actor's end, or refused to its sender, exactly once; when the stop says
 * that all is over its report has all that the actor ever took, and the actor is counted as gone; stop_msg is in
 * one mailbox at a time; nothing is in the mailbox once the actor is over. That the actor ends whatever it does, so that
 * who stops the runtime is not left waiting, is the absence of invalid end states.
 */
#define MESSAGES 2
#define TIMEOUTS 1 /* then it waits */

mtype = { NOTE, STOP };
mtype = { NONE, SENT, ASKED, CUT };
mtype = { OPEN, CLOSED, OVER, DEAD };

chan box = [8] of { mtype };
mtype word = OPEN;              /* of the mailbox, as far as pushes see it */
bool scheduled = true;          /* the runner has it; false: IDLE */
bool registered = true, gone;   /* the registry holds a reference; its end is counted */
mtype stopping = NONE;
bool stop_out;                  /* stop_msg is in the mailbox */
bool cutting;                   /* the budget is 0 */
byte sent, taken, refused, delivered, returned;

#ifdef MUTANT_DEAD_UNSEEN
#define shut (word == CLOSED || word == OVER)
#else
#define shut (word != OPEN) /* CLOSED's bit is in all of them */
#endif

/* ty_mailbox_push, and the schedule of whoever takes IDLE away */
inline push(m, failed)
{
	atomic {
		if
		:: shut -> failed = true
		:: else ->
			failed = false;
			box!m;
			taken++;
			scheduled = true
		fi
	}
}

inline send_stop()
{
	atomic {
		assert(!stop_out);
		if
		:: shut
		:: else -> box!STOP; stop_out = true; scheduled = true
		fi
	}
}

/* ty_actor_stop */
inline stop()
{
	atomic {
		first = (stopping == NONE);
		if
		:: first -> stopping = SENT
		:: else
		fi
	};
	if
	:: first -> send_stop()
	:: else
	fi
}

/* ty_actor_cut */
inline cut()
{
	stop();
#ifdef MUTANT_CUT_RESENDS
	send_stop();
#else
	atomic {
		again = (stopping == ASKED);
		if
		:: again -> stopping = CUT
		:: else
		fi
	};
	if
	:: again -> send_stop()
	:: else
	fi
#endif
}

proctype sender()
{
	bool failed;

	do
	:: sent < MESSAGES ->
#ifdef MUTANT_CHECK_THEN_PUSH
		failed = shut;
		if
		:: !failed -> atomic { box!NOTE; taken++; scheduled = true }
		:: else
		fi;
#else
		push(NOTE, failed);
#endif
		atomic {
			sent++;
			if
			:: failed -> refused++
			:: else
			fi
		}
	:: break
	od
}

proctype other()
{
	bool first;

	stop()
}

inline drain()
{
	do
	:: atomic { box?NOTE ->
#ifndef MUTANT_FORGET_DRAIN
		returned++
#endif
		}
	:: atomic { box?STOP -> stop_out = false }
	:: empty(box) -> break
	od
}

/* ty_actor_finish, ty_actor_retire */
inline finish()
{
#ifdef MUTANT_DEAD_BEFORE_DRAIN
	word = DEAD;
	drain();
#else
#ifdef MUTANT_GONE_BEFORE_DRAIN
	registered = false;
	gone = true;
#endif
#ifdef MUTANT_CLOSE_AFTER_DRAIN
	drain();
	word = CLOSED;
#else
	word = CLOSED;
	drain();
#endif
	word = OVER;
#endif
	registered = false;
	gone = true;
	word = DEAD
}

proctype runner()
{
	bool putting_off, cut_seen;

	do
	:: scheduled ->
		if
		:: nempty(box) && cutting -> finish(); break
		:: atomic { box?NOTE -> delivered++ }
		:: box?STOP ->
			stop_out = false;
			if
			:: stopping == CUT || !putting_off -> finish(); break
			:: stopping != CUT ->
				putting_off = true;
				stopping = ASKED;
#ifndef MUTANT_NO_LOOK_AFTER_ASKED
				cut_seen = cutting;
				if
				:: cut_seen -> finish(); break
				:: else
				fi
#endif
			fi
		:: putting_off -> finish(); break /* it ends by itself */
#ifdef MUTANT_IDLE_LOST
		:: empty(box) -> scheduled = false
#else
		:: atomic { empty(box) -> scheduled = false }
#endif
		fi
	od
}

/* ty_runtime_stop, called again where it gave up. `mine`: rt->unstopped has the actor, with the registry's reference. */
proctype stopper()
{
	bool mine, first, again;
	byte timeouts;

	do
	:: !mine ->
		atomic { mine = registered; registered = false };
		if
		:: mine
		:: !mine && gone -> break /* nobody is alive */
		:: !mine && !gone -> gone /* it is about to be: a millisecond, and it looks again */
		fi
	:: mine ->
		if
		:: cutting -> cut()
		:: else -> stop()
		fi;
		if
		:: word == DEAD ->
			assert(gone && delivered + returned == taken); /* its end, before the next one is stopped */
			mine = false
		:: !cutting -> /* the time to drain is over */
			cutting = true;
			cut()
		:: cutting && timeouts < TIMEOUTS -> /* the deadline has come */
			timeouts++;
			assert(delivered + returned <= taken)
		fi
	od;
	/* TY_OK */
	assert(gone);
	assert(delivered + returned == taken)
}

init {
	atomic { run sender(); run runner(); run stopper(); run other() };
	_nr_pr == 1;
	assert(empty(box) && word == DEAD && !stop_out);
	assert(delivered + returned + refused == sent)
}
