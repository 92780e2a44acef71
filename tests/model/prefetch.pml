/* SPDX-License-Identifier: Apache-2.0
 *
 * mutants: NO_JOIN NO_FORGET COMMIT_FAILED BELIEVE_OLD WAIT_SUSPECT IGNORE_CANCEL FREE_EARLY
 *
 * Prefetch (actors/prefetch.c, prefetch_loads.c, engine_fetch.c): two lookups of one chain, prefetch, eviction with a device
 * that stores the chain's head meanwhile, and a tier whose reads end in any order, well or badly, and which may stop answering
 * until both fetches are home. A handler is one step; so is a pin, which is a compare-and-swap. Bounds: two fetches, the
 * first of which may be cancelled; one tier; a chain of two chunks of one part with a window of one load (of two for one
 * fetch alone), or of one chunk of two parts; and two troubles out of: a tier that stops answering, a read that fails, one that
 * is refused, a reservation that finds no room, a store from the device, an eviction.
 *
 * Checked: a key has one load at a time; a fetch brings home leading chunks, pinned and right, and every fetch comes home
 * without the tier; a cancelled one begins nothing; a lookup is answered once, with no less than its fetch has; the tier
 * writes only to slots that are the load's; what failed is never visible; at the end no pin and no half chunk is left.
 */
#define FETCHES 2
#define NONE 255
#define AT(k, p) ((k) * 2 + (p))
#define OF(f, k) ((f) * 2 + (k))

mtype = { UNKNOWN, LOADING, HERE, GONE };
mtype = { FETCH, RESERVED, LANDED, ANSWER, READ };
mtype = { RESERVE, COMMIT };

byte keys, parts, window;

/* the arena */
bool filling[4], committed[4], good[4]; /* of each part: its slot's state, and whether its contents are right */
byte pins[2];

/* a fetch */
bool out[FETCHES], cancelled[FETCHES];
byte end_[FETCHES], here[FETCHES], known[FETCHES], asked[FETCHES], query[FETCHES];
bool none_left[FETCHES];        /* no tier is left to ask for key `known` */
mtype key[4];                   /* of each fetch and key */
byte home;

/* a load, of each key */
bool loading[2], code_bad[2], refused[2], reading[2];
byte waiting[2], undecided[2], unlanded[2];
bool reserved[4];
byte loads;

/* the tier */
bool asking[4], wanted[4];      /* queries: two of each fetch; is the answer wanted? */
bool asked_for[4];              /* not answered */
byte asks[4];                   /* so many keys */
bool hung, suspect;

byte troubles;                  /* that may still come */

chan to_prefetch = [9] of { mtype, byte, byte, bool };
chan to_eviction = [6] of { mtype, byte, byte, bool };
chan fetched[FETCHES] = [1] of { bit };

#define is_whole(k) (committed[AT(k, 0)] && (parts == 1 || committed[AT(k, 1)]))
#define is_still(k) (!filling[AT(k, 0)] && !filling[AT(k, 1)])
#define anything_out (reading[0] || reading[1] || asking[0] || asking[1] || asking[2] || asking[3])

inline pin(k, ok)
{
	ok = is_whole(k);
	if
	:: ok -> assert(good[AT(k, 0)] && (parts == 1 || good[AT(k, 1)])); pins[k]++
	:: else
	fi
}

/* ---- prefetch --------------------------------------------------------------------------------------- */

inline abandon(f)
{
	if
	:: query[f] != NONE ->
#ifndef MUTANT_BELIEVE_OLD
		wanted[query[f]] = false;
#endif
		query[f] = NONE
	:: else
	fi
}

inline go_home(f)
{
	abandon(f);
	i = 0;
	do
	:: i < here[f] -> assert(key[OF(f, i)] == HERE && pins[i] > 0 && is_whole(i)); i++
	:: i >= here[f] && i < asked[f] ->
		if
		:: key[OF(f, i)] == LOADING ->
#ifndef MUTANT_NO_FORGET
			waiting[i] = waiting[i] & ~(1 << f);
#endif
			skip
		:: key[OF(f, i)] == HERE -> pins[i]--
		:: else
		fi;
		i++
	:: else -> break
	od;
	out[f] = false;
	asked[f] = 0; known[f] = 0; none_left[f] = false;
	key[OF(f, 0)] = UNKNOWN; key[OF(f, 1)] = UNKNOWN;
	fetched[f]!1
}

inline submit(k)
{
	if
	:: refused[k] = false; reading[k] = true
	:: troubles -> troubles--; refused[k] = true
	fi
}

inline send_commits(k)
{
	i = 0;
	do
	:: i < parts ->
		if
		:: reserved[AT(k, i)] ->
			reserved[AT(k, i)] = false;
#ifdef MUTANT_COMMIT_FAILED
			to_eviction!COMMIT(k, i, true)
#else
			to_eviction!COMMIT(k, i, !code_bad[k])
#endif
		:: else
		fi;
		i++
	:: else -> break
	od
}

