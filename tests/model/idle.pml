/* SPDX-License-Identifier: Apache-2.0
 *
 * mutants: NO_COUNT LIVE_COUNT STAY_FIRST NO_STAY FORGET_HOME
 *
 * An engine without members says that it is idle, by a message that it has once (END); clients keeps it, and may stop it, or send
 * END back (STAY) when a member joins (actors/clients_hello.c, actors/engine.c). A member's operation outlives it.
 *
 * Bounds: one engine, three joins, one message out for each, eight messages under way.
 *
 * Checked: an engine is stopped only when it has no member and nothing out; END is never sent while it is away; and when nobody
 * is left the engine is kept as idle in the end.
 */
mtype = {JOIN, LEAVE, STAY};

chan to_engine = [8] of {mtype};
chan to_clients = [2] of {byte}; /* END, with the joins that the engine has seen */

byte members, out, seen;  /* the engine's */
bool end_out;
byte joins, here;         /* clients' */
bool has_end, stopped;

inline settle()
{
	if
	:: members == 0 && out == 0 && seen > 0 && !end_out ->
#ifndef FORGET_HOME
		end_out = true;
#endif
		assert(len(to_clients) == 0 && !has_end);
		to_clients!seen
	:: else -> skip
	fi
}

active proctype engine()
{
	mtype m;

end:
	do
	:: to_engine?m ->
		assert(!stopped);
		if
		:: m == JOIN -> members++; seen++; out++ /* and asks for something at once */
		:: m == LEAVE -> members--
		:: m == STAY -> end_out = false
		fi;
		settle()
	:: out > 0 -> out--; settle() /* an operation lands */
	od
}

active proctype clients()
{
	byte n;

end:
	do
	:: joins < 3 && !stopped ->
#ifdef STAY_FIRST
		if
		:: has_end -> to_engine!STAY; has_end = false
		:: else -> skip
		fi;
		to_engine!JOIN
#else
		to_engine!JOIN;
#ifdef NO_STAY
		has_end = false
#else
		if
		:: has_end -> to_engine!STAY; has_end = false
		:: else -> skip
		fi
#endif
#endif
		;
		joins++; here++
	:: here > 0 -> to_engine!LEAVE; here--
	:: to_clients?n ->
#ifdef LIVE_COUNT
		n = seen; /* what the engine has counted since */
#endif
#ifndef NO_COUNT
		if
		:: n != joins -> to_engine!STAY
		:: else -> has_end = true
		fi
#else
		has_end = true
#endif
	:: has_end && here == 0 ->
		/* its time is over */
		assert(members == 0 && out == 0 && len(to_engine) == 0);
		has_end = false;
		stopped = true;
		break
	od
}

/* Nothing moves any more: was it kept, or stopped? */
active proctype watch()
{
	timeout -> assert(joins == 0 || stopped || here > 0)
}
