/* SPDX-License-Identifier: Apache-2.0
 *
 * embed.h: what the engine calls. A runtime of its own for two actors on two threads: the owner and its link.
 */
#include "link.h"

#include <fcntl.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "base/log.h"
#include "base/options.h"
#include "client/timeline.h"
#include "wire/attach.h"
#include "wire/pool.h"

#define CONNECT_US 30000000
#define STALL_AFTER_US 5000000 /* as --gpu-stall-after */
#define LINK_ENDED 2           /* message to the port: the link's DOWN */

static void free_embed(struct ty_embed *e)
{
	struct link_memory *m = atomic_load_explicit(&e->offered, memory_order_relaxed), *next; /* too late for the link */

	for (; m; m = next) {
		next = m->next;
		link_free_memory(m);
	}
	/* ours, and const only for whoever passes them */
	free((char *)(uintptr_t)e->options.attach_path);
	free((char *)(uintptr_t)e->options.device);
	free((char *)(uintptr_t)e->options.name);
	free((char *)(uintptr_t)e->options.driver);
	free((char *)(uintptr_t)e->options.calibration);
	free((char *)(uintptr_t)e->options.fault);
	free(e);
}

static const char *copy(const char *text, bool *failed)
{
	char *own = text ? strdup(text) : NULL;

	*failed |= text && !own;
	return own;
}

static enum ty_code check_options(const struct ty_embed_options *o, struct ty_error *err)
{
	size_t path = o->attach_path ? strlen(o->attach_path) : 0;

	if (path == 0 || path >= sizeof((struct sockaddr_un *)0)->sun_path)
		return ty_fail(err, TY_INVALID, "options.attach_path has %zu bytes, expected 1..%zu", path,
			sizeof((struct sockaddr_un *)0)->sun_path - 1);
	if (!o->device || !*o->device)
		return ty_fail(err, TY_INVALID, "options.device is absent, expected cuda:N or host");
	if ((unsigned)o->sharing > TY_EMBED_FAST)
		return ty_fail(err, TY_INVALID, "options.sharing is %d, expected 0..%d", (int)o->sharing, TY_EMBED_FAST);
	return TY_OK;
}

/* On the owner's thread. */
static void device_failed(struct ty_service *service)
{
	struct ty_embed *e = ty_container_of(service, struct ty_embed, service);

	atomic_store_explicit(&e->failed, true, memory_order_relaxed);
}

static enum ty_code make(const struct ty_embed_options *o, const struct ty_device_options *how, struct ty_embed **out, struct ty_error *err)
{
	struct ty_embed *e = calloc(1, sizeof *e);
	bool failed = !e;

	if (e) {
		e->options = *o;
		if (how)
			e->how = *how;
		e->options.attach_path = copy(o->attach_path, &failed);
		e->options.device = copy(o->device, &failed);
		e->options.name = copy(o->name ? o->name : o->device, &failed);
		e->options.driver = copy(o->driver, &failed);
		e->options.calibration = copy(o->calibration, &failed);
		e->options.fault = copy(o->fault, &failed);
	}
	if (failed) {
		if (e)
			free_embed(e);
		return ty_fail(err, TY_NO_MEMORY, "no memory for an owner");
	}
	if (sodium_init() < 0) {
		free_embed(e);
		return ty_fail(err, TY_INTERNAL, "libsodium could not be initialized");
	}
	randombytes_buf(e->id, sizeof e->id);
	atomic_init(&e->state, TY_CLOSED);
	e->told.msg = (struct ty_msg)TY_MSG_INIT;
	e->config.gpu_stall_after_us = STALL_AFTER_US;
	e->service.config = &e->config;
	e->service.faulted = device_failed;
	e->service.arena.fd = -1;
	*out = e;
	return TY_OK;
}

/* The link has ended, and with it the owner. */
static void destroy(struct ty_embed *e)
{
	ty_port_close(e->port);
	ty_runtime_destroy(e->rt);
	ty_actor_unref(e->link);
	free_embed(e);
}

