/* SPDX-License-Identifier: Apache-2.0
 *
 * Three actors of a class on one thread, in the order that a seed gives: what houses of such actors share.
 */
#ifndef TY_RUNTIME_THREE_H
#define TY_RUNTIME_THREE_H

#include "runtime_test.h"

struct fixture {
	struct ty_runtime *rt;
	struct ty_actor *a, *b, *c; /* c on a thread of its own, were there threads */
};

static inline void set_up_of(struct fixture *f, uint64_t seed, const struct ty_class *cls)
{
	struct ty_runtime_options options = {.size = sizeof options, .seed = seed};

	assert_int_equal(ty_runtime_create(&options, &f->rt, NULL), TY_OK);
	f->a = spawn(f->rt, cls, NULL, TY_POOL);
	f->b = spawn(f->rt, cls, NULL, TY_POOL);
	f->c = spawn(f->rt, cls, NULL, TY_DEDICATED);
}

/* Until nothing is left to do. */
static inline void settle(struct fixture *f)
{
	while (ty_runtime_step(f->rt))
		;
}

static inline void tear_down(struct fixture *f)
{
	ty_actor_unref(f->a);
	ty_actor_unref(f->b);
	ty_actor_unref(f->c);
	ty_runtime_destroy(f->rt);
}

#endif
