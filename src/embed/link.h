/* SPDX-License-Identifier: Apache-2.0
 *
 * link: in an engine's process, what its owner knows of the service. It has the connection to it, and gives the owner (actors/gpu.h, the
 * same that serves in tyerd) what comes over it. On a thread of its own, in epoll.
 *   link.c        the connection, the owner's life
 *   link_work.c   pieces, pools, operations
 *
 * What the service says is held against what this process offered: a pool is a piece of the engine's memory, and nothing outside of
 * it, nor of the arena, is ever touched.
 */
#ifndef TY_EMBED_LINK_H
#define TY_EMBED_LINK_H

#include <tyer/embed.h>

#include "actors/gpu.h"
#include "actors/service.h"
#include "base/reconnect.h"
#include "base/waiter.h"
#include "wire/owner.h"

/* Bytes on their way to the service, beside what the socket takes: one that does not read that much is gone. All that an engine can have in
 * flight (--max-operations, at most 4096) is answered in a fifth of it. */
#define LINK_OUT_MAX ((size_t)4 << 20)

enum link_phase {
	LINK_AWAY,     /* until connect_at */
	LINK_KNOCKING, /* the attach socket's backlog is full: again at connect_at */
	LINK_ATTACHED, /* waits for the attach socket's WELCOME */
	LINK_HELLO,    /* waits for the service's WELCOME */
	LINK_OPENING,  /* the device opens */
	LINK_UP,
	LINK_ENDING,   /* the connection is over, or is to be: until all is back, and the owner has ended */
};

/* Memory that the engine offered. */
struct link_memory {
	struct link_memory *next;     /* in ty_embed's offered, then in the link's memories */
	uint64_t number;
	struct ty_pool *pool;         /* a copy, with addresses */
	struct ty_timeline *timeline; /* the client's page, held */
	uint32_t uses;                /* pools of the service's */
	bool withdrawn;
};
struct link_withdrawal {
	struct ty_msg msg;
	uint64_t number;
};

/* A pool that the service has us map. */
struct link_pool {
	struct link_pool *next;
	uint64_t number;              /* the service's */
	struct link_memory *memory;
	struct ty_layout *layout;
	struct ty_map map;
	bool away;                    /* the map is with the owner */
	bool leaving;                 /* to be unmapped, when nothing of it is out */
	bool told;                    /* the service waits to hear of that */
	uint32_t jobs;
};

/* A grant. */
struct link_job {
	struct link_job *next, **link;
	uint64_t number;              /* the service's */
	struct link_pool *pool;
	struct link *home;
	uint64_t *offsets;
	bool parked;                  /* for pieces that are not registered yet */
	struct ty_op op;
};

enum link_piece { PIECE_UNKNOWN, PIECE_COMING, PIECE_READY, PIECE_FAILED };

/* How open is told what came of it. */
struct link_told {
	struct ty_msg msg;
	enum ty_code code;
	struct ty_error error;
};

struct link_arg {
	struct ty_embed *embed;
	struct ty_actor *opener; /* a port: hears once, as message LINK_TOLD */
};
#define LINK_TOLD 1

/* What an owner that is to end still waits for. */
enum link_wait { LINK_WAITS_FOR_COPIES, LINK_WAITS_FOR_SERVICE, LINK_WAITS_FOR_DEVICE };

struct link {
	struct ty_embed *embed;
	struct ty_service *service; /* what the owner sees of one: ours */
	struct ty_actor *opener;    /* null: has heard */
	struct ty_actor *self;
	enum link_phase phase;
	int64_t connect_at, deadline; /* AWAY, KNOCKING; of an attempt */
	struct ty_reconnect reconnect;
	int64_t pause;                /* ENDING: before the next attempt, from when all is back */
	int attach_fd;
	struct ty_owner_stream stream;
	bool waits;
	bool lost;                  /* the connection is over: nothing is said any more */
	bool ends_all;              /* ... and link_settle is to end what there is */
	bool stopping;
	struct ty_waiter waiter;
	struct ty_error why;        /* the connection is over */

	struct ty_gpu_arg gpu_arg;
	struct ty_actor *gpu;       /* null: none */
	bool gpu_stopped;           /* asked to; DOWN comes */
	bool watched;               /* `down` is out */
	struct ty_msg gpu_start;
	struct ty_monitor down;

	uint8_t *pieces;            /* enum link_piece, arena.pieces of them */
	uint32_t pieces_out;        /* with the owner */
	struct link_memory *memories;
	struct link_pool *pools;
	struct link_job *jobs;
};

struct ty_embed {
	struct ty_embed_options options; /* strings are ours */
	struct ty_device_options how;    /* what of the device's options is not the engine's to say */
	uint8_t id[TY_OWNER_BYTES];
	_Atomic uint64_t last_memory;
	/* What was offered and the link has not looked at yet. No message: the service may speak of it as soon as the offer has returned,
	 * and what comes over its socket is read before the mailbox or behind it. The engine's threads push, release; the link takes all,
	 * acquire. */
	_Atomic(struct link_memory *) offered;
	struct ty_runtime *rt;
	struct ty_actor *link;
	struct ty_port *port;       /* of whoever opens and closes */
	struct link_told told;
	struct ty_monitor ended;
	bool closing;
	_Atomic int state;          /* enum ty_code; link, relaxed: it says nothing of other memory */
	_Atomic bool failed;        /* the owner's device, since it opened; the owner's thread, and the link before it starts one; relaxed */
	_Atomic int waits_for;      /* enum link_wait; likewise */
	_Atomic uint64_t pieces;
	struct ty_config config;    /* what the owner reads of one */
	struct ty_service service;
};

extern const struct ty_class link_class;

/* As ty_embed_open, for measuring: with a path, tile, staging or kernels of its own (device.h). Null: as for everybody. */
TY_MUST_USE enum ty_code ty_embed_open_how(const struct ty_embed_options *options, const struct ty_device_options *how, struct ty_embed **out,
	struct ty_error *err);

/* link_work.c */
/* All that was offered until now is in l->memories. */
void link_take_offers(struct link *l);

/* link.c */
void link_send(struct link *l, const struct ty_owner_frame *frame);
/* The connection is over. Jobs and pools stay as they are until link_settle. */
void link_lose(struct link *l, enum ty_code code, const char *why);
/* At the end of each handler and of each poll. Has all come back that is waited for? */
void link_settle(struct link *l);

/* link_work.c */
void link_tell_end(struct link *l, enum ty_owner_type type, uint64_t number, enum ty_code code, const char *text);
TY_MUST_USE enum ty_code link_on_piece(struct link *l, const struct ty_owner_frame *frame, struct ty_error *err);
TY_MUST_USE enum ty_code link_on_map(struct link *l, const struct ty_owner_frame *frame, struct ty_error *err);
TY_MUST_USE enum ty_code link_on_unmap(struct link *l, const struct ty_owner_frame *frame, struct ty_error *err);
TY_MUST_USE enum ty_code link_on_grant(struct link *l, const struct ty_owner_frame *frame, struct ty_error *err);
void link_on_cancel(struct link *l, const struct ty_owner_frame *frame);
void link_piece_back(struct link *l, struct ty_piece *piece);
void link_mapped(struct link *l, struct ty_map *map);
void link_unmapped(struct link *l, struct ty_map *map);
void link_copied(struct link *l, struct ty_op *op);
void link_end_all(struct link *l); /* nobody wants any of it any more */
void link_free_memory(struct link_memory *m);

#endif
