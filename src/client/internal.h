/* SPDX-License-Identifier: Apache-2.0
 *
 * What the client library's files share. Everything here belongs to the client's thread, unless it says otherwise.
 */
#ifndef TY_CLIENT_INTERNAL_H
#define TY_CLIENT_INTERNAL_H

#include <nng/nng.h>
#include <tyer/client.h>

#include "client/completions.h"
#include "client/reply.h"
#include "wire/attach.h"
#include "wire/tyer.pb-c.h"

#define TY_CLIENT_REQUESTS_MAX 64
#define TY_CLIENT_REQUESTS_DEFAULT 32
#define TY_CLIENT_CONNECT_US 5000000    /* default of connect_timeout_us */
#define TY_CLIENT_TIMEOUT_US 30000000   /* of a request without a timeout, before HELLO said the service's limit */
#define TY_CLIENT_MARGIN_US 1000000     /* how much longer than the service we wait for its answer */

enum ty_slot_phase {
	TY_SLOT_IDLE,      /* takes a request, unless nng still has its aio */
	TY_SLOT_ATTACHING, /* REGISTER: its descriptors are on their way over attach */
	TY_SLOT_OPEN,      /* nng has it */
	TY_SLOT_FINISHED,  /* in the ready list, `decoded` is its result */
};

/* REGISTER's descriptors. */
struct ty_attaching {
	uint32_t count, sent, accepted;
	struct {
		int fd; /* a duplicate of ours until it is sent, then -1 */
		uint32_t number;
	} of[TY_ATTACH_DESCRIPTORS];
};

/* One request. */
struct ty_request_slot {
	struct ty_client *client;
	nng_ctx ctx;
	nng_aio *aio;

	enum ty_slot_phase phase;
	bool on_wire; /* nng has the aio, or its completion is in the list */
	uint32_t verb;
	uint64_t id;
	ty_done_fn done;
	void *user;
	nng_msg *request;             /* while ATTACHING */
	struct ty_attaching *attaching; /* REGISTER with descriptors */
	struct ty_request_slot *next; /* in the ready list */
	struct ty_decoded decoded;    /* when FINISHED */

	/* Written before the request is given to nng, then by nng's callback, then (after the push) read here. */
	struct ty_completion completion;
	int64_t deadline; /* CLOCK_MONOTONIC, ns */
	bool sent;
	int nng_result;
	nng_msg *reply;
};

/* Who has a descriptor's number. */
enum ty_number_state {
	TY_NUMBER_FREE,
	TY_NUMBER_HELD,     /* by a REGISTER; not answered yet */
	TY_NUMBER_ACCEPTED, /* answered; the REGISTER is not over */
	TY_NUMBER_ORPHAN,   /* sent for a REGISTER that is over; its answer frees it */
};

struct ty_client {
	struct ty_client_info info;
	struct ty_device_info *devices;
	uint32_t max_request_bytes;
	uint32_t timeout_us;  /* of each request, as it goes out */
	uint32_t patience_us; /* how long the service may take; the margin comes on top */

	nng_socket socket;
	bool socket_open;
	_Atomic uint32_t pipes; /* connections made; nng's threads add (release), the opener reads (acquire) */
	struct ty_completions completions;
	int epoll_fd, timer_fd;

	int attach_fd; /* -1: none, or over */
	bool attach_waits; /* for room to send */
	void *timeline;
	uint8_t token[TY_ATTACH_TOKEN_BYTES];
	struct {
		enum ty_number_state state;
		struct ty_request_slot *slot; /* HELD, ACCEPTED */
	} numbers[TY_ATTACH_DESCRIPTORS];
	uint32_t next_number;

	uint32_t slot_count, in_use;
	struct ty_request_slot *slots;
	struct ty_request_slot *ready, **ready_end; /* finished, oldest first */
	uint64_t next_id;
	const struct ty_decoded *delivering; /* not null inside of a callback */
	bool over; /* the service is gone, or we are closing: no more requests */
	struct ty_error over_error;
};

int64_t ty_client_now(void); /* CLOCK_MONOTONIC, ns */

/* client.c: the machinery of requests. */

/* A free slot, or TY_BUSY, or TY_CLOSED. It is taken by submit. */
TY_MUST_USE enum ty_code ty_slot_take(struct ty_client *c, struct ty_request_slot **out, struct ty_error *err);
/* Fill the common fields, pack, and send (REGISTER with slot->attaching: when its descriptors are over). On failure the slot is
 * as it was. */
TY_MUST_USE enum ty_code ty_slot_submit(struct ty_request_slot *slot, Tyer__V1__Request *request, ty_done_fn done, void *user,
	struct ty_error *err);
/* Give the packed request to nng. */
void ty_slot_send(struct ty_request_slot *slot, nng_msg *msg);
/* Over, without a reply. Queued for delivery. */
void ty_slot_fail(struct ty_request_slot *slot, enum ty_code code, const char *text);
/* The service is gone: every open request ends, now, with `code`. */
void ty_client_end(struct ty_client *c, enum ty_code code, const char *text);

/* open.c */

/* Wait until `deadline` for a descriptor; true = it has an event. */
bool ty_client_wait(int fd, short events, int64_t deadline);

/* dial.c */
TY_MUST_USE enum ty_code ty_client_dial(struct ty_client *c, const char *url, int64_t deadline, struct ty_error *err);

/* attach.c */

/* Connect and be greeted: fills token, timeline, boot. */
TY_MUST_USE enum ty_code ty_client_attach(struct ty_client *c, const char *path, int64_t deadline, struct ty_error *err);
/* Duplicate the pool's descriptors and give them numbers (numbers[i] of region i). *out is null when there are none. */
TY_MUST_USE enum ty_code ty_attaching_create(struct ty_client *c, const struct ty_pool *pool, uint32_t *numbers,
	struct ty_attaching **out, struct ty_error *err);
/* The numbers are slot's from now on. */
void ty_attaching_begin(struct ty_request_slot *slot);
/* Its descriptors that were not sent are closed, its numbers given back. Null is allowed. */
void ty_attaching_free(struct ty_client *c, struct ty_attaching *a);
/* The attach socket or the timer has something. */
void ty_attach_events(struct ty_client *c, uint32_t events);
void ty_attach_expire(struct ty_client *c);

/* close.c: nng_close in bounded time. False: it did not return, and nng may still use what the socket's aios point to. */
bool ty_client_close_socket(nng_socket socket);

#endif
