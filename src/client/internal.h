/* SPDX-License-Identifier: Apache-2.0
 *
 * What the client library's files share. Everything here belongs to the client's thread: the library starts none of its own.
 *
 *   open.c        options, open, close
 *   link.c        the way to the service and back: attach, dial, HELLO, REGISTER; what happens when it is lost
 *   attach.c      the attach connection
 *   connection.c  the connection for requests
 *   tls.c         TLS on it
 *   client.c      requests in flight, and their completions
 *   pools.c       registered pools, to be registered again
 *   requests.c    the verbs
 */
#ifndef TY_CLIENT_INTERNAL_H
#define TY_CLIENT_INTERNAL_H

#include <tyer/client.h>

#include "base/reconnect.h"
#include "client/connection.h"
#include "client/reply.h"
#include "wire/attach.h"
#include "wire/timeline.h"
#include "wire/tyer.pb-c.h"

#define TY_CLIENT_REQUESTS_MAX 64
#define TY_CLIENT_REQUESTS_DEFAULT 32
#define TY_CLIENT_CONNECT_US 5000000    /* default of connect_timeout_us */
#define TY_CLIENT_TIMEOUT_US 30000000   /* of a request without a timeout, when HELLO does not tell the service's default */
#define TY_CLIENT_MARGIN_US 1000000     /* how much longer than the service we wait for its answer */
#define TY_CLIENT_DIAL_NS 1000000000    /* of one dial when reconnecting: then another one, with a new SYN */
#define TY_CLIENT_FRAMES_MAX 256        /* taken in one turn: four times what may be in flight */
#define TY_CLIENT_BACKLOG_NS 2000000    /* a full backlog gives no event to wait for */
#define TY_CLIENT_TAKE_BACK_NS 100000000 /* after an UNREGISTER of a pool that was given up came to nothing */

enum ty_slot_phase {
	TY_SLOT_IDLE,      /* takes a request, unless its last frame is still on the way out */
	TY_SLOT_ATTACHING, /* REGISTER: its descriptors are on their way over attach */
	TY_SLOT_OPEN,      /* sent, or on the way out */
	TY_SLOT_FINISHED,  /* in the ready list, `decoded` is its result */
};

/* REGISTER's descriptors. They are the kept pool's. */
struct ty_attaching {
	uint32_t count, sent, accepted;
	struct {
		int fd;
		uint32_t number;
	} of[];
};

/* A pool that was registered, or is being: a copy of its own, with descriptors of its own. */
struct ty_kept_pool {
	struct ty_kept_pool *next;
	uint32_t handle; /* the user's name for it, for good */
	uint32_t number; /* this service's; 0: it does not have it */
	bool known;      /* REGISTER was answered once: the user has the handle */
	bool leaving;    /* UNREGISTER is out */
	bool given_up;   /* its REGISTER or UNREGISTER is over without an answer, and the user has heard so: it is to be taken back ... */
	bool taking_back; /* ... for which an UNREGISTER of our own is out */
	uint64_t request; /* given up, number 0: the id of its REGISTER */
	struct ty_pool *pool; /* given up: null */
};

struct ty_request_slot;
/* The link's own requests: called as soon as it is over, within the poll. */
typedef void (*ty_internal_fn)(struct ty_request_slot *slot, const struct ty_decoded *decoded);

/* One request. */
struct ty_request_slot {
	struct ty_client *client;
	uint32_t index, turn; /* turn: counts its requests, so that a late reply is known for one */
	enum ty_slot_phase phase;
	bool queued; /* its frame is on the way out */
	uint32_t verb;
	uint64_t id;
	uint32_t chunks;  /* LOOKUP: at most so many may be in the answer; RETRIEVE: so many are. Else 0 */
	int64_t deadline; /* CLOCK_MONOTONIC, ns */
	ty_done_fn done;
	void *user;
	ty_internal_fn internal;        /* instead of `done` */
	struct ty_kept_pool *pool;      /* REGISTER, UNREGISTER */
	struct ty_frame *request;       /* while ATTACHING */
	struct ty_attaching *attaching; /* REGISTER with descriptors */
	struct ty_request_slot *next;   /* in the ready list */
	struct ty_decoded decoded;      /* when FINISHED */
};

