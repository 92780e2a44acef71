/* SPDX-License-Identifier: Apache-2.0
 *
 * What tiers have in common about packed chunks. A PUT comes to the tier's actor as any io; one that has to be written goes from there to a
 * packer, with a message of its own, and comes back with a buffer beside it. A GET's packed bytes go to an unpacker once they are all read.
 * Neither thread knows anything but the io and its tier; both look, block by block or part by part, whether anybody still wants it.
 *
 *   PUT   tier --ty_tier_packed--> packer --TY_TIER_PACKED--> tier: written, ty_tier_complete frees what was packed
 *   GET   tier: read --ty_tier_unpack--> unpacker --TY_TIER_UNPACKED--> tier: ty_tier_complete
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache/checksum.h"
#include "service.h"

#define SMALLEST 1024 /* bytes of a part that is worth the call */

/* A PUT, with a packer and from then on. */
struct ty_tier_packed {
	struct ty_bytework work;
	struct ty_tier *tier;
	struct ty_tier_io *io;
	struct ty_tier_packed *next, **link; /* of the tier's; its actor alone */
	_Atomic bool unwanted;        /* it was deleted. The tier's actor: release; packer: acquire */
	enum ty_tier_outcome outcome; /* DONE: go on; else it was given up */
	uint8_t *buffer;
	uint64_t room;
	struct {
		uint8_t *data; /* in the buffer */
		struct ty_envelope_packed how;
	} part[];
};

