/* SPDX-License-Identifier: Apache-2.0
 *
 * mutants: PIN_BLIND PIN_SPLIT KILL_SPLIT FREE_EARLY REUSE_EARLY USE_AFTER_UNPIN CONDEMN_SPLIT
 *
 * Pins against eviction (src/cache/index.c). Readers find the chunk of a key, pin it by compare-and-swap from READY only,
 * use its slot and unpin. Eviction kills by compare-and-swap from READY with no pins, takes the chunk out of the
 * table, reuses the slot for another chunk at once, and frees the chunk's memory after a grace period.
 *
 * A chunk may be found wrong: eviction condemns it, which keeps its pins and lets nobody pin it anew.
 *
 * Bounds: one key, one slot, three chunks one after the other, two readers of two lookups each, one eviction.
 *
 * Checked: whoever holds a pin sees the chunk's own contents in its slot, nobody touches a freed chunk, pins are never
 * negative, and everybody comes to an end. Each mutant breaks one rule of the code and must fail.
 */
#define READERS 2
#define LOOKUPS 2
#define GENERATIONS 3
#define NONE 255

mtype = { FILLING, READY, DEAD, WRONG };

typedef chunk_t {
	mtype state;       /* the word: state ... */
	byte pins;         /* ... and pins, changed together */
	bool freed;
};

chunk_t chunk[GENERATIONS];  /* a new one a generation: the old one's memory is kept until freed */
byte table = NONE;           /* the key's chunk */
byte contents = NONE;        /* of the one slot: whose bytes */
bool in_section[READERS];    /* read-side sections */

inline touch(c)
{
	assert(!chunk[c].freed)
}

proctype reader(byte me)
{
	byte c, n;
	mtype seen;
	bool pinned;

	do
	:: n < LOOKUPS ->
		n++;
		in_section[me] = true;
		c = table;
		pinned = false;
		if
		:: c == NONE -> skip
		:: else ->
#ifdef PIN_BLIND
			d_step { touch(c); chunk[c].pins++; pinned = true }
#else
			d_step { touch(c); seen = chunk[c].state };
			if
			:: seen == READY ->
#ifdef PIN_SPLIT
				d_step { touch(c); chunk[c].pins++; pinned = true }
#else
				d_step {
					touch(c);
					if
					:: chunk[c].state == READY -> chunk[c].pins++; pinned = true
					:: else -> skip
					fi
				}
#endif
			:: else -> skip
			fi
#endif
		fi;
		in_section[me] = false;
		if
		:: pinned ->
			assert(contents == c);
#ifdef USE_AFTER_UNPIN
			d_step { touch(c); assert(chunk[c].pins > 0); chunk[c].pins-- };
			assert(contents == c);
#else
			assert(contents == c); /* a second look: it stays so */
			d_step { touch(c); assert(chunk[c].pins > 0); chunk[c].pins-- }
#endif
		:: else -> skip
		fi;
		c = 0
	:: else -> break
	od
}

/* Wait until each reader that was in a section has been outside of it. */
inline grace_period()
{
#ifdef FREE_EARLY
	skip
#else
	r = 0;
	do
	:: r < READERS -> !in_section[r]; r++
	:: else -> break
	od;
	r = 0
#endif
}

proctype eviction()
{
	byte g, r, pins;
	mtype seen;
	bool killed;

	do
	:: g < GENERATIONS ->
		/* A store: the slot is written, then the chunk is made and published. */
		contents = g;
		chunk[g].state = FILLING;
		table = g;
		chunk[g].state = READY;
		/* It may be found wrong at any time. */
		if
		:: true ->
#ifdef CONDEMN_SPLIT
			pins = chunk[g].pins;
			d_step { chunk[g].state = WRONG; chunk[g].pins = pins };
#else
			chunk[g].state = WRONG;
#endif
			pins = 0
		:: true -> skip
		fi;
		/* Space is wanted: try until it can be had. */
		killed = false;
		do
		:: killed -> break
		:: else ->
#ifdef REUSE_EARLY
			contents = NONE;
#endif
#ifdef KILL_SPLIT
			if
			:: chunk[g].pins == 0 -> chunk[g].state = DEAD; killed = true
			:: chunk[g].pins != 0 -> skip
			fi
#else
			atomic { (chunk[g].state == READY || chunk[g].state == WRONG) && chunk[g].pins == 0 -> chunk[g].state = DEAD; killed = true }
#endif
		od;
		table = NONE;
		contents = NONE; /* the slot is somebody else's from here on, before any grace period */
		grace_period();
		chunk[g].freed = true;
		g++
	:: else -> break
	od
}

init {
	byte i;

	atomic {
		do
		:: i < READERS -> run reader(i); i++
		:: else -> break
		od;
		run eviction()
	}
}
