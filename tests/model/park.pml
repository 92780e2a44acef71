/* SPDX-License-Identifier: Apache-2.0
 *
 * mutants: LOOK_BEFORE_PUSH CHECK_BEFORE_IDLE TICKET_LATE NO_CASCADE SEARCH_ENDS_LATE COUNTS_ITSELF TAKEN_IN_SILENCE STOLEN_IN_SILENCE
 *
 * Parking and waking of the pool's workers (src/runtime/worker.c): two workers, two foreign threads that schedule actors
 * for worker 0. Run queues are counted: inbox, the first (its owner's alone), and ring, which only its owner fills.
 * Every step of the model is one atomic access; the code makes those that decide sequentially consistent, and the first
 * two mutants are what a processor's store buffer would do if it did not.
 *
 * A thief may find that something has not waited for long and leave it, unless its worker sleeps: then it looks again, or
 * another does that searches still. Without end, for all the model knows; what is checked is checked where it does not.
 *
 * A handler runs until everything is quiet, so that a worker which runs one is of no help to the others: when all is
 * quiet, no worker may sleep while there is something that it could take. In the end every actor has run.
 *
 * Bounds: two workers, two foreign threads that schedule two actors and one, each of which runs once.
 */
#define WORKERS 2
#define ACTORS 3 /* two from one thread, one from the other */

byte inbox[WORKERS], ring[WORKERS];
bool first[WORKERS];    /* while it is false, the ring is empty */
bool idle[WORKERS];
byte searching;
byte wakes[WORKERS];    /* the event counts */
bool sleeping[WORKERS];
byte ran;
bool release;           /* handlers end */

#define stealable(w) (inbox[w] > 0 || ring[w] > 0)

/* Wake at most one, and only if nobody searches. */
inline notify()
{
	do
	:: atomic { !idle[0] && !idle[1] -> break }
	:: else ->
		if
		:: searching > 0 -> break
		:: else -> skip
		fi;
		/* worker 0 is preferred; whoever clears the bit wakes */
		if
		:: atomic { idle[0] -> idle[0] = false }; wakes[0]++; break
		:: atomic { !idle[0] && idle[1] -> idle[1] = false }; wakes[1]++; break
		:: atomic { !idle[0] && !idle[1] -> break }
		fi
	od
}

proctype producer(byte actors)
{
	byte i;
	bool saw;

	for (i : 1 .. actors) {
#ifdef MUTANT_LOOK_BEFORE_PUSH
		saw = idle[0] || idle[1];
		inbox[0]++;
		if
		:: saw -> notify()
		:: else -> skip
		fi
#else
		inbox[0]++;
		notify()
#endif
	}
}

inline handler()
{
	ran++;
	release; /* blocks until all is quiet */
}

/* Stopped looking, with something in hand. */
inline leave_search()
{
	atomic { searching--; last = (searching == 0) };
	if
#ifndef MUTANT_NO_CASCADE
	:: last && (stealable(0) || stealable(1)) -> notify()
#endif
	:: else -> skip
	fi
}

/* Owner: as many as `taken` says, at the back. */
inline put_taken()
{
	if
	:: taken > 0 && !first[me] -> first[me] = true; taken--
	:: else -> skip
	fi;
	ring[me] = ring[me] + taken
}

/* Owner: the first, and then another becomes that. Sets found. */
inline pop()
{
	found = first[me];
	if
	:: found ->
		if
		:: atomic { ring[me] > 0 -> ring[me]-- }
		:: atomic { ring[me] == 0 -> first[me] = false }
		fi
	:: else -> assert(ring[me] == 0)
	fi
}

/* From the other's queue: one, and what was in its inbox behind it; or nothing yet. Sets found. */
inline steal(other)
{
	found = false;
	if
	:: !idle[other] -> skip
	:: atomic { inbox[other] > 0 -> taken = inbox[other] - 1; inbox[other] = 0; found = true };
		put_taken()
	:: atomic { ring[other] > 0 -> ring[other]--; found = true }
	:: else -> skip
	fi
}

/* One attempt: the own queue, then the other's. Sets found. */
inline attempt(other)
{
	atomic {
		if
		:: inbox[me] > 0 -> taken = inbox[me]; inbox[me] = 0
		:: else -> taken = 0
		fi
	};
	put_taken();
	pop();
	if
	:: found -> skip
	:: else -> steal(other)
	fi
}

proctype worker(byte me)
{
	byte ticket, taken;
	bool found, took, last, stay;

	do
	:: /* the own queue first */
		atomic {
			taken = inbox[me];
			inbox[me] = 0
		};
		took = taken > 0;
		put_taken();
		pop();
		if
		:: found ->
			if
#ifndef MUTANT_TAKEN_IN_SILENCE
			:: took && stealable(me) -> notify()
#endif
			:: else -> skip
			fi;
			handler()
		:: else ->
			steal(1 - me); /* without a word: nobody relies on it */
			if
			:: found ->
				if
#ifndef MUTANT_STOLEN_IN_SILENCE
				:: stealable(me) -> notify()
#endif
				:: else -> skip
				fi;
				handler()
			:: else ->
				searching++;
				attempt(1 - me);
				if
				:: found ->
					leave_search();
					handler()
				:: else ->
					/* park */
#ifndef MUTANT_TICKET_LATE
					ticket = wakes[me];
#endif
#ifdef MUTANT_CHECK_BEFORE_IDLE
					stay = stealable(0) || stealable(1);
					idle[me] = true;
					searching--;
#else
#ifdef MUTANT_SEARCH_ENDS_LATE
					idle[me] = true;
					stay = stealable(0) || stealable(1);
					searching--;
#else
					idle[me] = true;
					searching--;
					stay = stealable(0);
					stay = stay || stealable(1);
#ifdef MUTANT_COUNTS_ITSELF
					stay = false;
#else
					stay = stay && searching == 0; /* who searches still looks after this */
#endif
#endif
#endif
#ifdef MUTANT_TICKET_LATE
					ticket = wakes[me];
#endif
					if
					:: stay -> skip
					:: else ->
						sleeping[me] = true;
end:						wakes[me] != ticket;
						sleeping[me] = false
					fi;
					idle[me] = false /* and then its own queue first */
				fi
			fi
		fi
	od
}

init
{
	atomic {
		run worker(0);
		run worker(1);
		run producer(2);
		run producer(1)
	};
	timeout ->
	assert(!((sleeping[0] || sleeping[1]) && (stealable(0) || stealable(1))));
	release = true;
	timeout ->
	assert(ran == ACTORS && sleeping[0] && sleeping[1])
}
