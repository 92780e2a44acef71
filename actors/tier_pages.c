/* SPDX-License-Identifier: Apache-2.0
 *
 * What LIST is answered with: pages of keys, and whose they are.
 */
#include <stdlib.h>
#include <string.h>

#include "tier.h"

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
	page->item[page->count++] = *item;
	return true;
}

void ty_tier_page_clear(struct ty_tier_page *page)
{
	free(page->item);
	page->item = NULL;
	page->count = page->room = 0;
}

uint16_t ty_tier_names_number(struct ty_tier_names *names, const struct ty_identity *identity)
{
	struct ty_identity *copy;

	for (uint32_t i = 0; i < names->count; i++)
		if (ty_identity_is(names->name[i], identity))
			return (uint16_t)(i + 1);
	copy = names->count < TY_MAX_SPACES ? malloc(sizeof *copy) : NULL;
	if (!copy)
		return 0;
	*copy = *identity;
	names->name[names->count++] = copy;
	return (uint16_t)names->count;
}

const struct ty_identity *ty_tier_names_at(const struct ty_tier_names *names, uint16_t number)
{
	return number ? names->name[number - 1] : NULL;
}

void ty_tier_names_clear(struct ty_tier_names *names)
{
	while (names->count)
		free(names->name[--names->count]);
}