/* Who has a descriptor's number. */
enum ty_number_state {
	TY_NUMBER_FREE,
	TY_NUMBER_HELD,     /* by a REGISTER; not answered yet */
	TY_NUMBER_ACCEPTED, /* answered; the REGISTER is not over */
	TY_NUMBER_ORPHAN,   /* sent for a REGISTER that is over; its answer frees it */
};

enum ty_link {
	TY_LINK_AWAY,     /* between two attempts, until link_at */
	TY_LINK_ATTACH,   /* the attach socket's backlog was full; again at link_at */
	TY_LINK_WELCOME,  /* attached: waits for the first frame */
	TY_LINK_DIAL,     /* the backlog was full; again at link_at */
	TY_LINK_DIALING,
	TY_LINK_GREETING, /* connected: waits for the peer's greeting */
	TY_LINK_HELLO,
	TY_LINK_REGISTER, /* the pools, one after the other */
	TY_LINK_UP,
	TY_LINK_OVER,     /* never opened, or closed */
};

struct ty_client {
	struct ty_client_options options; /* its strings are ours */
	struct ty_address address;
	struct ty_tls *tls; /* null: the address is not secure */
	struct ty_client_info info;
	struct ty_device_info *devices;
	uint32_t max_request_bytes;
	uint32_t timeout_us;  /* of each request, as it goes out */
	uint32_t patience_us; /* how long the service may take; the margin comes on top */
	uint32_t longest_us, usual_us; /* timeouts: the service's limit, and what it takes for one of 0 */

	int epoll_fd, timer_fd, ready_fd; /* ready_fd: an eventfd, readable while something is undelivered */
	int64_t timer_at;                 /* when timer_fd fires; INT64_MAX: never */

	enum ty_link link;
	bool opened;             /* ty_client_open is through: what is lost comes back */
	int64_t link_at;         /* AWAY, ATTACH, DIAL: when to go on */
	int64_t link_deadline;   /* of the attempt */
	int64_t dial_deadline;   /* of this dial */
	struct ty_reconnect reconnect;
	struct ty_error why;     /* it is not UP */
	bool tell_away, tell_up; /* the user's callback has to hear of it */

	struct ty_connection connection;
	bool more; /* it may have frames buffered that were not looked at */

	int attach_fd;     /* -1: none, or over */
	bool attach_waits; /* for room to send */
	struct ty_timeline *timeline; /* null: there is no attach socket, or it was not there yet */
	int timeline_fd;
	uint8_t token[TY_ATTACH_TOKEN_BYTES];
	struct {
		enum ty_number_state state;
		bool left;                    /* the service may still have what was sent under it, for a REGISTER that it never took */
		struct ty_request_slot *slot; /* HELD, ACCEPTED */
	} numbers[TY_ATTACH_DESCRIPTORS];
	uint32_t left; /* numbers */
	uint32_t next_number;

	struct ty_kept_pool *pools; /* oldest first */
	uint32_t last_handle;
	uint32_t given_up;     /* pools */
	int64_t take_back_at;  /* the next one not before this */

	uint32_t slot_count, in_use; /* slots of the user's (and of the link's); of all, those taken */
	struct ty_request_slot *slots; /* and one more, for pools that were given up: it must not wait for the user's to be free */
	struct ty_request_slot *ready, **ready_end; /* finished, oldest first */
	uint64_t next_id;
	bool delivering; /* inside of a callback */
};

int64_t ty_client_now(void); /* CLOCK_MONOTONIC, ns */
/* From here on requests have options.timeout_us. */
void ty_client_use_timeout(struct ty_client *c);
/* Wake ty_client_poll at `when` at the latest. */
void ty_client_wake_at(struct ty_client *c, int64_t when);
/* ty_client_fd is readable until the next poll. */
void ty_client_signal(struct ty_client *c);
/* What came over the sockets and by the clock since the last time. */
void ty_client_take_events(struct ty_client *c);
/* Wait for an event, until `deadline`. */
void ty_client_wait(struct ty_client *c, int64_t deadline);

/* client.c: the machinery of requests. */

/* A free slot, or TY_BUSY, or TY_CLOSED when the link is not UP (internal: whatever the link is). It is taken by submit. */
TY_MUST_USE enum ty_code ty_slot_take(struct ty_client *c, ty_internal_fn internal, struct ty_request_slot **out,
	struct ty_error *err);
