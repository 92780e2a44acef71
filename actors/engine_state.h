/* SPDX-License-Identifier: Apache-2.0
 *
 * The engine actor's state, shared by its files and nobody else:
 *   engine.c                members, dispatch, deadlines, the end
 *   engine_registrations.c  REGISTER, UNREGISTER
 *   engine_sessions.c       LOOKUP, END_SESSION, leases
 *   engine_operations.c     RETRIEVE, STORE
 *   engine_fetch.c          LOOKUPs that wait for chunks from the tiers
 *   engine_flush.c          FLUSH
 *   engine_table.c          CANCEL, OPERATIONS, and what is over
 */
#ifndef TY_ACTORS_ENGINE_STATE_H
#define TY_ACTORS_ENGINE_STATE_H

#include "engine.h"
#include "service.h"

/* A process of the engine. Freed when it has left and nothing refers to it any more. */
struct peer {
	struct peer *next;
	struct ty_member *member;
	bool left;
	uint32_t uses; /* registrations and flights that use its timeline */
};

enum registration_state { REG_MAPPING, REG_READY, REG_CLOSING, REG_UNMAPPING };

struct registration {
	struct registration *next;
	uint32_t id;
	uint64_t request; /* REGISTER's id */
	struct peer *peer;
	enum registration_state state;
	uint32_t device;
	struct ty_layout *layout;
	struct ty_pool *pool; /* what REGISTER said: its regions are the map's */
	struct ty_map map;  /* while `away` the owner's */
	bool away;          /* the map is with the device's owner */
	bool taken;         /* the pool has descriptors, no more their numbers */
	uint64_t identity[2]; /* of the first descriptor, if it is a memfd: device and inode, to know a pool again */
	uint32_t flights;                       /* that use the mapping */
	uint64_t bytes;                         /* of the engine's share of address space */
	struct ty_exchange *exchange;           /* REGISTER's or UNREGISTER's that waits for an answer, or null */
};

struct session {
	struct session *next; /* of its bucket */
	uint64_t id;
	struct peer *peer;    /* who opened it: it ends with that one */
	struct ty_key root;
	struct ty_key *keys;  /* of the whole chain */
	uint32_t chunks, room;
	struct ty_lease *lease; /* the leading chunks that a LOOKUP found; null: none */
	uint64_t conversation;  /* as the engine numbers them */
	struct ty_hint hint;    /* of its chunks, when nothing else is said */
};

/* An op that is out, and the exchange that waits for it (null: answered before its time). */
struct flight {
	struct flight *next, **link;
	struct peer *peer;
	struct registration *registration;
	struct ty_exchange *exchange;
	uint64_t bytes;
	uint64_t request, session; /* for those who ask */
	int64_t began;
	enum ty_code answer;       /* when the exchange is gone */
	struct ty_op op;           /* what travels */
};

#define SESSION_BUCKETS 1024

struct engine {
	struct ty_service *service;
	struct ty_identity identity;
	uint16_t space;      /* its number (cache/space.h) */
	uint8_t fingerprint[TY_KEY_BYTES]; /* of its pools' layout: of the last one that was registered, also when it has none any more ... */
	bool has_fingerprint;              /* ... until no member is there */
	uint32_t parts;      /* of a chunk of such a layout ... */
	uint64_t part_bytes; /* ... and the bytes of each */

	struct peer *peers;
	struct registration *registrations;
	uint32_t registration_count, last_registration;
	struct session *sessions[SESSION_BUCKETS];
	uint32_t session_count;
	uint64_t session_chunks; /* that they have room for; its share of service->session_chunks */
	uint64_t pool_bytes;     /* of its registrations; likewise */
	uint64_t leased;     /* chunks in leases of sessions */
	uint32_t leases_out; /* leases on their way through eviction */
	struct flight *flights;
	uint32_t flight_count;
	uint64_t flight_bytes, last_op;
	struct finished *finished;  /* a ring of the last TY_FINISHED_OPERATIONS; null until there is one */
	uint32_t finished_next;
	struct flush *flushes; /* that look, or wait */
	struct lookup *lookups; /* fetches that are out ... */
	uint32_t fetches;       /* ... so many: its share of service->fetches */

