/* SPDX-License-Identifier: Apache-2.0
 *
 * What the administration asks for of chunks in the tiers. A tier is looked through by LIST, page by page, or asked for the keys that
 * were named; what is found there is listed, or deleted there. Everything is an io that comes home as a message: a tier that is
 * slow costs the job its time and nobody else's, and one that does not tell what it holds is said, and the next one's turn comes.
 */
#include "eviction_control.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "tier.h"
#include "base/text.h"

#define PAGE 256 /* chunks of one LIST */

/* One io of a job's. */
struct eviction_errand {
	struct eviction_errand *next; /* of job->found */
	struct eviction_job *job;
	uint32_t tier;
	struct ty_key key;
	struct ty_identity whose;     /* EXISTS */
	struct ty_tier_io io;         /* last: EXISTS has parts behind it */
};


static struct ty_tier *tier_at(const struct eviction_job *job, uint32_t i)
{
	return job->e->service->tiers[i];
}

static uint32_t tier_count(const struct eviction_job *job)
{
	return job->e->service->tier_count;
}

static bool lists(const struct eviction_job *job)
{
	return job->verb == TYER__V1__REQUEST__VERB_LIST;
}

static bool warms(const struct eviction_job *job)
{
	return job->verb == TYER__V1__REQUEST__VERB_WARM;
}

static struct eviction_errand *new_errand(struct eviction_job *job, uint32_t tier, enum ty_tier_verb verb, const struct ty_key *key)
{
	struct eviction_errand *errand =
		calloc(1, sizeof *errand + (verb == TY_TIER_EXISTS ? TY_CHUNK_MAX_PARTS * sizeof errand->io.part[0] : 0));

	if (!errand)
		return NULL;
	errand->job = job;
	errand->tier = tier;
	if (key)
		errand->key = *key;
	errand->io.home = ty_self();
	errand->io.home_type = TY_EVICTION_TIER_IO;
	errand->io.verb = verb;
	errand->io.whose = &errand->whose;
	errand->io.keys = &errand->key;
	errand->io.key_count = key != NULL;
	errand->io.aside = true; /* nobody's prompt waits for it */
	return errand;
}

/* False: the tier, which has only just started or is at a limit, takes no more now. The errand is gone then. */
static bool submit(struct eviction_errand *errand)
{
	struct eviction_job *job = errand->job;
	struct ty_tier *tier = tier_at(job, errand->tier);

	errand->io.deadline = ty_now() + tier->config.timeout;
	if (job->x && job->x->deadline < errand->io.deadline)
		errand->io.deadline = job->x->deadline;
	if (!ty_tier_submit(tier, &errand->io)) {
		free(errand);
		return false;
	}
	job->ios++;
	return true;
}

/* ---- what is not known of a tier -------------------------------------------------------------------------- */

static void note(struct eviction_job *job, uint32_t tier, enum ty_code code, const char *text)
{
	Tyer__V1__Unsearched *u;
	char clean[256];

	for (uint32_t i = 0; i < job->unsearched_count; i++)
		if (job->unsearched[i]->tier == tier)
			return; /* the first reason is the one */
	u = (Tyer__V1__Unsearched *)eviction_new_message(&tyer__v1__unsearched__descriptor);
	if (!u)
		return;
	u->tier = tier;
	u->code = (Tyer__V1__Code)code;
	ty_escape(clean, sizeof clean, text, strlen(text), TY_ESCAPE_TEXT, NULL); /* it may be a server's */
	u->error = strdup(clean);
	job->unsearched[job->unsearched_count++] = u;
}

static void note_io(struct eviction_job *job, uint32_t tier, const struct ty_tier_io *io)
{
	enum ty_code code = io->outcome == TY_TIER_LATE ? TY_TIMEOUT : io->outcome == TY_TIER_STOPPED ? TY_STOPPING : TY_IO;

	note(job, tier, code, io->error[0] ? io->error : ty_tier_outcome_name(io->outcome));
}

/* ---- cursors ------------------------------------------------------------------------------------------------ */

/* A tier's number, and what is the tier's own or, where keys were named, the next one's number. */

enum ty_code eviction_below_open(struct eviction_job *job, const ProtobufCBinaryData *cursor, struct ty_error *err)
{
	struct ty_tier_cursor *from = &job->page.cursor;

	if (!cursor->len)
		return TY_OK;
	if (cursor->len > 1 + sizeof from->bytes || cursor->data[0] >= tier_count(job))
		return ty_fail(err, TY_INVALID, "below: %zu bytes, of tier %u; expected what a reply said", cursor->len, cursor->data[0]);
	job->lower = cursor->data[0];
	from->length = (uint32_t)(cursor->len - 1);
	memcpy(from->bytes, cursor->data + 1, from->length);
	if (job->select.keys) {
		if (from->length != sizeof job->at)
			return ty_fail(err, TY_INVALID, "below: %zu bytes; expected what a reply said", cursor->len);
		memcpy(&job->at, from->bytes, sizeof job->at);
		if (job->at > job->select.key_count)
			return ty_fail(err, TY_INVALID, "below: key %u; there are %u", job->at, job->select.key_count);
	}
	job->phase = EVICTION_BELOW;
	return TY_OK;
}

