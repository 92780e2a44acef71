/* SPDX-License-Identifier: Apache-2.0
 *
 * Namespaces by number: a chunk remembers whose it is in two bytes. Numbers are given in the order of appearance, and stay for as
 * long as the cache: the identities lie beside the slots' records (slots.h), in memory that outlives the process. 0 means not
 * known (the table is full, or what was found in it is damaged).
 */
#ifndef TY_CACHE_SPACE_H
#define TY_CACHE_SPACE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "key.h"

#define TY_MAX_SPACES 4096
#define TY_SPACE_BYTES 2048

/* One identity, in memory that outlives the process: fixed layout, number 1 first. One that was never given is all zero. */
struct ty_space_record {
	uint64_t check; /* of the identity: written after it */
	struct ty_identity identity;
	uint8_t unused[TY_SPACE_BYTES - sizeof(uint64_t) - sizeof(struct ty_identity)];
};

struct ty_spaces {
	struct ty_space_record *records; /* TY_MAX_SPACES of them; the clients actor's */
	_Atomic(const struct ty_identity *) identity[TY_MAX_SPACES]; /* the clients actor: release; others: acquire */
	uint32_t count; /* numbers up to here were given; the clients actor's */
};

/* Begin with what the first `count` of these records say, before any actor runs; `spaces` is all zero. The records, room for
 * TY_MAX_SPACES, are the caller's, and stay until nobody uses the spaces. */
void ty_spaces_open(struct ty_spaces *spaces, struct ty_space_record *records, uint32_t count);
/* The number of an identity, a new one if it is seen first; 0: there is none. `shared`: those whose tenants begin as `whose` says have
 * together as many as are free, and no more. The clients actor alone. */
uint16_t ty_spaces_number_of(struct ty_spaces *spaces, const struct ty_identity *identity, const char *whose, bool shared);
/* The same for one who may have all. */
uint16_t ty_spaces_number(struct ty_spaces *spaces, const struct ty_identity *identity);
/* Null: not known. Any thread. */
const struct ty_identity *ty_spaces_identity(const struct ty_spaces *spaces, uint16_t number);

/* A tenant of a user that is not the service's own begins so, with the user's number: clients sees to it. */
#define TY_SPACE_USER "uid %u: "
/* The length of that beginning; 0: it is the service's own user's. */
size_t ty_space_user(const char *tenant);

/* For whoever takes records over, before they are opened. */
bool ty_space_is_clear(const struct ty_space_record *record);
bool ty_space_is_whole(const struct ty_space_record *record); /* it was written to its end, and says what an identity may say */
void ty_space_clear(struct ty_space_record *record);
void ty_space_spoil(struct ty_space_record *record); /* no identity, and the number is not given again */

#endif
