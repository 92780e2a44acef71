/* SPDX-License-Identifier: Apache-2.0
 *
 * Layouts by name: what engines' KV tensors look like, as groups of a pool (client.h). Each function only fills structs; what it
 * fills in is checked with the rest of the pool when it is registered. An engine says which layout it has: it is never guessed.
 *
 *   name                tensors (L layers, N blocks of T tokens, H heads, D bytes of a head)
 *   cross-layer-nhd     one [N, L, 2, T, H, D]
 *   cross-layer-hnd     one [N, L, 2, H, T, D]
 *   cross-layer-fused-nhd, -hnd   one [N, L, T, H, D] or [N, L, H, T, D], D holds K and V
 *   kv-first-nhd, -hnd  of each layer one [2, N, T, H, D] or [2, N, H, T, D]
 *   blocks-first-nhd, -hnd        of each layer one [N, 2, T, H, D] or [N, 2, H, T, D]
 *   fused-nhd, -hnd     of each layer one [N, T, H, D] or [N, H, T, D], D holds K and V (interleaved or one after the other)
 *   split-nhd, -hnd     of each layer one K and one V, all K first: [N, T, H, D], [N * T, H, D] or [N, H, T, D]
 *   mla                 of each layer one [N, T, D] or [N * T, 1, D]; H is 1
 *   pages               of each layer one [N, T * D]: opaque pages (values, then their scales; states), D bytes a token; H is 1
 */
#ifndef TYER_PRESETS_H
#define TYER_PRESETS_H

#include <tyer/client.h>

#ifdef __cplusplus
extern "C" {
#endif

struct ty_preset_shape {
	uint32_t layers, blocks, block_tokens, heads;
	uint32_t head_bytes;  /* D */
	uint32_t padding;     /* bytes behind each block (of each plane where blocks are not outermost) that belong to nobody */
};

/* The names, one after the other; null at the end. */
TY_API const char *ty_preset_name(uint32_t index);

/* What the pool's `format` is for a preset: "NHD", "HND", or "" where the order inside a run is nobody's business. Null: no such
 * preset. */
TY_API const char *ty_preset_format(const char *name);

/* Fill `group` and its planes, whose regions are numbered from first_region on. *region_count regions are needed, each of at least
 * *region_bytes bytes. planes: room for plane_room of them, which must live as long as the group; split-nhd and -hnd need 2 * layers,
 * as all with two planes a layer. TY_INVALID names what is wrong, TY_LIMIT says that there is not enough room. */
TY_API TY_MUST_USE enum ty_code ty_preset_group(const char *name, const struct ty_preset_shape *shape, uint32_t first_region,
	struct ty_group *group, struct ty_plane *planes, uint32_t plane_room, uint32_t *region_count, uint64_t *region_bytes,
	struct ty_error *err);

#ifdef __cplusplus
}
#endif

#endif
