/* SPDX-License-Identifier: Apache-2.0 */
#include "plan.h"

#include <assert.h>
#include <string.h>

/* One H200, driver 580.159.04, PCIe 5.0: one contiguous page-locked copy runs at 55300 MB/s. `direct` is of one stream; `beside`
 * has for strided copies, which varied between runs, the slower one. Lengths past what was measured repeat the last figure.
 *                        4K     8K    16K    32K    64K   128K   256K   512K     1M     2M */
const struct ty_plan_rates ty_plan_defaults = {
	.alone = {
		[TY_PATH_STAGED] = {
			{53800, 54500, 54900, 55000, 55100, 55000, 55000, 55000, 55000, 55000},
			{53300, 54200, 54900, 55000, 55000, 54600, 54600, 54600, 54600, 54600}},
		[TY_PATH_DIRECT] = {
			{ 1900,  3400,  6600, 11700, 17900, 26000, 37800, 44900, 48900, 52000},
			{ 1600,  3000,  5900, 10700, 17800, 25000, 35200, 43100, 47700, 51400}},
		[TY_PATH_BATCH] = {
			{11000, 20000, 32800, 50700, 52600, 52600, 52600, 52600, 52600, 52600},
			{ 7900, 15000, 24100, 50100, 52400, 52400, 52400, 52400, 52400, 52400}},
		[TY_PATH_STRIDED] = {
			{36500, 43400, 41700, 50600, 53000, 53000, 53000, 53000, 53000, 53000},
			{32900, 40500, 41700, 52000, 53600, 53600, 53600, 53600, 53600, 53600}},
	},
	.beside = {
		[TY_PATH_STAGED] = { /* by what one launch gathers, 32 MiB, and hardly by the run */
			{33000, 34300, 34300, 34000, 34000, 34000, 34000, 34000, 34000, 34000},
			{32000, 33200, 33200, 33000, 33000, 33000, 33000, 33000, 33000, 33000}},
		[TY_PATH_DIRECT] = {
			{ 1900,  3400,  6600, 11700, 17900, 26000, 37800, 44900, 48900, 52000},
			{ 1600,  3000,  5900, 10700, 17800, 25000, 35200, 43100, 47700, 51400}},
		[TY_PATH_BATCH] = {
			{11700, 24100, 40300, 52900, 52700, 52700, 52700, 52700, 52700, 52700},
			{ 9800, 21600, 40200, 54900, 55200, 55200, 55200, 55200, 55200, 55200}},
		[TY_PATH_STRIDED] = {
			{32600, 25700, 23600, 34100, 42200, 42200, 42200, 42200, 42200, 42200},
			{31100, 21700, 22800, 36400, 51200, 51200, 51200, 51200, 51200, 51200}},
	},
	.fixed_ns = {[TY_PATH_STAGED] = 10000, [TY_PATH_DIRECT] = 6000, [TY_PATH_BATCH] = 10000, [TY_PATH_STRIDED] = 10000},
	.copy_ns = 2200,
};

const char *ty_path_name(enum ty_path path)
{
	static const char *const names[TY_PATHS] = {"planned", "staged", "direct", "batch", "strided"};

	assert(path < TY_PATHS);
	return names[path];
}

uint32_t ty_plan_join(const uint64_t *address, const uint32_t *allocation, uint32_t count, uint64_t run_bytes,
	struct ty_span *out)
{
	uint32_t spans = 0;

	for (uint32_t p = 0; p < count; p++) {
		if (p > 0 && address[p] == address[p - 1] + run_bytes && allocation[p] == allocation[p - 1])
			out[spans - 1].bytes += run_bytes;
		else
			out[spans++] = (struct ty_span){.first = p, .rows = 1, .bytes = run_bytes};
	}
	return spans;
}

/* May `next`, a row, be one more row of `span`? */
static bool continues(const struct ty_span *span, const struct ty_span *next, const uint64_t *address,
	const uint32_t *allocation, uint64_t max_pitch)
{
	uint64_t start = address[span->first], at = address[next->first], pitch;

	if (next->bytes != span->bytes || allocation[next->first] != allocation[span->first] || at <= start)
		return false;
	if (span->rows > 1)
		return at - start == span->pitch * span->rows;
	pitch = at - start;
	return pitch >= span->bytes && pitch <= max_pitch;
}

