/* SPDX-License-Identifier: Apache-2.0
 *
 * What the eviction actor's rooms for the administration share: eviction_select.c (which chunks), eviction_control.c (what
 * is done with them, a slice a message), eviction_configure.c (what may be changed).
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
bool eviction_select_is_empty(const Tyer__V1__Select *select);

/* Answers. */
void eviction_configure(struct eviction *e, struct ty_exchange *x);

/* Protobuf's own memory, for replies: null for want of it. */
ProtobufCMessage *eviction_new_message(const ProtobufCMessageDescriptor *type);
bool eviction_set_bytes(ProtobufCBinaryData *out, const void *bytes, size_t length);

#endif
