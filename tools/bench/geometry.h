/* SPDX-License-Identifier: Apache-2.0
 *
 * What a KV pool looks like: the model's shape as a user says it, and the byte counts that follow from it for the
 * service's chunk size.
 */
#ifndef TY_BENCH_GEOMETRY_H
#define TY_BENCH_GEOMETRY_H

#include <stdint.h>

#include <tyer/client.h>

enum bench_layout {
	BENCH_SPLIT,       /* [plane][block][run]: one tensor a plane, as most engines have it */
	BENCH_INTERLEAVED, /* [block][plane][run], declared plane by plane: one pitch */
	BENCH_CROSS_LAYER, /* [block][all planes], declared as one plane with one long run */
};

struct bench_geometry {
	char name[64];
	uint32_t layers, planes; /* planes of a layer: 2 = K and V, 1 = fused */
	uint32_t heads, dim, block_tokens;
	uint32_t dtype_bytes;
	const char *dtype; /* as in the namespace; static */
	enum bench_layout layout;
};

/* A preset ("tiny", "llama-3.1-8b"), optionally followed by ",name=value" changes, or "name=value,..." over tiny.
 * TY_INVALID names the part, what was found and what was expected. */
TY_MUST_USE enum ty_code bench_geometry_parse(const char *text, struct bench_geometry *out, struct ty_error *err);
const char *bench_layout_name(enum bench_layout layout);

/* All that follows from a geometry and a chunk size. Every product fits; chunk_words fits a pattern's index. */
struct bench_shape {
	struct bench_geometry geometry;
	uint32_t chunk_tokens, blocks_per_chunk;
	uint32_t plane_bytes; /* of one block in one plane of the model */
	uint32_t run_bytes, run_words, run_count; /* runs of a block, as declared to the service */
	uint64_t block_bytes, chunk_bytes;
	uint32_t chunk_words;
};
TY_MUST_USE enum ty_code bench_shape_make(const struct bench_geometry *geometry, uint32_t chunk_tokens,
	struct bench_shape *out, struct ty_error *err);

/* Where a word of a chunk lies, for people: "block 1, layer 2 V, token 33". */
void bench_shape_place(const struct bench_shape *shape, uint32_t index, char *text, size_t size);

#endif
