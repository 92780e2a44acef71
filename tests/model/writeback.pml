/* SPDX-License-Identifier: Apache-2.0
 *
 * mutants: NO_PIN PIN_ALL NO_COALESCE KEEP_MARK DROP_PINNED TIER_KEEPS
 *
 * Write-back (actors/eviction_tiers.c, writeback.c): eviction stores, offers and evicts two keys in one slot each, writeback
 * queues, pins and submits, a tier writes what it was given in any order, or stops answering until it is told to stop, and
 * somebody stops the service at any time. A handler is one step. Bounds: two keys, stored three times together; a tier of two
 * writes, a queue of two chunks, room for the pin of one victim.
 *
 * Checked: a victim's pins stay within their room, the queue within its own; of one chunk there is one write at a time; what is
 * written are the chunk's own bytes from the first to the last; eviction waits for nobody; a stop ends; at the end there is no
 * pin, and no mark that would keep a chunk from being offered again.
 */
#define KEYS 2
#define OPS 2
#define QUEUE 2
#define PINS 1
#define STORES 3

/* a key's chunk, in slot `key` of the arena */
bool here[KEYS], there[KEYS], on_way[KEYS];
byte pins[KEYS], version[KEYS]; /* of its bytes */

/* the tier's counts */
byte queued, pinned, in_flight;
bool hangs;

chan down = [4] of { byte, bool };      /* key, pinned */
chan queue = [4] of { byte, bool };
chan written = [OPS] of { byte, bool }; /* key, done */
bool out[KEYS], counted[KEYS];          /* with the tier; as a victim */
byte started[KEYS];                     /* the version that its write began with */
bool ending[KEYS];              /* the tier is done with it */
bool evicted_all, hung, stopping, told, stopped;

/* ---- eviction ---------------------------------------------------------------------------------------- */

inline offer(k, victim, went)
{
	went = false;
	if
	:: there[k] || on_way[k]
	:: else ->
		if
		:: hangs || queued >= QUEUE /* dropped and counted */
#ifndef MUTANT_PIN_ALL
		:: victim && pinned >= PINS
#endif
		:: else ->
			queued++;
			on_way[k] = true;
			went = true;
			if
			:: victim -> pinned++; pins[k]++
			:: else
			fi;
			assert(queued <= QUEUE && pinned <= PINS);
			down!k, victim
		fi
	fi
}

proctype eviction()
{
	byte k, stores;
	bool went;

	do
	:: atomic { stores < STORES ->
		stores++;
		if
		:: !here[0] -> k = 0
		:: !here[1] -> k = 1
		:: else -> k = KEYS
		fi;
		if
		:: k < KEYS ->
			here[k] = true;
			there[k] = false; /* a new chunk, of which nobody knows more */
			on_way[k] = false;
			version[k]++;
			if
			:: offer(k, false, went)
			:: skip /* at its eviction */
			fi
		:: else
		fi;
		k = 0; went = false
	}
	:: atomic { stores < STORES || !stopping ->
		if
		:: here[0] -> k = 0
		:: here[1] -> k = 1
		:: else -> k = KEYS
		fi;
		if
		:: k < KEYS ->
			offer(k, true, went);
			if
			:: !went && pins[k] == 0 -> here[k] = false; version[k]++ /* its slot is somebody else's at once */
			:: else
			fi
		:: else
		fi;
		k = 0; went = false
	}
	:: stores == STORES -> evicted_all = true; break
	od
}

/* ---- writeback ----------------------------------------------------------------------------------------- */

inline unmark(k, victim, done)
{
	there[k] = there[k] || done;
#ifndef MUTANT_KEEP_MARK
	on_way[k] = false;
#endif
	if
	:: victim -> pinned--
	:: else
	fi;
	pins[k]--
}

/* The first of the queue does not go. */
inline drop(k, victim)
{
	queued--;
	if
	:: !victim && here[k] -> pins[k]++
	:: else
	fi;
	if
#ifdef MUTANT_DROP_PINNED
	:: victim -> pinned--; on_way[k] = false
	:: !victim && here[k] -> unmark(k, victim, false)
#else
	:: victim || here[k] -> unmark(k, victim, false)
#endif
	:: else
	fi
}

inline pump()
{
	do
	:: len(queue) > 0 && in_flight < OPS ->
		queue?k, victim;
		if
		:: !victim && !here[k] -> drop(k, victim) /* evicted before its turn came */
#ifndef MUTANT_NO_COALESCE
		:: here[k] && (there[k] || out[k]) -> /* by the turn of a chunk of this key that was evicted meanwhile */
			queued--;
			on_way[k] = false;
			if
			:: victim -> pinned--; pins[k]--
			:: else
			fi
#endif
		:: else ->
			assert(!out[k]);
#ifndef MUTANT_NO_PIN
			if
			:: !victim -> pins[k]++
			:: else
			fi;
#endif
			queued--;
			out[k] = true;
			counted[k] = victim;
			in_flight++;
			started[k] = version[k]
		fi
	:: else -> break
	od;
	k = 0; victim = false
}

proctype writeback()
{
	byte k;
	bool victim, done;

	do
	:: atomic {
		if
		:: down?k, victim ->
			if
			:: hangs -> drop(k, victim)
			:: else -> queue!k, victim
			fi
		:: written?k, done ->
			out[k] = false;
			ending[k] = false;
#ifdef MUTANT_NO_PIN
			pins[k] = pins[k] + !counted[k];
#endif
			unmark(k, counted[k], done);
			counted[k] = false;
			hangs = false
		/* the tick */
		:: in_flight && hung && !hangs -> hangs = true
		:: told && len(queue) > 0 ->
			do
			:: queue?k, victim -> drop(k, victim)
			:: len(queue) == 0 -> break
			od
		:: hangs && len(queue) > 0 ->
			do
			:: queue?k, victim -> drop(k, victim)
			:: len(queue) == 0 -> break
			od
		fi;
		k = 0; victim = false; done = false;
		pump()
	}
	:: atomic { stopping && evicted_all && len(queue) == 0 && empty(down) && !out[0] && !out[1] -> stopped = true; break }
	od
}

/* ---- the tier, and the stop ------------------------------------------------------------------------------ */

inline end_write(k)
{
	assert(in_flight && started[k] == version[k] && here[k]);
	in_flight--;
	if
	:: !told -> written!k, true
	:: written!k, false
	fi
}

proctype tier()
{
	do
	:: atomic { !hung && in_flight && out[0] && !ending[0] -> ending[0] = true; end_write(0) }
	:: atomic { !hung && in_flight && out[1] && !ending[1] -> ending[1] = true; end_write(1) }
	:: atomic { !hung && !told && in_flight -> hung = true }
#ifndef MUTANT_TIER_KEEPS
	:: atomic { told && hung -> hung = false } /* what is out ends */
#endif
	:: stopped && !in_flight -> break
	od
}

init {
	atomic { run eviction(); run writeback(); run tier() };
	stopping = true;
	/* the drain's time is over, or all is down */
	if
	:: told = true
	:: stopped -> told = true
	fi;
	_nr_pr == 1;
	assert(!queued && !pinned && !in_flight && !pins[0] && !pins[1]);
	assert(!(here[0] && on_way[0]) && !(here[1] && on_way[1]))
}
