/* SPDX-License-Identifier: Apache-2.0
 *
 * A client and the fake service that it talks to, and what its requests' completions said.
 */
#ifndef TY_TESTS_CLIENT_PAIR_H
#define TY_TESTS_CLIENT_PAIR_H

#include "fake.h"

#define FOREVER_US 30000000 /* a poll that ends when it should takes microseconds; one that does not fails the test's count */

struct outcome {
	uint32_t calls;
	struct ty_result result;
	char error[256];
};

/* The completion of any request; `user` is its outcome. */
void on_done(void *user, const struct ty_result *result);
/* Polls until the one call has come. */
void wait_for(struct ty_client *c, const struct outcome *o);

struct pair {
	struct fake fake;
	struct ty_client_options options; /* made by pair_start, to change before pair_open */
	struct ty_client *client;
	struct ty_error err;
};

void pair_start(struct pair *p, struct fake_options fake);
void pair_open(struct pair *p);
void pair_close(struct pair *p); /* both of them */

/* An open that fails so, with this in its text. */
void expect_open(const struct ty_client_options *o, enum ty_code code, const char *text);

#endif
