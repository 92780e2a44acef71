/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests of the administration's for chunks that only tiers have: the real eviction actor over tiers that misbehave as told, on one
 * thread with a logical clock.
 */
#ifndef TY_TESTS_TIERS_BELOW_HOUSE_H
#define TY_TESTS_TIERS_BELOW_HOUSE_H

#include "tests/unit/cache/world.h"

#include "fault.h"

enum { CHUNKS = 40, SMALL = 64 * 1024 };
#define SECOND INT64_C(1000000000)

extern struct world_request request; /* the one under way */

void open_world(const char *first, const char *second); /* tiers, as --tier has them; second NULL: one */
/* Families 0 and 1 of two tenants, CHUNKS each, lie below alone; family 2, of the first one, in the arena too. */
void fill(void);
/* STORE, where a tier hangs: beside one nothing is ever idle. */
void store(uint32_t family, uint32_t count);

void prepare(Tyer__V1__Request__VerbCase verb);
void ask(void); /* until it is answered */
const Tyer__V1__ControlReply *counts(void); /* it went well, with this */
void refused(const char *words); /* asks; it is INVALID, and says so */

/* For `request`, between prepare and ask. */
void of_the_second(void); /* tenant */
void of_two_keys(void);   /* 17 of family 0 */
void of_a_prefix(void);   /* of one key, the second's */
void in_tiers(void);
void in_the_arena(void);

/* What a LIST says: how often each chunk was told, of the arena and of each tier. */
struct told {
	uint8_t arena[3][CHUNKS], tier[2][3][CHUNKS];
	uint32_t pages, unsearched;
};

void list_all(struct told *told, uint32_t max, void (*select)(void)); /* page by page; `select` NULL: of all */
void expect_all(const uint8_t told[CHUNKS], uint8_t times);
/* What fill made, of these tenants, once in each of so many tiers, or in the arena. */
void expect_told(const struct told *told, bool first, bool second, uint32_t tiers);

#endif
