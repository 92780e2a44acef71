/* SPDX-License-Identifier: Apache-2.0
 *
 * A service whose owners may run in its clients' processes, in this process, with such owners and clients of theirs.
 */
#ifndef TY_TESTS_EMBED_HOUSE_H
#define TY_TESTS_EMBED_HOUSE_H

#include "harness.h"

#include <tyer/embed.h>

#include "actors/service.h"

extern struct h_service service;

void start(void);
struct ty_embed *open_owner(const char *fault); /* of the host device; `fault` as --device has it, or null */
void close_owner(struct ty_embed *embed);

struct ty_pool *own_pool(struct h_client *c); /* the harness's pool, by its address */
enum ty_code offer_and_register(struct ty_embed *embed, struct h_client *c, uint32_t step_count, const uint32_t *steps);
void open_client(struct ty_embed *embed, struct h_client *c); /* its pool is offered and registered */

void must(struct h_client *c, enum ty_code code); /* be TY_OK */

/* With an owner in this process, whose order with this thread goes over sockets (src/embed/link_work.c). */
enum ty_code own_store(struct h_client *c, uint64_t session, uint32_t count, uint32_t block);
enum ty_code own_retrieve(struct h_client *c, uint64_t session, uint32_t count, uint32_t block);
/* Of session 1's first four chunks, from the pool's first blocks. It is there until the next one is asked for. */
const struct ty_transfer *a_store(struct h_client *c);

uint64_t stat_of(const _Atomic uint64_t *counter);
void wait_until(const _Atomic uint64_t *counter, uint64_t value);

#endif
