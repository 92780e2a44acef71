/* SPDX-License-Identifier: Apache-2.0
 *
 * mutants: CHECK_THEN_PUSH IDLE_LOST NO_LOOK_AFTER_ASKED FORGET_DRAIN CUT_RESENDS
 *
 * Stopping a runtime (src/runtime/stop.c) against an actor that is sent to, and that may put off its stop: drained at
 * first, cut short when that takes too long. Bounds: one actor, one sender of three messages, one thread that runs the
 * actor, one that stops the runtime; the actor may put off its stop, and then end by itself at any time or never. Which
 * messages are ordinary is all that is told apart; the mailbox's word has a model of its own, so a push is one step.
 *
 * Checked: every message is delivered, returned by the actor's end, or refused to its sender, exactly once; stop_msg is in
 * one mailbox at a time; nothing is in the mailbox once the actor is over. That the actor ends whatever it does, so that
 * who stops the runtime is not left waiting, is the absence of invalid end states.
 */
#define MESSAGES 3
mtype = { NOTE, STOP };
mtype = { NONE, SENT, ASKED, CUT };

chan box = [8] of { mtype };
bool closed, scheduled = true;  /* scheduled: the runner has it; false: IDLE */
bool over;
mtype stopping = NONE;
bool stop_out;                  /* stop_msg is in the mailbox */
bool cutting;                   /* the budget is 0 */
byte sent, refused, delivered, returned;

/* ty_mailbox_push, and the schedule of whoever takes IDLE away */
inline push(m, failed)
{
	atomic {
		if
		:: closed -> failed = true
		:: else ->
			failed = false;
			box!m;
			scheduled = true
		fi
	}
}

inline send_stop()
{
	atomic {
		assert(!stop_out);
		if
		:: closed
		:: else -> box!STOP; stop_out = true; scheduled = true
		fi
	}
}

proctype sender()
{
	bool failed;

	do
	:: sent < MESSAGES ->
#ifdef MUTANT_CHECK_THEN_PUSH
		failed = closed;
		if
		:: !failed -> atomic { box!NOTE; scheduled = true }
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

inline finish()
{
	closed = true;
	do
	:: atomic { box?NOTE ->
#ifndef MUTANT_FORGET_DRAIN
		returned++
#endif
		}
	:: atomic { box?STOP -> stop_out = false }
	:: empty(box) -> break
	od;
	over = true
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

proctype stopper()
{
	atomic {
		if
		:: stopping == NONE -> stopping = SENT
		:: else
		fi
	}
	send_stop();
	if
	:: over -> goto done
	:: true /* it takes too long */
	fi;
	cutting = true;
#ifdef MUTANT_CUT_RESENDS
	send_stop();
#else
	atomic {
		if
		:: stopping == ASKED -> stopping = CUT; send_stop()
		:: else
		fi
	}
#endif
	over == true;
done:
	skip
}

init {
	atomic { run sender(); run runner(); run stopper() };
	_nr_pr == 1;
	assert(empty(box) && closed);
	assert(delivered + returned + refused == sent)
}
