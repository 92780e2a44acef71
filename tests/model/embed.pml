/* SPDX-License-Identifier: Apache-2.0
 *
 * mutants: GIVE_AT_END_OF_CONNECTION COMMIT_AT_LOSS DONE_EARLY BELIEVE_TWICE ADOPT_ALL RECONNECT_EARLY RAISE_BLINDLY
 *
 * A slot that was granted to an owner in an engine's process (actors/embedded.c, src/embed/, docs/embed.md): a store of the owner's,
 * the engine's death at any moment, and the service's worker that dies and is followed by another one on the same slots. The GPU
 * copies by itself: what it was given goes on after the connection has ended, until the process has been taken apart.
 *
 * Bounds: one slot, one owner, one store or read at a time, the engine's death once, a worker and its successor.
 *
 * Checked: nobody else is given a slot while a copy of the owner's may run in it; what is visible was copied to its end; what the
 * owner announced to its engine was read from a slot that was still granted.
 */
mtype = { FREE, GRANTED, VISIBLE, ASIDE, OTHERS };
mtype slot = FREE;

bool connected = true;  /* the connection, as the kernel has it */
bool alive = true;      /* the engine's process; false: its copies have been ended */
bool dying = false;     /* killed; its descriptors are closed one by one */
bool copying = false;   /* the GPU may touch the slot */
bool copied = false;    /* all of it is there */
bool granted = false, done = false; /* frames on their way: to the owner, to the service */
byte worker = 0;        /* generation */
bool worker_up = true;
bool store;             /* else the owner reads the slot */

proctype owner()
{
end_again:
	do
	:: d_step { connected && granted && !dying -> granted = false; copying = true; copied = false };
		goto copy_begins
	:: dying -> goto out
	:: !connected && !dying ->
		/* a worker that comes is greeted when nothing is out */
end_away:	if
		:: worker_up && worker == 1 -> connected = true
		:: dying -> goto out
		fi
	od;
copy_begins:
#ifdef DONE_EARLY
	if
	:: atomic { connected -> done = true }
	:: else -> skip
	fi;
#endif
end_copy:
	do
	:: !dying && copying -> /* it ends by itself */
		d_step { copying = false; copied = true };
		break
	:: dying -> goto out
#ifdef RECONNECT_EARLY
	:: !connected && !dying && worker_up && worker == 1 -> connected = true; slot = (slot == ASIDE -> FREE : slot)
#endif
	od;
	if
	:: !store -> /* "your blocks hold what you asked for" */
#ifndef RAISE_BLINDLY
		d_step {
			if
			:: connected -> assert(slot == GRANTED)
			:: else -> skip
			fi
		}
#else
		assert(slot == GRANTED)
#endif
	:: else -> skip
	fi;
#ifndef DONE_EARLY
	if
	:: atomic { connected -> done = true }
	:: else -> skip
	fi;
#endif
	if
	:: atomic { connected && !done -> done = true } /* said twice, by one that lies or errs */
	:: skip
	fi;
	goto end_again;
out:
	skip
}

/* The kernel takes the process apart: its sockets may be closed before its GPU has stopped. */
proctype killer()
{
	if
	:: dying = true;
		connected = false;
		copying = false;
		alive = false
	:: skip
	fi
}

proctype service()
{
	bool out = false;

	slot = GRANTED;
	out = true;
	granted = true;
end_serve:
	do
	:: done && worker_up ->
		done = false;
#ifndef BELIEVE_TWICE
		if
		:: out
		:: else -> connected = false; goto end_serve /* a violation */
		fi;
#endif
		assert(slot == GRANTED);
		assert(!store || (copied && !copying));
		out = false;
		slot = VISIBLE
	:: worker_up && out && !connected && worker == 0 ->
#ifdef GIVE_AT_END_OF_CONNECTION
		out = false;
		slot = FREE
#else
#ifdef COMMIT_AT_LOSS
		out = false;
		assert(!store || (copied && !copying));
		slot = VISIBLE
#else
		if
		:: !alive && !done -> /* the pidfd says so, and all that it said has been read */
			out = false;
			slot = (store -> FREE : VISIBLE)
		:: else -> skip
		fi
#endif
#endif
	:: worker_up && slot == VISIBLE && !out -> slot = FREE /* evicted */
	:: worker_up && slot == FREE && !out ->
		assert(!copying || !store);
		slot = OTHERS;
		break
	:: worker == 0 -> /* dies: its sockets are closed, and then another one takes over */
		d_step { worker_up = false; connected = false; done = false; granted = false };
		out = false;
		worker = 1;
#ifndef ADOPT_ALL
		slot = ((alive && slot == GRANTED) -> ASIDE : (slot == GRANTED -> FREE : slot));
#else
		slot = (slot == GRANTED -> FREE : slot);
#endif
		worker_up = true
	:: worker == 1 && slot == ASIDE -> break
	od
}

init
{
	if
	:: store = true
	:: store = false
	fi;
	atomic {
		run owner();
		run killer();
		run service()
	}
}
