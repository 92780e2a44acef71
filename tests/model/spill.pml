/* SPDX-License-Identifier: Apache-2.0
 *
 * mutants: SPILL_IN_PLACE SPILL_TAKEN_TWICE REFILL_DROPS RING_PAST_SPILL POP_PAST_SPILL INBOX_NOT_TURNED PUT_LAST_FIRST SPILL_IN_SILENCE INBOX_IN_SILENCE PUT_LAST_IN_SILENCE STOLEN_IN_SILENCE
 *
 * A run queue whole (src/runtime/runq.c): first, ring, spill and inbox, and who is told of what was put into it or moved within
 * it (worker.c). An owner whose handler puts actors until some spill, and is put back itself behind all that others have
 * pushed; a foreign thread that pushes to its inbox; another worker, which takes from the ring, or the spill or the inbox whole.
 * The owner takes from that one's queue, too. Spill and inbox are chains through the actors' links, as in the code; a link that
 * is none any more is 0.
 *
 * What a worker does in its own part of a queue (links of what it has taken out, its spill's tail) is one step with the
 * atomic access that follows, and so are a thief's compare-and-swap of the ring's head and its looks before it (ring.pml has
 * them apart). Workers say that they search whenever they look at others' queues, look there once, and have no patience
 * (park.pml has all that). An event count is a bit: to draw a ticket clears it.
 *
 * Handlers end at once, or when all is quiet: then no worker may sleep while there is something that it could take.
 *
 * Bounds: a ring of two places, two workers, four actors from the owner's handler, two from a foreign thread, and the handler's
 * own actor once more.
 *
 * Checked: no actor is lost, or run twice; the owner takes from its queue in order what its handler put, and what the other thread
 * pushed; what is put last it reaches after all that was there before, whoever put it; while the first is null ring and
 * spill are empty; nothing stays to be had beside a worker that sleeps.
 */
#define PLACES 2
#define OWN 4
#define FOREIGN 2
#define ROOT 7                 /* OWN + FOREIGN + 1 */

typedef queue {
	byte first, spill, spill_tail, inbox;
	byte ring[PLACES] /* the oldest is the first; 0: none */
};
queue q[2];
byte link[ROOT + 1];           /* ty_actor.run_next */

bool idle[2], woken[2], sleeping[2];
byte searching;
bool release;                  /* handlers end */
bool taken[ROOT + 1];
byte pushed, ahead;            /* foreign ones; and how many of them had been when the root's actor was put back */
hidden byte i, k;

#define ring_has(w) (q[w].ring[0] != 0)
#define ring_room(w) (q[w].ring[1] == 0)
#define stealable(w) (q[w].inbox || q[w].spill || ring_has(w))

inline notify(preferred)
{
	do
	:: atomic { !idle[0] && !idle[1] -> break }
	:: atomic { idle[0] || idle[1] };
		if
		:: atomic { searching > 0 -> break }
		:: searching == 0
		fi;
		if
		:: atomic { idle[preferred] -> idle[preferred] = false }; atomic { woken[preferred] = true; break }
		:: atomic { !idle[preferred] && idle[1 - preferred] -> idle[1 - preferred] = false };
			atomic { woken[1 - preferred] = true; break }
		:: atomic { !idle[0] && !idle[1] -> break }
		fi
	od
}

/* ---- the queue ------------------------------------------------------------------------------ */

inline push(w, a)
{
	atomic { link[a] = q[w].inbox; q[w].inbox = a; pushed++ }
}

/* Whole, into `chain`, oldest first */
inline take_inbox(w)
{
	d_step {
#ifdef MUTANT_INBOX_NOT_TURNED
		chain = q[w].inbox;
#else
		chain = 0;
		do
		:: q[w].inbox ->
			i = link[q[w].inbox];
			link[q[w].inbox] = chain;
			chain = q[w].inbox;
			q[w].inbox = i
		:: else -> break
		od;
#endif
		q[w].inbox = 0;
		i = 0
	}
}