void eviction_below_cursor(const struct eviction_job *job, ProtobufCBinaryData *out)
{
	uint8_t bytes[1 + TY_TIER_CURSOR_MAX] = {(uint8_t)job->lower};
	/* a page that is out, or was not looked through, is asked for again */
	const struct ty_tier_cursor *c = job->paged ? &job->page.cursor : &job->from;
	uint32_t length = job->select.keys ? sizeof job->at : c->length;

	memcpy(bytes + 1, job->select.keys ? (const void *)&job->at : c->bytes, length);
	(void)eviction_set_bytes(out, bytes, 1 + length);
}

/* ---- DELETE --------------------------------------------------------------------------------------------------- */

/* False: not now. */
static bool delete_in(struct eviction_job *job, uint32_t tier, const struct ty_key *key)
{
	struct eviction_errand *errand = new_errand(job, tier, TY_TIER_DELETE, key);

	return errand && submit(errand);
}

bool eviction_below_delete(struct eviction_job *job, const struct ty_key *key)
{
	for (; job->tier < tier_count(job); job->tier++)
		if (!delete_in(job, job->tier, key)) {
			eviction_job_rest(job);
			return false;
		}
	job->tier = 0;
	return true;
}

/* ---- keys that were named ---------------------------------------------------------------------------------------- */

/* Does it have to be asked whether, and whose, a chunk is there? */
static bool probes(const struct eviction_job *job)
{
	return lists(job) || !job->select.any_space;
}

static bool is_in_arena(const struct eviction_job *job, const struct ty_key *key)
{
	const struct ty_chunk *chunk = ty_index_find(job->e->service->index, key);

	return chunk && ty_chunk_state(chunk) == TY_CHUNK_READY;
}

static bool wants_key(const struct eviction_job *job, const struct ty_key *key)
{
	if (!probes(job))
		return eviction_selects_below(&job->select, key, NULL);
	return !lists(job) || !is_in_arena(job, key);
}

static void list_below(struct eviction_job *job, uint32_t tier, const struct ty_tier_item *item)
{
	Tyer__V1__ChunkInfo *info = eviction_job_list(job, &item->key, item->identity);

	if (!info)
		return;
	info->bytes = item->bytes;
	info->parts = info->missing = item->parts;
	info->tiers = 1u << tier;
	job->chunks++;
}

static void probed(struct eviction_job *job, struct eviction_errand *errand)
{
	const struct ty_tier_io *io = &errand->io;

	if (io->outcome != TY_TIER_DONE)
		note_io(job, errand->tier, io);
	if (!job->x || io->outcome != TY_TIER_DONE || !io->found || !eviction_selects_below(&job->select, &errand->key, io->known ? io->whose : NULL)) {
		free(errand);
	} else if (lists(job)) {
		list_below(job, errand->tier, &(struct ty_tier_item){errand->key, io->known ? io->whose : NULL, io->takes, io->parts});
		free(errand);
	} else {
		errand->next = job->found;
		job->found = errand;
	}
}

/* What was found, and is to go. False: not now. */
static bool delete_found(struct eviction_job *job)
{
	for (struct eviction_errand *errand; (errand = job->found); free(errand)) {
		if (!delete_in(job, errand->tier, &errand->key)) {
			eviction_job_rest(job);
			return false;
		}
		job->found = errand->next;
	}
	return true;
}

/* Keys [at, at + page_at) are out, or done. */
static bool ask_for_key(struct eviction_job *job)
{
	const struct ty_key *key = &job->select.keys[job->at + job->page_at];
	struct eviction_errand *errand;

	if (!wants_key(job, key))
		return true;
	errand = new_errand(job, job->lower, probes(job) ? TY_TIER_EXISTS : TY_TIER_DELETE, key);
	if (errand && submit(errand))
		return true;
	eviction_job_rest(job);
	return false;
}

static void next_tier(struct eviction_job *job)
{
	job->lower++;
	job->at = job->page_at = 0;
	job->paged = false;
	job->from.length = job->page.cursor.length = 0;
	if (job->lower == tier_count(job))
		job->phase = EVICTION_OVER;
}

static uint32_t batch_of(const struct eviction_job *job)
{
	uint32_t left = job->select.key_count - job->at;

	return left < EVICTION_PROBES ? left : EVICTION_PROBES;
}

/* Is the batch over, or the reply full before all of it was asked? Then the next one is the tier's, or the next tier's. */
static bool end_batch(struct eviction_job *job)
{
	if (job->ios || job->found || (job->page_at < batch_of(job) && !eviction_job_is_full(job)))
		return false;
	job->at += job->page_at;
	job->page_at = 0;
	job->moved = true;
	if (job->at == job->select.key_count)
		next_tier(job);
	return true;
}