	struct ty_timer tick;
	bool tick_armed;
	bool end_out;   /* `end` is with clients, who alone may read it until it is back */
	uint64_t joins; /* members, ever */
	struct ty_engine_end end;
};

/* engine.c */
struct peer *engine_peer(struct engine *e, uint64_t client); /* null: none, or it has left */
void engine_watch(struct engine *e);                          /* something with a deadline is out: keep the tick going */
void engine_settle(struct engine *e);                         /* free what nothing uses; end when all is back */

/* engine_registrations.c */
void engine_register(struct engine *e, struct peer *peer, struct ty_exchange *x);
void engine_unregister(struct engine *e, struct peer *peer, struct ty_exchange *x);
void engine_mapped(struct engine *e, struct registration *r);
void engine_unmapped(struct engine *e, struct registration *r);
void engine_close_registration(struct engine *e, struct registration *r); /* unmaps as soon as nothing uses it */
struct registration *engine_find_registration(struct engine *e, const struct peer *peer, uint32_t id);

/* engine_sessions.c */
void engine_lookup(struct engine *e, struct peer *peer, struct ty_exchange *x);
void engine_end_session(struct engine *e, struct ty_exchange *x);
void engine_drop_sessions(struct engine *e, const struct peer *peer); /* those that it opened; null: all */
struct session *engine_find_session(struct engine *e, uint64_t id);
TY_MUST_USE enum ty_code engine_hint(const struct engine *e, const struct session *s, const Tyer__V1__Hint *said,
	struct ty_hint *out, struct ty_error *err);
TY_MUST_USE enum ty_code engine_chain_length(const struct engine *e, const Tyer__V1__Chain *chain, size_t *chunks,
	struct ty_error *err);
TY_MUST_USE enum ty_code engine_append(struct engine *e, struct session *s, const Tyer__V1__Chain *chain,
	struct ty_error *err);

/* engine_table.c */
void engine_remember(struct engine *e, const struct flight *f); /* it has landed */
void engine_cancel(struct engine *e, const struct peer *peer, struct ty_exchange *x);
void engine_operations(struct engine *e, struct ty_exchange *x);

/* engine_flush.c */
void engine_flush(struct engine *e, struct peer *peer, struct ty_exchange *x);
void engine_flush_go(struct engine *e, struct ty_msg *msg);
void engine_flush_landed(struct engine *e, const struct flight *f); /* it is out of the list, and still there */
void engine_flush_leave(struct engine *e, const struct peer *peer);
bool engine_flush_expire(struct engine *e, int64_t now); /* does any still wait? */

/* Lease what has come since. What it has it keeps, whatever the outcome. */
TY_MUST_USE enum ty_code engine_extend_lease(struct engine *e, struct session *s, struct ty_error *err);
void engine_answer_lookup(struct engine *e, const struct session *s, struct ty_exchange *x);

/* engine_fetch.c */
/* Look below for the rest of the session's chain. True: the exchange is answered later. */
bool engine_fetch_begin(struct engine *e, struct session *s, struct ty_exchange *x);
void engine_fetched(struct engine *e, struct ty_fetch *fetch);
void engine_fetch_drop(struct engine *e, const struct session *s); /* nobody wants its fetches any more */
bool engine_fetch_expire(struct engine *e, int64_t now);           /* does any exchange still wait? */

/* engine_operations.c */
void engine_retrieve(struct engine *e, struct peer *peer, struct ty_exchange *x);
void engine_store(struct engine *e, struct peer *peer, struct ty_exchange *x);
void engine_landed(struct engine *e, struct flight *f);
/* Answer now, with whether the blocks are safe; the op comes back later. */
void engine_give_up(struct flight *f, enum ty_code code, const char *why);

#endif
