/* SPDX-License-Identifier: Apache-2.0
 *
 * What path_check, embedded_check and device_check share: numbers in options, lists of ways and of run lengths, and rounds. A machine of others' has moments in which
 * nothing goes as it should; so each figure is taken in several rounds, a plain copy before ours in each, and what counts is the
 * median of the rounds' ratios. Their least and most are told beside it.
 */
#ifndef TY_GPU_MEASURE_H
#define TY_GPU_MEASURE_H

#include <stdio.h>

#include "device/device.h"

#define MEASURE_ROUNDS 31u
#define MEASURE_CROSS_LAYER (512u << 10) /* joined runs from here on are a cross-layer pool's ... */
#define MEASURE_CROSS_PLANES 64u         /* ... of so many planes */

double measure_now(void);

/* An option's value; what is no number of least..most ends the program with 2. */
uint64_t measure_number(const char *name, const char *text, uint64_t least, uint64_t most);

/* ---- what is measured -------------------------------------------------------------------------- */

/* A policy (fast, quiet, auto: what the planner makes of it), or a way by itself (staged, direct, batch, strided), and after it what
 * is otherwise than usual: -sN copy streams, -tN a tile of N MiB, -mN staging of N MiB, -bN thread blocks of a kernel at most, -k tiles
 * that the L2 cache is asked to keep. */
struct measure_way {
	char name[48];
	struct ty_device_options how; /* sharing, path and what the suffixes say; the rest is 0 */
};
/* The next of a list with commas, moving it on; false: there is none. What is no way ends the program. */
bool measure_next_way(const char **list, struct measure_way *out);
/* The next run length of a list of KiB (4, 8, ... 2048), in bytes; 0: there is none. */
uint32_t measure_next_run(const char **list);

/* A pool with blocks of `joined` bytes that lie together, and chunks of at most `most` bytes. */
struct measure_shape {
	uint32_t run_bytes, planes, blocks_per_chunk;
	bool cross_layer; /* the planes of a block lie together */
	uint64_t chunk_bytes;
};
struct measure_shape measure_shape(uint32_t joined, uint64_t most);

/* ---- rounds -------------------------------------------------------------------------------------- */

enum measure_side { MEASURE_STORE, MEASURE_RETRIEVE, MEASURE_BOTH, MEASURE_SIDES };

struct measure_rounds {
	uint32_t count;
	double alone_us[MEASURE_ROUNDS]; /* the engine's step with nothing beside it; 0: it is not measured */
	struct measure_series {
		double gbs[MEASURE_ROUNDS], limit_gbs[MEASURE_ROUNDS]; /* ours; of plain copies */
		double step_us[MEASURE_ROUNDS], plain_step_us[MEASURE_ROUNDS]; /* the engine's meanwhile; 0: there is none */
		double queue_us[MEASURE_ROUNDS]; /* of the owner's time, for 32 MiB */
	} side[MEASURE_SIDES];
};

struct measure_spread {
	double median, least, most;
};
/* Of a[i] / b[i]; of a[i] where b is null. */
struct measure_spread measure_spread(const double *a, const double *b, uint32_t count);

/* A row of people's table: ratio (least..most), GB/s and, with an engine, its step by the plain copies'. */
void measure_print_head(FILE *out, bool engine);
void measure_print_row(FILE *out, uint32_t joined, const char *way, const char *path, const struct measure_rounds *r, bool engine);
/* The same as members of a JSON object: "rounds", and for store, retrieve and both _gbs, _limit_gbs, _ratio, _ratio_min, _ratio_max,
 * _queue_us, with an engine _step_us, _plain_step_us, _step_ratio (to plain), _step_ratio_min, _step_ratio_max, and if that was
 * measured _step_of_alone, _plain_step_of_alone; "step_alone_us". Begins with a comma. */
void measure_print_json(FILE *out, const struct measure_rounds *r, bool engine);

#endif