static enum ty_code not_ended(const struct ty_embed *e, struct ty_error *err)
{
	switch ((enum link_wait)atomic_load_explicit(&e->waits_for, memory_order_relaxed)) {
	case LINK_WAITS_FOR_SERVICE:
		return ty_fail(err, TY_TIMEOUT, "the service does not read what became of the owner's operations");
	case LINK_WAITS_FOR_DEVICE:
		return ty_fail(err, TY_DEVICE_STALLED, "the owner's copies are over, but its device is not closed yet");
	case LINK_WAITS_FOR_COPIES:
		break;
	}
	return ty_fail(err, TY_DEVICE_STALLED, "the owner's copies are not over: its device does not finish what it was given");
}

static enum ty_code wait_for_end(struct ty_embed *e, int64_t deadline, struct ty_error *err)
{
	struct ty_msg *msg;

	if (!e->closing) {
		e->closing = true;
		ty_port_enter(e->port);
		ty_monitor(e->link, &e->ended, LINK_ENDED);
		ty_port_leave(e->port);
		ty_actor_stop(e->link);
	}
	do
		msg = ty_port_wait(e->port, deadline);
	while (msg && msg->type != LINK_ENDED); /* what came of an open that nobody waits for */
	if (!msg)
		return not_ended(e, err);
	destroy(e);
	return TY_OK;
}

enum ty_code ty_embed_open(const struct ty_embed_options *options, struct ty_embed **out, struct ty_error *err)
{
	return ty_embed_open_how(options, NULL, out, err);
}

enum ty_code ty_embed_open_how(const struct ty_embed_options *options, const struct ty_device_options *how, struct ty_embed **out,
	struct ty_error *err)
{
	struct ty_runtime_options ro = {.size = sizeof ro, .name = "tyer-em", .workers = 1};
	struct ty_spawn_options own = {.size = sizeof own, .executor = TY_DEDICATED, .thread_name = "tyer-link", .cpu = -1};
	static const struct ty_embed_options none = {.size = sizeof none};
	struct ty_embed_options adapted;
	enum ty_code code;
	struct link_arg arg;
	struct ty_embed *e = NULL;
	struct ty_msg *msg;
	struct ty_error why;
	int64_t deadline;

	*out = NULL;
	options = ty_options_take(options, sizeof *options, &none, &adapted, &why);
	if (!options)
		return ty_fail(err, why.code, "%s", why.text);
	code = check_options(options, err);
	if (code == TY_OK)
		code = make(options, how, &e, err);
	if (code != TY_OK)
		return code;
	code = ty_runtime_create(&ro, &e->rt, err);
	if (code != TY_OK) {
		free_embed(e);
		return code;
	}
	code = ty_port_open(e->rt, NULL, &e->port);
	if (code == TY_OK) {
		arg = (struct link_arg){e, ty_port_address(e->port)};
		code = ty_spawn(e->rt, &link_class, &arg, &own, &e->link);
	}
	if (code != TY_OK) {
		if (e->port)
			ty_port_close(e->port);
		ty_runtime_destroy(e->rt);
		free_embed(e);
		return ty_fail(err, code, "the owner's threads could not be started");
	}
	deadline = ty_runtime_now(e->rt) + (int64_t)(options->connect_timeout_us ? options->connect_timeout_us : CONNECT_US) * 1000;
	msg = ty_port_wait(e->port, deadline);
	if (msg)
		code = e->told.code;
	else if (ty_embed_state(e) == TY_BUSY)
		code = ty_fail(err, TY_BUSY, "the attach socket %.100s accepts nobody in connect_timeout_us: its backlog is full", options->attach_path);
	else
		code = ty_fail(err, TY_TIMEOUT, "the service and the device were not there in connect_timeout_us");
	if (code == TY_OK) {
		*out = e;
		return TY_OK;
	}
	if (msg && err)
		*err = e->told.error;
	struct ty_error unused;

	/* the device may take as long as it likes to open: who gives up earlier leaves it behind */
	(void)!wait_for_end(e, msg ? TY_NEVER : ty_runtime_now(e->rt) + 1000000000, &unused);
	return code;
}

enum ty_code ty_embed_close(struct ty_embed *e, uint32_t timeout_us, struct ty_error *err)
{
	return e ? wait_for_end(e, ty_runtime_now(e->rt) + (int64_t)timeout_us * 1000, err) : TY_OK;
}

