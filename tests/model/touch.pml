/* SPDX-License-Identifier: Apache-2.0
 *
 * mutants: BEGIN_BLIND BEGIN_SPLIT CANCEL_SPLIT CLEAR_EARLY SAFE_ALWAYS
 *
 * An op's shared word (actors/op.c): the engine gives the op up while its owner begins, copies and lets go of the client's
 * blocks. Both only set bits, each in one read-modify-write, and decide by what the word was.
 *
 * Bounds: one op, one owner, one engine that looks once and cancels once.
 *
 * Checked: a client that was told that its blocks are safe never sees a copy touch them, now or later; one that flushes (looks at
 * the word) neither; and blocks that nobody will touch are in the end said to be safe. Each mutant breaks one rule of the code.
 */
bool begun, clear, cancelled; /* the word */
bool touching;                /* a copy of the op is under way */
bool reused;                  /* the client uses its blocks for something else */
bool copied, done;            /* what became of the op */

proctype owner()
{
	bool was;

	/* it looks at the word now and then, before it begins */
	if
	:: cancelled -> goto over
	:: skip
	fi;
#ifdef BEGIN_SPLIT
	was = cancelled;
	begun = true;
#else
	d_step { was = cancelled; begun = true };
#endif
#ifndef BEGIN_BLIND
	if
	:: was -> goto over
	:: else -> skip
	fi;
#endif
#ifdef CLEAR_EARLY
	clear = true;
#endif
	touching = true;
	assert(!reused);
	touching = false;
	copied = true;
	clear = true;
over:
	done = true
}

proctype engine()
{
	bool safe, was_begun, was_clear;

	/* a FLUSH, at any time before: looks, and does not cancel */
	if
	:: d_step { was_begun = begun; was_clear = clear };
	   if
	   :: was_clear -> reused = true; assert(!touching); goto out
	   :: else -> skip
	   fi
	:: skip
	fi;
	/* the deadline */
#ifdef CANCEL_SPLIT
	d_step { was_begun = begun; was_clear = clear };
	cancelled = true;
#else
	d_step { was_begun = begun; was_clear = clear; cancelled = true };
#endif
	safe = !was_begun || was_clear;
#ifdef SAFE_ALWAYS
	safe = true;
#endif
	if
	:: safe -> reused = true; assert(!touching)
	:: else ->
		/* FLUSH until it is: the owner brings the op to its end */
		(done || clear);
		reused = true;
		assert(!touching)
	fi;
out:
	(done);
	assert(!touching);
	assert(copied == clear)
}

init
{
	run owner();
	run engine()
}
