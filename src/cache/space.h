/* SPDX-License-Identifier: Apache-2.0
 *
 * Namespaces by number: a chunk remembers whose it is in two bytes. Numbers are given in the order of appearance and stay
 * for the life of the process; 0 means not known (the table is full, or nobody said).
 */
#ifndef TY_CACHE_SPACE_H
#define TY_CACHE_SPACE_H

#include <stdatomic.h>
#include <stdbool.h>

#include "key.h"

#define TY_MAX_SPACES 4096

struct ty_spaces {
	_Atomic(struct ty_identity *) identity[TY_MAX_SPACES]; /* the clients actor: release; others: acquire */
	uint32_t count; /* the clients actor's */
};

/* The number of an identity, a new one if it is seen first. The clients actor alone. */
uint16_t ty_spaces_number(struct ty_spaces *spaces, const struct ty_identity *identity);
/* Null: not known. Any thread. */
const struct ty_identity *ty_spaces_identity(const struct ty_spaces *spaces, uint16_t number);
void ty_spaces_clear(struct ty_spaces *spaces); /* nobody uses it any more */

#endif
