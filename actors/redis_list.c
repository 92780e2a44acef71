/* SPDX-License-Identifier: Apache-2.0
 *
 * LIST. The nodes that have slots are asked for first (CLUSTER NODES; a server that is no cluster is the only one), and gone through in
 * the order of their addresses, so that a page's end says where the next one begins without anything being remembered here:
 *
 *   NODES --> SCAN --> HEADERS (HGET h, of each chunk that was found, if shapes are wanted)
 *              ^           |  not enough yet: on with the cursor, or with the next node
 *              +-----------+
 *
 * SCAN tells what is there from its beginning to its end at least once; a node that moves things about may tell it twice.
 */
#include "redis.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SCANS_MAX 32      /* of one page: so many times the server looks, whatever it finds */
#define COUNT_MIN 16      /* and so many places at a time */
#define COUNT_MAX 256
#define SCAN_ELEMENTS 4096 /* it may find more than it looked at: all that hashes alike */
#define SCAN_BYTES (SCAN_ELEMENTS * (REDIS_NAME_MAX + 16))
#define NODES_BYTES (1u << 20) /* of the list of nodes: each says its slots */

enum step { NODES, SCAN, HEADERS };

struct redis_listing {
	struct redis_actor *a;
	struct ty_tier_io *io;         /* null: was answered */
	enum step step;
	struct ty_redis_node node[REDIS_NODES];
	uint32_t node_count, at;       /* the one that is scanned */
	uint64_t cursor;
	uint32_t scans, out;           /* commands that are out */
	uint32_t first;                /* item of the page from which on headers are missing */
	char why[100];                 /* it has failed */
};

struct ty_tier_io **redis_listing_io(struct redis_listing *l)
{
	return &l->io;
}

const struct ty_key *redis_listing_key(const struct redis_listing *l, uint32_t i)
{
	return l->step == HEADERS ? &l->io->page->item[i].key : NULL;
}

/* ---- where it stands -------------------------------------------------------------------------------------- */

/* A cursor is a node, port first, and the node's own cursor. */
#define PLACE_BYTES (sizeof(uint64_t) + sizeof(uint16_t))

static void write_place(const struct redis_listing *l, struct ty_tier_cursor *out)
{
	const struct ty_redis_node *n = &l->node[l->at];

	memcpy(out->bytes, &l->cursor, sizeof l->cursor);
	memcpy(out->bytes + sizeof l->cursor, &n->port, sizeof n->port);
	out->length = (uint32_t)(PLACE_BYTES + strlen(n->host));
	memcpy(out->bytes + PLACE_BYTES, n->host, strlen(n->host));
}

static bool read_place(struct redis_listing *l, const struct ty_tier_cursor *c)
{
	l->at = 0;
	l->cursor = 0;
	if (!c->length)
		return true;
	if (c->length <= PLACE_BYTES)
		return false;
	memcpy(&l->cursor, c->bytes, sizeof l->cursor);
	for (; l->at < l->node_count; l->at++) {
		const struct ty_redis_node *n = &l->node[l->at];

		if (strlen(n->host) == c->length - PLACE_BYTES && !memcmp(n->host, c->bytes + PLACE_BYTES, c->length - PLACE_BYTES) &&
			!memcmp(&n->port, c->bytes + sizeof l->cursor, sizeof n->port))
			return true;
	}
	return false;
}

/* ---- commands ------------------------------------------------------------------------------------------------ */

static void fail(struct redis_listing *l, const char *why)
{
	if (!l->why[0])
		snprintf(l->why, sizeof l->why, "%.99s", why[0] ? why : "an error without a word");
}

/* A command of the listing's own words, to that node. */
static void send_words(struct redis_listing *l, struct redis_node *node, int count, const char *const *words,
	const struct redis_bounds *bounds)
{
	struct redis_command *c = node ? redis_command_new(l->a, NULL) : NULL;
	size_t lengths[8];

	if (!c) {
		fail(l, node ? "no memory" : "no server can be reached");
		return;
	}
	for (int i = 0; i < count; i++)
		lengths[i] = strlen(words[i]);
	c->listing = l;
	c->node = node;
	if (redis_send(node->c, redis_on_reply, c, bounds, count, words, lengths)) {
		l->out++;
		return;
	}
	fail(l, "no memory");
	redis_command_free(c);
}

