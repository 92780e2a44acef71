/* SPDX-License-Identifier: Apache-2.0 */
#include "geometry.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_FIELD 65536u /* of any one number of a geometry */
#define MAX_PLANES 1024u /* of a group, as the wire has it */

static const struct bench_geometry presets[] = {
	/* 4 x (K, V), 16 bytes a token and plane: 2 KiB runs, 64 KiB for 512 tokens */
	{"tiny", 4, 2, 1, 8, 128, 2, "bf16", BENCH_SPLIT},
	/* 2 KiB a token and plane: 32 KiB runs, 2 MiB a block of 16 tokens, 32 MiB a chunk of 256 */
	{"llama-3.1-8b", 32, 2, 8, 128, 16, 2, "bf16", BENCH_SPLIT},
};

static const struct {
	const char *name;
	uint32_t bytes;
} dtypes[] = {{"bf16", 2}, {"fp16", 2}, {"fp32", 4}, {"fp8_e4m3", 1}, {"fp8_e5m2", 1}};

static const char *const layouts[] = {"split", "interleaved", "cross-layer"};

const char *bench_layout_name(enum bench_layout layout)
{
	return layouts[layout];
}

static enum ty_code parse_number(const char *field, const char *value, uint32_t *out, struct ty_error *err)
{
	char *end;
	unsigned long number;

	errno = 0;
	number = strtoul(value, &end, 10);
	if (value[0] < '0' || value[0] > '9' || *end || errno || number == 0 || number > MAX_FIELD)
		return ty_fail(err, TY_INVALID, "geometry: %s=%s: expected a number from 1 to %u", field, value, MAX_FIELD);
	*out = (uint32_t)number;
	return TY_OK;
}

static enum ty_code set_dtype(struct bench_geometry *g, const char *value, struct ty_error *err)
{
	for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++) {
		if (strcmp(value, dtypes[i].name) == 0) {
			g->dtype = dtypes[i].name;
			g->dtype_bytes = dtypes[i].bytes;
			return TY_OK;
		}
	}
	return ty_fail(err, TY_INVALID, "geometry: dtype=%s: expected bf16, fp16, fp32, fp8_e4m3 or fp8_e5m2", value);
}

static enum ty_code set_layout(struct bench_geometry *g, const char *value, struct ty_error *err)
{
	for (unsigned i = 0; i < sizeof layouts / sizeof layouts[0]; i++) {
		if (strcmp(value, layouts[i]) == 0) {
			g->layout = (enum bench_layout)i;
			return TY_OK;
		}
	}
	return ty_fail(err, TY_INVALID, "geometry: layout=%s: expected split, interleaved or cross-layer", value);
}

static enum ty_code set_field(struct bench_geometry *g, const char *field, const char *value, struct ty_error *err)
{
	const struct {
		const char *name;
		uint32_t *number;
	} numbers[] = {{"layers", &g->layers}, {"planes", &g->planes}, {"heads", &g->heads}, {"dim", &g->dim},
		{"block", &g->block_tokens}};

	if (strcmp(field, "dtype") == 0)
		return set_dtype(g, value, err);
	if (strcmp(field, "layout") == 0)
		return set_layout(g, value, err);
	for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
		if (strcmp(field, numbers[i].name) == 0)
			return parse_number(field, value, numbers[i].number, err);
	return ty_fail(err, TY_INVALID,
		"geometry: unknown field '%s': expected layers, planes, heads, dim, block, dtype or layout", field);
}

enum ty_code bench_geometry_parse(const char *text, struct bench_geometry *out, struct ty_error *err)
{
	char copy[256], *rest = copy, *part;
	enum ty_code code = TY_OK;
	bool first = true;

