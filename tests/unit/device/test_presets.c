/* SPDX-License-Identifier: Apache-2.0
 *
 * Presets: what each fills in, held against the tensors' own index arithmetic; what is refused. Their round trips are with
 * the other pools' (test_host.c, test_cuda.c).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include <tyer/presets.h>

#include "pools.h"

static struct ty_group group;
static struct ty_plane planes[64];
static uint32_t regions;
static uint64_t bytes;
static struct ty_error err;

enum { L = 3, N = 5, T = 4, H = 2, D = 16, RUN = T * H * D };
static const struct ty_preset_shape shape = {L, N, T, H, D, 0}, latent = {L, N, T, 1, D, 0};

/* Where (layer, kv, block) begins, in bytes of its region. */
struct at {
	uint32_t region;
	uint64_t byte;
};

static struct at cross_layer(uint32_t l, uint32_t kv, uint32_t b)
{
	return (struct at){0, (((uint64_t)b * L + l) * 2 + kv) * RUN};
}
static struct at cross_layer_fused(uint32_t l, uint32_t kv, uint32_t b)
{
	return (struct at){kv, ((uint64_t)b * L + l) * RUN};
}
static struct at kv_first(uint32_t l, uint32_t kv, uint32_t b)
{
	return (struct at){l, ((uint64_t)kv * N + b) * RUN};
}
static struct at blocks_first(uint32_t l, uint32_t kv, uint32_t b)
{
	return (struct at){l, ((uint64_t)b * 2 + kv) * RUN};
}
static struct at fused(uint32_t l, uint32_t kv, uint32_t b)
{
	return (struct at){l + kv, (uint64_t)b * RUN};
}
static struct at split(uint32_t l, uint32_t kv, uint32_t b)
{
	return (struct at){kv * L + l, (uint64_t)b * RUN};
}
static struct at one_head(uint32_t l, uint32_t kv, uint32_t b)
{
	return (struct at){l + kv, (uint64_t)b * T * D};
}

static void places(void **state)
{
	static const struct {
		const char *name, *format;
		uint32_t regions, planes;
		uint64_t bytes;
		struct at (*at)(uint32_t l, uint32_t kv, uint32_t b);
	} want[] = {
		{"cross-layer-nhd", "NHD", 1, 2, 2 * L * N * RUN, cross_layer},
		{"cross-layer-hnd", "HND", 1, 2, 2 * L * N * RUN, cross_layer},
		{"cross-layer-fused-nhd", "NHD", 1, 1, L * N * RUN, cross_layer_fused},
		{"cross-layer-fused-hnd", "HND", 1, 1, L * N * RUN, cross_layer_fused},
		{"kv-first-nhd", "NHD", L, 2, 2 * N * RUN, kv_first},
		{"kv-first-hnd", "HND", L, 2, 2 * N * RUN, kv_first},
		{"blocks-first-nhd", "NHD", L, 2, 2 * N * RUN, blocks_first},
		{"blocks-first-hnd", "HND", L, 2, 2 * N * RUN, blocks_first},
		{"fused-nhd", "NHD", L, 1, N * RUN, fused},
		{"fused-hnd", "HND", L, 1, N * RUN, fused},
		{"split-nhd", "NHD", 2 * L, 2, N * RUN, split},
		{"split-hnd", "HND", 2 * L, 2, N * RUN, split},
		{"mla", "", L, 1, N * T * D, one_head},
		{"pages", "", L, 1, N * T * D, one_head},
	};

	(void)state;
	for (uint32_t i = 0; i < sizeof want / sizeof want[0]; i++) {
		const struct ty_preset_shape *s = want[i].at == one_head ? &latent : &shape;

		assert_string_equal(ty_preset_name(i), want[i].name);
		assert_string_equal(ty_preset_format(want[i].name), want[i].format);
		assert_int_equal(ty_preset_group(want[i].name, s, 7, &group, planes, 64, &regions, &bytes, &err), TY_OK);
		assert_int_equal(regions, want[i].regions);
		assert_int_equal(bytes, want[i].bytes);
		assert_int_equal(group.plane_count, L * want[i].planes);
		assert_int_equal(group.run_bytes, want[i].at == one_head ? T * D : RUN);
		assert_int_equal(group.block_tokens, T);
		assert_int_equal(group.block_count, N);
		for (uint32_t l = 0; l < L; l++)
			for (uint32_t kv = 0; kv < want[i].planes; kv++)
				for (uint32_t b = 0; b < N; b++) {
					struct at at = want[i].at(l, kv, b);
					const struct ty_plane *p = &group.planes[l * want[i].planes + kv];

					if (p->region != 7 + at.region || p->offset + b * group.block_stride != at.byte)
						fail_msg("%s: layer %u, kv %u, block %u", want[i].name, l, kv, b);
				}
	}
	assert_null(ty_preset_name(sizeof want / sizeof want[0]));
	assert_null(ty_preset_format("nhd"));
	assert_null(ty_preset_format(NULL));
}

