/* SPDX-License-Identifier: Apache-2.0
 *
 * A tier by itself: its actors on real threads, an arena, and calls that wait for what was submitted.
 */
#ifndef TY_TESTS_TIERS_HOUSE_H
#define TY_TESTS_TIERS_HOUSE_H

#include "actors/service.h"

#define HOUSE_PIECES 4

struct house {
	struct ty_config config;
	struct ty_service *service;
	struct ty_tier *tier;
	struct ty_actor *driver;
	int event_fd;
	char error[256];
};

/* Open the tier that `spec` describes, as --tier would be given. */
enum ty_code house_open(struct house *h, const char *spec);
void house_close(struct house *h);
void house_scanned(struct house *h); /* wait until it has read what is there */

struct ty_key house_key(uint64_t number);
/* Memory of the arena: place i of those of `bytes` each. */
uint8_t *house_place(struct house *h, uint32_t i, uint64_t bytes);
/* What chunk `number` holds in part `part`, and whether it does. */
void house_fill(uint8_t *at, uint64_t bytes, uint64_t number, uint32_t part);
bool house_holds(const uint8_t *at, uint64_t bytes, uint64_t number, uint32_t part);

/* An io for chunk `number` whose parts of `bytes` lie in places place, place + 1, ...; PUT: filled and summed up. EXISTS: for
 * `parts` keys from `number` on. */
struct ty_tier_io *house_io(struct house *h, enum ty_tier_verb verb, uint64_t number, uint32_t place, uint32_t parts,
	uint64_t bytes);
void house_free(struct ty_tier_io *io);
/* Submit them, as fast as the tier takes them, and wait for all. */
void house_run(struct house *h, struct ty_tier_io **ios, uint32_t count);
/* Likewise, and do not wait: they must not be over before the house is closed. */
struct house_job { struct ty_msg msg; struct ty_tier_io **ios; uint32_t count; };
void house_begin(struct house *h, struct house_job *job);
/* One, from its making to its end. */
enum ty_tier_outcome house_do(struct house *h, enum ty_tier_verb verb, uint64_t number, uint32_t parts, uint64_t bytes);

/* Called on the driver's thread when an io is home, before it is counted; may be null. */
extern void (*house_home)(struct ty_tier_io *io);
/* Called likewise before one is submitted: false: not before another one is home. May be null. */
extern bool (*house_may)(const struct ty_tier_io *io);
/* ns that what is submitted may take; 0: the tier's own. Set while nothing is out. */
extern int64_t house_timeout;

#endif
