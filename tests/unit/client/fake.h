/* SPDX-License-Identifier: Apache-2.0
 *
 * A service of one thread for the client library's tests: says what the test tells it to, and remembers what it heard.
 */
#ifndef TY_TESTS_CLIENT_FAKE_H
#define TY_TESTS_CLIENT_FAKE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include <nng/nng.h>
#include <tyer/client.h>

#include "wire/attach.h"
#include "wire/tyer.pb-c.h"

#define FAKE_BOOT 0x1122334455667788u
#define FAKE_CLIENT 0x10001u
#define FAKE_HELD_MAX 128

struct fake;

enum fake_answer {
	FAKE_REPLY,   /* send the reply */
	FAKE_HOLD,    /* keep the request until it is released */
	FAKE_GARBAGE, /* send bytes that are no reply */
};

struct fake_options {
	/* The service's thread. `reply` has code OK, boot and id set. Null: every request is answered with OK alone. */
	enum fake_answer (*answer)(struct fake *f, const Tyer__V1__Request *request, Tyer__V1__Reply *reply);
	/* The service's thread: a descriptor came (the callee's). Null: accepted and closed. */
	void (*descriptor)(struct fake *f, uint32_t number, int fd);
	bool refuse;         /* greet with REFUSED BUSY */
	bool silent;         /* accept, do not greet */
	uint16_t version;    /* in WELCOME, if not 0 */
	bool no_attach, no_rep;
	uint16_t port;       /* tcp on 127.0.0.1, if not 0 */
	void *user;
};

struct fake {
	struct fake_options options;
	char directory[64], url[128], path[108];
	nng_socket rep; /* raw, so that answers may come in any order */
	bool rep_open;
	int listen_fd, attach_fd; /* attach_fd: the last connection; the thread's */
	int control_fd;           /* eventfd: look at the orders */
	_Atomic bool stop, drop_attach, drop_rep, release;
	void *timeline;
	uint64_t boot;
	uint8_t token[TY_ATTACH_TOKEN_BYTES];
	nng_msg *held[FAKE_HELD_MAX]; /* the thread's */
	uint64_t held_id[FAKE_HELD_MAX];
	uint32_t held_count;
	_Atomic uint32_t requests, holding; /* heard; kept: release, pairs with the test's acquire */
	_Atomic uint32_t releases;          /* done; likewise */
	pthread_t thread;
};

void fake_start(struct fake *f, const struct fake_options *options);
void fake_stop(struct fake *f);
void fake_stop_paused(struct fake *f);           /* after fake_pause */
void fake_pause(struct fake *f);                 /* as if it were killed */
void fake_resume(struct fake *f, uint64_t boot); /* a new one, at the same addresses */
void fake_order(struct fake *f, _Atomic bool *what); /* drop_attach, drop_rep or release; returns at once */
void fake_descriptor_ok(struct fake *f, uint32_t number, enum ty_code code); /* the service's thread */
void fake_release(struct fake *f); /* answer all that is kept, and wait until that is done */
void fake_wait_holding(struct fake *f, uint32_t count);

/* Options for a client of it. */
struct ty_client_options fake_client_options(const struct fake *f);
/* HELLO as the service should answer it. The message is static storage of the service's thread. */
void fake_hello(const struct fake *f, Tyer__V1__Reply *reply);

#endif
