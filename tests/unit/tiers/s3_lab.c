/* SPDX-License-Identifier: Apache-2.0 */
#include "s3_lab.h"

struct lab lab;

/* ---- a tier and its user ---------------------------------------------------------------------------------------- */

static void on_home(void *self, struct ty_msg *msg)
{
	(void)self;
	(void)msg;
	lab.home++;
}

static void on_run(void *self, struct ty_msg *msg)
{
	struct batch *b = ty_container_of(msg, struct batch, msg);

	(void)self;
	for (uint32_t i = 0; i < b->count; i++) {
		b->ios[i]->home = ty_self();
		b->ios[i]->home_type = LAB_HOME;
		b->ios[i]->deadline = ty_now() + lab.tier->config.timeout;
		assert_true(ty_tier_submit(lab.tier, b->ios[i]));
	}
}

static const struct ty_handler handlers[] = {{"run", on_run}, {"home", on_home}};
static const struct ty_class driver_class = {.name = "driver", .first_type = LAB_RUN, .type_count = 2, .handlers = handlers};

static _Atomic bool pumping;

static void *pump_thread(void *arg)
{
	(void)arg;
	while (atomic_load(&pumping))
		if (!s3_server_pump(&lab.server))
			sched_yield();
	return NULL;
}

const char *lab_packing = "";

enum ty_code lab_open_tier(const char *settings)
{
	struct ty_runtime_options options = {.size = sizeof options, .seed = 1};
	struct ty_spawn_options own = {.size = sizeof own, .executor = TY_DEDICATED, .cpu = -1};
	struct ty_error err = {.text = ""};
	pthread_t thread;
	enum ty_code code;

	lab.service = calloc(1, sizeof *lab.service);
	lab.service->config = &lab.config;
	memset(&lab.config, 0, sizeof lab.config);
	lab.config.l1_size = 2 * TY_PIECE_BYTES;
	lab.config.tier_count = 1;
	lab.config.pack_threads = 1;
	snprintf(lab.config.tier[0], sizeof lab.config.tier[0], "s3:http://127.0.0.1:%u/kv%s%s", lab.server.port, settings,
		lab_packing);
	assert_int_equal(ty_arena_open(lab.config.l1_size, &lab.service->arena, &err), TY_OK);
	assert_int_equal(ty_index_create(&lab.service->index, &err), TY_OK);
	atomic_store(&pumping, true); /* it is asked once, and waited for, before anything runs */
	assert_int_equal(pthread_create(&thread, NULL, pump_thread, NULL), 0);
	code = ty_tiers_open(lab.service, &err);
	atomic_store(&pumping, false);
	pthread_join(thread, NULL);
	snprintf(lab.error, sizeof lab.error, "%s", err.text);
	if (code != TY_OK) {
		ty_index_destroy(lab.service->index);
		ty_arena_close(&lab.service->arena);
		free(lab.service);
		return code;
	}
	lab.tier = lab.service->tiers[0];
	assert_int_equal(ty_runtime_create(&options, &lab.service->rt, &err), TY_OK);
	assert_int_equal(ty_spawn(lab.service->rt, &driver_class, NULL, NULL, &lab.driver), TY_OK);
	assert_int_equal(ty_packers_spawn(lab.service, &err), TY_OK);
	assert_int_equal(lab.tier->cls->spawn(lab.tier, &err), TY_OK);
	assert_int_equal(ty_spawn(lab.service->rt, lab.tier->cls->actor, lab.tier, &own, &lab.tier->actor), TY_OK);
	lab.start = lab.stop = (struct ty_msg)TY_MSG_INIT;
	assert_int_equal(ty_send(lab.tier->actor, &lab.start, TY_TIER_START), TY_OK);
	while (atomic_load(&lab.tier->stats.state) == TY_TIER_STARTING)
		assert_true(ty_runtime_step(lab.service->rt));
	return TY_OK;
}

void lab_step(void)
{
	while (s3_server_pump(&lab.server))
		;
	(void)ty_runtime_step(lab.service->rt);
}

void lab_pass(int64_t ns)
{
	int64_t until = ty_runtime_now(lab.service->rt) + ns;

	while (ty_runtime_now(lab.service->rt) < until) {
		while (s3_server_pump(&lab.server))
			;
		if (!ty_runtime_step(lab.service->rt))
			return;
	}
}

void lab_close_tier(void)
{
	assert_int_equal(ty_send(lab.tier->actor, &lab.stop, TY_TIER_STOP), TY_OK);
	lab_pass(SECOND);
	assert_int_equal(atomic_load(&lab.tier->stats.buffer_bytes), 0);
	assert_true(lab_packing[0] || !atomic_load(&lab.tier->stats.pack_from_bytes));
	ty_runtime_destroy(lab.service->rt);
	ty_actor_unref(lab.driver);
	ty_actor_unref(lab.tier->actor);
	lab.tier->cls->release(lab.tier);
	ty_packers_release(lab.service);
	ty_tiers_close(lab.service);
	ty_index_destroy(lab.service->index);
	ty_arena_close(&lab.service->arena);
	free(lab.service);
}

int lab_open(void **state)
{
	lab_packing = *state ? *state : "";
	memset(&lab, 0, sizeof lab);
	lab.server.id = "AKIDEXAMPLE";
	lab.server.secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
	setenv("AWS_ACCESS_KEY_ID", lab.server.id, 1);
	setenv("AWS_SECRET_ACCESS_KEY", lab.server.secret, 1);
	unsetenv("AWS_SESSION_TOKEN");
	s3_server_open(&lab.server);
	return 0;
}

int lab_close(void **state)
{
	(void)state;
	s3_server_close(&lab.server);
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
	return s3_server_find(&lab.server, name);
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
	struct batch batch = {.ios = ios, .count = count};

	lab.home = 0;
	assert_int_equal(ty_send(lab.driver, &batch.msg, LAB_RUN), TY_OK);
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
