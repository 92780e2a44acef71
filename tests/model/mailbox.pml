/* SPDX-License-Identifier: Apache-2.0
 *
 * mutants: EMPTY_SCHEDULES IDLE_BLIND TOUCH_AFTER_IDLE CLOSE_FORGETS NO_REVERSAL HANDED_LATE HANDED_LAST
 *
 * The mailbox (src/runtime/mailbox.h) with its schedule flag: two producers, a third who stops the actor at any time,
 * two workers and a run queue. The list is an array, newest last; a push or a take is one step, as the successful
 * compare-and-swap or exchange is in the code. The message that wakes the actor is handed over beside the word, by a
 * plain store between the push and the schedule.
 *
 * Bounds: two producers of two messages each, one stop, two workers, a run queue of one place.
 *
 * Checked: at most one worker is in the actor, it is in at most one run queue, messages of one producer are handled (or
 * refused) in the order sent, and when all is quiet every message was handled or refused. Each mutant must fail.
 */
#define PRODUCERS 2
#define EACH 2
#define STOP 9
#define NOTHING 8
#define ALL 5 /* PRODUCERS * EACH and the stop */

mtype = { EMPTY, IDLE, CLOSED, SOME };

mtype word = IDLE;
byte list[ALL];  /* of the word SOME, newest last */
byte count;
byte handed = NOTHING; /* whoever took IDLE away, then the runner */

byte fifo[ALL];  /* the runner's, oldest first */
byte first, last;

chan queue = [1] of { bit };
byte inside;
byte sent, handled, refused;
byte seen[PRODUCERS];

inline schedule()
{
	assert(nfull(queue)); /* else it is in the queue twice */
	queue!1
}

/* A message is producer << 2 | order, or STOP. */
inline push(message)
{
	atomic {
		old = word;
		if
		:: old == CLOSED -> skip
		:: old == IDLE ->
			word = EMPTY;
			sent = sent + ((message) != STOP)
		:: else ->
			list[count] = (message);
			count++;
			word = SOME;
			sent = sent + ((message) != STOP)
		fi
	};
	if
#ifdef MUTANT_HANDED_LATE
	:: old == IDLE -> schedule(); handed = (message)
#else
	:: old == IDLE -> assert(handed == NOTHING); handed = (message); schedule()
#endif
#ifdef MUTANT_EMPTY_SCHEDULES
	:: old == EMPTY -> schedule()
#endif
	:: else -> skip
	fi
}

proctype producer(byte me)
{
	byte i;
	mtype old;

	for (i : 0 .. EACH - 1) {
		push(me << 2 | i)
	}
}

proctype stopper()
{
	mtype old;

	push(STOP)
}

/* Reverse what was taken onto the end of the fifo. */
inline sort()
{
#ifdef MUTANT_NO_REVERSAL
	do
	:: count > 0 -> count--; fifo[last] = list[count]; last++
	:: else -> break
	od
#else
	i = 0;
	do
	:: i < count -> fifo[last] = list[i]; last++; i++
	:: else -> break
	od;
	count = 0
#endif
}

inline take()
{
	d_step {
		if
		:: word == SOME -> sort(); word = EMPTY
		:: else -> skip
		fi;
		i = 0
	}
}

inline take_handed()
{
	if
	:: handed != NOTHING -> fifo[last] = handed; last++; handed = NOTHING
	:: else -> skip
	fi
}

inline in_order(message)
{
	assert(seen[message >> 2] == (message & 3));
	seen[message >> 2]++
}

inline close()
{
	d_step {
#ifdef MUTANT_CLOSE_FORGETS
		count = 0;
#else
		if
		:: word == SOME -> sort()
		:: else -> skip
		fi;
#endif
		word = CLOSED;
		i = 0
	};
	do
	:: first < last ->
		d_step {
			if
			:: fifo[first] != STOP -> in_order(fifo[first]); refused++
			:: else -> skip
			fi;
			first++
		}
	:: else -> break
	od
}

proctype worker()
{
	byte i, message;
	bool idle;

end:	do
	:: queue?_ ->
		assert(inside == 0);
		inside++;
#ifdef MUTANT_HANDED_LAST
		take();
		take_handed();
#else
		take_handed();
		take();
#endif
		if
		:: first < last -> /* a budget of one message */
			message = fifo[first];
			first++;
			if
			:: message == STOP ->
				close();
				inside--
			:: else ->
				d_step { in_order(message); handled++ };
				inside--;
				schedule() /* to the back, to see what there is */
			fi
		:: else ->
#ifndef MUTANT_TOUCH_AFTER_IDLE
			inside--;
#endif
			atomic {
				idle = true;
				if
#ifdef MUTANT_IDLE_BLIND
				:: word = IDLE
#else
				:: word == EMPTY -> word = IDLE
				:: else -> idle = false
#endif
				fi
			};
#ifdef MUTANT_TOUCH_AFTER_IDLE
			inside--;
#endif
			if
			:: idle -> skip
			:: else -> schedule()
			fi
		fi
	od
}

init
{
	byte p;

	atomic {
		run worker();
		run worker();
		run producer(0);
		run producer(1);
		run stopper()
	};
	timeout -> assert(sent == handled + refused && word == CLOSED && inside == 0)
}
