/* SPDX-License-Identifier: Apache-2.0
 *
 * For tests of the edge: a house, and clients that speak the wire by hand. Whatever is waited for comes, or the test fails.
 */
#ifndef TESTS_EDGE_HOUSE_H
#define TESTS_EDGE_HOUSE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "rpc_house.h"

#define ONE CLIENT(1, 0)
#define SHORT_MS 50 /* of a limit that a test waits for */

extern const uint8_t edge_greeting[8];
extern const uint8_t edge_ping_bytes[4]; /* version 1, PING */
extern struct house house;

/* cmocka's; the first for limits of one's own. */
int edge_set_up_with(void (*adjust)(struct ty_rpc_socket *));
int edge_set_up(void **state);
int edge_set_up_tcp(void **state);
int set_up_impatient(void **state); /* a greeting, or a frame, must be whole within SHORT_MS */
int edge_tear_down(void **state);

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, edge_set_up, edge_tear_down)
#define TEST_WITH(name, set) cmocka_unit_test_setup_teardown(test_##name, set_up_##set, edge_tear_down)
#define TEST_TCP(name) {"tcp: test_" #name, test_##name, edge_set_up_tcp, edge_tear_down, NULL}

struct ty_rpc_stats *edge_stats(void);
uint64_t edge_get(const _Atomic uint64_t *counter);
void edge_wait_for(const _Atomic uint64_t *counter, uint64_t value);
void edge_wait_for_least(const _Atomic uint64_t *counter, uint64_t value);
/* A client as it should be, beside the others. */
void edge_ping(void);
/* A LOOKUP of exactly `length` bytes, with the id 6, of a client that there is not. */
void edge_send_long(nng_socket s, size_t length);
/* Everybody has gone: nothing is left of them. */
void edge_expect_empty(void);

/* The wire by hand. */
bool edge_over_tcp(void);
int raw_socket(void); /* not connected yet */
void raw_dial(int fd);
int raw_open(void); /* both */
void raw_write(int fd, const void *bytes, size_t length);
void raw_read(int fd, void *bytes, size_t length);
void raw_greet(int fd);
int raw_connect(void); /* and greets */
size_t raw_head(uint8_t *out, uint64_t length);
/* A whole frame: head, hops, request. */
size_t raw_frame(uint8_t *out, const void *trace, size_t hops, const void *bytes, size_t length);
size_t edge_ping_frame(uint8_t *out, uint32_t number);
/* The next reply: it has this in front. */
void raw_expect(int fd, const void *trace, size_t hops, enum ty_code code);
void raw_ping(int fd);
/* A client that got an answer, where the limit of a greeting is so short that a busy machine misses it at times: again then.
 * Once it is greeted nothing is expected of it. */
int raw_connect_in_time(void);
/* The service closes it; whatever it had sent before is read. */
void raw_closed(int fd);
/* UNREGISTER of HOLD, by hand. */
void raw_hold(int fd, uint64_t id);

#endif
