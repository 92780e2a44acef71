/* SPDX-License-Identifier: Apache-2.0
 *
 * Do the runs of a layout overlap? A plane is a comb: runs of one length at one stride. Two combs of one stride overlap exactly
 * when their spans (first byte to last) overlap and their teeth do, taken modulo the stride: if a tooth of the earlier comb
 * past its last one would touch, then its last one touches too, because the spans overlap. So a sweep by the spans' starts, with
 * the teeth of the open combs in a set that is ordered round the circle of the stride, needs to look at neighbours only.
 *
 * Combs of different strides are not compared tooth by tooth: their spans must be apart.
 */
#include "layout_overlap.h"

#include <stdlib.h>
#include <string.h>

#define COMBS_MAX (TY_MAX_GROUPS * TY_MAX_PLANES)
#define WORDS (COMBS_MAX / 64)

struct comb {
	uint64_t start, end, stride; /* in its allocation; end: after the last run */
	uint64_t residue;            /* start modulo stride */
	uint32_t allocation;         /* first region of the same allocation */
	uint32_t run, group, plane;
	uint32_t rank;               /* by residue, among the combs of its allocation and stride */
};

/* A set of ranks with neighbours in a few instructions. */
struct set {
	uint64_t word[WORDS], some[WORDS / 64]; /* some: which words are not 0 */
};

struct sweep {
	struct comb *combs;            /* of one allocation and stride, by start */
	uint32_t count;
	uint32_t *by_rank, *by_end;    /* indices into combs */
	struct set open[TY_MAX_GROUPS];
};

static void set_add(struct set *set, uint32_t rank)
{
	set->word[rank / 64] |= 1ull << (rank % 64);
	set->some[rank / 4096] |= 1ull << (rank / 64 % 64);
}

static void set_remove(struct set *set, uint32_t rank)
{
	set->word[rank / 64] &= ~(1ull << (rank % 64));
	if (!set->word[rank / 64])
		set->some[rank / 4096] &= ~(1ull << (rank / 64 % 64));
}

/* The smallest member >= rank, or UINT32_MAX. */
static uint32_t set_at_or_after(const struct set *set, uint32_t rank)
{
	uint32_t w = rank / 64;
	uint64_t bits = rank < COMBS_MAX ? set->word[w] & ~0ull << (rank % 64) : 0;

	if (bits)
		return w * 64 + (uint32_t)__builtin_ctzll(bits);
	for (uint32_t next = w + 1; next < WORDS; next = (next / 64 + 1) * 64) {
		bits = set->some[next / 64] & ~0ull << (next % 64);
		if (bits) {
			w = next / 64 * 64 + (uint32_t)__builtin_ctzll(bits);
			return w * 64 + (uint32_t)__builtin_ctzll(set->word[w]);
		}
	}
	return UINT32_MAX;
}

/* The largest member < rank, or UINT32_MAX. */
static uint32_t set_before(const struct set *set, uint32_t rank)
{
	uint32_t w = rank / 64;
	uint64_t bits = w < WORDS ? set->word[w] & ~(~0ull << (rank % 64)) : 0;

	if (bits)
		return w * 64 + 63 - (uint32_t)__builtin_clzll(bits);
	for (uint32_t past = w; past > 0; past = (past - 1) / 64 * 64) {
		uint32_t last = past - 1;

		bits = set->some[last / 64] & ~0ull >> (63 - last % 64);
		if (bits) {
			w = last / 64 * 64 + 63 - (uint32_t)__builtin_clzll(bits);
			return w * 64 + 63 - (uint32_t)__builtin_clzll(set->word[w]);
		}
	}
	return UINT32_MAX;
}

static int order(uint64_t a, uint64_t b)
{
	return (a > b) - (a < b);
}

static int by_start(const void *left, const void *right)
{
	const struct comb *a = left, *b = right;

	if (a->allocation != b->allocation)
		return order(a->allocation, b->allocation);
	return order(a->start, b->start);
}

static int by_stride_and_start(const void *left, const void *right)
{
	const struct comb *a = left, *b = right;

	if (a->allocation != b->allocation)
		return order(a->allocation, b->allocation);
	if (a->stride != b->stride)
		return order(a->stride, b->stride);
	return order(a->start, b->start);
}

static int by_residue(const void *left, const void *right, void *combs)
{
	const struct comb *a = (const struct comb *)combs + *(const uint32_t *)left;
	const struct comb *b = (const struct comb *)combs + *(const uint32_t *)right;
	int o = order(a->residue, b->residue);

	return o ? o : order(a->start, b->start);
}

