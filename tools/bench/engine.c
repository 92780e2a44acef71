/* SPDX-License-Identifier: Apache-2.0 */
#include "engine.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CONNECT_TIMEOUT_US 5000000u

bool bench_engine_open(struct bench_engine *e, const struct bench_options *o, struct bench_stats *stats, unsigned number,
	bool with_attach)
{
	struct ty_client_options c = {.size = sizeof c};
	struct ty_error err = {0};
	char name[64];

	*e = (struct bench_engine){.options = o, .stats = stats};
	e->calls = bench_calls_new(stats);
	if (!e->calls) {
		bench_fatal(stats, 1, "no memory");
		return false;
	}
	snprintf(name, sizeof name, "tyer-bench %s %u", bench_command_name(o->command), number);
	c.url = o->connect;
	c.attach_path = with_attach ? o->attach : NULL;
	c.tls_ca = o->tls_ca[0] ? o->tls_ca : NULL;
	c.tls_cert = o->tls_cert[0] ? o->tls_cert : NULL;
	c.tls_name = o->tls_name[0] ? o->tls_name : NULL;
	c.name = name;
	c.tenant = o->tenant;
	c.model = o->model;
	c.dtype = o->geometry.dtype;
	c.max_requests = 64;
	c.timeout_us = (uint32_t)o->timeout_us;
	c.connect_timeout_us = CONNECT_TIMEOUT_US;
	if (ty_client_open(&c, &e->client, &err) != TY_OK) {
		bench_fatal(stats, 2, "cannot use the service at %s: %s: %s", o->connect, ty_code_name(err.code), err.text);
		e->client = NULL;
		return false;
	}
	e->info = ty_client_info(e->client);
	return true;
}

/* After its own deadline and the grace, a request's reply is lost. */
static int64_t patience(const struct bench_engine *e)
{
	return ((int64_t)e->options->timeout_us + (int64_t)e->options->grace_us) * 1000;
}

bool bench_engine_overdue(struct bench_engine *e)
{
	int64_t age = patience(e);
	uint32_t overdue = bench_calls_overdue(e->calls, bench_now(), age);

	if (overdue)
		bench_fatal(e->stats, 1, "%u requests have had no reply for %lld ms", overdue, (long long)(age / 1000000));
	return overdue != 0;
}

bool bench_engine_wait(struct bench_engine *e, const bool *done)
{
	while (!*done) {
		if (bench_engine_overdue(e))
			return false;
		ty_client_poll(e->client, 0, 100000);
	}
	return true;
}

struct registered {
	bool done;
	enum ty_code code;
	uint32_t registration;
	uint64_t chunk_bytes;
	char text[244];
};

/* REGISTER and UNREGISTER are not part of the load: they are neither counted nor measured. */
static void on_registered(void *user, const struct ty_result *result)
{
	struct registered *r = user;

	r->done = true;
	r->code = result->code;
	if (result->code == TY_OK) {
		r->registration = result->registered.registration;
		r->chunk_bytes = result->registered.chunk_bytes;
	} else {
		snprintf(r->text, sizeof r->text, "%s", result->error ? result->error : "");
	}
}

static bool wait_registered(struct bench_engine *e, const struct registered *r)
{
	int64_t end = bench_now() + patience(e);

	while (!r->done && bench_now() < end)
		ty_client_poll(e->client, 0, 100000);
	return r->done;
}

bool bench_engine_pool(struct bench_engine *e, const struct bench_shape *shape, uint32_t chunks)
{
	uint64_t blocks = (uint64_t)chunks * shape->blocks_per_chunk;
	struct ty_error err = {0};
	enum ty_code code;

	if (blocks > INT32_MAX)
		code = ty_fail(&err, TY_INVALID, "pool: %llu blocks, expected at most %d", (unsigned long long)blocks, INT32_MAX);
	else if (shape->chunk_bytes > e->info->max_chunk_bytes)
		code = ty_fail(&err, TY_LIMIT, "geometry %s: chunks of %llu bytes, the service takes at most %llu (max_chunk_bytes)",
			shape->geometry.name, (unsigned long long)shape->chunk_bytes, (unsigned long long)e->info->max_chunk_bytes);
	else
		code = bench_pool_open(e->options->device, e->options->driver, shape, (uint32_t)blocks, &e->pool, &err);
	if (code != TY_OK)
		bench_fatal(e->stats, 2, "%s: %s", ty_code_name(code), err.text);
	return code == TY_OK;
}

bool bench_engine_register(struct bench_engine *e)
{
	static struct registered r; /* static: a reply after a timeout still finds it */
	const struct bench_shape *shape = &e->pool->shape;
	struct ty_plane *planes = calloc(shape->run_count, sizeof *planes);
	struct ty_error err = {0};
	struct ty_group group;
	struct ty_pool pool;
	uint8_t device[TY_UUID_BYTES];
	enum ty_code code;

	r = (struct registered){0};
	code = planes ? bench_pool_find_device(e->pool, e->info, device, &err)
		      : ty_fail(&err, TY_NO_MEMORY, "no memory for the planes");
	if (code == TY_OK) {
		bench_pool_declare(e->pool, device, planes, &group, &pool);
		code = ty_client_register(e->client, &pool, on_registered, &r, &err);
	}
	free(planes);
	if (code != TY_OK) {
		bench_fatal(e->stats, 2, "%s: %s", ty_code_name(code), err.text);
		return false;
	}
	if (!wait_registered(e, &r)) {
		bench_fatal(e->stats, 1, "REGISTER: no reply");
		return false;
	}
	if (r.code != TY_OK || r.chunk_bytes != shape->chunk_bytes) {
		if (r.code != TY_OK)
			bench_fatal(e->stats, 1, "REGISTER: %s: %s", ty_code_name(r.code), r.text);
		else
			bench_fatal(e->stats, 1, "REGISTER: a chunk has %llu bytes for the service, expected %llu",
				(unsigned long long)r.chunk_bytes, (unsigned long long)shape->chunk_bytes);
		return false;
	}
	e->registration = r.registration;
	return true;
}

void bench_engine_close(struct bench_engine *e)
{
	static struct registered r;

	r = (struct registered){0};
	if (e->client && e->registration && e->stats->exit_code == 0) {
		struct ty_error err = {0};
		enum ty_code code = ty_client_unregister(e->client, e->registration, on_registered, &r, &err);

		if (code == TY_OK && !wait_registered(e, &r))
			code = ty_fail(&err, TY_TIMEOUT, "no reply");
		if (code == TY_OK && r.code != TY_OK)
			code = ty_fail(&err, r.code, "%.200s", r.text);
		if (code != TY_OK && !(e->options->tolerate & 1u << code)) {
			e->stats->unexpected++;
			bench_note_error(e->stats, "UNREGISTER: %s: %s", ty_code_name(code), err.text);
		}
	}
	if (e->calls)
		e->calls->closing = true;
	/* Closing cancels what is in flight; what stays open even then has been lost. */
	if (e->client)
		ty_client_close(e->client);
	bench_calls_free(e->calls);
	bench_pool_close(e->pool);
	*e = (struct bench_engine){0};
}

bool bench_engine_error(struct bench_engine *e, enum bench_row verb, enum ty_code code, const char *text, const char *about)
{
	if ((unsigned)code < TY_CODE_COUNT && (e->options->tolerate & 1u << code)) {
		e->stats->tolerated++;
		return true;
	}
	e->stats->unexpected++;
	bench_note_error(e->stats, "%s: %s: %s: %s", about, bench_row_name(verb), ty_code_name(code), text ? text : "");
	return false;
}
