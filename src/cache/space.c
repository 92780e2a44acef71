/* SPDX-License-Identifier: Apache-2.0 */
#include "space.h"

#include <stdlib.h>
#include <string.h>

static bool same(const struct ty_identity *a, const struct ty_identity *b)
{
	return !strcmp(a->tenant, b->tenant) && !strcmp(a->model, b->model) && !strcmp(a->revision, b->revision) &&
	       !strcmp(a->dtype, b->dtype) && !strcmp(a->quantization, b->quantization);
}

uint16_t ty_spaces_number(struct ty_spaces *spaces, const struct ty_identity *identity)
{
	struct ty_identity *copy;

	for (uint32_t i = 0; i < spaces->count; i++)
		if (same(atomic_load_explicit(&spaces->identity[i], memory_order_relaxed), identity))
			return (uint16_t)(i + 1);
	if (spaces->count == TY_MAX_SPACES)
		return 0;
	copy = malloc(sizeof *copy);
	if (!copy)
		return 0;
	*copy = *identity;
	/* release: pairs with ty_spaces_identity */
	atomic_store_explicit(&spaces->identity[spaces->count], copy, memory_order_release);
	return (uint16_t)++spaces->count;
}

const struct ty_identity *ty_spaces_identity(const struct ty_spaces *spaces, uint16_t number)
{
	if (number == 0 || number > TY_MAX_SPACES)
		return NULL;
	/* acquire: pairs with ty_spaces_number */
	return atomic_load_explicit(&spaces->identity[number - 1], memory_order_acquire);
}

void ty_spaces_clear(struct ty_spaces *spaces)
{
	for (uint32_t i = 0; i < spaces->count; i++)
		free(atomic_load_explicit(&spaces->identity[i], memory_order_relaxed));
	spaces->count = 0;
}
