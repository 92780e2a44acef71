/* SPDX-License-Identifier: Apache-2.0
 *
 * events: tells subscribers (nng's SUB, over ipc) what is stored and evicted, each event with a number. docs/control.md.
 */
#ifndef TY_ACTORS_EVENTS_H
#define TY_ACTORS_EVENTS_H

#include "messages.h"
#include "cache/key.h"
#include "wire/tyer.pb-c.h"

#include <tyer/actor.h>

struct ty_service;

#define TY_EVENTS_BATCH_MAX 256       /* of one message */
#define TY_EVENTS_SUBSCRIBERS 64
#define TY_EVENTS_QUEUE_BYTES (8 << 20) /* of one subscriber that does not take them; past it its connection is closed */

struct ty_event_list {
	struct ty_msg msg;
	uint32_t count;
	struct {
		struct ty_key key;
		uint8_t kind, tier; /* Tyer__V1__Event__Kind */
	} item[TY_EVENTS_BATCH_MAX];
};

/* What an actor collects while it handles a message. */
struct ty_events_pending {
	struct ty_event_list *list; /* null: nothing */
};

/* Without --events these do nothing. A list for which there is no memory leaves a gap in the numbers. */
void ty_events_add(struct ty_service *service, struct ty_events_pending *pending, Tyer__V1__Event__Kind kind,
	const struct ty_key *key, uint32_t tier);
void ty_events_flush(struct ty_service *service, struct ty_events_pending *pending); /* at the message's end */

/* The socket, from before the runtime to after it, as rpc's is. TY_OK and null, if --events is off. */
struct ty_events_socket;
TY_MUST_USE enum ty_code ty_events_open(struct ty_service *service, struct ty_events_socket **out, struct ty_error *err);
void ty_events_close(struct ty_events_socket *socket);

/* Written by the actor (relaxed, but for `events`), read by metrics. */
struct ty_events_stats {
	_Atomic uint64_t events;       /* number of the last one that was told. The actor: release; snapshots: acquire */
	_Atomic uint64_t lost;         /* for want of memory not told; added to by whoever wanted to (relaxed) */
	_Atomic uint64_t subscribers;
};

extern const struct ty_class ty_events_class; /* arg: struct ty_events_socket */

#endif
