/* SPDX-License-Identifier: Apache-2.0
 *
 * The Valkey or Redis tier: --tier redis:HOST:PORT[+HOST:PORT...]. A hash a chunk, on the actor's own epoll; rediss: the same
 * over TLS. docs/redis.md. Shared by its files and nobody else:
 *
 *   redis_connection.c  a socket, TLS, hiredis's reader and writer
 *   redis_open.c   what the configuration names, before anything runs
 *   redis_nodes.c  connections: made, lost, made again; which node has which slot of a cluster
 *   redis_command.c  a command: its words, the nodes that it goes to, and its turn
 *   redis.c        operations as commands, and their replies
 *   redis_list.c   LIST: node by node, SCAN by SCAN
 */
#ifndef TY_ACTORS_REDIS_H
#define TY_ACTORS_REDIS_H

#include "base/waiter.h"
#include "redis_connection.h"
#include "service.h"
#include "tier_turns.h"
#include "wire/redis.h"

#define REDIS_SEEDS 8
#define REDIS_NODES 64          /* of a cluster, at a time; of further ones nothing is known */
#define REDIS_SLOTS 16384
#define REDIS_NO_NODE 0xff
#define REDIS_NAME_MAX 96       /* of a key: prefix and 64 digits */
#define REDIS_SECRET_MAX 512
#define REDIS_ERRANDS_MAX 64    /* wrong chunks that are being deleted; past it who reads them next deletes them */
#define REDIS_CHUNK_MAX (REDIS_COMMAND_MAX - ((uint64_t)1 << 20)) /* bytes of its contents: one command has all of it */

struct redis_actor;

struct redis_node {
	struct redis_actor *a;
	uint32_t index;
	char host[64];              /* numeric */
	const char *name;           /* that its certificate has to have */
	int port;
	struct redis_connection *c; /* null: there is none */
	uint32_t events;            /* that epoll was asked for */
	int64_t since;              /* when it was begun */
	int64_t open_since;         /* 0: it is not */
	int64_t retry_at, backoff;  /* when the next may be begun */
};

/* What open() found; constant while actors run. */
struct redis {
	struct ty_tier *tier;
	struct { char host[64], name[128]; int port; } seed[REDIS_SEEDS];
	uint32_t seed_count;
	char prefix[24], user[64], secret[REDIS_SECRET_MAX];
	struct redis_tls *tls;      /* null: plain */
	char tls_name[128];         /* of all nodes; empty: each has its own */
	struct ty_waiter waiter;    /* the actor's, but for its making and its wakes */
};

/* An EXISTS: its commands come home in any order. */
struct redis_query {
	struct ty_tier_io *io;
	uint32_t left;
	bool failed;
	struct ty_envelope first;  /* of the first key, if it is there */
	uint64_t shape[];          /* of each key: a sum of parts and lengths, never 0; 0: it is not there */
};

/* A command that is out, or waits for its turn. Its io may have been answered before: then io is null. */
struct redis_command {
	struct redis_command *next, **link;
	struct redis_actor *a;
	struct redis_node *node;    /* that it was sent to; null: it was not */
	struct ty_tier_io *io;
	struct redis_query *query;  /* EXISTS: the io's other commands */
	struct ty_tier_unpack *unpack; /* GET: it is with an unpacker, and the io stays; null: it is not */
	struct redis_listing *listing; /* LIST: likewise */
	struct ty_turn turn;        /* PUT, DELETE, errand: among those of its key */
	struct redis_command *due;  /* its turn has come: the next one of these */
	bool errand;                /* a DELETE of the tier's own, without an io */
	uint32_t key;               /* of the io's, or of the page's */
	uint32_t hops;              /* times that another node was named */
	int64_t overdue_at;         /* still without a reply then: its connection is over */
};

struct redis_actor {
	struct ty_tier *tier;
	struct redis *redis;
	struct redis_node nodes[REDIS_NODES];
	uint32_t node_count;
	uint8_t slots[REDIS_SLOTS]; /* of a cluster: the node's index */
	struct redis_command *commands;
	struct ty_turns turns;
	struct redis_command *due, **due_end; /* to be sent before anybody waits */
	uint32_t errands;
	struct ty_timer tick;
	bool ticking, stopping;
};

/* ---- redis_command.c ---- */
/* A command, still to be sent; null: no memory. */
struct redis_command *redis_command_new(struct redis_actor *a, struct ty_tier_io *io);
void redis_command_free(struct redis_command *c);
struct ty_tier_io **redis_command_io(struct redis_command *c); /* null: it has been answered */
void redis_name_of(const struct redis_actor *a, const struct ty_key *key, char out[REDIS_NAME_MAX]);
/* Send it, anew, to that node. False: no memory. */
TY_MUST_USE bool redis_command_send(struct redis_command *c, struct redis_node *node, bool asking);
void redis_command_issue(struct redis_command *c); /* to the node of its key; it may be over, and free, after this */
void redis_command_in_turn(struct redis_command *c, const struct ty_key *key); /* when those before it that change the chunk are over */
void redis_commands_go_on(struct redis_actor *a); /* those whose turn has come */
/* An error that says that another node has it. False: it does not, or cannot be followed. */
TY_MUST_USE bool redis_command_follow(struct redis_command *c, const char *text);

/* ---- redis.c ---- */
/* It is over, as far as its io goes: what it was for is answered, if it was not before. */
void redis_command_fail(struct redis_command *c, enum ty_tier_outcome outcome, const char *why);
void redis_on_reply(void *user, const redisReply *r); /* user: a command */
/* A chunk's header, if it is one: HGET's reply for that key. False: it is none, and what is wrong with it GET says. */
TY_MUST_USE bool redis_read_header(const redisReply *r, const struct ty_key *key, struct ty_envelope *out);

/* ---- redis_list.c ---- */
void redis_list(struct redis_actor *a, struct ty_tier_io *io); /* its io comes home */
struct ty_tier_io **redis_listing_io(struct redis_listing *l); /* null: was answered */
const struct ty_key *redis_listing_key(const struct redis_listing *l, uint32_t i); /* null: its commands are of no keys now */
void redis_listing_reply(struct redis_command *c, const redisReply *r); /* null: there is none. Frees the command */
void redis_listing_fail(struct redis_command *c, const char *why); /* frees the command */

/* ---- redis_open.c ---- */
TY_MUST_USE enum ty_code redis_open(struct ty_tier *tier, struct ty_error *err);
void redis_close(struct ty_tier *tier);

/* ---- redis_nodes.c ---- */
/* The node of a key, connected or about to be; null: none can be had now. */
struct redis_node *redis_node_of(struct redis_actor *a, const char *name);
struct redis_node *redis_node_at(struct redis_actor *a, const char *host, int port); /* null: too many */
bool redis_node_connect(struct redis_node *node); /* it is connected, or about to be */
/* AUTH, if there is a password. */
TY_MUST_USE bool redis_send_auth(const struct redis *r, struct redis_connection *c, redis_replied *replied, void *user);
void redis_learn_slot(struct redis_actor *a, uint32_t slot, const struct redis_node *node);
uint32_t redis_slot_of(const char *name);
bool redis_poll(struct redis_actor *a); /* true: at once again, replies have made more to be sent */
void redis_nodes_check(struct redis_actor *a, int64_t now); /* those that take too long to connect, or to answer */
void redis_nodes_close(struct redis_actor *a);

#endif