inline spill_put(w, a)
{
#ifdef MUTANT_SPILL_IN_PLACE
	old = q[w].spill;
#else
	atomic { old = q[w].spill; q[w].spill = 0 };
#endif
	d_step {
		if
		:: old -> link[q[w].spill_tail] = a
		:: else -> old = a
		fi;
		q[w].spill_tail = a;
		q[w].spill = old;
		old = 0
	}
}

#ifdef MUTANT_RING_PAST_SPILL
#define to_ring(w) ring_room(w)
#else
#define to_ring(w) (!q[w].spill && ring_room(w))
#endif

inline ring_put(w, a)
{
	if
	:: ring_has(w) -> q[w].ring[1] = a
	:: else -> q[w].ring[0] = a
	fi
}

inline ring_take(w, a)
{
	a = q[w].ring[0];
	q[w].ring[0] = q[w].ring[1];
	q[w].ring[1] = 0
}

/* Owner. Sets told. That there is a spill, or no place in the ring, may be true no more when that is gone by. */
inline put(w, a)
{
	if
	:: atomic { !q[w].first -> q[w].first = a }
	:: q[w].first ->
		if
		:: atomic { to_ring(w) -> ring_put(w, a) }
		:: !to_ring(w) -> spill_put(w, a)
		fi;
		told = true
	fi
}

inline put_chain(w)
{
	do
	:: atomic { chain -> next = link[chain]; link[chain] = 0 };
		put(w, chain);
		atomic { chain = next; next = 0 }
	:: else -> break
	od
}

inline refill(w)
{
	atomic { chain = q[w].spill; q[w].spill = 0 };
	do
	:: atomic { chain && ring_room(w) ->
			ring_put(w, chain);
			next = link[chain];
			link[chain] = 0;
			chain = next;
			next = 0
		}
	:: atomic { chain && !ring_room(w) ->
#ifndef MUTANT_REFILL_DROPS
			q[w].spill = chain;
#endif
			chain = 0;
			break
		}
	:: atomic { !chain -> q[w].spill_tail = 0; break }
	od
}

/* The next one is the first */
inline ring_pop(w)
{
	do
	:: atomic { ring_room(w) && q[w].spill }; /* half full, at most */
		refill(w);
#ifndef MUTANT_SPILL_IN_SILENCE
		moved = true
#endif
	:: atomic { !(ring_room(w) && q[w].spill) -> ring_take(w, q[w].first); break }
	od
}

#ifdef MUTANT_POP_PAST_SPILL
#define alone(w) (q[w].first && !q[w].inbox && !ring_has(w))
#else
#define alone(w) (q[w].first && !q[w].inbox && !q[w].spill && !ring_has(w))
#endif

/* Owner. Sets actor, 0: none; and moved. */
inline pop(w)
{
	if
	:: atomic { alone(w) -> actor = q[w].first; q[w].first = 0 }
	:: !alone(w) ->
		take_inbox(w);
#ifndef MUTANT_INBOX_IN_SILENCE
		moved = (chain != 0);
#endif
		put_chain(w);
		actor = q[w].first;
		if
		:: actor -> ring_pop(w)
		:: else -> assert(!ring_has(w) && !q[w].spill)
		fi
	fi
}

/* Worker: from the other's queue into its own. Sets actor. */
inline steal(v)
{
	if
	:: atomic { ring_has(v) -> ring_take(v, actor) } /* half of two */
	:: !ring_has(v) ->
#ifdef MUTANT_SPILL_TAKEN_TWICE
		chain = q[v].spill;
		q[v].spill = 0;
#else
		atomic { chain = q[v].spill; q[v].spill = 0 };
#endif
		if
		:: !chain -> take_inbox(v)
		:: else
		fi;
		if
		:: atomic { chain -> actor = chain; chain = link[chain]; link[actor] = 0 }; put_chain(me)
		:: else
		fi
	fi
}