uint32_t ty_plan_stride(struct ty_span *spans, uint32_t count, const uint64_t *address, const uint32_t *allocation,
	uint64_t max_pitch)
{
	uint32_t left = 0;

	for (uint32_t i = 0; i < count; i++) {
		struct ty_span *last = left ? &spans[left - 1] : NULL;

		if (last && continues(last, &spans[i], address, allocation, max_pitch)) {
			if (last->rows == 1)
				last->pitch = address[spans[i].first] - address[last->first];
			last->rows++;
		} else {
			spans[left++] = spans[i];
		}
	}
	return left;
}

/* MB/s at a run length: between two of the table's lengths by the distance, past its ends by the end. */
static uint64_t rate_at(const uint32_t *rates, enum ty_path path, uint64_t run)
{
	uint64_t low = TY_PLAN_RUN_LEAST;
	unsigned i = 0;

	if (run < low) /* what a run costs does not get less */
		return path == TY_PATH_STAGED ? rates[0] : rates[0] * run / low;
	while (i < TY_PLAN_RUNS - 1 && run >= 2 * low) {
		low *= 2;
		i++;
	}
	if (i == TY_PLAN_RUNS - 1)
		return rates[i];
	return (uint64_t)((int64_t)rates[i] + ((int64_t)rates[i + 1] - rates[i]) * (int64_t)(run - low) / (int64_t)low);
}

uint64_t ty_plan_cost(const struct ty_plan_rates *rates, const struct ty_plan_shape *shape, enum ty_path path,
	uint64_t blocks, enum ty_direction direction, bool beside)
{
	const uint32_t *table = beside ? rates->beside[path][direction] : rates->alone[path][direction];
	uint64_t rate, cost = rates->fixed_ns[path];
	long double bytes = (long double)shape->block_bytes * (long double)blocks; /* any product */

	assert(path > TY_PATH_PLANNED && path < TY_PATHS && shape->runs && shape->spans);
	rate = rate_at(table, path, shape->block_bytes / shape->runs);
	cost += (uint64_t)(bytes * 1000 / (rate ? rate : 1));
	if (path == TY_PATH_STRIDED && (uint64_t)shape->spans * TY_PLAN_ROWS > shape->runs)
		cost += blocks * (shape->spans - shape->runs / TY_PLAN_ROWS) * rates->copy_ns;
	return cost;
}

enum ty_path ty_plan_choose(const struct ty_plan_rates *rates, const struct ty_plan_shape *shape, uint64_t blocks,
	enum ty_direction direction, unsigned allowed, enum ty_sharing sharing, bool busy)
{
	/* by what a block costs the processor, least first */
	static const enum ty_path order[] = {TY_PATH_STAGED, TY_PATH_STRIDED, TY_PATH_BATCH, TY_PATH_DIRECT};
	bool beside = busy || sharing == TY_SHARING_QUIET;
	enum ty_path best = TY_PATH_DIRECT;
	uint64_t least;

	if (sharing == TY_SHARING_QUIET || (sharing == TY_SHARING_AUTO && busy))
		allowed &= ~TY_PLAN_BIT(TY_PATH_STAGED);
	least = ty_plan_cost(rates, shape, TY_PATH_DIRECT, blocks, direction, beside);
	for (unsigned i = 0; i < 3; i++)
		if (allowed & TY_PLAN_BIT(order[i])) {
			uint64_t cost = ty_plan_cost(rates, shape, order[i], blocks, direction, beside);

			least = cost < least ? cost : least;
		}
	for (unsigned i = 0; i < 4; i++)
		if ((allowed & TY_PLAN_BIT(order[i])) &&
			ty_plan_cost(rates, shape, order[i], blocks, direction, beside) <= least + least * TY_PLAN_SAME / 1000) {
			best = order[i];
			break;
		}
	/* one run is one copy, whatever it would be called */
	if (shape->runs == 1 && blocks == 1 && best != TY_PATH_STAGED)
		best = TY_PATH_DIRECT;
	return best;
}