static struct redis_node *node_now(struct redis_listing *l)
{
	struct redis_node *node = redis_node_at(l->a, l->node[l->at].host, l->node[l->at].port);

	return node && redis_node_connect(node) ? node : NULL;
}

static void scan(struct redis_listing *l)
{
	const struct ty_tier_page *page = l->io->page;
	uint32_t left = page->wanted > page->count ? page->wanted - page->count : 0;
	char cursor[24], count[12], pattern[2 * sizeof l->a->redis->prefix + 2 * TY_KEY_BYTES + 2];
	const char *words[] = {"SCAN", cursor, "MATCH", pattern, "COUNT", count};

	l->step = SCAN;
	l->scans++;
	snprintf(cursor, sizeof cursor, "%llu", (unsigned long long)l->cursor);
	snprintf(count, sizeof count, "%u", left < COUNT_MIN ? COUNT_MIN : left > COUNT_MAX ? COUNT_MAX : left);
	ty_redis_pattern(l->a->redis->prefix, page->prefix.bytes, page->prefix_length, pattern, sizeof pattern);
	send_words(l, node_now(l), 6, words, &(struct redis_bounds){.bytes = SCAN_BYTES, .elements = 2 + SCAN_ELEMENTS});
}

static void read_headers(struct redis_listing *l)
{
	const struct ty_tier_page *page = l->io->page;
	struct redis_node *node = node_now(l);

	l->step = HEADERS;
	for (uint32_t i = l->first; i < page->count && !l->why[0]; i++) {
		struct redis_command *c = node ? redis_command_new(l->a, NULL) : NULL;

		if (!c) {
			fail(l, node ? "no memory" : "no server can be reached");
			break;
		}
		c->listing = l;
		c->key = i;
		if (redis_command_send(c, node, false)) {
			l->out++;
			continue;
		}
		fail(l, "no memory");
		redis_command_free(c);
	}
}

/* ---- replies --------------------------------------------------------------------------------------------------- */

static int compare(const void *a, const void *b)
{
	const struct ty_redis_node *x = a, *y = b;
	int order = strcmp(x->host, y->host);

	return order ? order : x->port - y->port;
}

static void take_nodes(struct redis_listing *l, const struct redis_node *from, const redisReply *r)
{
	const char *text = r->str, *bad = "its list of nodes is no text";
	size_t left = r->type == REDIS_REPLY_STRING ? (size_t)r->len : 0;
	struct ty_redis_node node;

	while (left && ty_redis_next_master(&text, &left, &node, &bad)) {
		if (!node.host[0])
			strcpy(node.host, from->host);
		if (l->node_count == REDIS_NODES) {
			fail(l, "it has too many nodes");
			return;
		}
		l->node[l->node_count++] = node;
	}
	if (bad || !l->node_count)
		fail(l, bad ? bad : "no node of it has slots");
	qsort(l->node, l->node_count, sizeof l->node[0], compare);
}

/* A server that is no cluster, or knows of none, has everything. */
static void take_refusal(struct redis_listing *l, const struct redis_node *from, const char *text)
{
	if (!strstr(text, "cluster support disabled") && !strstr(text, "unknown command")) {
		fail(l, text);
		return;
	}
	l->node_count = 1;
	strcpy(l->node[0].host, from->host);
	l->node[0].port = (uint16_t)from->port;
}

static bool is_listed(const struct ty_tier_page *page, const struct ty_key *key)
{
	for (uint32_t i = 0; i < page->count; i++)
		if (!memcmp(&page->item[i].key, key, sizeof *key))
			return true;
	return false;
}

