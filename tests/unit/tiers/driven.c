/* SPDX-License-Identifier: Apache-2.0 */
#include "driven.h"

#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "alone.h"

enum { RUN = 0x900, HOME, PASSED };

struct driver {
	struct driven *driven;
};

static enum ty_code on_start(void *self, void *arg)
{
	((struct driver *)self)->driven = arg;
	return TY_OK;
}

static void on_run(void *self, struct ty_msg *msg)
{
	struct driven *d = ((struct driver *)self)->driven;
	struct driven_batch *batch = ty_container_of(msg, struct driven_batch, msg);

	for (uint32_t i = 0; i < batch->count; i++) {
		bool submitted;

		batch->ios[i]->home = ty_self();
		batch->ios[i]->home_type = HOME;
		batch->ios[i]->deadline = ty_now() + d->tier->config.timeout;
		submitted = ty_tier_submit(d->tier, batch->ios[i]);
		assert(submitted);
	}
	if (batch->pass)
		ty_timer_start(&d->timer, PASSED, ty_now() + batch->pass);
}

static void on_home(void *self, struct ty_msg *msg)
{
	(void)msg;
	((struct driver *)self)->driven->home++;
}

static void on_passed(void *self, struct ty_msg *msg)
{
	(void)msg;
	((struct driver *)self)->driven->passed = true;
}

static const struct ty_handler handlers[] = {{"run", on_run}, {"home", on_home}, {"passed", on_passed}};
static const struct ty_class driver_class = {.name = "driver", .state_size = sizeof(struct driver), .first_type = RUN, .type_count = 3,
	.handlers = handlers, .start = on_start};

static void must(enum ty_code code, const struct ty_error *err)
{
	if (code == TY_OK)
		return;
	fprintf(stderr, "%s: %s\n", ty_code_name(code), err->text);
	abort();
}

static enum ty_code open_tier(struct driven *d, void *(*serve)(void *over))
{
	struct ty_error err = {.text = ""};
	_Atomic bool over = false; /* written here, read by `serve` */
	enum ty_code code;
	pthread_t thread;
	int failed = pthread_create(&thread, NULL, serve, &over);

	assert(!failed);
	code = ty_tiers_open(d->service, &err);
	atomic_store(&over, true);
	pthread_join(thread, NULL);
	snprintf(d->error, sizeof d->error, "%s", err.text);
	return code;
}

enum ty_code driven_open(struct driven *d, uint32_t pieces, const char *spec, void *(*serve)(void *over))
{
	struct ty_runtime_options options = {.size = sizeof options, .seed = 1};
	struct ty_error err = {.text = ""};
	enum ty_code code;

	memset(d, 0, sizeof *d);
	d->service = alone_new(&d->config, pieces, 1, spec);
	code = open_tier(d, serve);
	if (code != TY_OK) {
		alone_free(d->service);
		d->service = NULL;
		return code;
	}
	d->tier = d->service->tiers[0];
	must(ty_runtime_create(&options, &d->service->rt, &err), &err);
	must(ty_spawn(d->service->rt, &driver_class, d, NULL, &d->driver), &err);
	d->stop = (struct ty_msg)TY_MSG_INIT;
	alone_spawn(d->service, &d->start);
	while (atomic_load(&d->tier->stats.state) == TY_TIER_STARTING && ty_runtime_step(d->service->rt))
		;
	assert(atomic_load(&d->tier->stats.state) != TY_TIER_STARTING);
	return TY_OK;
}

void driven_stop(struct driven *d)
{
	enum ty_code code = ty_send(d->tier->actor, &d->stop, TY_TIER_STOP);

	assert(code == TY_OK);
}

void driven_close(struct driven *d)
{
	assert(atomic_load(&d->tier->stats.buffer_bytes) == 0);
	ty_runtime_destroy(d->service->rt);
	ty_actor_unref(d->driver);
	alone_close(d->service);
	d->service = NULL;
}

void driven_submit(struct driven *d, struct driven_batch *batch)
{
	enum ty_code code;

	d->passed = false;
	batch->msg = (struct ty_msg)TY_MSG_INIT;
	code = ty_send(d->driver, &batch->msg, RUN);
	assert(code == TY_OK);
}