static void count(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

/* ---- settings ------------------------------------------------------------------------------------------------- */

static const char *const codec_names[TY_CODECS] = {"none", "zstd", "lz4"};

const char *ty_codec_name(enum ty_codec codec)
{
	return codec_names[codec];
}

enum ty_code ty_tier_parse_packing(const char *text, struct ty_packing *out, struct ty_error *err)
{
	const char *colon = strchr(text, ':');
	size_t length = colon ? (size_t)(colon - text) : strlen(text);
	struct ty_error why;
	uint64_t level = 1;

	*out = (struct ty_packing){.width = 1, .level = 1};
	for (int codec = 0; codec < TY_CODECS; codec++) {
		if (strlen(codec_names[codec]) != length || memcmp(codec_names[codec], text, length) != 0)
			continue;
		out->codec = (enum ty_codec)codec;
		if (!colon)
			return TY_OK;
		if (codec != TY_CODEC_ZSTD || ty_parse_count(colon + 1, TY_PACK_LEVEL_MAX, &level, &why) != TY_OK || !level)
			break;
		out->level = (int)level;
		return TY_OK;
	}
	return ty_fail(err, TY_INVALID, "--tier: compress: found \"%.40s\", expected none, lz4, or zstd[:LEVEL] with 1 to %d", text,
		TY_PACK_LEVEL_MAX);
}

/* ---- threads ---------------------------------------------------------------------------------------------------- */

static enum ty_code spawn_threads(struct ty_service *service, const char *name, struct ty_actor **out, uint32_t *made,
	struct ty_error *err)
{
	struct ty_spawn_options options = {.size = sizeof options, .executor = TY_DEDICATED, .thread_name = name, .cpu = -1};

	for (; *made < service->config->pack_threads; ++*made) {
		enum ty_code code = ty_spawn(service->rt, &ty_bytework_class, service, &options, &out[*made]);

		if (code != TY_OK)
			return ty_fail(err, code, "could not start a thread that packs");
	}
	return TY_OK;
}

enum ty_code ty_packers_spawn(struct ty_service *service, struct ty_error *err)
{
	enum ty_code code = TY_OK;
	bool packs = false;

	for (uint32_t i = 0; i < service->tier_count; i++)
		packs |= service->tiers[i]->config.packing.codec != TY_CODEC_NONE;
	if (packs)
		code = spawn_threads(service, "pack", service->packers, &service->packer_count, err);
	if (code == TY_OK && service->tier_count)
		code = spawn_threads(service, "unpack", service->unpackers, &service->unpacker_count, err);
	return code;
}

void ty_packers_release(struct ty_service *service)
{
	while (service->packer_count)
		ty_actor_unref(service->packers[--service->packer_count]);
	while (service->unpacker_count)
		ty_actor_unref(service->unpackers[--service->unpacker_count]);
}

/* ---- buffers ---------------------------------------------------------------------------------------------------- */

uint8_t *ty_tier_buffer(struct ty_tier *tier, uint64_t bytes)
{
	uint8_t *buffer = aligned_alloc(TY_ENVELOPE_ALIGN, ty_envelope_padded(bytes));

	if (buffer)
		count(&tier->stats.buffer_bytes, bytes);
	return buffer;
}

void ty_tier_buffer_free(struct ty_tier *tier, uint8_t *buffer, uint64_t bytes)
{
	if (buffer)
		count(&tier->stats.buffer_bytes, (uint64_t)0 - bytes);
	free(buffer);
}

/* ---- on their threads --------------------------------------------------------------------------------------------- */

/* DONE: somebody may still want it. */
static enum ty_tier_outcome wanted(const struct ty_tier *tier, const struct ty_tier_io *io)
{
	/* acquire: pair with main's and its home's release */
	if (atomic_load_explicit(&tier->ending, memory_order_acquire))
		return TY_TIER_STOPPED;
	if (atomic_load_explicit(&io->cancelled, memory_order_acquire) || ty_now() >= io->deadline)
		return TY_TIER_LATE;
	return TY_TIER_DONE;
}

static bool is_over(void *user)
{
	struct ty_tier_packed *p = user;

	/* acquire: pairs with ty_tier_pack_none's release */
	p->outcome = atomic_load_explicit(&p->unwanted, memory_order_acquire) ? TY_TIER_LATE : wanted(p->tier, p->io);
	return p->outcome != TY_TIER_DONE;
}

static void drop_buffer(struct ty_tier_packed *p)
{
	ty_tier_buffer_free(p->tier, p->buffer, p->room);
	p->buffer = NULL;
}

static uint64_t room_of(const struct ty_tier_io *io, uint32_t part)
{
	return io->part[part].length < SMALLEST ? 0 : ty_envelope_padded(ty_pack_room(io->part[part].length));
}

/* Each part, one behind the other into the buffer. Returns how far that got. */
static uint64_t pack_parts(struct ty_tier_packed *p, struct ty_packer *packer)
{
	const struct ty_tier_io *io = p->io;
	struct ty_packing how = p->tier->config.packing;
	uint64_t used = 0;

	how.width = io->identity ? ty_pack_width(io->identity->dtype) : 1;
	for (uint32_t i = 0; i < io->parts && p->buffer && !is_over(p); i++) {
		uint8_t *out = p->buffer + used;
		uint64_t stored = room_of(io, i) ? ty_pack(packer, &how, io->part[i].data, io->part[i].length, out, is_over, p) : 0;

		if (!stored)
			continue;
		p->part[i].data = out;
		p->part[i].how = (struct ty_envelope_packed){how.codec, how.width, stored, ty_checksum(out, stored)};
		memset(out + stored, 0, ty_envelope_padded(stored) - stored);
		used += ty_envelope_padded(stored);
	}
	return used;
}

static void pack(struct ty_service *service, struct ty_bytework *work)
{
	struct ty_tier_packed *p = ty_container_of(work, struct ty_tier_packed, work);
	struct ty_tier_stats *s = &p->tier->stats;
	int64_t began = ty_now();
	uint64_t from = 0, to = 0;

	(void)service;
	for (uint32_t i = 0; i < p->io->parts; i++)
		p->room += room_of(p->io, i);
	if (!is_over(p) && p->room)
		p->buffer = ty_tier_buffer(p->tier, p->room);
	if (!pack_parts(p, work->packer) || p->outcome != TY_TIER_DONE)
		drop_buffer(p);
	count(&s->pack_ns, (uint64_t)(ty_now() - began));
	if (p->outcome != TY_TIER_DONE) {
		count(&s->pack_given_up, 1);
		return;
	}
	for (uint32_t i = 0; i < p->io->parts; i++) {
		from += p->io->part[i].length;
		to += p->part[i].how.stored ? p->part[i].how.stored : p->io->part[i].length;
		count(&s->pack_as_they_are, !p->part[i].how.stored);
	}
	count(&s->pack_from_bytes, from);
	count(&s->pack_to_bytes, to);
}

/* ---- PUT ------------------------------------------------------------------------------------------------------------ */

bool ty_tier_pack(struct ty_tier *tier, struct ty_tier_io *io)
{
	struct ty_service *service = tier->service;
	struct ty_tier_packed *p;

	if (tier->config.packing.codec == TY_CODEC_NONE || io->packed)
		return false;
	p = calloc(1, sizeof *p + io->parts * sizeof p->part[0]);
	if (!p)
		return false; /* it goes as it is */
	p->tier = tier;
	p->io = io;
	p->work.home = ty_self();
	p->work.home_type = TY_TIER_PACKED;
	p->work.run = pack;
	if (ty_bytework_send_to(service->packers, service->packer_count, &p->work, &tier->packer_turn)) {
		io->packed = p;
		p->next = tier->packing;
		p->link = &tier->packing;
		if (p->next)
			p->next->link = &p->next;
		tier->packing = p;
		return true;
	}
	free(p);
	return false;
}

void ty_tier_pack_none(struct ty_tier *tier, const struct ty_key *key)
{
	for (struct ty_tier_packed *p = tier->packing; p; p = p->next)
		if (memcmp(p->io->keys, key, sizeof *key) == 0)
			atomic_store_explicit(&p->unwanted, true, memory_order_release);
}

void ty_tier_packed_free(struct ty_tier_io *io)
{
	if (io->packed)
		drop_buffer(io->packed);
	free(io->packed);
	io->packed = NULL;
}

struct ty_tier_io *ty_tier_packed(struct ty_tier *tier, struct ty_msg *msg)
{
	struct ty_bytework *work = ty_container_of(msg, struct ty_bytework, msg);
	struct ty_tier_packed *p = ty_container_of(work, struct ty_tier_packed, work);
	struct ty_tier_io *io = p->io;
	bool unwanted = atomic_load_explicit(&p->unwanted, memory_order_relaxed); /* this actor's own word */

	*p->link = p->next;
	if (p->next)
		p->next->link = p->link;
	if (p->outcome == TY_TIER_DONE && !unwanted)
		return io;
	ty_tier_complete(tier, io, unwanted ? TY_TIER_LATE : p->outcome, unwanted ? "it was deleted" : NULL);
	return NULL;
}

void ty_tier_describe(const struct ty_tier_io *io, struct ty_envelope *out)
{
	out->key = *io->keys;
	if (io->identity)
		out->identity = *io->identity;
	out->parts = io->parts;
	for (uint32_t i = 0; i < io->parts; i++) {
		out->length[i] = io->part[i].length;
		out->checksum[i] = io->part[i].checksum;
		out->packed[i] = io->packed ? io->packed->part[i].how : (struct ty_envelope_packed){.stored = 0};
	}
}

uint8_t *ty_tier_bytes(const struct ty_tier_io *io, uint32_t part)
{
	return io->packed && io->packed->part[part].data ? io->packed->part[part].data : io->part[part].data;
}

/* ---- GET ------------------------------------------------------------------------------------------------------------ */

static bool same_shape(const struct ty_tier_io *io, const struct ty_envelope *e)
{
	if (memcmp(&e->key, io->keys, sizeof e->key) != 0 || e->parts != io->parts)
		return false;
	for (uint32_t i = 0; i < e->parts; i++)
		if (e->length[i] != io->part[i].length)
			return false;
	/* every identity has a model: without one it was not known when the chunk went down */
	return !io->identity || !e->identity.model[0] || ty_identity_is(&e->identity, io->identity);
}

/* Its packed bytes first: what is damaged is not given to a decoder. */
static enum ty_tier_outcome unpack_part(struct ty_tier *tier, struct ty_tier_io *io, const struct ty_envelope *e, uint32_t i,
	const uint8_t *stored, struct ty_packer *packer, struct ty_error *err)
{
	struct ty_packing how = {.codec = e->packed[i].codec, .width = e->packed[i].width};
	int64_t began = ty_now();
	enum ty_code code = TY_INVALID;

	if (!ty_envelope_matches_packed(e, i, stored))
		(void)ty_fail(err, TY_INVALID, "part %u, packed, has another checksum", i);
	else
		code = ty_unpack(packer, &how, stored, e->packed[i].stored, io->part[i].data, e->length[i], err);
	count(&tier->stats.unpack_ns, (uint64_t)(ty_now() - began));
	count(&tier->stats.unpack_wrong, code == TY_INVALID);
	if (code != TY_OK)
		return code == TY_INVALID ? TY_TIER_CORRUPT : TY_TIER_FAILED;
	count(&tier->stats.unpack_from_bytes, e->packed[i].stored);
	count(&tier->stats.unpack_to_bytes, e->length[i]);
	return TY_TIER_DONE;
}

static enum ty_tier_outcome check_part(struct ty_tier *tier, struct ty_tier_io *io, const struct ty_envelope *e, uint32_t i,
	const struct ty_tier_stored *stored, struct ty_packer *packer, struct ty_error *err)
{
	enum ty_tier_outcome outcome = TY_TIER_DONE;

	if (e->packed[i].stored != (stored ? stored->bytes[i] : 0)) {
		(void)ty_fail(err, TY_INVALID, "part %u does not lie there as it did", i);
		return TY_TIER_CORRUPT;
	}
	if (io->part[i].data && e->packed[i].stored) {
		outcome = wanted(tier, io);
		if (outcome == TY_TIER_DONE)
			outcome = unpack_part(tier, io, e, i, stored->data[i], packer, err);
		else
			count(&tier->stats.pack_given_up, 1);
	}
	if (outcome == TY_TIER_DONE && io->part[i].data && !ty_envelope_matches(e, i, io->part[i].data)) {
		(void)ty_fail(err, TY_INVALID, "part %u has another checksum", i);
		return TY_TIER_CORRUPT;
	}
	return outcome;
}

enum ty_tier_outcome ty_tier_check(struct ty_tier *tier, struct ty_tier_io *io, const uint8_t header[TY_ENVELOPE_BYTES],
	const struct ty_tier_stored *stored, struct ty_packer *packer, struct ty_error *err)
{
	struct ty_envelope e;
	enum ty_code code = ty_envelope_read(header, &e, err);
	enum ty_tier_outcome outcome;

	if (code != TY_OK)
		return code == TY_UNSUPPORTED ? TY_TIER_MISSING : TY_TIER_CORRUPT;
	if (!same_shape(io, &e)) {
		(void)ty_fail(err, TY_INVALID, "header: it is another chunk's");
		return TY_TIER_CORRUPT;
	}
	for (uint32_t i = 0; i < e.parts; i++) {
		outcome = check_part(tier, io, &e, i, stored, packer, err);
		if (outcome != TY_TIER_DONE)
			return outcome;
		io->part[i].checksum = e.checksum[i];
	}
	return TY_TIER_DONE;
}

bool ty_tier_unpacker(struct ty_tier *tier, const struct ty_tier_io *io, struct ty_bytework *work)
{
	struct ty_service *service = tier->service;

	/* what nobody waits for is in nobody's way */
	return (io->aside && ty_bytework_send(service, work, &tier->packer_turn)) ||
	       ty_bytework_send_to(service->unpackers, service->unpacker_count, work, &tier->packer_turn);
}

bool ty_tier_is_packed(const struct ty_tier_io *io, const uint8_t header[TY_ENVELOPE_BYTES], struct ty_envelope *out)
{
	struct ty_error err;

	return ty_envelope_says_packed(header) && ty_envelope_read(header, out, &err) == TY_OK && same_shape(io, out);
}

struct ty_tier_unpack *ty_tier_unpack_new(struct ty_tier *tier, struct ty_tier_io *io, const struct ty_envelope *shape)
{
	struct ty_tier_unpack *u = calloc(1, sizeof *u);
	uint64_t at = 0;

	if (!u)
		return NULL;
	u->tier = tier;
	u->io = io;
	for (uint32_t i = 0; i < shape->parts; i++) {
		u->stored.bytes[i] = shape->packed[i].stored;
		u->room += io->part[i].data ? ty_envelope_padded(shape->packed[i].stored) : 0;
	}
	u->buffer = u->room ? ty_tier_buffer(tier, u->room) : NULL;
	if (u->room && !u->buffer) {
		free(u);
		return NULL;
	}
	for (uint32_t i = 0; i < shape->parts; i++)
		if (io->part[i].data && shape->packed[i].stored) {
			u->stored.data[i] = u->buffer + at;
			at += ty_envelope_padded(shape->packed[i].stored);
		}
	return u;
}

static void unpack(struct ty_service *service, struct ty_bytework *work)
{
	struct ty_tier_unpack *u = ty_container_of(work, struct ty_tier_unpack, work);

	(void)service;
	u->outcome = ty_tier_check(u->tier, u->io, u->header, &u->stored, work->packer, &u->err);
}

void ty_tier_unpack(struct ty_tier_unpack *u)
{
	u->work.home = ty_self();
	u->work.home_type = TY_TIER_UNPACKED;
	u->work.run = unpack;
	bool sent = ty_tier_unpacker(u->tier, u->io, &u->work);
	assert(sent); /* unpackers are there before any tier, and longer */
	(void)sent;
}

struct ty_tier_unpack *ty_tier_unpacked(struct ty_msg *msg)
{
	struct ty_bytework *work = ty_container_of(msg, struct ty_bytework, msg);

	return ty_container_of(work, struct ty_tier_unpack, work);
}

void ty_tier_unpack_free(struct ty_tier_unpack *u)
{
	if (u)
		ty_tier_buffer_free(u->tier, u->buffer, u->room);
	free(u);
}