static int by_end(const void *left, const void *right, void *combs)
{
	const struct comb *a = (const struct comb *)combs + *(const uint32_t *)left;
	const struct comb *b = (const struct comb *)combs + *(const uint32_t *)right;

	return order(a->end, b->end);
}

static enum ty_code refuse(const struct comb *a, const struct comb *b, struct ty_error *err)
{
	return ty_fail(err, TY_INVALID,
		"groups[%u].planes[%u] and groups[%u].planes[%u]: their runs overlap (from %llu and %llu of one allocation, "
		"run_bytes %u and %u, block_stride %llu and %llu)", a->group, a->plane, b->group, b->plane,
		(unsigned long long)a->start, (unsigned long long)b->start, a->run, b->run,
		(unsigned long long)a->stride, (unsigned long long)b->stride);
}

/* Do teeth of `early` and `late` touch, modulo their stride? */
static bool touch(const struct comb *early, const struct comb *late)
{
	uint64_t apart = late->residue >= early->residue ? late->residue - early->residue
							 : late->residue + (late->stride - early->residue);

	return apart < early->run || late->stride - apart < late->run;
}

static void join_pages(struct ty_layout *layout, uint32_t a, uint32_t b)
{
	uint32_t keep = layout->groups[a].page_group, drop = layout->groups[b].page_group;

	if (keep == drop)
		return;
	if (keep > drop) {
		uint32_t swap = keep;

		keep = drop;
		drop = swap;
	}
	for (uint32_t i = 0; i < layout->group_count; i++)
		if (layout->groups[i].page_group == drop)
			layout->groups[i].page_group = keep;
}

/* Teeth of two combs touch: fine only between groups, and only where both have the same block id. `late` starts at or after
 * `early`; block i of it then meets block i of early, and no other, when it lies inside one stride from early's. */
static enum ty_code judge(struct ty_layout *layout, const struct comb *early, const struct comb *late,
	struct ty_error *err)
{
	uint64_t apart = late->start - early->start;
	bool only_block = early->end - early->start == early->run;

	if (early->group == late->group || apart >= early->run ||
		(apart + late->run > early->stride && !only_block))
		return refuse(early, late, err);
	join_pages(layout, early->group, late->group);
	return TY_OK;
}

/* Compare `late` with the open combs of one group: the one before it on the circle, and those after it while they touch. */
static enum ty_code compare(struct ty_layout *layout, const struct sweep *s, uint32_t group,
	const struct comb *late, struct ty_error *err)
{
	const struct set *open = &s->open[group];
	uint32_t before = set_before(open, late->rank), first, next;

	if (before == UINT32_MAX)
		before = set_before(open, COMBS_MAX);
	if (before == UINT32_MAX)
		return TY_OK;
	if (touch(&s->combs[s->by_rank[before]], late)) {
		enum ty_code code = judge(layout, &s->combs[s->by_rank[before]], late, err);

		if (code != TY_OK)
			return code;
	}
	first = next = set_at_or_after(open, late->rank);
	if (first == UINT32_MAX)
		first = next = set_at_or_after(open, 0);
	while (touch(&s->combs[s->by_rank[next]], late)) {
		enum ty_code code = judge(layout, &s->combs[s->by_rank[next]], late, err);

		if (code != TY_OK)
			return code;
		next = set_at_or_after(open, next + 1);
		if (next == UINT32_MAX)
			next = set_at_or_after(open, 0);
		if (next == first)
			break;
	}
	return TY_OK;
}

static enum ty_code sweep_stride(struct ty_layout *layout, struct sweep *s, struct ty_error *err)
{
	uint32_t ended = 0;

	memset(s->open, 0, sizeof s->open);
	for (uint32_t i = 0; i < s->count; i++)
		s->by_rank[i] = s->by_end[i] = i;
	qsort_r(s->by_rank, s->count, sizeof *s->by_rank, by_residue, s->combs);
	qsort_r(s->by_end, s->count, sizeof *s->by_end, by_end, s->combs);
	for (uint32_t i = 0; i < s->count; i++)
		s->combs[s->by_rank[i]].rank = i;
	for (uint32_t i = 0; i < s->count; i++) {
		const struct comb *late = &s->combs[i];

		for (; s->combs[s->by_end[ended]].end <= late->start; ended++) {
			const struct comb *gone = &s->combs[s->by_end[ended]];

			set_remove(&s->open[gone->group], gone->rank);
		}
		for (uint32_t g = 0; g < layout->group_count; g++) {
			enum ty_code code = compare(layout, s, g, late, err);

			if (code != TY_OK)
				return code;
		}
		set_add(&s->open[late->group], late->rank);
	}
	return TY_OK;
}

