/* SPDX-License-Identifier: Apache-2.0
 *
 * What the eviction actor's rooms for the administration share: eviction_select.c (which chunks), eviction_control.c (what
 * is done with those of the arena, a slice a message), eviction_below.c (and with those of the tiers), eviction_warm.c, eviction_configure.c
 * (what may be changed).
 */
#ifndef TY_ACTORS_EVICTION_CONTROL_H
#define TY_ACTORS_EVICTION_CONTROL_H

#include "eviction_state.h"
#include "rpc.h"

#define SELECT_KEYS_MAX 1024   /* of one request */
#define SELECT_PROMPT_MAX 4096 /* chunks */
#define SELECT_NAMES_MAX 64    /* of each field of the namespace */

/* Which chunks. Refers to the request, which outlives it. */
struct eviction_select {
	const Tyer__V1__Select *select;
	struct ty_key *keys; /* those that were named, in order; null: all that are in the arena */
	uint32_t key_count;
	bool any_space;      /* nothing is said of namespaces */
	uint8_t spaces[TY_MAX_SPACES + 1]; /* 0: not looked at, 1: no, 2: yes */
};

/* TY_INVALID names the field. Null is the empty select. */
TY_MUST_USE enum ty_code eviction_select_open(struct eviction *e, const Tyer__V1__Select *select,
	struct eviction_select *out, struct ty_error *err);
void eviction_select_close(struct eviction_select *select);
bool eviction_selects(struct eviction *e, struct eviction_select *select, const struct ty_chunk *chunk);
/* The same of one that a tier has. Null: nobody knows whose it is, so it is of no namespace that could be named. */
bool eviction_selects_below(const struct eviction_select *select, const struct ty_key *key, const struct ty_identity *identity);
bool eviction_select_is_empty(const Tyer__V1__Select *select);

/* ---- a request as a job ---- */

#define EVICTION_LIST_MAX 1000   /* chunks of one LIST's reply; of a tier's last page some more */
#define EVICTION_AGAIN_MAX 4096  /* chunks that a DELETE or CLEAR comes back to */
#define EVICTION_PROBES 16       /* keys of which a tier is asked at once */

enum eviction_phase {
	EVICTION_ARENA, /* the keys that were named, or the slot table */
	EVICTION_AGAIN, /* DELETE, CLEAR: what the service itself had pinned then */
	EVICTION_BELOW, /* the tiers, one after the other */
	EVICTION_OVER,
};

struct eviction_errand; /* an io of a job's that is with a tier */

struct eviction_job {
	struct eviction_job *next, **link; /* of all */
	struct ty_msg go;
	struct ty_timer late;  /* its deadline, while it is answered by nobody */
	struct ty_timer again; /* it rests: a tier takes nothing now, or what it waits for is nobody's message */
	bool armed, resting, going;
	bool whole;            /* LIST: its reply is, though there is more */
	bool moved;            /* it has come some way below */
	struct eviction *e;
	struct ty_exchange *x; /* null: answered */
	Tyer__V1__Request__VerbCase verb;
	struct eviction_select select;
	enum eviction_phase phase;
	uint32_t at;           /* the next key, or slot to look from */
	uint32_t tier;         /* MOVE's; DELETE: the next one to tell of the key at hand */
	uint32_t ios;          /* errands that are out */
	struct ty_fetch *fetch; /* WARM's, while it is out */
	uint64_t max;
	uint64_t chunks, bytes, in_use, refused, failed, below;
	Tyer__V1__ListReply *list;
	size_t list_room;
	Tyer__V1__Unsearched *unsearched[TY_MAX_TIERS];
	uint32_t unsearched_count;
	uint8_t *keys, *tiers; /* EVENTS: so many of them as there may be in a reply ... */
	uint64_t sequence;     /* ... looked at after this event was told */

	struct ty_key *again_keys; /* AGAIN: those that are left; WARM: of the page, and `at` is the next one ... */
	uint32_t again_count;
	int64_t again_until;       /* ... AGAIN: and until when they are waited for */
	uint32_t stuck;            /* WARM: chunks in a row that did not come up */

	/* BELOW: at tier `lower` is key `at` next, or item page_at of the page that was asked for from `from`. */
	uint32_t lower;
	struct ty_tier_page page;
	struct ty_tier_cursor from;
	uint32_t page_at;
	bool paging, paged;                /* the page is out; it is there */
	struct eviction_errand *found;     /* answered, and to be deleted now */
};

/* True: it takes chunks away. */
bool eviction_job_deletes(const struct eviction_job *job);
bool eviction_job_is_full(const struct eviction_job *job);
/* Look again in a moment. */
void eviction_job_rest(struct eviction_job *job);
/* Go on, answer or end, as it is its turn. Whoever brings something home for it. */
void eviction_job_step(struct eviction_job *job);

/* One more in again_keys. False: there is no room. */
TY_MUST_USE bool eviction_job_remember(struct eviction_job *job, const struct ty_key *key);

/* ---- eviction_warm.c ---- */

void eviction_warm_begin(struct eviction_job *job); /* answers, in time */
void eviction_warm_go_on(struct eviction_job *job); /* with those of again_keys that are left */

/* ---- eviction_reply.c ---- */

void eviction_job_refuse(struct eviction_job *job, enum ty_code code, const char *text);
void eviction_job_answer(struct eviction_job *job); /* with what it has */
/* One more of a LIST's reply, its namespace told if it is known. Null: no memory. */
Tyer__V1__ChunkInfo *eviction_job_list(struct eviction_job *job, const struct ty_key *key, const struct ty_identity *identity);

/* ---- eviction_below.c ---- */

/* A LIST's cursor below the arena, from outside. TY_INVALID. */
TY_MUST_USE enum ty_code eviction_below_open(struct eviction_job *job, const ProtobufCBinaryData *cursor, struct ty_error *err);
void eviction_below_cursor(const struct eviction_job *job, ProtobufCBinaryData *out); /* to go on from; no data: no memory */
void eviction_below_walk(struct eviction_job *job); /* as far as it comes without waiting */
void eviction_below_close(struct eviction_job *job);
void eviction_below_give_up(struct eviction_job *job, const char *why); /* that tier: the next one */
/* Tell every tier, from job->tier on, that the chunk is deleted. False: one takes no more now, and it rests. */
bool eviction_below_delete(struct eviction_job *job, const struct ty_key *key);

/* Answers. */
void eviction_configure(struct eviction *e, struct ty_exchange *x);

/* Protobuf's own memory, for replies: null for want of it. */
ProtobufCMessage *eviction_new_message(const ProtobufCMessageDescriptor *type);
bool eviction_set_bytes(ProtobufCBinaryData *out, const void *bytes, size_t length);

#endif
