/* SPDX-License-Identifier: Apache-2.0 */
#include "house.h"

#include <assert.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "alone.h"
#include "cache/checksum.h"

enum { DRIVER_RUN = 0x900, DRIVER_HOME };

void (*house_home)(struct ty_tier_io *io);
int64_t house_timeout;
bool (*house_may)(const struct ty_tier_io *io);

struct driver {
	struct house *house;
	struct house_job *job;
	uint32_t next, home;
};

static void pump(struct driver *d)
{
	uint64_t one = 1;

	while (d->next < d->job->count) {
		struct ty_tier_io *io = d->job->ios[d->next];

		if (house_may && !house_may(io))
			break;
		io->home = ty_self();
		io->home_type = DRIVER_HOME;
		io->deadline = ty_now() + (house_timeout ? house_timeout : d->house->tier->config.timeout);
		if (!ty_tier_submit(d->house->tier, io))
			break;
		d->next++;
	}
	assert(d->next > d->home || d->next == d->job->count); /* refused, with nothing out: the tier is not serving */
	if (d->home == d->job->count)
		(void)!write(d->house->event_fd, &one, sizeof one);
}

static void on_run(void *self, struct ty_msg *msg)
{
	struct driver *d = self;

	d->job = ty_container_of(msg, struct house_job, msg);
	d->next = d->home = 0;
	pump(d);
}

static void on_home(void *self, struct ty_msg *msg)
{
	struct driver *d = self;

	if (house_home)
		house_home(ty_container_of(msg, struct ty_tier_io, msg));
	d->home++;
	pump(d);
}

static enum ty_code start(void *self, void *arg)
{
	((struct driver *)self)->house = arg;
	return TY_OK;
}

static const struct ty_handler handlers[] = {{"run", on_run}, {"home", on_home}};
static const struct ty_class driver_class = {
	.name = "driver", .state_size = sizeof(struct driver), .first_type = DRIVER_RUN, .type_count = 2, .handlers = handlers,
	.start = start,
};

enum ty_code house_open(struct house *h, const char *spec)
{
	struct ty_runtime_options options = {.size = sizeof options, .workers = 2};
	struct ty_error err = {.text = ""};
	static struct ty_msg start_message;
	enum ty_code code;

	memset(h, 0, sizeof *h);
	h->service = alone_new(&h->config, HOUSE_PIECES, 2, spec);
	code = ty_tiers_open(h->service, &err);
	if (code != TY_OK) {
		snprintf(h->error, sizeof h->error, "%s", err.text);
		alone_free(h->service);
		return code;
	}
	h->tier = h->service->tiers[0];
	h->event_fd = eventfd(0, EFD_CLOEXEC);
	code = ty_runtime_create(&options, &h->service->rt, &err);
	assert(code == TY_OK);
	code = ty_spawn(h->service->rt, &driver_class, h, NULL, &h->driver);
	assert(code == TY_OK);
	alone_spawn(h->service, &start_message);
	while (atomic_load(&h->tier->stats.state) == TY_TIER_STARTING)
		usleep(100);
	return TY_OK;
}

void house_close(struct house *h)
{
	static struct ty_msg stop;
	enum ty_code sent;

	stop = (struct ty_msg)TY_MSG_INIT;
	sent = ty_send(h->tier->actor, &stop, TY_TIER_STOP);
	assert(sent == TY_OK);
	ty_runtime_destroy(h->service->rt);
	ty_actor_unref(h->driver);
	alone_close(h->service);
	close(h->event_fd);
}

void house_scanned(struct house *h)
{
	while (atomic_load(&h->tier->stats.scanning))
		usleep(100);
}

struct ty_key house_key(uint64_t number)
{
	struct ty_key key;
	uint64_t x = number;

	for (int i = 0; i < 4; i++) {
		uint64_t z = x += 0x9e3779b97f4a7c15ull;

		z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
		z = (z ^ z >> 27) * 0x94d049bb133111ebull;
		z ^= z >> 31;
		memcpy(key.bytes + 8 * i, &z, 8);
	}
	return key;
}