inline decided(k)
{
	undecided[k]--;
	if
	:: undecided[k] == 0 && code_bad[k] -> send_commits(k)
	:: undecided[k] == 0 && !code_bad[k] && unlanded[k] -> submit(k)
	:: else
	fi
}

inline begin_load(f, k)
{
	assert(!cancelled[f] && !loading[k]);
	loading[k] = true;
	loads++;
	code_bad[k] = false;
	undecided[k] = parts;
	unlanded[k] = parts;
	i = 0;
	do
	:: i < parts -> to_eviction!RESERVE(k, i, true); i++
	:: else -> break
	od
}

inline finish(k)
{
	loading[k] = false;
	loads--;
	i = 0;
	do
	:: i < FETCHES ->
		if
		:: waiting[k] & (1 << i) ->
			assert(out[i] && key[OF(i, k)] == LOADING);
			pin(k, ok);
			if
			:: ok -> key[OF(i, k)] = HERE
			:: else ->
				key[OF(i, k)] = GONE;
				end_[i] = (k < end_[i] -> k : end_[i])
			fi
		:: else
		fi;
		i++
	:: else -> break
	od;
	waiting[k] = 0
}

inline advance(f)
{
	do
	:: !out[f] -> break
	:: out[f] ->
		do
		:: here[f] < asked[f] && key[OF(f, here[f])] == HERE -> here[f]++
		:: else -> break
		od;
		assert(here[f] <= asked[f] && asked[f] <= known[f] && known[f] <= keys);
		if
		:: here[f] >= end_[f] -> go_home(f); break
#ifndef MUTANT_IGNORE_CANCEL
		:: here[f] < end_[f] && cancelled[f] -> go_home(f); break
#endif
		:: else
		fi;
		if
#ifndef MUTANT_WAIT_SUSPECT
		:: here[f] < asked[f] && suspect -> go_home(f); break
		:: here[f] == asked[f] && query[f] != NONE && suspect -> abandon(f); none_left[f] = true
#endif
		:: else ->
			k = asked[f];
			if
			:: k >= end_[f] -> break
			:: else
			fi;
			pin(k, ok);
			if
			:: ok ->
				key[OF(f, k)] = HERE;
				asked[f]++;
				if
				:: known[f] < asked[f] -> abandon(f); known[f] = asked[f]; none_left[f] = false
				:: else
				fi
			:: !ok && k == known[f] ->
				if
				:: query[f] != NONE -> break
				:: query[f] == NONE && (none_left[f] || suspect) -> end_[f] = known[f]
				:: else ->
					query[f] = (asking[OF(f, 0)] -> OF(f, 1) : OF(f, 0));
					assert(!asking[query[f]]);
					asking[query[f]] = true;
					wanted[query[f]] = true;
					asked_for[query[f]] = true;
					asks[query[f]] = end_[f] - known[f];
					break
				fi
#ifndef MUTANT_WAIT_SUSPECT
			:: !ok && k < known[f] && suspect -> known[f] = k; none_left[f] = true
#endif
			:: else ->
#ifdef MUTANT_NO_JOIN
				if
				:: loads < window || loading[k] -> begin_load(f, k)
#else
				if
				:: loading[k]
				:: !loading[k] && loads < window -> begin_load(f, k)
#endif
				:: else -> break
				fi;
				waiting[k] = waiting[k] | (1 << f);
				key[OF(f, k)] = LOADING;
				asked[f]++
			fi
		fi
	od
}

inline forget_locals()
{
	f = 0; k = 0; p = 0; i = 0; ok = false
}

inline pump()
{
	f = 0;
	do
	:: f < FETCHES -> advance(f); f++
	:: else -> break
	od;
	k = 0;
	do
	:: k < keys ->
		if
		:: refused[k] -> submit(k)
		:: refused[k] -> refused[k] = false; code_bad[k] = true; send_commits(k) /* its deadline */
		:: else
		fi;
		k++
	:: else -> break
	od;
	forget_locals()
}

proctype prefetch()
{
	byte f, k, p, i;
	bool ok;

end:	do
	:: atomic {
		if
		:: to_prefetch?FETCH(f, _, _) -> out[f] = true
		:: to_prefetch?RESERVED(k, p, _) -> reserved[AT(k, p)] = true; decided(k)
		:: to_prefetch?LANDED(k, p, ok) ->
			code_bad[k] = code_bad[k] || !ok;
			unlanded[k]--;
			if
			:: undecided[k] -> decided(k)
			:: else
			fi;
			if
			:: unlanded[k] == 0 -> finish(k)
			:: else
			fi
		:: to_prefetch?ANSWER(p, i, _) ->
			f = p / 2;
			asking[p] = false;
			asks[p] = 0;
			suspect = false;
			if
			:: wanted[p] ->
				query[f] = NONE;
				known[f] = known[f] + i;
				none_left[f] = i == 0
			:: else
			fi;
			wanted[p] = false
		:: to_prefetch?READ(k, _, ok) ->
			suspect = false;
			code_bad[k] = code_bad[k] || !ok;
			send_commits(k)
		/* the tick */
		:: !suspect && anything_out -> suspect = true
		:: (out[0] && cancelled[0]) || refused[0] || refused[1]
#ifdef MUTANT_FREE_EARLY
		:: reading[0] && !code_bad[0] -> code_bad[0] = true; send_commits(0)
#endif
		fi;
		pump()
	}
	od
}

