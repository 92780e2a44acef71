/* SPDX-License-Identifier: Apache-2.0
 *
 * What changes one chunk (PUT, DELETE) one after the other, in the order in which it came: for tiers whose requests may overtake each
 * other, because they have connections of their own or are sent on to another server. The first of a key goes; the others wait until it
 * is over. Belongs to the tier's actor alone.
 */
#ifndef TY_ACTORS_TIER_TURNS_H
#define TY_ACTORS_TIER_TURNS_H

#include <stdbool.h>

#include "cache/key.h"

#define TY_TURN_BUCKETS 256

/* In whatever waits for its turn. All zero: it has not come. */
struct ty_turn {
	struct ty_turn *next, **link; /* of its bucket, in the order in which they came. Null link: it has not come, or has left */
	struct ty_key key;
	bool waits;
};

/* All zero: nobody. */
struct ty_turns {
	struct ty_turn *first[TY_TURN_BUCKETS];
};

/* It comes. True: its turn is now; false: it waits, until ty_turn_leave of another one returns it. */
bool ty_turn_take(struct ty_turns *turns, struct ty_turn *turn, const struct ty_key *key);
/* It is over, or does not wait any more; nothing happens if it never came. The one whose turn it is now: it does not wait any
 * more. Null: nobody's. */
struct ty_turn *ty_turn_leave(struct ty_turns *turns, struct ty_turn *turn);
/* Is somebody at this chunk, or waits to be? */
bool ty_turn_is_taken(const struct ty_turns *turns, const struct ty_key *key);

#endif
