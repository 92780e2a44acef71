/* SPDX-License-Identifier: Apache-2.0 */
#include "plan.h"

#include <assert.h>
#include <string.h>

/* One H200, driver 580.159.04, PCIe 5.0, 2026-11-22: one contiguous page-locked copy runs at 55300 MB/s, 54900 beside
 * an engine. By tests/gpu/path_check, with and without --busy; strided copies of 2 MiB runs repeat the figure of 1 MiB. Beside an
 * engine: one H100, the same driver, 2026-11-25, whose copy engines gave less for short runs than the H200's; where that was not
 * measured (direct copies, staged ones past 64 KiB, 128 and 256 KiB in batches) it is the H200's, or the next shorter run's.
 *                        4K     8K    16K    32K    64K   128K   256K   512K     1M     2M */
const struct ty_plan_rates ty_plan_defaults = {
	.alone = {
		[TY_PATH_STAGED] = {
			{53200, 53600, 54500, 54400, 54500, 54600, 54400, 54500, 54600, 54700},
			{52300, 53700, 54300, 54500, 54500, 54600, 54800, 54700, 54400, 54400}},
		[TY_PATH_DIRECT] = {
			{ 1800,  3500,  6800, 12000, 18900, 25900, 38600, 45500, 49400, 52200},
			{ 1600,  3100,  5800, 10600, 17400, 26400, 36000, 43400, 48000, 51400}},
		[TY_PATH_BATCH] = {
			{ 4800,  9700, 19800, 38800, 53600, 52700, 52500, 54100, 54400, 54500},
			{ 4600,  9000, 17200, 36300, 53200, 52200, 52400, 53400, 53600, 54400}},
		[TY_PATH_STRIDED] = {
			{32800, 43600, 48200, 51600, 51600, 50900, 51900, 52000, 52100, 52100},
			{29400, 40200, 47200, 51000, 51000, 51100, 51200, 51200, 47800, 47800}},
	},
	.beside = {
		[TY_PATH_STAGED] = {
			{48900, 50600, 50600, 52100, 53200, 53200, 53200, 53200, 53200, 53200},
			{49600, 52300, 52300, 53200, 54300, 54300, 54300, 54300, 54300, 54300}},
		[TY_PATH_DIRECT] = {
			{ 1300,  2400,  4800,  8700, 14400, 21300, 31400, 40300, 46200, 49800},
			{ 1200,  2200,  4100,  7700, 12800, 20600, 29900, 38500, 44700, 49200}},
		[TY_PATH_BATCH] = {
			{ 7700,  8600, 17400, 34900, 52700, 52700, 53000, 54700, 54700, 54700},
			{ 7500,  8100, 16700, 33100, 51600, 52600, 53000, 54900, 54900, 54800}},
		[TY_PATH_STRIDED] = {
			{23200, 32700, 42200, 47100, 47100, 47100, 47100, 47100, 47100, 47100},
			{22700, 32400, 42400, 47700, 47900, 47900, 47900, 47900, 47700, 47700}},
	},
	.fixed_ns = {[TY_PATH_STAGED] = 10000, [TY_PATH_DIRECT] = 6000, [TY_PATH_BATCH] = 10000, [TY_PATH_STRIDED] = 10000},
	.copy_ns = 2200,
	.owner_ns = {[TY_PATH_DIRECT] = 2700, [TY_PATH_BATCH] = 440, [TY_PATH_STRIDED] = 1400}, /* the H100 */
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

/* Of the owner's, to queue it. */
static uint64_t owner_time(const struct ty_plan_rates *rates, const struct ty_plan_shape *shape, enum ty_path path, uint64_t blocks)
{
	uint32_t calls = path == TY_PATH_STRIDED ? shape->spans : shape->runs;

	return blocks * calls * rates->owner_ns[path];
}

uint64_t ty_plan_cost(const struct ty_plan_rates *rates, const struct ty_plan_shape *shape, enum ty_path path,
	uint64_t blocks, enum ty_direction direction, enum ty_plan_beside beside)
{
	/* within the engine's process a kernel goes on as if alone, and copies find memory as busy as beside another's */
	const bool alone = beside == TY_PLAN_ALONE || (beside == TY_PLAN_WITHIN && path == TY_PATH_STAGED);
	const uint32_t *table = alone ? rates->alone[path][direction] : rates->beside[path][direction];
	uint64_t rate, cost = rates->fixed_ns[path];
	long double bytes = (long double)shape->block_bytes * (long double)blocks; /* any product */

	assert(path > TY_PATH_PLANNED && path < TY_PATHS && shape->runs && shape->spans);
	rate = rate_at(table, path, shape->block_bytes / shape->runs);
	cost += (uint64_t)(bytes * 1000 / (rate ? rate : 1));
	if (path == TY_PATH_STRIDED && (uint64_t)shape->spans * TY_PLAN_ROWS > shape->runs)
		cost += blocks * (shape->spans - shape->runs / TY_PLAN_ROWS) * rates->copy_ns;
	if (beside == TY_PLAN_ALONE) { /* beside an engine the owner's time is cheaper than the engine's */
		uint64_t owner = owner_time(rates, shape, path, blocks) * 1000 / TY_PLAN_OWNER_SHARE;

		cost = owner > cost ? owner : cost;
	}
	return cost;
}

enum ty_path ty_plan_choose(const struct ty_plan_rates *rates, const struct ty_plan_shape *shape, uint64_t blocks,
	enum ty_direction direction, unsigned allowed, const struct ty_plan_policy *policy)
{
	static const enum ty_path copies[3] = {TY_PATH_STRIDED, TY_PATH_BATCH, TY_PATH_DIRECT}; /* by what a block costs the processor */
	const bool quiet = policy->sharing == TY_SHARING_QUIET || (policy->sharing == TY_SHARING_AUTO && policy->busy);
	const enum ty_plan_beside beside = policy->in_process ? TY_PLAN_WITHIN : policy->busy || quiet ? TY_PLAN_BESIDE : TY_PLAN_ALONE;
	const uint64_t gain = beside == TY_PLAN_ALONE ? TY_PLAN_GAIN : TY_PLAN_GAIN_BESIDE;
	uint64_t cost[TY_PATHS], least = UINT64_MAX;
	enum ty_path best = TY_PATH_DIRECT;

	allowed |= TY_PLAN_BIT(TY_PATH_DIRECT);
	for (unsigned p = TY_PATH_PLANNED + 1; p < TY_PATHS; p++)
		cost[p] = allowed & TY_PLAN_BIT(p) ? ty_plan_cost(rates, shape, (enum ty_path)p, blocks, direction, beside) : UINT64_MAX;
	for (unsigned i = 0; i < 3; i++)
		least = cost[copies[i]] < least ? cost[copies[i]] : least;
	for (unsigned i = 3; i-- > 0;)
		if (cost[copies[i]] <= least + least * TY_PLAN_SAME / 1000)
			best = copies[i];
	if (!quiet && (allowed & TY_PLAN_BIT(TY_PATH_STAGED)) &&
		cost[TY_PATH_STAGED] + cost[TY_PATH_STAGED] * gain / 1000 < cost[best])
		return TY_PATH_STAGED;
	/* one run is one copy, whatever it would be called */
	return shape->runs == 1 && blocks == 1 ? TY_PATH_DIRECT : best;
}
