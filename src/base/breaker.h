/* SPDX-License-Identifier: Apache-2.0
 *
 * For whoever asks a server that may be slow, overloaded or gone: pauses before another try, and a circuit breaker, which
 * ends the asking when it is in vain and lets one question find out when it is not any more. Pure functions over the
 * caller's struct; time (ns) and randomness are given. Any thread, one at a time.
 */
#ifndef TY_BASE_BREAKER_H
#define TY_BASE_BREAKER_H

#include <stdbool.h>
#include <stdint.h>

struct ty_breaker {
	uint32_t limit;             /* so many failures in a row open it. Set by the caller, above 0, ... */
	int64_t pause_min, pause_max; /* ... and how long it then stays open: doubled with each probe that fails */

	uint32_t failures;          /* in a row */
	int64_t pause, until;       /* open: until the next probe */
	bool open, probing;
};

/* The server answered. True: it was down, and is not any more. */
bool ty_breaker_good(struct ty_breaker *b);
/* It did not, or said that it cannot. `probe`: this was what ty_breaker_probe allowed. What was under way when it opened and fails
 * later does not make it open for longer. True: it is down, and was not before. */
bool ty_breaker_bad(struct ty_breaker *b, bool probe, int64_t now);
/* It is open and its pause is over: the one who is told true, and nobody else, is to ask. */
bool ty_breaker_probe(struct ty_breaker *b, int64_t now);

/* The pause after try number `tries` (from 1): anything up to base * 2^(tries - 1), at most `most` (full jitter, so that those
 * who failed together do not come again together). */
int64_t ty_backoff(uint32_t tries, int64_t base, int64_t most, uint64_t random);

#endif
