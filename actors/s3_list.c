/* SPDX-License-Identifier: Apache-2.0
 *
 * LIST: a page of ListObjectsV2 and then, if shapes are wanted, each object's first 4096 bytes, a few at a time. A page begins behind a
 * name (start-after), so nothing is remembered between two.
 *
 *   LIST --> LOOK, LOOK, ... --> done
 */
#include "s3.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool s3_list_begin(struct s3_op *op)
{
	const struct ty_tier_cursor *cursor = &op->io->page->cursor;
	struct s3_listing *l = calloc(1, sizeof *l);

	op->list = l;
	if (!l)
		return false;
	if (cursor->length >= sizeof l->place || memchr(cursor->bytes, 0, cursor->length)) {
		l->wrong_cursor = true;
		return true;
	}
	memcpy(l->place, cursor->bytes, cursor->length);
	return s3_request_new(op, S3_LIST, 0) != NULL;
}

void s3_list_free(struct s3_listing *l)
{
	if (l)
		free(l->text);
	free(l);
}

bool s3_list_query(uint32_t most, const char *prefix, char *out, size_t size)
{
	char quoted[3 * (S3_PREFIX_MAX + 2 * TY_KEY_BYTES)];
	bool room = ty_s3_quote(prefix, quoted, sizeof quoted);
	int n = snprintf(out, size, "?list-type=2&max-keys=%u&prefix=%s", most, room ? quoted : "");

	return room && n > 0 && (size_t)n < size;
}

void s3_list_url(const struct s3_op *op, char *out, size_t size)
{
	const struct ty_tier_page *page = op->io->page;
	char name[S3_PREFIX_MAX + 2 * TY_KEY_BYTES + TY_S3_PLACE_MAX], quoted[3 * sizeof name];
	int n = snprintf(name, sizeof name, "%s", op->a->s3->prefix), base = n;

	for (uint32_t i = 0; i < page->prefix_length; i++)
		n += snprintf(name + n, sizeof name - (size_t)n, "%02x", page->prefix.bytes[i]);
	if (!s3_list_query(page->wanted < S3_LIST_MAX ? page->wanted : S3_LIST_MAX, name, out, size) || !op->list->place[0])
		return; /* there is always room: names of ours are not that long */
	n = (int)strlen(out);
	snprintf(name + base, sizeof name - (size_t)base, "%s", op->list->place);
	if (ty_s3_quote(name, quoted, sizeof quoted))
		snprintf(out + n, size - (size_t)n, "&start-after=%s", quoted);
}

size_t s3_list_take(struct s3_request *r, const char *in, size_t length)
{
	struct s3_listing *l = r->op->list;

	if (!length)
		return 0;
	r->body_bytes += length;
	if (length > S3_LIST_BYTES - l->length) {
		r->too_long = true;
		return 0;
	}
	if (l->length + length > l->room) {
		size_t room = l->room ? l->room : 16384;
		char *text;

		while (room < l->length + length)
			room *= 2;
		text = realloc(l->text, room);
		if (!text)
			return 0;
		l->text = text;
		l->room = room;
	}
	memcpy(l->text + l->length, in, length);
	l->length += length;
	return length;
}

/* ---- what came of it ------------------------------------------------------------------------------------------- */

/* Null: the page is made; else what is wrong with the answer. */
static const char *take_page(struct s3_op *op)
{
	struct s3_listing *l = op->list;
	struct ty_tier_page *page = op->io->page;
	const char *at = l->text, *bad = NULL;
	size_t left = l->length;
	char last[TY_S3_PLACE_MAX];
	struct ty_s3_listed listed;
	bool more = false;

	if (!l->text || !ty_s3_is_list(l->text, l->length, &more))
		return "its answer is no list";
	strcpy(last, l->place);
	for (uint32_t i = 0; i < S3_LIST_MAX && ty_s3_next_listed(&at, &left, op->a->s3->prefix, &listed, &bad); i++) {
		int order = strcmp(listed.place, last);

		if (order < 0 || (order == 0 && listed.ours))
			return "its list is not in order";
		strcpy(last, listed.place);
		if (!listed.ours)
			continue;
		struct ty_tier_item item = {.bytes = listed.bytes};

		memcpy(item.key.bytes, listed.key, sizeof item.key.bytes);
		if (!ty_tier_page_add(page, &item))
			return "no memory for a page";
	}
	/* one that is asked for so many may tell more of them at once: those are the next page's */
	more |= !bad && ty_s3_next_listed(&at, &left, op->a->s3->prefix, &listed, &bad);
	if (bad)
		return bad;
	if (more && !strcmp(last, l->place))
		return "its list does not go on";
	page->cursor.length = more ? (uint32_t)strlen(last) : 0;
	memcpy(page->cursor.bytes, last, page->cursor.length);
	return NULL;
}

static bool look_on(struct s3_op *op)
{
	struct s3_listing *l = op->list;

	for (; l->begun < op->io->page->count && l->out < S3_LIST_LOOKS; l->begun++, l->out++)
		if (!s3_request_new(op, S3_LOOK, l->begun))
			return false;
	return true;
}

/* Of one that is gone meanwhile, or is no chunk, nothing is known. False: no memory. */
static bool take_shape(struct s3_op *op, const struct s3_request *r)
{
	struct ty_tier_item *item = &op->io->page->item[r->number];
	struct ty_envelope e;
	struct ty_error err;

	if (r->at != r->end || ty_envelope_read(r->header, &e, &err) != TY_OK || memcmp(&e.key, &item->key, sizeof e.key) != 0)
		return true;
	item->parts = e.parts;
	return ty_tier_page_owned(op->io->page, item, &e.identity);
}

void s3_list_step(struct s3_op *op, struct s3_request *r, enum s3_end end)
{
	struct s3_listing *l = op->list;
	const char *bad = NULL;
	char why[sizeof r->why];

	if (r->kind == S3_LIST) {
		bad = end == S3_ANSWERED ? take_page(op) : end == S3_ABSENT ? "there is no such bucket" : r->why;
	} else {
		l->out--;
		if (end == S3_BROKEN)
			bad = r->why;
		else if (end == S3_ANSWERED && !take_shape(op, r))
			bad = "no memory for a page";
	}
	snprintf(why, sizeof why, "%s", bad ? bad : "");
	s3_request_free(r);
	if (!bad && op->io->page->shapes && !look_on(op))
		snprintf(why, sizeof why, "no memory");
	if (why[0])
		s3_op_end(op, TY_TIER_FAILED, why);
	else if (!l->out)
		s3_op_end(op, TY_TIER_DONE, NULL);
}