/* Spans of different strides are apart: for each comb, in order of their starts, none of another stride that began before ends
 * after its start. It is enough to know the furthest end, and the furthest of another stride than that one's. */
static enum ty_code check_strides(const struct comb *combs, uint32_t count, struct ty_error *err)
{
	const struct comb *furthest = NULL, *other = NULL;

	for (uint32_t i = 0; i < count; i++) {
		const struct comb *c = &combs[i], *rival;

		if (furthest && furthest->allocation != c->allocation)
			furthest = other = NULL;
		rival = furthest && furthest->stride != c->stride ? furthest : other;
		if (rival && rival->end > c->start)
			return refuse(rival, c, err);
		if (!furthest || c->stride == furthest->stride) {
			if (!furthest || c->end > furthest->end)
				furthest = c;
		} else if (c->end > furthest->end) {
			other = furthest;
			furthest = c;
		} else if (!other || c->end > other->end) {
			other = c;
		}
	}
	return TY_OK;
}

static bool has_descriptors(const struct ty_region *r)
{
	return r->is_fd || r->segment_count;
}

/* Or its number: each stands in one place only, so pieces are shared whole or not at all. */
static int first_descriptor(const struct ty_region *r)
{
	return r->segment_count ? r->segments[0].fd : r->fd;
}

static uint32_t allocation_of(const struct ty_region *regions, uint32_t index, bool apart)
{
	for (uint32_t i = 0; i < index && !apart; i++) {
		const struct ty_region *a = &regions[i], *b = &regions[index];

		if (has_descriptors(a) != has_descriptors(b))
			continue;
		if (has_descriptors(a) ? first_descriptor(a) == first_descriptor(b)
				       : !memcmp(a->ipc_handle, b->ipc_handle, TY_IPC_HANDLE_BYTES))
			return i;
	}
	return index;
}

static void lay_out_combs(const struct ty_layout *layout, const struct ty_region *regions, bool apart, struct comb *combs)
{
	uint32_t allocation[TY_MAX_REGIONS];

	for (uint32_t i = 0; i < layout->region_count; i++)
		allocation[i] = allocation_of(regions, i, apart);
	for (uint32_t i = 0; i < layout->group_count; i++) {
		const struct ty_layout_group *g = &layout->groups[i];

		for (uint32_t p = 0; p < g->plane_count; p++) {
			const struct ty_plane *plane = &layout->planes[g->first_plane + p];
			struct comb *c = combs++;

			c->allocation = allocation[plane->region];
			c->start = regions[plane->region].offset + plane->offset;
			c->stride = g->block_stride;
			c->end = c->start + (uint64_t)(g->block_count - 1) * g->block_stride + g->run_bytes;
			c->residue = c->start % c->stride;
			c->run = g->run_bytes;
			c->group = i;
			c->plane = p;
		}
	}
}

enum ty_code ty_layout_check_overlap(struct ty_layout *layout, const struct ty_region *regions, bool apart, struct ty_error *err)
{
	uint32_t count = layout->plane_count, next;
	struct comb *combs = calloc(count, sizeof *combs);
	uint32_t *indices = calloc(count, 2 * sizeof *indices);
	struct sweep *s = calloc(1, sizeof *s);
	enum ty_code code;

	if (!combs || !indices || !s) {
		code = ty_fail(err, TY_NO_MEMORY, "no memory to check %u planes", count);
		goto out;
	}
	lay_out_combs(layout, regions, apart, combs);
	qsort(combs, count, sizeof *combs, by_start);
	code = check_strides(combs, count, err);
	qsort(combs, count, sizeof *combs, by_stride_and_start);
	for (uint32_t i = 0; i < count && code == TY_OK; i = next) {
		for (next = i + 1; next < count && combs[next].allocation == combs[i].allocation &&
			combs[next].stride == combs[i].stride; next++)
			;
		s->combs = combs + i;
		s->count = next - i;
		s->by_rank = indices;
		s->by_end = indices + count;
		code = sweep_stride(layout, s, err);
	}
out:
	free(s);
	free(indices);
	free(combs);
	return code;
}