/* What is padded lies as far apart as it is said to; nothing else changes. */
static void padded(void **state)
{
	enum { PADDING = 48 };

	(void)state;
	for (uint32_t i = 0; ty_preset_name(i); i++) {
		const char *name = ty_preset_name(i);
		struct ty_preset_shape s = strcmp(name, "mla") && strcmp(name, "pages") ? shape : latent;
		bool kv_first = !strncmp(name, "kv-first", 8);
		struct ty_plane dense[64];
		struct ty_group before;
		uint64_t before_bytes;

		assert_int_equal(ty_preset_group(name, &s, 0, &before, dense, 64, &regions, &before_bytes, &err), TY_OK);
		s.padding = PADDING;
		assert_int_equal(ty_preset_group(name, &s, 0, &group, planes, 64, &regions, &bytes, &err), TY_OK);
		assert_int_equal(group.block_stride, before.block_stride + PADDING);
		assert_int_equal(group.run_bytes, before.run_bytes);
		assert_int_equal(bytes, before_bytes + (kv_first ? 2u : 1u) * N * PADDING);
		for (uint32_t p = 0; p < group.plane_count; p++) {
			assert_int_equal(planes[p].region, dense[p].region);
			/* behind the first plane's blocks, where planes are outermost */
			assert_int_equal(planes[p].offset, dense[p].offset + (kv_first && p % 2 ? N * PADDING : 0));
		}
	}
}

static void refuse(const char *name, struct ty_preset_shape s, uint32_t first, uint32_t room, enum ty_code want, const char *words)
{
	enum ty_code code = ty_preset_group(name, &s, first, &group, planes, room, &regions, &bytes, &err);

	if (code != want || !strstr(err.text, words))
		fail_msg("expected %s with \"%s\", got %s: %s", ty_code_name(want), words, ty_code_name(code), err.text);
}

static void refusals(void **state)
{
	struct ty_preset_shape s = shape;

	(void)state;
	refuse("nhd", s, 0, 64, TY_INVALID, "preset: \"nhd\"");
	refuse(NULL, s, 0, 64, TY_INVALID, "preset: \"\"");
	refuse("mla", s, 0, 64, TY_INVALID, "heads 2");
	refuse("split-nhd", s, 0, 5, TY_LIMIT, "room for 5");
	refuse("split-nhd", s, UINT32_MAX, 64, TY_INVALID, "first_region");
	s.layers = 0x80000000u;
	refuse("split-nhd", s, 0, UINT32_MAX, TY_LIMIT, "layers");
	s = shape;
	s.head_bytes = 1u << 30;
	refuse("fused-nhd", s, 0, 64, TY_INVALID, "4 GiB");
	s.head_bytes = UINT32_MAX;
	s.heads = UINT32_MAX;
	s.block_tokens = UINT32_MAX;
	refuse("fused-nhd", s, 0, 64, TY_INVALID, "4 GiB");
	for (unsigned i = 0; i < 5; i++) {
		uint32_t *fields[] = {&s.layers, &s.blocks, &s.block_tokens, &s.heads, &s.head_bytes};

		s = shape;
		*fields[i] = 0;
		refuse("fused-nhd", s, 0, 64, TY_INVALID, "to be 0");
	}
	/* the largest that there can be is a number still, and the layout's to refuse */
	s = (struct ty_preset_shape){1, UINT32_MAX, UINT32_MAX, 1, 1, UINT32_MAX};
	assert_int_equal(ty_preset_group("kv-first-nhd", &s, 0, &group, planes, 64, &regions, &bytes, &err), TY_INVALID);
	assert_non_null(strstr(err.text, "64 bits"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(places),
		cmocka_unit_test(padded),
		cmocka_unit_test(refusals),
	};

	return cmocka_run_group_tests_name("presets", tests, NULL, NULL);
}
