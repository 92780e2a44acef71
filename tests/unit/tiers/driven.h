/* SPDX-License-Identifier: Apache-2.0
 *
 * A tier alone in a service, on a runtime that is stepped by hand, and an actor that submits to it: time is logical.
 */
#ifndef TY_TESTS_TIERS_DRIVEN_H
#define TY_TESTS_TIERS_DRIVEN_H

#include "actors/service.h"

#define SECOND INT64_C(1000000000)

struct driven {
	struct ty_config config;
	struct ty_service *service;
	struct ty_tier *tier;
	struct ty_actor *driver;
	struct ty_msg start, stop;
	struct ty_timer timer;
	unsigned home;   /* ios that came home; set to 0 by whoever counts anew */
	bool passed;     /* the last batch's time */
	char error[256]; /* why it could not be opened */
};

/* Open the tier that `spec` describes, as --tier would be given, over so many pieces of memory, until it serves. It asks its server once, and
 * waits for it, before anything runs: meanwhile `serve` is on a thread of its own, whose argument is a _Atomic bool that says when that is over. */
enum ty_code driven_open(struct driven *d, uint32_t pieces, const char *spec, void *(*serve)(void *over));
void driven_stop(struct driven *d);  /* it is told to; the caller steps until it has */
void driven_close(struct driven *d); /* after that */

/* Ios that are submitted together, and when `pass` is over; 0: that nobody waits for. The tier's timeout is their deadline. */
struct driven_batch {
	struct ty_msg msg;
	struct ty_tier_io **ios;
	uint32_t count;
	int64_t pass;
};
/* The batch is the driver's until the runtime has been stepped to it, the ios until they are home. */
void driven_submit(struct driven *d, struct driven_batch *batch);

#endif
