/* SPDX-License-Identifier: Apache-2.0
 *
 * embedded: stands for the owners that live in engines' processes (docs/embed.md). To engines and eviction it is an owner like any
 * other; what it is sent goes over each owner's connection, and what is out with one stays out until that says it is over, or
 * its process has ended.
 */
#ifndef TY_ACTORS_EMBEDDED_H
#define TY_ACTORS_EMBEDDED_H

#include "gpu.h"
#include "cache/slots.h"

#define TY_EMBEDDED_DEVICE TY_MAX_DEVICES /* its place among the service's owners, behind those of devices */
#define TY_EMBEDDED_MAX TY_BORROWERS      /* owners at once */
#define TY_EMBEDDED_UNREAD ((size_t)256 << 20) /* bytes on their way to an owner: one that does not read that much is lost */

/* Written by the actor (relaxed), read by metrics. */
struct ty_embedded_stats {
	_Atomic uint64_t owners;            /* connected */
	_Atomic uint64_t lost;              /* whose connection is over, but not their process */
	_Atomic uint64_t out;               /* operations that are out with an owner ... */
	_Atomic uint64_t quarantined;       /* ... that is lost: what they hold is kept until its process ends */
	_Atomic uint64_t stored_bytes, retrieved_bytes, refused, violations;
};

/* An owner has come: from clients, who allocated it and read its descriptor from the attach connection. */
struct ty_embed_request {
	struct ty_msg msg;
	int fd; /* closed by whoever does not take it */
	uint32_t uid;
};

extern const struct ty_class ty_embedded_class; /* arg: struct ty_service. Dedicated: waits in epoll */

#endif