enum ty_code ty_embed_state(const struct ty_embed *e)
{
	enum ty_code code = (enum ty_code)atomic_load_explicit(&e->state, memory_order_relaxed);

	return code == TY_OK && atomic_load_explicit(&e->failed, memory_order_relaxed) ? TY_DEVICE_FAILED : code;
}

/* ---- pools ---------------------------------------------------------------------------------------------------------------- */

/* A copy, by way of the message that describes it, and then with its addresses. */
static enum ty_code copy_pool(const struct ty_pool *pool, struct ty_pool **out, struct ty_error *err)
{
	Tyer__V1__Register *reg;
	enum ty_code code = ty_register_from_pool(pool, NULL, &reg, err);

	if (code != TY_OK)
		return code;
	code = ty_pool_from_register(reg, out, err);
	ty_register_free(reg);
	for (uint32_t i = 0; code == TY_OK && i < pool->region_count; i++) {
		/* its own copies */
		struct ty_region *region = (struct ty_region *)(uintptr_t)&(*out)->regions[i];

		region->address = pool->regions[i].address;
	}
	return code;
}

enum ty_code ty_embed_offer(struct ty_embed *e, const struct ty_client *client, struct ty_pool *pool, struct ty_error *err)
{
	struct ty_timeline *page = ty_client_timeline_page(client);
	struct link_memory *m = calloc(1, sizeof *m);
	struct ty_layout *layout = NULL;
	enum ty_code code = TY_OK;

	if (!m)
		return ty_fail(err, TY_NO_MEMORY, "no memory for an offer");
	for (uint32_t i = 0; code == TY_OK && pool->regions && i < pool->region_count; i++) /* null: copy_pool says so */
		if (!pool->regions[i].address || pool->regions[i].is_fd || pool->regions[i].segment_count)
			code = ty_fail(err, TY_INVALID, "pool.regions[%u]: expected an address, and neither descriptor nor segments", i);
	memcpy(pool->owner, e->id, TY_OWNER_BYTES);
	pool->memory = atomic_fetch_add_explicit(&e->last_memory, 1, memory_order_relaxed) + 1;
	m->number = pool->memory;
	if (code == TY_OK)
		code = copy_pool(pool, &m->pool, err);
	if (code == TY_OK) /* as REGISTER will: what is wrong is told here */
		code = ty_layout_create(m->pool, ty_client_info(client)->chunk_tokens, TY_PIECE_BYTES, &layout, err);
	free(layout);
	if (code == TY_OK && !page)
		code = ty_fail(err, TY_INVALID, "the client has no timeline: it was opened without an attach_path");
	if (code == TY_OK)
		m->timeline = ty_timeline_ref(page);
	if (code != TY_OK) {
		link_free_memory(m);
		return code;
	}
	m->next = atomic_load_explicit(&e->offered, memory_order_relaxed);
	while (!atomic_compare_exchange_weak_explicit( /* release: pairs with link_take_offers' acquire */
		&e->offered, &m->next, m, memory_order_release, memory_order_relaxed))
		;
	return TY_OK;
}

void ty_embed_withdraw(struct ty_embed *e, const struct ty_pool *pool)
{
	struct link_withdrawal *w = calloc(1, sizeof *w);

	if (!w) /* then it stays until the owner is closed */
		return;
	w->msg = (struct ty_msg)TY_MSG_INIT;
	w->number = pool->memory;
	if (ty_send(e->link, &w->msg, TY_LINK_WITHDRAW) != TY_OK)
		free(w);
}

void ty_embed_stats(const struct ty_embed *e, struct ty_embed_stats *out)
{
	const struct ty_gpu_stats *g = &e->service.gpu_stats[0];

	*out = (struct ty_embed_stats){
		.stored_bytes = atomic_load_explicit(&g->stored_bytes, memory_order_relaxed),
		.retrieved_bytes = atomic_load_explicit(&g->retrieved_bytes, memory_order_relaxed),
		.failed = atomic_load_explicit(&g->failed_ops, memory_order_relaxed),
		.pieces = atomic_load_explicit(&e->pieces, memory_order_relaxed),
		.longest_call_ns = atomic_load_explicit(&g->longest_call_ns, memory_order_relaxed), /* not `device`'s: that is closed with a connection */
	};
}
