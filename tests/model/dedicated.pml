/* SPDX-License-Identifier: Apache-2.0
 *
 * mutants: TICKET_LATE IDLE_BLIND LEAVE_BLIND ROUSE_TAKES_IDLE
 *
 * A dedicated actor's thread, asleep and woken (src/runtime/dedicated.c): senders, who wake it when they take IDLE away; one who rouses it
 * and takes nothing away; deadlines that end its waits. A message is counted, for its place in the list is the mailbox's own
 * matter (mailbox.pml).
 *
 * Bounds: two senders of two messages each, roused twice, two waits that a deadline ends.
 *
 * Checked: when all is quiet every message was handled, and no wait was ended by a sender whose wake never returns: for so many the
 * thread waits before its stop. Each mutant must fail.
 */
#define SENDERS 2
#define EACH 2
#define EARLY 2 /* deadlines, and times that it is roused */

mtype = { EMPTY, IDLE, SOME };

mtype word = EMPTY;
byte list;
byte event; /* the event count */
byte sent, handled;
byte woken, wakes; /* waits that a sender ended; wakes of senders that have returned */

proctype sender()
{
	byte i;
	mtype old;

	do
	:: i < EACH ->
		atomic { old = word; word = SOME; list++; sent++ };
		if
		:: old == IDLE -> event++; wakes++
		:: else -> skip
		fi;
		i++
	:: else -> break
	od
}

proctype rouser()
{
	byte i;

	do
	:: i < EARLY ->
#ifdef MUTANT_ROUSE_TAKES_IDLE
		atomic {
			if
			:: word == IDLE -> word = EMPTY; event++
			:: else -> skip
			fi
		};
#else
		if
		:: word == IDLE -> event++
		:: else -> skip
		fi;
#endif
		i++
	:: else -> break
	od
}

proctype thread()
{
	byte ticket, early;
	bool idle;

	do
	:: atomic { word == SOME -> handled = handled + list; list = 0; word = EMPTY }
	:: word != SOME ->
#ifndef MUTANT_TICKET_LATE
		ticket = event;
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
#ifdef MUTANT_TICKET_LATE
		ticket = event;
#endif
		if
		:: idle ->
end_asleep:
			if
			:: event != ticket -> skip
			:: early < EARLY -> early++
			fi;
			atomic {
				if
#ifdef MUTANT_LEAVE_BLIND
				:: word = EMPTY
#else
				:: word == IDLE -> word = EMPTY
				:: else -> woken++
#endif
				fi
			}
		:: else -> skip
		fi
	od
}

init
{
	atomic {
		run thread();
		run sender();
		run sender();
		run rouser()
	};
	timeout -> assert(sent == SENDERS * EACH && handled == sent && woken <= wakes)
}
