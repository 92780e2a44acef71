/* SPDX-License-Identifier: Apache-2.0
 *
 * For scenario tests: a service in this process (or a forked one), clients with a host pool, and calls that wait.
 */
#ifndef TY_TESTS_HARNESS_H
#define TY_TESTS_HARNESS_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <sys/types.h>
#include <cmocka.h>

#include <tyer/client.h>

#include "base/config.h"

#define H_CHUNK_TOKENS 64
#define H_BLOCK_TOKENS 16
#define H_PER_CHUNK (H_CHUNK_TOKENS / H_BLOCK_TOKENS)
#define H_PLANES 4
#define H_RUN 1024
#define H_BLOCKS 256
#define H_POOL_BYTES ((uint64_t)H_BLOCKS * H_PLANES * H_RUN)
#define H_CHUNK_BYTES ((uint64_t)H_PER_CHUNK * H_PLANES * H_RUN)
#define H_CHUNK_WORDS (H_CHUNK_BYTES / 8)

struct h_service {
	struct ty_config config;
	char dir[64];
	char url[128];
	struct ty_service *service; /* in this process, or null */
	_Atomic uint64_t *hold;     /* h_prepare_held: how far a copy gets */
	int hold_fd;
	pid_t pinger;               /* tests/scenario/ping-beside: a process that sends PINGs while the service is there; 0: none */
};

/* Of *hold: copies go on; what has been copied is not done; nothing is copied. */
enum { H_GO, H_HOLD_DONE, H_HOLD_ALL };

/* Defaults for tests (host device, chunks of H_CHUNK_TOKENS, sockets in a fresh directory, http off); change config, then start. */
void h_prepare(struct h_service *s);
/* h_prepare, with a device whose copies get as far as *s->hold says, at any time. h_stop lets all of them go. */
void h_prepare_held(struct h_service *s);
void h_start(struct h_service *s);
/* The service ends, and another one in this process takes over what it leaves: arena and slot table. `between` (may be null) is
 * called when the first one is gone and the second one is not there yet. */
void h_restart(struct h_service *s, void (*between)(int arena, int slots));
void h_stop(struct h_service *s); /* and everything in its directory goes */

/* For cmocka: a test that a service of its own is started for, and stopped after. It is the file's `service`: *state of a setup of one's
 * own (H_TEST_OF) is that. */
#define H_TEST(test) H_TEST_OF(test, h_setup, h_teardown)
#define H_TEST_HELD(test) H_TEST_OF(test, h_setup_held, h_teardown) /* h_prepare_held */
#define H_TEST_OF(test, setup, teardown) cmocka_unit_test_prestate_setup_teardown(test, setup, teardown, &service)
int h_setup(void **state);
int h_setup_held(void **state);
int h_teardown(void **state);

/* Waits until no operation has a row, and (with `leases`) no session a lease: both are given back behind an answer. */
void h_idle(struct h_service *s, bool leases);

struct h_client {
	struct ty_client *client;
	uint8_t *pool;
	int fd;
	uint32_t registration;
	struct ty_result last;      /* of the last h_wait; its error text is below */
	char error[256];
	struct ty_error refused;    /* filled by a request that was not even sent */
};

/* engine: null = one of its own. part/parts: as in REGISTER; parts = 0: opens without registering. */
/* Not TY_OK: there is nothing to close, and *refused says why. */
enum ty_code h_try_open(struct h_service *s, struct h_client *c, const uint8_t engine[16], const char *tenant, uint32_t part,
	uint32_t parts);
void h_open(struct h_service *s, struct h_client *c, const uint8_t engine[16], const char *tenant, uint32_t part,
	uint32_t parts);
void h_close(struct h_client *c);
/* The pool that h_open registers, to change and register again. Its arrays are the harness's own static ones. */
struct ty_pool *h_pool(struct h_client *c, uint32_t part, uint32_t parts);

/* What a call that waits returned is TY_OK; or it is `expected`, with `words` in its text. */
void h_ok(const struct h_client *c, enum ty_code code);
void h_expect(const struct h_client *c, enum ty_code code, enum ty_code expected, const char *words);

/* The completion for any request: `user` is the h_client. */
void h_done(void *user, const struct ty_result *result);
/* Waits for the one request that was sent with h_done, and returns its code. `sent` is what sending returned. */
enum ty_code h_wait(struct h_client *c, enum ty_code sent);
/* The same in two steps. For several requests of one client at once each needs an h_client of its own as `user`: a copy will do. */
void h_send(struct h_client *c, enum ty_code sent);
bool h_answered(const struct h_client *c);
enum ty_code h_answer(struct h_client *c); /* waits */

/* A chain of `count` chunks: ids base, base + 1, ... as engine hashes. Static storage, good for one request. */
const struct ty_chain *h_chain(uint32_t base, uint32_t count);

enum ty_code h_lookup(struct h_client *c, uint64_t session, uint32_t base, uint32_t count);
/* Chunks [first, first + count) in blocks [block, ...). h_transfer's arrays are static, good for one request. */
struct ty_transfer h_transfer(const struct h_client *c, uint64_t session, uint32_t first, uint32_t count, uint32_t block);
enum ty_code h_store(struct h_client *c, uint64_t session, uint32_t first, uint32_t count, uint32_t block);
enum ty_code h_retrieve(struct h_client *c, uint64_t session, uint32_t first, uint32_t count, uint32_t block);
enum ty_code h_end(struct h_client *c, uint64_t session);

/* What the service tells of an operation: `count` is 0 if it knows of none such, else 1. */
struct h_told {
	struct ty_operation operation;
	uint32_t count;
	enum ty_code code;
	bool there;
};
struct h_told h_ask(struct h_client *c, uint64_t id);
struct h_told h_cancel(struct h_client *c, uint64_t id);
uint32_t h_operations(struct h_client *c); /* how many it knows of */

/* Contents of `count` chunks, tags tag, tag + 1, ..., at blocks [block, ...). h_wrong counts the words that differ. */
extern uint64_t h_mask; /* the bits of a word that may be set: all, or fewer, for contents that a tier can pack */
void h_fill(struct h_client *c, uint32_t tag, uint32_t count, uint32_t block);
uint64_t h_wrong(struct h_client *c, uint32_t tag, uint32_t count, uint32_t block);
uint64_t h_wrong_in_plane(struct h_client *c, uint32_t tag, uint32_t count, uint32_t block, uint32_t plane);
void h_wipe(struct h_client *c, uint32_t count, uint32_t block);

#endif
