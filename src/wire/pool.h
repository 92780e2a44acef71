/* SPDX-License-Identifier: Apache-2.0
 *
 * A REGISTER on the wire and a pool in C (client.h), one into the other. Both directions check counts, lengths and presence
 * against src/device/layout.h's limits; what the numbers mean together is ty_layout_create's.
 */
#ifndef TY_WIRE_POOL_H
#define TY_WIRE_POOL_H

#include <tyer/client.h>

#include "wire/tyer.pb-c.h"

#define TY_FORMAT_MAX 64 /* bytes of Register.format */

/* The pool that a REGISTER describes, a copy of its own. A region of attached memory has is_fd set and the descriptor's
 * *number* (each in one place only) in fd: not yet a descriptor. So have segments. TY_INVALID or TY_LIMIT names the field. */
TY_MUST_USE enum ty_code ty_pool_from_register(const Tyer__V1__Register *reg, struct ty_pool **out, struct ty_error *err);
/* Where the pool's descriptors (or their numbers) stand, region by region: at most TY_ATTACH_DESCRIPTORS pointers into it. */
uint32_t ty_pool_descriptors(const struct ty_pool *pool, int **out);
/* Is it an owner in the client's process that moves its blocks? */
bool ty_pool_has_owner(const struct ty_pool *pool);
/* Null is allowed. Descriptors are not touched. */
void ty_pool_free(struct ty_pool *pool);

/* The REGISTER that describes `pool`; a copy of its own but for the steps, which stay the caller's. numbers are those of its descriptors, in the order of
 * ty_pool_descriptors. TY_INVALID, TY_LIMIT or TY_NO_MEMORY. */
TY_MUST_USE enum ty_code ty_register_from_pool(const struct ty_pool *pool, const uint32_t *numbers,
	Tyer__V1__Register **out, struct ty_error *err);
/* Null is allowed. For what ty_register_from_pool made, not for what was unpacked. */
void ty_register_free(Tyer__V1__Register *reg);

#endif