	*out = presets[0];
	if (strlen(text) >= sizeof copy)
		return ty_fail(err, TY_INVALID, "geometry: %zu characters: expected fewer than %zu", strlen(text), sizeof copy);
	memcpy(copy, text, strlen(text) + 1);
	while (code == TY_OK && (part = strsep(&rest, ","))) {
		char *equals = strchr(part, '=');

		if (equals) {
			*equals = 0;
			code = set_field(out, part, equals + 1, err);
		} else {
			size_t i = 0, count = sizeof presets / sizeof presets[0];

			while (i < count && strcmp(part, presets[i].name) != 0)
				i++;
			if (i == count || !first)
				return ty_fail(err, TY_INVALID,
					"geometry: '%s': expected a preset first (tiny, llama-3.1-8b), then name=value", part);
			*out = presets[i];
		}
		first = false;
	}
	if (code == TY_OK)
		snprintf(out->name, sizeof out->name, "%s", text);
	return code;
}

enum ty_code bench_shape_make(const struct bench_geometry *g, uint32_t chunk_tokens, struct bench_shape *out,
	struct ty_error *err)
{
	struct bench_shape s = {.geometry = *g, .chunk_tokens = chunk_tokens};
	uint64_t plane = (uint64_t)g->heads * g->dim, planes = (uint64_t)g->layers * g->planes;
	uint64_t words;

	if (chunk_tokens == 0 || chunk_tokens % g->block_tokens)
		return ty_fail(err, TY_INVALID,
			"geometry %s: blocks of %u tokens do not divide the service's chunks of %u tokens: give block=N "
			"that does, or start the service with another --chunk-tokens",
			g->name, g->block_tokens, chunk_tokens);
	if (__builtin_mul_overflow(plane, (uint64_t)g->block_tokens * g->dtype_bytes, &plane) || plane > INT32_MAX)
		return ty_fail(err, TY_INVALID, "geometry %s: a block in one plane is over 2 GiB", g->name);
	if (planes > MAX_PLANES)
		return ty_fail(err, TY_INVALID, "geometry %s: %llu planes: expected at most %u", g->name,
			(unsigned long long)planes, MAX_PLANES);
	if (plane % 16)
		return ty_fail(err, TY_INVALID, "geometry %s: %llu bytes a block and plane: expected a multiple of 16", g->name,
			(unsigned long long)plane);
	s.blocks_per_chunk = chunk_tokens / g->block_tokens;
	s.plane_bytes = (uint32_t)plane;
	s.block_bytes = plane * planes;
	s.run_count = g->layout == BENCH_CROSS_LAYER ? 1 : (uint32_t)planes;
	if (s.block_bytes / s.run_count > INT32_MAX)
		return ty_fail(err, TY_INVALID, "geometry %s: a block of %llu bytes: expected at most 2 GiB in one run", g->name,
			(unsigned long long)s.block_bytes);
	s.run_bytes = (uint32_t)(s.block_bytes / s.run_count);
	s.run_words = s.run_bytes / 8;
	if (__builtin_mul_overflow(s.block_bytes, (uint64_t)s.blocks_per_chunk, &s.chunk_bytes) ||
		(words = s.chunk_bytes / 8) > UINT32_MAX)
		return ty_fail(err, TY_INVALID, "geometry %s: a chunk is over 32 GiB", g->name);
	s.chunk_words = (uint32_t)words;
	*out = s;
	return TY_OK;
}

void bench_shape_place(const struct bench_shape *s, uint32_t index, char *text, size_t size)
{
	const struct bench_geometry *g = &s->geometry;
	uint64_t byte = (uint64_t)index * 8, in_block = byte % s->block_bytes;
	uint32_t plane = (uint32_t)(in_block / s->plane_bytes), in_plane = (uint32_t)(in_block % s->plane_bytes);
	uint32_t layer = plane / g->planes, kind = plane % g->planes;
	uint32_t token = in_plane / (s->plane_bytes / g->block_tokens);
	char name[24];

	if (g->planes == 2)
		snprintf(name, sizeof name, "%s", kind ? "V" : "K");
	else
		snprintf(name, sizeof name, "plane %u", kind);
	snprintf(text, size, "block %u, layer %u %.23s, token %u", (uint32_t)(byte / s->block_bytes), layer, name, token);
}
