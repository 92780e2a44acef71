/* SPDX-License-Identifier: Apache-2.0
 *
 * Redis's texts, as far as they are read by us: redirections, a cluster's nodes, names of keys. Everything here comes from outside; each
 * reader is bounded and says no to what it does not know. Pure functions: any thread.
 */
#ifndef TY_WIRE_REDIS_H
#define TY_WIRE_REDIS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <tyer/result.h>

#define TY_REDIS_SLOTS 16384
#define TY_REDIS_HOST_MAX 64
#define TY_REDIS_KEY_BYTES 32

struct ty_redis_node {
	char host[TY_REDIS_HOST_MAX]; /* a numeric address; "": that of whoever said it */
	uint16_t port;
};

/* "MOVED 3999 127.0.0.1:6381" or "ASK ...": who has that slot. *asking: this once. False: it is neither, or cannot be followed: a
 * name is not looked up. */
TY_MUST_USE bool ty_redis_redirection(const char *text, size_t length, struct ty_redis_node *node, uint32_t *slot, bool *asking);

/* Of CLUSTER NODES' answer (*text, *left: what is still to be read) the next node that has slots. False: there is none any more, or
 * (*bad is not null then, and says what) it is not such an answer, or a node with slots cannot be reached. */
TY_MUST_USE bool ty_redis_next_master(const char **text, size_t *left, struct ty_redis_node *node, const char **bad);

/* The key of a chunk, from its name: `prefix` and 64 hexadecimal digits in lower case. False: it is none. */
TY_MUST_USE bool ty_redis_key(const char *name, size_t length, const char *prefix, uint8_t out[TY_REDIS_KEY_BYTES]);

/* SCAN's pattern for names of chunks whose keys begin with so many bytes; what means something in a pattern is quoted. `size`: 2 for each
 * byte of `prefix` and of the key, and 2. */
void ty_redis_pattern(const char *prefix, const uint8_t *key, size_t key_bytes, char *out, size_t size);

#endif
