/* SPDX-License-Identifier: Apache-2.0
 *
 * mutants: ARM_WHILE_NUDGED REMOVE_FOREIGN NO_NUDGE NUDGE_KEEPS_HOME CANCEL_LEAVES_DUE STALE_ALARM_DELIVERS
 *
 * Timers (src/runtime/timer.c): an actor with one timer, which it starts, starts anew and cancels on whichever worker it
 * runs, against the alarm that fires on the worker where it was set, and the nudge that calls it back. The clock stands
 * still while the timer is due, so that "late" means that nobody will ever deliver it.
 *
 * Bounds: one actor, one timer, two workers, three starts or cancels, deadlines of one tick or three, four ticks.
 *
 * Checked: a cancelled or replaced arming is never delivered; one that is due is delivered;
 * the alarm's node is in one heap at a time and touched by that heap's thread alone.
 */
#define NONE 9
#define WORKERS 2
#define LATEST 3     /* a deadline is 1 or this many ticks away */
#define LAST_TICK 4
#define OPERATIONS 3 /* starts and cancels, at any time */

mtype = { OFF, ARMED, DUE };

byte now;

/* the actor's own */
mtype timer = OFF;
byte deadline = NONE;
byte home = NONE;     /* where the alarm is set, as the actor knows */
byte at;              /* for when */
bool nudge_out;
byte operations;

/* the alarm's node */
bool set[WORKERS];    /* in the worker's heap */
byte key;

bool nudges[WORKERS]; /* the worker's list of nudges has it */
bool alarm_msg, nudge_msg; /* in the mailbox */
byte running = NONE;  /* the worker that runs the actor */

inline insert(w, when)
{
	assert(w == me && !set[0] && !set[1]);
	key = when;
	set[w] = true
}

inline remove(w)
{
	assert(w == me && set[w]);
	set[w] = false
}

#ifdef MUTANT_ARM_WHILE_NUDGED
#define may_arm true
#else
#define may_arm (!nudge_out) /* else both tokens are on their way back */
#endif

/* What ty_timers_sync and arm do. */
inline sync()
{
	if
	:: timer == ARMED && deadline <= now -> timer = DUE
	:: else -> skip
	fi;
	if
	:: timer != ARMED ->
		if
		:: home == me && set[me] -> remove(me); home = NONE
		:: else -> skip
		fi
	:: timer == ARMED && !may_arm -> skip
	:: timer == ARMED && may_arm && home == NONE ->
		insert(me, deadline);
		home = me;
		at = deadline
	:: timer == ARMED && may_arm && home == me ->
		if
		:: set[me] && at > deadline -> remove(me); insert(me, deadline); at = deadline
		:: else -> skip /* early enough, or alarm_msg is on its way */
		fi
	:: timer == ARMED && may_arm && home != NONE && home != me ->
		if
#if defined(MUTANT_REMOVE_FOREIGN)
		:: at > deadline && set[home] -> remove(home); insert(me, deadline); home = me; at = deadline
#elif !defined(MUTANT_NO_NUDGE)
		:: at > deadline -> nudge_out = true; nudges[home] = true
#endif
		:: else -> skip
		fi
	fi
}

/* The actor's run on a worker: one thing, then sync. */
inline run_actor()
{
	if
	:: alarm_msg -> /* before nudge_msg: sent first */
		alarm_msg = false;
		home = NONE;
#ifdef MUTANT_STALE_ALARM_DELIVERS
		assert(timer == ARMED && deadline <= now);
#endif
		sync()
	:: !alarm_msg && nudge_msg ->
		nudge_msg = false;
		nudge_out = false;
#ifndef MUTANT_NUDGE_KEEPS_HOME
		home = NONE;
#endif
		sync()
	:: timer == DUE -> /* delivered */
		assert(deadline <= now);
		timer = OFF;
		deadline = NONE
	:: operations < OPERATIONS -> /* a message: start it, for some time, or start it anew */
		operations++;
		deadline = now + 1;
		timer = ARMED;
		sync()
	:: operations < OPERATIONS ->
		operations++;
		deadline = now + LATEST;
		timer = ARMED;
		sync()
	:: operations < OPERATIONS -> /* or cancel it */
		operations++;
		deadline = NONE;
#ifdef MUTANT_CANCEL_LEAVES_DUE
		if
		:: timer == ARMED -> timer = OFF
		:: else -> skip
		fi;
#else
		timer = OFF;
#endif
		sync()
	fi
}

#define runnable (alarm_msg || nudge_msg || timer == DUE || operations < OPERATIONS)

#define late (timer == DUE || (timer == ARMED && deadline <= now))

proctype worker(byte me)
{
end:	do
	:: atomic { running == NONE && runnable -> running = me };
		if
		:: runnable -> run_actor()
		:: else -> skip
		fi;
		running = NONE
	:: nudges[me] ->
		nudges[me] = false;
		if
		:: set[me] -> remove(me)
		:: else -> skip
		fi;
		nudge_msg = true
	:: set[me] && key <= now ->
		remove(me);
		alarm_msg = true
	od
}

proctype clock()
{
end:	do
	:: atomic { !late && (now < LAST_TICK || timer == ARMED) -> now++ }
	od
}

init
{
	atomic {
		run worker(0);
		run worker(1);
		run clock()
	};
	timeout ->
	assert(!late);
	assert(timer == OFF && !nudge_out && !alarm_msg && !nudge_msg)
}
