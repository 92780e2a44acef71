/* SPDX-License-Identifier: Apache-2.0
 *
 * Linear hashing: the table grows by one bucket whenever it is full, so that no growth stops the actor for longer than one
 * bucket takes, however many files there are.
 */
#include "disk.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define SEGMENT (1u << 14)
#define SEGMENTS (1u << 12)
#define FIRST_ROUND 1024u
#define LOOKS_MAX 4096 /* classes that one page looks at */

static uint64_t hash_of(const struct ty_key *key)
{
	uint64_t hash;

	memcpy(&hash, key->bytes + 8, sizeof hash); /* the first bytes name the folder */
	return hash;
}

static struct disk_entry **bucket_at(const struct disk_index *x, uint32_t bucket)
{
	return &x->segment[bucket / SEGMENT][bucket % SEGMENT];
}

static struct disk_entry **bucket_of(const struct disk_index *x, const struct ty_key *key)
{
	uint64_t hash = hash_of(key);
	uint32_t bucket = (uint32_t)(hash % (2 * (uint64_t)x->round));

	if (bucket >= x->buckets)
		bucket = (uint32_t)(hash % x->round);
	return bucket_at(x, bucket);
}

bool disk_index_init(struct disk_index *x, const struct ty_policy_class *policy)
{
	memset(x, 0, sizeof *x);
	x->segment[0] = calloc(SEGMENT, sizeof *x->segment[0]);
	x->buckets = x->round = FIRST_ROUND;
	if (x->segment[0] && disk_order_init(&x->order, policy))
		return true;
	free(x->segment[0]);
	x->segment[0] = NULL;
	return false;
}

void disk_index_clear(struct disk_index *x)
{
	for (uint32_t bucket = 0; x->segment[0] && bucket < x->buckets; bucket++)
		for (struct disk_entry *entry; (entry = *bucket_at(x, bucket));) {
			*bucket_at(x, bucket) = entry->next;
			free(entry);
		}
	for (uint32_t i = 0; i < SEGMENTS; i++)
		free(x->segment[i]);
	disk_order_close(&x->order);
	ty_tier_names_clear(&x->names);
	memset(x, 0, sizeof *x);
}

/* One more bucket: it takes its share of the one that had its keys until now. */
static void grow(struct disk_index *x)
{
	uint32_t segment = x->buckets / SEGMENT;
	struct disk_entry **link;

	if (segment >= SEGMENTS)
		return;
	if (!x->segment[segment])
		x->segment[segment] = calloc(SEGMENT, sizeof *x->segment[segment]);
	if (!x->segment[segment])
		return; /* longer chains */
	link = bucket_at(x, x->buckets - x->round);
	x->buckets++;
	while (*link) {
		struct disk_entry *entry = *link, **to = bucket_of(x, &entry->key);

		if (to == bucket_at(x, x->buckets - 1)) {
			*link = entry->next;
			entry->next = *to;
			*to = entry;
		} else {
			link = &entry->next;
		}
	}
	if (x->buckets == 2 * x->round)
		x->round *= 2;
}

struct disk_entry *disk_index_find(const struct disk_index *x, const struct ty_key *key)
{
	struct disk_entry *entry = *bucket_of(x, key);

	while (entry && memcmp(&entry->key, key, sizeof *key) != 0)
		entry = entry->next;
	return entry;
}

/* Of a table with `round` buckets: class `class` is next. */
struct place {
	uint64_t round, class;
};

/* What a cursor from outside says may be of another table: of one that was larger, before this process. */
static bool read_place(const struct disk_index *x, const struct ty_tier_cursor *cursor, struct place *out)
{
	*out = (struct place){x->round, 0};
	if (!cursor->length)
		return true;
	if (cursor->length != sizeof *out)
		return false;
	memcpy(out, cursor->bytes, sizeof *out);
	return out->round >= FIRST_ROUND && out->round <= x->round && !(out->round & (out->round - 1)) && out->class < out->round;
}

/* The table as it would be with `round` buckets (a power of two): what hashes alike there is together in the buckets at that
 * distance, however often the table has grown since. So a page is of whole such classes, and the cursor is a class and its round. */
