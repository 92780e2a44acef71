/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/spare.h"

#include <stdlib.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define POISON 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define POISON 1
#endif
#ifdef POISON
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, size) ((void)(at), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(at, size) ((void)(at), (void)(size))
#endif

struct ty_spare {
	struct ty_spare *next;
};

/* The class of a state's size; TY_SPARE_CLASSES: none. */
static size_t class_of(size_t state)
{
	size_t class = (state + TY_SPARE_UNIT - 1 - TY_SPARE_FIRST) / TY_SPARE_UNIT;

	return class < TY_SPARE_CLASSES ? class : TY_SPARE_CLASSES;
}

static size_t size_of(size_t class, size_t base)
{
	return base + TY_SPARE_FIRST + class * TY_SPARE_UNIT;
}

/* As large as its class says, whoever allocates it: another may put it where pieces of the class are. */
static void *fresh(size_t class, size_t base, size_t state)
{
	return malloc(class < TY_SPARE_CLASSES ? size_of(class, base) : base + state);
}

static void free_list(struct ty_spare *first)
{
	while (first) {
		struct ty_spare *next = first->next;

		ASAN_UNPOISON_MEMORY_REGION(first, sizeof *first);
		free(first);
		first = next;
	}
}

/* ---- the depot ----------------------------------------------------------------------------- */

/* Null: there is none. acquire: pairs with depot_put. */
static struct ty_spare *depot_take(struct ty_depot *depot, size_t class)
{
	for (size_t i = 0; i < TY_SPARE_PLACES; i++) {
		_Atomic(struct ty_spare *) *place = &depot->places[class][i];
		struct ty_spare *batch;

		if (!atomic_load_explicit(place, memory_order_relaxed))
			continue;
		batch = atomic_exchange_explicit(place, NULL, memory_order_acquire);
		if (batch)
			return batch;
	}
	return NULL;
}

/* release: pairs with depot_take. Where all places are taken, enough is kept. */
static void depot_put(struct ty_depot *depot, size_t class, struct ty_spare *batch)
{
	for (size_t i = 0; i < TY_SPARE_PLACES; i++) {
		_Atomic(struct ty_spare *) *place = &depot->places[class][i];
		struct ty_spare *none = NULL;

		if (!atomic_load_explicit(place, memory_order_relaxed) &&
			atomic_compare_exchange_strong_explicit(
				place, &none, batch, memory_order_release, memory_order_relaxed))
			return;
	}
	free_list(batch);
}

void ty_depot_free(struct ty_depot *depot)
{
	for (size_t class = 0; class < TY_SPARE_CLASSES; class++)
		for (size_t i = 0; i < TY_SPARE_PLACES; i++)
			free_list(atomic_load_explicit(&depot->places[class][i], memory_order_acquire));
}

/* ---- a thread's ---------------------------------------------------------------------------- */

void *ty_spare_take(struct ty_spares *spares, struct ty_depot *depot, size_t base, size_t state)
{
	size_t class = class_of(state);
	struct ty_spare_stock *stock;
	struct ty_spare *first;

	if (!spares || class == TY_SPARE_CLASSES)
		return fresh(class, base, state);
	stock = &spares->classes[class];
	if (!stock->count) {
		stock->loose = stock->batch ? stock->batch : depot_take(depot, class);
		stock->batch = NULL;
		if (!stock->loose)
			return fresh(class, base, state);
		stock->count = TY_SPARE_BATCH;
	}
	first = stock->loose;
	ASAN_UNPOISON_MEMORY_REGION(first, size_of(class, base));
	stock->loose = first->next;
	stock->count--;
	return first;
}

void ty_spare_put(struct ty_spares *spares, struct ty_depot *depot, void *memory, size_t base, size_t state)
{
	size_t class = class_of(state);
	struct ty_spare_stock *stock;
	struct ty_spare *spare = memory;

	if (!spares || class == TY_SPARE_CLASSES) {
		free(memory);
		return;
	}
	stock = &spares->classes[class];
	if (stock->count == TY_SPARE_BATCH) {
		if (stock->batch)
			depot_put(depot, class, stock->batch);
		stock->batch = stock->loose;
		stock->loose = NULL;
		stock->count = 0;
	}
	spare->next = stock->loose;
	stock->loose = spare;
	stock->count++;
	ASAN_POISON_MEMORY_REGION(spare + 1, size_of(class, base) - sizeof *spare);
}

void ty_spares_free(struct ty_spares *spares)
{
	for (size_t class = 0; class < TY_SPARE_CLASSES; class++) {
		free_list(spares->classes[class].loose);
		free_list(spares->classes[class].batch);
	}
}