/* ---- what is checked ------------------------------------------------------------------------ */

inline not_there(w, a)
{
	assert(q[w].first != a && q[w].ring[0] != a && q[w].ring[1] != a);
	i = q[w].spill;
	do
	:: i -> assert(i != a); i = link[i]
	:: else -> break
	od;
	i = q[w].inbox;
	do
	:: i -> assert(i != a); i = link[i]
	:: else -> break
	od
}

/* A worker is about to run it. `mine`: from its own queue. What one source put before it is not there any more. */
inline take_note(mine)
{
	d_step {
		assert(!taken[actor]);
		taken[actor] = true;
		if
		:: mine && me == 0 ->
			k = (actor <= OWN -> 1 : (actor < ROOT -> OWN + 1 : 1));
			do
			:: k == actor -> break
			:: k != actor && (actor != ROOT || k <= OWN + ahead) -> not_there(me, k); k++
			:: actor == ROOT && k > OWN + ahead -> break
			od
		:: else
		fi;
		k = 0;
		i = 0;
		actor = 0
	}
}

/* ---- who does what -------------------------------------------------------------------------- */

proctype foreign()
{
	byte n;

	for (n : OWN + 1 .. OWN + FOREIGN) {
		push(0, n);
		notify(0)
	}
}

inline handler()
{
	if
	:: true
	:: true -> release /* blocks until all is quiet */
	fi
}

/* The last look: what there is, part by part. Sets stay. */
inline look(w)
{
	if
	:: q[w].inbox -> stay = true
	:: else ->
		if
		:: q[w].spill -> stay = true
		:: else -> stay = ring_has(w)
		fi
	fi
}

proctype worker(bit me)
{
	byte actor, chain, next, old;
	bool told, moved, stay, last;

	if
	:: me == 0 -> /* it runs the root */
		for (next : 1 .. OWN) {
			told = false;
			put(0, next);
			if
			:: told -> notify(0)
			:: else
			fi
		};
		next = 0;
		ahead = pushed;
#ifdef MUTANT_PUT_LAST_FIRST
		put(0, ROOT);
		take_inbox(0);
		put_chain(0);
#else
		take_inbox(0);
		put_chain(0);
		put(0, ROOT);
#endif
		told = false;
#ifndef MUTANT_PUT_LAST_IN_SILENCE
		notify(0)
#endif
	:: else
	fi;
	do
	:: pop(me);
		told = false;
		if
		:: actor ->
			take_note(true);
			if
			:: atomic { moved && stealable(me) -> moved = false }; notify(me)
			:: atomic { else -> moved = false }
			fi;
			handler()
		:: else ->
			searching++;
			steal(1 - me);
			told = false;
			if
			:: actor ->
				take_note(false);
				atomic { searching--; last = (searching == 0) };
				if
#ifndef MUTANT_STOLEN_IN_SILENCE
				:: last && (stealable(0) || stealable(1)) -> notify(me)
#endif
				:: else
				fi;
				last = false;
				handler()
			:: else ->
				atomic { woken[me] = false; idle[me] = true };
				searching--;
				look(0);
				if
				:: stay
				:: else -> look(1)
				fi;
				stay = stay && searching == 0;
				if
				:: stay -> stay = false
				:: else ->
					sleeping[me] = true;
end:					atomic { woken[me] -> woken[me] = false; sleeping[me] = false }
				fi;
				idle[me] = false
			fi
		fi
	od
}

init
{
	byte n;

	atomic {
		run worker(0);
		run worker(1);
		run foreign()
	};
	timeout ->
	assert(!((sleeping[0] || sleeping[1]) && (stealable(0) || stealable(1))));
	release = true;
	timeout ->
	for (n : 1 .. ROOT) {
		assert(taken[n])
	};
	assert(sleeping[0] && sleeping[1] && !stealable(0) && !stealable(1) && !q[0].first && !q[1].first)
}
