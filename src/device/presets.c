/* SPDX-License-Identifier: Apache-2.0 */
#include <tyer/presets.h>

#include <string.h>

/* What a region holds. */
enum part { POOL, LAYER, PLANE };

struct preset {
	const char *name, *format;
	enum part part;
	uint32_t planes;    /* of a layer */
	bool blocks_first;  /* all planes of a region lie in each block */
	bool one_head;
};

static const struct preset presets[] = {
	{"cross-layer-nhd", "NHD", POOL, 2, true, false},
	{"cross-layer-hnd", "HND", POOL, 2, true, false},
	{"cross-layer-fused-nhd", "NHD", POOL, 1, true, false},
	{"cross-layer-fused-hnd", "HND", POOL, 1, true, false},
	{"kv-first-nhd", "NHD", LAYER, 2, false, false},
	{"kv-first-hnd", "HND", LAYER, 2, false, false},
	{"blocks-first-nhd", "NHD", LAYER, 2, true, false},
	{"blocks-first-hnd", "HND", LAYER, 2, true, false},
	{"fused-nhd", "NHD", LAYER, 1, true, false},
	{"fused-hnd", "HND", LAYER, 1, true, false},
	{"split-nhd", "NHD", PLANE, 2, true, false},
	{"split-hnd", "HND", PLANE, 2, true, false},
	{"mla", "", LAYER, 1, true, true},
	{"pages", "", LAYER, 1, true, true},
};
#define PRESETS (sizeof presets / sizeof presets[0])

static const struct preset *find(const char *name)
{
	for (size_t i = 0; name && i < PRESETS; i++)
		if (!strcmp(presets[i].name, name))
			return &presets[i];
	return NULL;
}

const char *ty_preset_name(uint32_t index)
{
	return index < PRESETS ? presets[index].name : NULL;
}

const char *ty_preset_format(const char *name)
{
	const struct preset *p = find(name);

	return p ? p->format : NULL;
}

static enum ty_code check(const struct preset *p, const char *name, const struct ty_preset_shape *s, struct ty_error *err)
{
	if (!p)
		return ty_fail(err, TY_INVALID, "preset: \"%.64s\", expected one of those that presets.h lists", name ? name : "");
	if (!s->layers || !s->blocks || !s->block_tokens || !s->heads || !s->head_bytes)
		return ty_fail(err, TY_INVALID,
			"preset %s: layers %u, blocks %u, block_tokens %u, heads %u, head_bytes %u, expected none of them to be 0",
			name, s->layers, s->blocks, s->block_tokens, s->heads, s->head_bytes);
	if (p->one_head && s->heads != 1)
		return ty_fail(err, TY_INVALID, "preset %s: heads %u, expected 1", name, s->heads);
	return TY_OK;
}

enum ty_code ty_preset_group(const char *name, const struct ty_preset_shape *s, uint32_t first_region,
	struct ty_group *group, struct ty_plane *planes, uint32_t plane_room, uint32_t *region_count, uint64_t *region_bytes,
	struct ty_error *err)
{
	const struct preset *p = find(name);
	enum ty_code code = check(p, name, s, err);
	uint64_t run, stride, bytes;
	uint32_t count, in_region, regions, last;

	if (code != TY_OK)
		return code;
	if (__builtin_mul_overflow(s->layers, p->planes, &count) || count > plane_room)
		return ty_fail(err, TY_LIMIT, "preset %s: %u layers of %u planes, there is room for %u planes", name, s->layers,
			p->planes, plane_room);
	if (__builtin_mul_overflow((uint64_t)s->block_tokens * s->heads, (uint64_t)s->head_bytes, &run) || run > UINT32_MAX)
		return ty_fail(err, TY_INVALID, "preset %s: block_tokens %u x heads %u x head_bytes %u, expected less than 4 GiB",
			name, s->block_tokens, s->heads, s->head_bytes);
	in_region = p->part == POOL ? count : p->part == LAYER ? p->planes : 1;
	regions = count / in_region;
	if (__builtin_add_overflow(first_region, regions, &last))
		return ty_fail(err, TY_INVALID, "preset %s: first_region %u", name, first_region);
	/* run < 2^32 and in_region < 2^32: the stride fits; the region may not */
	stride = p->blocks_first ? run * in_region : run;
	if (__builtin_add_overflow(stride, (uint64_t)s->padding, &stride) ||
		__builtin_mul_overflow(stride, (uint64_t)s->blocks, &bytes) ||
		(!p->blocks_first && __builtin_mul_overflow(bytes, (uint64_t)in_region, &bytes)))
		return ty_fail(err, TY_INVALID, "preset %s: %u blocks of %llu bytes do not fit 64 bits", name, s->blocks,
			(unsigned long long)stride);
	for (uint32_t i = 0; i < count; i++) {
		/* planes of a slot go layer by layer, K before V, whatever the pool's order is */
		uint32_t layer = i / p->planes, kv = i % p->planes, within = i % in_region;

		planes[i].region = first_region + (p->part == PLANE ? kv * s->layers + layer : i / in_region);
		planes[i].offset = within * (p->blocks_first ? run : stride * s->blocks);
	}
	*group = (struct ty_group){.block_tokens = s->block_tokens, .block_count = s->blocks, .block_stride = stride,
		.run_bytes = (uint32_t)run, .plane_count = count, .planes = planes};
	*region_count = regions;
	*region_bytes = bytes;
	return TY_OK;
}
