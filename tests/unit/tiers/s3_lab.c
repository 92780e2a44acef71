/* SPDX-License-Identifier: Apache-2.0 */
#include "s3_lab.h"

struct driven lab;
struct s3_server server;

/* ---- a tier and its user ---------------------------------------------------------------------------------------- */

static void *pump(void *over)
{
	while (!atomic_load((_Atomic bool *)over))
		if (!s3_server_pump(&server))
			sched_yield();
	return NULL;
}

const char *lab_packing = "";

enum ty_code lab_open_tier(const char *settings)
{
	char spec[sizeof lab.config.tier[0]];

	snprintf(spec, sizeof spec, "s3:http://127.0.0.1:%u/kv%s%s", server.port, settings, lab_packing);
	return driven_open(&lab, 2, spec, pump);
}

void lab_step(void)
{
	while (s3_server_pump(&server))
		;
	(void)ty_runtime_step(lab.service->rt);
}

void lab_pass(int64_t ns)
{
	int64_t until = ty_runtime_now(lab.service->rt) + ns;

	while (ty_runtime_now(lab.service->rt) < until) {
		while (s3_server_pump(&server))
			;
		if (!ty_runtime_step(lab.service->rt))
			return;
	}
}

void lab_close_tier(void)
{
	driven_stop(&lab);
	lab_pass(SECOND);
	assert_true(lab_packing[0] || !atomic_load(&lab.tier->stats.pack_from_bytes));
	driven_close(&lab);
}

int lab_open(void **state)
{
	lab_packing = *state ? *state : "";
	memset(&lab, 0, sizeof lab);
	memset(&server, 0, sizeof server);
	server.id = "AKIDEXAMPLE";
	server.secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
	setenv("AWS_ACCESS_KEY_ID", server.id, 1);
	setenv("AWS_SECRET_ACCESS_KEY", server.secret, 1);
	unsetenv("AWS_SESSION_TOKEN");
	s3_server_open(&server);
	return 0;
}

int lab_close(void **state)
{
	(void)state;
	s3_server_close(&server);
	return 0;
}

/* ---- chunks ------------------------------------------------------------------------------------------------------- */

struct ty_key lab_key(uint64_t number)
{
	struct ty_key key;

	for (size_t i = 0; i < sizeof key.bytes; i++)
		key.bytes[i] = (uint8_t)(number * 131 + i * 7 + (number >> (i % 8)));
	return key;
}

void lab_name(uint64_t number, char out[128])
{
	struct ty_key key = lab_key(number);
	int n = snprintf(out, 128, "/kv/tyer/");

	for (size_t i = 0; i < sizeof key.bytes; i++)
		n += snprintf(out + n, 128 - (size_t)n, "%02x", key.bytes[i]);
}

struct s3_object *lab_object(uint64_t number)
{
	char name[128];

	lab_name(number, name);
	return s3_server_find(&server, name);
}

uint8_t lab_byte(uint64_t number, uint32_t part, uint64_t i)
{
	return (uint8_t)(number * 31 + part * 17 + i * 13 + (i >> 8));
}

struct ty_tier_io *lab_io(enum ty_tier_verb verb, uint64_t number, uint32_t place, uint32_t parts, uint64_t bytes)
{
	uint32_t keys = verb == TY_TIER_EXISTS ? parts : 1;
	struct ty_tier_io *io = calloc(1, sizeof *io + TY_CHUNK_MAX_PARTS * sizeof io->part[0]);
	struct ty_key *key = calloc(keys, sizeof *key);

	for (uint32_t i = 0; i < keys; i++)
		key[i] = lab_key(number + i);
	io->verb = verb;
	io->keys = key;
	io->key_count = keys;
	if (verb != TY_TIER_PUT && verb != TY_TIER_GET)
		return io;
	io->parts = parts;
	for (uint32_t p = 0; p < parts; p++) {
		uint64_t at = (place + p) * ty_envelope_padded(bytes);

		assert_true(at + bytes <= lab.service->arena.bytes);
		io->part[p].data = lab.service->arena.base + at;
		io->part[p].length = bytes;
		memset(io->part[p].data, 0xee, bytes);
		if (verb == TY_TIER_GET)
			continue;
		for (uint64_t i = 0; i < bytes; i++)
			io->part[p].data[i] = lab_byte(number, p, i);
		io->part[p].checksum = ty_checksum(io->part[p].data, bytes);
	}
	return io;
}

void lab_free(struct ty_tier_io *io)
{
	free((void *)(uintptr_t)io->keys);
	free(io);
}

void lab_run(struct ty_tier_io **ios, uint32_t count)
{
	struct driven_batch batch = {.ios = ios, .count = count};

	lab.home = 0;
	driven_submit(&lab, &batch);
	while (lab.home < count)
		lab_step();
}

bool lab_holds(const struct ty_tier_io *io, uint64_t number)
{
	for (uint32_t p = 0; p < io->parts; p++)
		for (uint64_t i = 0; io->part[p].data && i < io->part[p].length; i++)
			if (io->part[p].data[i] != lab_byte(number, p, i))
				return false;
	return true;
}

enum ty_tier_outcome lab_do(enum ty_tier_verb verb, uint64_t number, uint32_t parts, uint64_t bytes)
{
	struct ty_tier_io *io = lab_io(verb, number, 0, parts, bytes);
	enum ty_tier_outcome outcome;

	lab_run(&io, 1);
	outcome = io->outcome;
	if (verb == TY_TIER_GET && outcome == TY_TIER_DONE && !lab_holds(io, number))
		outcome = TY_TIER_OUTCOMES; /* wrong bytes, said to be right */
	if (verb == TY_TIER_EXISTS && outcome == TY_TIER_DONE && !io->found)
		outcome = TY_TIER_MISSING;
	snprintf(lab.error, sizeof lab.error, "%s", io->error);
	lab_free(io);
	return outcome;
}

uint64_t lab_stat(const _Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}