uint8_t *house_place(struct house *h, uint32_t i, uint64_t bytes)
{
	uint64_t at = i * ty_envelope_padded(bytes);

	assert(at + bytes <= h->service->arena.bytes);
	return h->service->arena.base + at;
}

static uint64_t word(uint64_t number, uint32_t part, uint64_t i)
{
	return (number * 64 + part) * 0x9e3779b97f4a7c15ull + i * 0xbf58476d1ce4e5b9ull;
}

void house_fill(uint8_t *at, uint64_t bytes, uint64_t number, uint32_t part)
{
	for (uint64_t i = 0; i < bytes; i += 8) {
		uint64_t w = word(number, part, i);

		memcpy(at + i, &w, bytes - i < 8 ? bytes - i : 8);
	}
}

bool house_holds(const uint8_t *at, uint64_t bytes, uint64_t number, uint32_t part)
{
	for (uint64_t i = 0; i < bytes; i += 8) {
		uint64_t w = word(number, part, i);

		if (memcmp(at + i, &w, bytes - i < 8 ? bytes - i : 8) != 0)
			return false;
	}
	return true;
}

struct ty_tier_io *house_io(struct house *h, enum ty_tier_verb verb, uint64_t number, uint32_t place, uint32_t parts,
	uint64_t bytes)
{
	uint32_t keys = verb == TY_TIER_EXISTS ? parts : 1;
	struct ty_tier_io *io = calloc(1, sizeof *io + TY_CHUNK_MAX_PARTS * sizeof io->part[0]);
	struct ty_key *key = calloc(keys, sizeof *key);

	for (uint32_t i = 0; i < keys; i++)
		key[i] = house_key(number + i);
	io->verb = verb;
	io->keys = key;
	io->key_count = keys;
	if (verb != TY_TIER_PUT && verb != TY_TIER_GET)
		return io;
	io->parts = parts;
	for (uint32_t i = 0; i < parts; i++) {
		io->part[i].data = house_place(h, place + i, bytes);
		io->part[i].length = bytes;
		if (verb == TY_TIER_GET) {
			memset(io->part[i].data, 0xee, bytes);
			continue;
		}
		house_fill(io->part[i].data, bytes, number, i);
		io->part[i].checksum = ty_checksum(io->part[i].data, bytes);
	}
	return io;
}

void house_free(struct ty_tier_io *io)
{
	free((void *)io->keys);
	free(io);
}

void house_begin(struct house *h, struct house_job *job)
{
	enum ty_code sent = ty_send(h->driver, &job->msg, DRIVER_RUN);

	assert(sent == TY_OK);
	(void)sent;
}

void house_run(struct house *h, struct ty_tier_io **ios, uint32_t count)
{
	struct house_job job = {.ios = ios, .count = count};
	uint64_t n;

	house_begin(h, &job);
	while (read(h->event_fd, &n, sizeof n) != sizeof n)
		;
}

enum ty_tier_outcome house_do(struct house *h, enum ty_tier_verb verb, uint64_t number, uint32_t parts, uint64_t bytes)
{
	struct ty_tier_io *io = house_io(h, verb, number, 0, parts, bytes);
	enum ty_tier_outcome outcome;

	house_run(h, &io, 1);
	outcome = io->outcome;
	if (verb == TY_TIER_EXISTS)
		assert(outcome == TY_TIER_DONE);
	if (verb == TY_TIER_GET && outcome == TY_TIER_DONE)
		for (uint32_t i = 0; i < parts; i++)
			if (!house_holds(io->part[i].data, bytes, number, i))
				outcome = TY_TIER_OUTCOMES; /* wrong bytes, said to be right */
	if (verb == TY_TIER_EXISTS && !io->found)
		outcome = TY_TIER_MISSING;
	snprintf(h->error, sizeof h->error, "%s", io->error);
	house_free(io);
	return outcome;
}