/* Fill the common fields, pack, and send (REGISTER with slot->attaching: when its descriptors are over). On failure the slot is
 * as it was. */
TY_MUST_USE enum ty_code ty_slot_submit(struct ty_request_slot *slot, Tyer__V1__Request *request, ty_done_fn done, void *user,
	struct ty_error *err);
/* The packed request, at last. */
void ty_slot_send(struct ty_request_slot *slot, struct ty_frame *frame);
/* Over, without a reply. Queued for delivery. */
void ty_slot_fail(struct ty_request_slot *slot, enum ty_code code, const char *text);
/* A reply of number `id` came. */
void ty_slot_reply(struct ty_client *c, uint32_t id, const uint8_t *bytes, size_t length);
/* Every open request ends, now, with `code`; the link's own are dropped. */
void ty_slots_end(struct ty_client *c, enum ty_code code, const char *text);

/* link.c */

void ty_link_begin(struct ty_client *c);
/* What this client has of the service is over. In-flight requests end with `code`. Once it was opened it tries again. */
void ty_link_lost(struct ty_client *c, enum ty_code code, const char *text);
void ty_link_over(struct ty_client *c, enum ty_code code, const char *text); /* for good */
/* The first frame of the attach connection is there, and right. */
void ty_link_welcome(struct ty_client *c);
/* The connection has an event. */
void ty_link_events(struct ty_client *c, uint32_t events);
/* What it has buffered since the last turn, of which no event tells. */
void ty_link_go_on(struct ty_client *c);
void ty_link_expire(struct ty_client *c, int64_t now);
int64_t ty_link_next(const struct ty_client *c); /* when expire has something to do */

/* open.c */
void ty_client_free_devices(struct ty_client *c);

/* attach.c */

/* Begin; TY_BUSY: the backlog is full. */
TY_MUST_USE enum ty_code ty_attach_connect(struct ty_client *c, struct ty_error *err);
/* Give the pool's descriptors numbers (numbers[i] of region i). *out is null when there are none. */
TY_MUST_USE enum ty_code ty_attaching_create(struct ty_client *c, const struct ty_pool *pool, uint32_t *numbers,
	struct ty_attaching **out, struct ty_error *err);
/* The numbers are slot's from now on. */
void ty_attaching_begin(struct ty_request_slot *slot);
/* Its numbers are given back. `taken`: the service took what was sent, or all of it is gone with the connection. Null is allowed. */
void ty_attaching_free(struct ty_client *c, struct ty_attaching *a, bool taken);
/* What the service has under numbers that nobody will name is replaced: it would keep a pool's memory. */
void ty_attach_replace_left(struct ty_client *c);
/* The attach socket has something. */
void ty_attach_events(struct ty_client *c, uint32_t events);
void ty_attach_close(struct ty_client *c);

/* pools.c */

/* A copy with a handle, not registered yet. */
TY_MUST_USE enum ty_code ty_pool_keep(struct ty_client *c, const struct ty_pool *pool, struct ty_kept_pool **out,
	struct ty_error *err);
void ty_pool_forget(struct ty_client *c, struct ty_kept_pool *kept);
/* Null: the user has no pool of this handle. */
struct ty_kept_pool *ty_pool_find(struct ty_client *c, uint32_t handle);
/* What the service calls the user's handle. TY_UNKNOWN_REGISTRATION. */
TY_MUST_USE enum ty_code ty_pool_number(struct ty_client *c, uint32_t handle, uint32_t *number, struct ty_error *err);
/* Send its REGISTER from this slot. */
TY_MUST_USE enum ty_code ty_pool_register(struct ty_request_slot *slot, struct ty_kept_pool *kept, ty_done_fn done, void *user,
	struct ty_error *err);
/* A REGISTER or UNREGISTER of the user's is over. */
void ty_pool_answered(struct ty_request_slot *slot);
/* Of those that were given up the next one, if it is time and none is under way. */
void ty_pools_take_back(struct ty_client *c);
/* The service is gone: none is registered any more; those on their way out, and those not known, are forgotten. */
void ty_pools_lost(struct ty_client *c);

#endif
