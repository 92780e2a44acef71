/* SPDX-License-Identifier: Apache-2.0
 *
 * What LIST is answered with: pages of keys, and whose they are.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "tier.h"

#define FIRST_ROOM 16

/* ---- pages ------------------------------------------------------------------------------------------------- */

bool ty_tier_page_owned(struct ty_tier_page *page, struct ty_tier_item *item, const struct ty_identity *identity)
{
	uint32_t number;

	item->identity = NULL;
	if (!identity || !identity->model[0]) /* every identity has a model: without one it was not known when the chunk went down */
		return true;
	number = ty_tier_names_take(&page->names, identity); /* until the page is cleared */
	item->identity = ty_tier_names_at(&page->names, number);
	return number != 0;
}

bool ty_tier_page_add(struct ty_tier_page *page, const struct ty_tier_item *item)
{
	if (memcmp(item->key.bytes, page->prefix.bytes, page->prefix_length) != 0)
		return true;
	if (page->count == page->room) {
		uint32_t room = page->room ? 2 * page->room : 64;
		struct ty_tier_item *more = realloc(page->item, room * sizeof *more);

		if (!more)
			return false;
		page->item = more;
		page->room = room;
	}
	page->item[page->count] = *item;
	return ty_tier_page_owned(page, &page->item[page->count++], item->identity);
}

void ty_tier_page_clear(struct ty_tier_page *page)
{
	free(page->item);
	page->item = NULL;
	page->count = page->room = 0;
	ty_tier_names_clear(&page->names);
}

void ty_tier_tell_whose(struct ty_tier_io *io, const struct ty_identity *identity)
{
	io->known = io->whose && identity && identity->model[0];
	if (io->known)
		*io->whose = *identity;
}

/* ---- names ---------------------------------------------------------------------------------------------------- */

/* FNV-1a of its fields and their ends: what lies behind an end is nobody's. */
static uint32_t hash_of(const struct ty_identity *identity)
{
	const char *const fields[] = {identity->tenant, identity->model, identity->revision, identity->dtype, identity->quantization};
	uint32_t hash = 2166136261u;

	for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
		for (const char *c = fields[i];; c++) {
			hash = (hash ^ (uint8_t)*c) * 16777619u;
			if (!*c)
				break;
		}
	return hash;
}

static uint32_t *bucket_of(struct ty_tier_names *names, const struct ty_identity *identity)
{
	return &names->bucket[hash_of(identity) & (names->room - 1)];
}

static struct ty_tier_name *at(const struct ty_tier_names *names, uint32_t number)
{
	assert(number >= 1 && number <= names->given);
	return &names->name[number - 1];
}

/* Twice as many, so a step's cost is a few at each new one. */
static bool grow(struct ty_tier_names *names)
{
	uint32_t room = names->room ? 2 * names->room : FIRST_ROOM;
	struct ty_tier_name *more = room > names->room ? realloc(names->name, room * sizeof *more) : NULL;
	uint32_t *bucket = more ? calloc(room, sizeof *bucket) : NULL;

	if (more)
		names->name = more;
	if (!bucket)
		return false;
	free(names->bucket);
	names->bucket = bucket;
	names->room = room;
	for (uint32_t number = 1; number <= names->given; number++) { /* none is free now */
		uint32_t *first = bucket_of(names, at(names, number)->identity);

		at(names, number)->next = *first;
		*first = number;
	}
	return true;
}

uint32_t ty_tier_names_take(struct ty_tier_names *names, const struct ty_identity *identity)
{
	uint32_t number = names->room ? *bucket_of(names, identity) : 0, *first;
	struct ty_identity *copy;

	while (number && !ty_identity_is(at(names, number)->identity, identity))
		number = at(names, number)->next;
	if (number) {
		at(names, number)->uses++;
		return number;
	}
	if (!names->free && names->given == names->room && !grow(names))
		return 0;
	copy = malloc(sizeof *copy);
	if (!copy)
		return 0;
	*copy = *identity;
	number = names->free;
	if (number)
		names->free = at(names, number)->next;
	else
		number = ++names->given;
	first = bucket_of(names, identity);
	*at(names, number) = (struct ty_tier_name){copy, 1, *first};
	*first = number;
	names->count++;
	return number;
}

void ty_tier_names_drop(struct ty_tier_names *names, uint32_t number)
{
	struct ty_tier_name *name = number ? at(names, number) : NULL;
	uint32_t *link;

	if (!name || --name->uses)
		return;
	link = bucket_of(names, name->identity);
	while (*link != number)
		link = &at(names, *link)->next;
	*link = name->next;
	free(name->identity);
	*name = (struct ty_tier_name){NULL, 0, names->free};
	names->free = number;
	names->count--;
}

const struct ty_identity *ty_tier_names_at(const struct ty_tier_names *names, uint32_t number)
{
	return number ? at(names, number)->identity : NULL;
}

void ty_tier_names_clear(struct ty_tier_names *names)
{
	for (uint32_t number = 1; number <= names->given; number++)
		free(at(names, number)->identity);
	free(names->name);
	free(names->bucket);
	*names = (struct ty_tier_names){0};
}
