/* SPDX-License-Identifier: Apache-2.0 */
#include "tier_turns.h"

#include <assert.h>
#include <string.h>

static struct ty_turn *first_of(struct ty_turn *turn, const struct ty_key *key)
{
	while (turn && memcmp(&turn->key, key, sizeof *key) != 0)
		turn = turn->next;
	return turn;
}

/* As many may be out as the tier takes operations: a few in each. */
static unsigned bucket_of(const struct ty_key *key)
{
	return key->bytes[0] % TY_TURN_BUCKETS;
}

bool ty_turn_take(struct ty_turns *turns, struct ty_turn *turn, const struct ty_key *key)
{
	struct ty_turn **end = &turns->first[bucket_of(key)];

	assert(!turn->link);
	turn->key = *key;
	turn->waits = ty_turn_is_taken(turns, key);
	while (*end)
		end = &(*end)->next;
	turn->next = NULL;
	turn->link = end;
	*end = turn;
	return !turn->waits;
}

struct ty_turn *ty_turn_leave(struct ty_turns *turns, struct ty_turn *turn)
{
	struct ty_turn *next;

	if (!turn->link)
		return NULL;
	*turn->link = turn->next;
	if (turn->next)
		turn->next->link = turn->link;
	turn->link = NULL;
	if (turn->waits)
		return NULL; /* the one before it is still out */
	next = first_of(turns->first[bucket_of(&turn->key)], &turn->key);
	if (next)
		next->waits = false;
	return next;
}

bool ty_turn_is_taken(const struct ty_turns *turns, const struct ty_key *key)
{
	return first_of(turns->first[bucket_of(key)], key) != NULL;
}