static void take_names(struct redis_listing *l, const redisReply *r)
{
	struct ty_tier_page *page = l->io->page;

	if (r->type != REDIS_REPLY_ARRAY || r->elements != 2 || r->element[0]->type != REDIS_REPLY_STRING ||
		r->element[1]->type != REDIS_REPLY_ARRAY || !r->element[0]->len || strspn(r->element[0]->str, "0123456789") != (size_t)r->element[0]->len) {
		fail(l, "SCAN's reply is none");
		return;
	}
	l->cursor = strtoull(r->element[0]->str, NULL, 10);
	l->first = page->count;
	for (size_t i = 0; i < r->element[1]->elements; i++) {
		const redisReply *name = r->element[1]->element[i];
		struct ty_tier_item item = {.bytes = 0};

		if (name->type != REDIS_REPLY_STRING || !ty_redis_key(name->str, (size_t)name->len, l->a->redis->prefix, item.key.bytes))
			continue; /* somebody else's */
		if (!is_listed(page, &item.key) && !ty_tier_page_add(page, &item)) {
			fail(l, "no memory for a page");
			return;
		}
	}
}

/* Of one that is gone meanwhile there is none. One that is wrong stays without: it is there. */
static void take_header(struct redis_listing *l, uint32_t i, const redisReply *r)
{
	struct ty_tier_item *item = &l->io->page->item[i];
	struct ty_envelope e;

	if (!redis_read_header(r, &item->key, &e))
		return;
	if (!ty_tier_page_owned(l->io->page, item, &e.identity))
		fail(l, "no memory for a page");
	item->parts = e.parts;
	item->bytes = ty_envelope_total(&e);
}

static void forget(struct redis_listing *l)
{
	if (l->io)
		ty_tier_complete(l->a->tier, l->io, l->why[0] ? TY_TIER_FAILED : TY_TIER_DONE, l->why[0] ? "%s" : NULL, l->why);
	free(l);
}

/* Nothing is out: the next step. */
static void go_on(struct redis_listing *l)
{
	while (l->io && !l->out && !l->why[0]) {
		struct ty_tier_page *page = l->io->page;

		if (l->step == NODES && !read_place(l, &page->cursor)) {
			fail(l, "the cursor names no node that is here");
			break;
		}
		if (l->step == SCAN && page->shapes && l->first < page->count) {
			read_headers(l);
			continue;
		}
		if (l->step != NODES && !l->cursor && ++l->at == l->node_count) {
			page->cursor.length = 0;
			break;
		}
		if (l->step != NODES && (page->count >= page->wanted || l->scans == SCANS_MAX)) {
			write_place(l, &page->cursor);
			break;
		}
		scan(l);
	}
	if (!l->out)
		forget(l);
}

static void over(struct redis_command *c)
{
	struct redis_listing *l = c->listing;

	redis_command_free(c);
	if (--l->out == 0)
		go_on(l);
}

void redis_listing_reply(struct redis_command *c, const redisReply *r)
{
	struct redis_listing *l = c->listing;

	if (!r)
		fail(l, "the connection is over");
	else if (l->step == NODES)
		take_nodes(l, c->node, r);
	else if (l->step == SCAN)
		take_names(l, r);
	else
		take_header(l, c->key, r);
	over(c);
}

void redis_listing_fail(struct redis_command *c, const char *why)
{
	struct redis_listing *l = c->listing;

	if (l->step == NODES)
		take_refusal(l, c->node, why);
	else if (l->step != HEADERS || strncmp(why, "WRONGTYPE", 9) != 0) /* else it is no chunk, and bears a chunk's name */
		fail(l, why);
	over(c);
}

void redis_list(struct redis_actor *a, struct ty_tier_io *io)
{
	struct redis_listing *l = calloc(1, sizeof *l);
	const char *words[] = {"CLUSTER", "NODES"};

	if (!l) {
		ty_tier_complete(a->tier, io, TY_TIER_FAILED, "no memory");
		return;
	}
	l->a = a;
	l->io = io;
	send_words(l, redis_node_of(a, ""), 2, words, &(struct redis_bounds){.bytes = NODES_BYTES});
	if (!l->out)
		forget(l);
}
