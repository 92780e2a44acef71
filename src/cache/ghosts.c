/* SPDX-License-Identifier: Apache-2.0 */
#include "ghosts.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define NONE UINT32_MAX
#define ROOM_MIN 1024u

struct ty_ghost {
	uint64_t id;
	uint32_t older, newer; /* in its list; a free one's `newer` is the next free one */
	uint32_t chain;        /* the next of its bucket */
	uint32_t list;
};

void ty_ghosts_open(struct ty_ghosts *g)
{
	*g = (struct ty_ghosts){.free = NONE, .oldest = {NONE, NONE}, .youngest = {NONE, NONE}};
}

void ty_ghosts_close(struct ty_ghosts *g)
{
	free(g->ghosts);
	free(g->buckets);
	ty_ghosts_open(g);
}

/* Ids are digests' first bytes in the service, and anything at all elsewhere. */
static uint32_t *bucket_of(struct ty_ghosts *g, uint64_t id)
{
	return &g->buckets[(uint32_t)(id * 0x9e3779b97f4a7c15ull >> 32) & (g->room - 1)];
}

/* A bucket for each ghost there is room for. */
static bool grow(struct ty_ghosts *g)
{
	uint32_t room = g->room ? g->room * 2 : ROOM_MIN, *buckets;
	struct ty_ghost *ghosts;

	if (room > TY_GHOSTS_MAX)
		return false;
	buckets = malloc(room * sizeof *buckets);
	ghosts = buckets ? realloc(g->ghosts, room * sizeof *ghosts) : NULL;
	if (!ghosts) {
		free(buckets);
		return false;
	}
	free(g->buckets);
	g->buckets = buckets;
	g->ghosts = ghosts;
	memset(buckets, 0xff, room * sizeof *buckets);
	for (uint32_t i = room; i-- > g->room;) {
		ghosts[i].newer = g->free;
		g->free = i;
	}
	g->room = room;
	for (unsigned list = 0; list < 2; list++) {
		for (uint32_t i = g->oldest[list]; i != NONE; i = ghosts[i].newer) {
			uint32_t *bucket = bucket_of(g, ghosts[i].id);

			ghosts[i].chain = *bucket;
			*bucket = i;
		}
	}
	return true;
}

/* Out of bucket and list, given what points to it in its bucket. */
static void forget(struct ty_ghosts *g, uint32_t *link)
{
	uint32_t i = *link;
	struct ty_ghost *ghost = &g->ghosts[i];
	unsigned list = ghost->list;

	*link = ghost->chain;
	*(ghost->older == NONE ? &g->oldest[list] : &g->ghosts[ghost->older].newer) = ghost->newer;
	*(ghost->newer == NONE ? &g->youngest[list] : &g->ghosts[ghost->newer].older) = ghost->older;
	g->count[list]--;
	ghost->newer = g->free;
	g->free = i;
}

static uint32_t *find(struct ty_ghosts *g, uint64_t id)
{
	uint32_t *link = bucket_of(g, id);

	while (*link != NONE && g->ghosts[*link].id != id)
		link = &g->ghosts[*link].chain;
	return link;
}

int ty_ghosts_take(struct ty_ghosts *g, uint64_t id)
{
	uint32_t *link;
	int list;

	if (!g->room)
		return -1;
	link = find(g, id);
	if (*link == NONE)
		return -1;
	list = (int)g->ghosts[*link].list;
	forget(g, link);
	return list;
}

void ty_ghosts_add(struct ty_ghosts *g, uint64_t id, unsigned list)
{
	uint32_t *bucket, i;
	struct ty_ghost *ghost;

	assert(list < 2);
	(void)ty_ghosts_take(g, id);
	if (g->free == NONE && !grow(g))
		return;
	i = g->free;
	ghost = &g->ghosts[i];
	g->free = ghost->newer;
	bucket = bucket_of(g, id);
	*ghost = (struct ty_ghost){.id = id, .older = g->youngest[list], .newer = NONE, .chain = *bucket, .list = list};
	*bucket = i;
	*(ghost->older == NONE ? &g->oldest[list] : &g->ghosts[ghost->older].newer) = i;
	g->youngest[list] = i;
	g->count[list]++;
}

void ty_ghosts_drop_oldest(struct ty_ghosts *g, unsigned list)
{
	assert(g->count[list]);
	forget(g, find(g, g->ghosts[g->oldest[list]].id));
}

uint64_t ty_ghosts_bytes(const struct ty_ghosts *g)
{
	return g->room * (sizeof *g->ghosts + sizeof *g->buckets);
}