static void walk_keys(struct eviction_job *job)
{
	while (job->phase == EVICTION_BELOW && !eviction_job_is_full(job) && delete_found(job)) {
		for (uint32_t batch = batch_of(job); job->page_at < batch; job->page_at++)
			if (!ask_for_key(job))
				return;
		if (!end_batch(job))
			return;
	}
}

/* ---- all that a tier has -------------------------------------------------------------------------------------------- */

void eviction_below_give_up(struct eviction_job *job, const char *why)
{
	note(job, job->lower, TY_IO, why);
	next_tier(job);
}

static void ask_for_page(struct eviction_job *job)
{
	struct eviction_errand *errand;
	struct ty_tier_page *page = &job->page;
	uint64_t room = job->max ? job->max - job->chunks : PAGE;

	if (!(tier_at(job, job->lower)->capabilities & TY_TIER_LISTS)) {
		note(job, job->lower, TY_UNSUPPORTED, "a tier of this kind cannot be listed");
		next_tier(job);
		return;
	}
	ty_tier_page_clear(page);
	job->from = page->cursor;
	page->wanted = room < PAGE ? (uint32_t)room : PAGE;
	page->shapes = lists(job) || !job->select.any_space;
	page->prefix_length = (uint32_t)job->select.select->key_prefix.len;
	if (page->prefix_length)
		memcpy(page->prefix.bytes, job->select.select->key_prefix.data, page->prefix_length);
	errand = new_errand(job, job->lower, TY_TIER_LIST, NULL);
	if (errand)
		errand->io.page = page;
	job->paging = errand && submit(errand);
	if (!job->paging)
		eviction_job_rest(job);
}

static void page_home(struct eviction_job *job, struct eviction_errand *errand)
{
	job->paging = false;
	if (errand->io.outcome == TY_TIER_DONE) {
		job->paged = job->moved = true;
		job->page_at = 0;
	} else {
		note_io(job, job->lower, &errand->io);
		if (job->x)
			next_tier(job);
	}
	free(errand);
}

/* False: not now, this item again. */
static bool take_item(struct eviction_job *job, const struct ty_tier_item *item)
{
	if (!eviction_selects_below(&job->select, &item->key, item->identity))
		return true;
	if (warms(job))
		return is_in_arena(job, &item->key) || eviction_job_remember(job, &item->key);
	if (!lists(job))
		return delete_in(job, job->lower, &item->key);
	if (!is_in_arena(job, &item->key))
		list_below(job, job->lower, item);
	return true;
}

/* False: not all of the page that is here. */
static bool take_page(struct eviction_job *job)
{
	for (; job->paged && job->page_at < job->page.count; job->page_at++)
		if (!take_item(job, &job->page.item[job->page_at]))
			return false;
	return true;
}

static void walk_pages(struct eviction_job *job)
{
	while (job->phase == EVICTION_BELOW && !job->paging && !job->resting && !eviction_job_is_full(job)) {
		bool all = take_page(job);

		if (!all && !warms(job)) {
			eviction_job_rest(job);
			return;
		}
		if (warms(job) && job->again_count) { /* those before the one that was not taken come first */
			eviction_warm_go_on(job);
			return;
		}
		if (!all) {
			note(job, job->lower, TY_NO_MEMORY, "no memory for the keys of a page");
			next_tier(job);
			continue;
		}
		if (job->paged && !job->page.cursor.length) {
			next_tier(job);
			continue;
		}
		if (eviction_job_is_full(job))
			return;
		job->paged = false;
		ask_for_page(job);
	}
}

/* ---- ------------------------------------------------------------------------------------------------------------------ */

void eviction_below_walk(struct eviction_job *job)
{
	if (!tier_count(job))
		job->phase = EVICTION_OVER;
	else if (job->select.keys)
		walk_keys(job);
	else if (!job->paging)
		walk_pages(job);
}

void eviction_below_home(struct ty_msg *msg)
{
	struct eviction_errand *errand = ty_container_of(ty_container_of(msg, struct ty_tier_io, msg), struct eviction_errand, io);
	struct eviction_job *job = errand->job;

	job->ios--;
	if (errand->io.verb == TY_TIER_LIST) {
		page_home(job, errand);
	} else if (errand->io.verb == TY_TIER_EXISTS) {
		probed(job, errand);
		if (job->x)
			(void)end_batch(job);
	} else {
		job->below += errand->io.outcome == TY_TIER_DONE;
		job->failed += errand->io.outcome != TY_TIER_DONE && errand->io.outcome != TY_TIER_MISSING;
		free(errand);
	}
	eviction_job_step(job);
}

void eviction_below_close(struct eviction_job *job)
{
	for (struct eviction_errand *errand; (errand = job->found); free(errand))
		job->found = errand->next;
	ty_tier_page_clear(&job->page);
	while (job->unsearched_count)
		protobuf_c_message_free_unpacked((ProtobufCMessage *)job->unsearched[--job->unsearched_count], NULL);
}