enum ty_tier_outcome disk_index_page(const struct disk_index *x, struct ty_tier_page *page, const char **why)
{
	uint32_t looks = LOOKS_MAX;
	struct place at;

	*why = "the cursor is of no index that is here";
	if (!read_place(x, &page->cursor, &at))
		return TY_TIER_FAILED;
	*why = "no memory for a page";
	for (; at.class < at.round && page->count < page->wanted && looks; at.class++, looks--)
		for (uint64_t bucket = at.class; bucket < x->buckets; bucket += at.round)
			for (const struct disk_entry *e = *bucket_at(x, (uint32_t)bucket); e; e = e->next)
				if (!ty_tier_page_add(page, &(struct ty_tier_item){e->key, ty_tier_names_at(&x->names, e->name), e->bytes, e->parts}))
					return TY_TIER_FAILED;
	page->cursor.length = at.class < at.round ? sizeof at : 0;
	memcpy(page->cursor.bytes, &at, sizeof at);
	return TY_TIER_DONE;
}

/* ---- the order of use ---- */

void disk_index_touch(struct disk_index *x, struct disk_entry *entry)
{
	disk_order_touch(&x->order, entry);
}

void disk_index_remove(struct disk_index *x, struct disk_entry *entry, bool evicted)
{
	struct disk_entry **link = bucket_of(x, &entry->key);

	while (*link != entry)
		link = &(*link)->next;
	*link = entry->next;
	disk_order_remove(&x->order, entry, evicted);
	x->count--;
	x->bytes -= entry->bytes;
	ty_tier_names_drop(&x->names, entry->name);
	free(entry);
}

uint64_t disk_entry_stored(const struct disk_entry *entry, uint32_t part)
{
	uint32_t stored;

	if (!entry->packed)
		return 0;
	memcpy(&stored, (const char *)&entry->length[entry->parts] + part * sizeof stored, sizeof stored);
	return stored;
}

static void set_stored(struct disk_entry *entry, uint32_t part, uint64_t bytes)
{
	uint32_t stored = (uint32_t)bytes; /* less than TY_PIECE_BYTES */

	memcpy((char *)&entry->length[entry->parts] + part * sizeof stored, &stored, sizeof stored);
}

struct disk_entry *disk_index_put(struct disk_index *x, const struct disk_shape *shape, const struct ty_identity *whose, uint32_t folder,
	bool oldest)
{
	size_t each = sizeof(uint64_t) + (shape->stored ? sizeof(uint32_t) : 0);
	struct disk_entry *entry = malloc(sizeof *entry + shape->parts * each);
	struct disk_entry *before = disk_index_find(x, &shape->key), **link;

	static_assert(TY_CHUNK_MAX_PARTS <= UINT8_MAX && DISK_FOLDERS <= UINT8_MAX, "an entry counts them in a byte");
	if (!entry)
		return NULL;
	entry->name = whose ? ty_tier_names_take(&x->names, whose) : 0;
	if (whose && !entry->name) { /* who is looked for by his name would not be found */
		free(entry);
		return NULL;
	}
	if (before)
		disk_index_remove(x, before, false);
	entry->key = shape->key;
	entry->packed = shape->stored != NULL;
	entry->serial = ++x->serials;
	entry->folder = (uint8_t)folder;
	entry->parts = (uint8_t)shape->parts;
	memcpy(entry->length, shape->length, shape->parts * sizeof entry->length[0]);
	entry->bytes = TY_ENVELOPE_BYTES;
	for (uint32_t i = 0; i < shape->parts; i++) {
		uint64_t stored = shape->stored ? shape->stored[i] : 0;

		if (entry->packed)
			set_stored(entry, i, stored);
		entry->bytes += ty_envelope_padded(stored ? stored : shape->length[i]);
	}
	link = bucket_of(x, &entry->key);
	entry->next = *link;
	*link = entry;
	disk_order_add(&x->order, entry, oldest);
	x->count++;
	x->bytes += entry->bytes;
	if (x->count > x->buckets)
		grow(x);
	return entry;
}