/* ---- its neighbours ----------------------------------------------------------------------------------- */

inline carry_out(k)
{
	reading[k] = false;
	if
	:: good_bytes = true
	:: troubles -> troubles--; good_bytes = false /* it failed, or these are other bytes */
	fi;
	p = 0;
	do
	:: p < parts ->
		if
		:: reserved[AT(k, p)] -> assert(filling[AT(k, p)]); good[AT(k, p)] = good_bytes
		:: else
		fi;
		p++
	:: else -> break
	od;
	to_prefetch!READ(k, 0, good_bytes);
	p = 0; good_bytes = false
}

inline answer(q)
{
	asked_for[q] = false;
	if
	:: to_prefetch!ANSWER(q, 0, true)
	:: to_prefetch!ANSWER(q, asks[q], true)
	fi
}

proctype tier()
{
	byte p;
	bool good_bytes;

end:	do
	:: atomic { !hung && reading[0] -> carry_out(0) }
	:: atomic { !hung && reading[1] -> carry_out(1) }
	:: atomic { !hung && asked_for[0] -> answer(0) }
	:: atomic { !hung && asked_for[1] -> answer(1) }
	:: atomic { !hung && asked_for[2] -> answer(2) }
	:: atomic { !hung && asked_for[3] -> answer(3) }
	:: atomic { troubles && anything_out && home < FETCHES -> troubles--; hung = true }
	:: atomic { hung && home == FETCHES -> hung = false }
	od
}

/* Its own state is the arena's. The device's store of the head's first part comes between whatever it likes. */
proctype eviction()
{
	byte k, p;
	bool ok;
	mtype device = UNKNOWN;

end:	do
	:: atomic {
		to_eviction?RESERVE(k, p, _) ->
		if
		:: filling[AT(k, p)] || committed[AT(k, p)] -> to_prefetch!LANDED(k, p, true)
		:: else ->
			if
			:: filling[AT(k, p)] = true; good[AT(k, p)] = false; to_prefetch!RESERVED(k, p, true)
			:: troubles -> troubles--; to_prefetch!LANDED(k, p, false)
			fi
		fi;
		k = 0; p = 0
	}
	:: atomic {
		to_eviction?COMMIT(k, p, ok) ->
		assert(filling[AT(k, p)]);
		filling[AT(k, p)] = false;
		committed[AT(k, p)] = ok;
		good[AT(k, p)] = good[AT(k, p)] && ok;
		to_prefetch!LANDED(k, p, ok);
		k = 0; p = 0; ok = false
	}
	:: atomic { troubles && pins[0] == 0 && is_still(0) && is_whole(0) ->
		troubles--; committed[0] = false; committed[1] = false; good[0] = false; good[1] = false
	}
	:: atomic { troubles && device == UNKNOWN && !filling[0] && !committed[0] -> troubles--; device = LOADING; filling[0] = true; good[0] = false }
	:: atomic { device == LOADING -> device = GONE; filling[0] = false; committed[0] = true; good[0] = true }
	:: atomic { device == LOADING -> device = GONE; filling[0] = false }
	od
}

/* An engine's lookup, which is still to be answered; its session's pins are there for a moment, which is enough to see them. */
proctype lookup(byte f)
{
	byte n;
	bool ok;

	if
	:: f == 1 -> to_prefetch!FETCH(f, 0, false)
	:: else
	fi;
	do
	:: atomic { f == 0 && !cancelled[0] -> cancelled[0] = true }
	:: atomic {
		fetched[f]?_ ->
		n = 0;
		do
		:: n < keys -> pin(n, ok); if :: ok -> n++ :: else -> break fi
		:: else -> break
		od;
		assert(n >= here[f]);
		do
		:: n > 0 -> n--; pins[n]--
		:: else -> break
		od;
		break
	}
	od;
	atomic {
		n = here[f];
		do
		:: n > 0 -> n--; assert(pins[n]); pins[n]--
		:: else -> break
		od;
		home++
	}
}

init {
	byte f;

	atomic {
		if
		:: keys = 2; parts = 1; window = 1; troubles = 2
		:: keys = 2; parts = 1; window = 2; troubles = 2; home = 1 /* one fetch */
		:: keys = 1; parts = 2; window = 1; troubles = 2
		fi;
		do
		:: f < FETCHES -> end_[f] = keys; query[f] = NONE; f++
		:: else -> break
		od;
		to_prefetch!FETCH(0, 0, false);
		run prefetch(); run tier(); run eviction(); run lookup(0);
		if
		:: home == 0 -> run lookup(1)
		:: else
		fi
	}
	home == FETCHES && !loads && !anything_out && empty(to_prefetch) && empty(to_eviction) ->
	atomic {
		assert(pins[0] == 0 && pins[1] == 0);
		assert(!reserved[0] && !reserved[1] && !reserved[2] && !reserved[3] && !waiting[0] && !waiting[1])
	}
}
