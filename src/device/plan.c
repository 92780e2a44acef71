/* SPDX-License-Identifier: Apache-2.0 */
#include "plan.h"

#include <assert.h>
#include <string.h>

/* NVIDIA H200, driver 580.159.04, PCIe 5.0, 2026-11-26, by `tyer calibrate`: one contiguous page-locked copy runs at 55300 MB/s, 55000
 * beside an engine.
 *                        4K     8K    16K    32K    64K   128K   256K   512K     1M     2M */
const struct ty_plan_rates ty_plan_defaults = {
	.alone = {
		[TY_PATH_STAGED] = {
			{54400, 54900, 54900, 54800, 54900, 54900, 55000, 55200, 55200, 55200},
			{53800, 54600, 54600, 54600, 54600, 54600, 55100, 55200, 55300, 55300}},
		[TY_PATH_DIRECT] = {
			{ 2200,  4200,  8300, 12700, 20000, 28900, 39200, 45700, 49800, 52400},
			{ 1600,  3100,  6000, 10500, 17900, 26900, 36300, 43700, 48900, 51900}},
		[TY_PATH_BATCH] = {
			{10600, 20500, 42100, 53500, 54400, 54500, 54700, 55000, 55000, 55100},
			{ 9300, 18300, 35900, 52900, 54300, 54300, 54700, 55000, 55200, 55100}},
		[TY_PATH_STRIDED] = {
			{39300, 45800, 50200, 52500, 53800, 54600, 54600, 55000, 55000, 54900},
			{35600, 43100, 48400, 51400, 53300, 54300, 54800, 55100, 55000, 55100}},
	},
	.beside = {
		[TY_PATH_STAGED] = {
			{54000, 53400, 53400, 53400, 53300, 53300, 53900, 53900, 53800, 53900},
			{52400, 51800, 51600, 51800, 52000, 51700, 52400, 52400, 52400, 52400}},
		[TY_PATH_DIRECT] = {
			{ 1300,  2400,  4800,  8800, 15000, 22400, 31900, 40600, 46700, 50600},
			{ 1200,  2300,  4200,  8200, 14300, 22200, 31400, 40300, 46400, 50600}},
		[TY_PATH_BATCH] = {
			{ 9500, 18900, 36400, 52400, 53900, 54500, 54800, 54900, 54900, 54900},
			{ 7800, 15100, 24400, 52600, 53900, 54600, 55000, 55000, 55100, 55100}},
		[TY_PATH_STRIDED] = {
			{31600, 40600, 46800, 50600, 52800, 54000, 54500, 54800, 54900, 54900},
			{30200, 38700, 45400, 50100, 52600, 53900, 54600, 55100, 55100, 55000}},
	},
	.fixed_ns = {[TY_PATH_STAGED] = 10000, [TY_PATH_DIRECT] = 6000, [TY_PATH_BATCH] = 10000, [TY_PATH_STRIDED] = 10000},
	.copy_ns = 2200,
	.owner_ns = {[TY_PATH_DIRECT] = 2700, [TY_PATH_BATCH] = 800, [TY_PATH_STRIDED] = 2200},
	.owner_call_ns = 3000,
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

	return path == TY_PATH_STAGED ? 0 : rates->owner_call_ns + blocks * calls * rates->owner_ns[path];
}

uint64_t ty_plan_cost(const struct ty_plan_rates *rates, const struct ty_plan_shape *shape, enum ty_path path,
	uint64_t blocks, enum ty_direction direction, enum ty_plan_beside beside)
{
	/* within the engine's process a kernel goes on as if alone, and copies find memory as busy as beside another's */
	const bool alone = beside == TY_PLAN_ALONE || (beside == TY_PLAN_WITHIN && path == TY_PATH_STAGED);
	const uint32_t *table = alone ? rates->alone[path][direction] : rates->beside[path][direction];
	uint64_t rate, owner = 2 * owner_time(rates, shape, path, blocks), cost = 0;
	long double bytes = (long double)shape->block_bytes * (long double)blocks; /* any product */

	assert(path > TY_PATH_PLANNED && path < TY_PATHS && shape->runs && shape->spans);
	rate = rate_at(table, path, shape->block_bytes / shape->runs);
	if (path == TY_PATH_STRIDED && beside == TY_PLAN_WITHIN)
		rate = rate * TY_PLAN_STRIDED_WITHIN / 1000;
	cost += (uint64_t)(bytes * 1000 / (rate ? rate : 1));
	if (path == TY_PATH_STRIDED && (uint64_t)shape->spans * TY_PLAN_ROWS > shape->runs)
		cost += blocks * ((uint64_t)shape->spans * TY_PLAN_ROWS - shape->runs) * rates->copy_ns / TY_PLAN_ROWS;
	/* the owner has the other direction to queue as well: both at once go no faster than it does */
	return rates->fixed_ns[path] + (owner > cost ? owner : cost);
}

/* Is it worth a kernel, where the best without one costs so much? */
static bool worth_a_kernel(uint64_t kernel, uint64_t copies, uint64_t owner, enum ty_plan_beside beside)
{
	uint64_t gain = beside == TY_PLAN_ALONE ? TY_PLAN_GAIN : TY_PLAN_GAIN_BESIDE;

	if (kernel + kernel * gain / 1000 < copies)
		return true;
	/* about as fast, in nobody's way, and queued in a few calls */
	return beside == TY_PLAN_ALONE && kernel <= copies + copies * gain / 1000 && owner * 1000 > copies * TY_PLAN_OWNER_SHARE;
}

enum ty_path ty_plan_choose(const struct ty_plan_rates *rates, const struct ty_plan_shape *shape, uint64_t blocks,
	enum ty_direction direction, unsigned allowed, const struct ty_plan_policy *policy)
{
	static const enum ty_path copies[3] = {TY_PATH_STRIDED, TY_PATH_BATCH, TY_PATH_DIRECT}; /* by what a block costs the processor */
	const bool quiet = policy->sharing == TY_SHARING_QUIET || (policy->sharing == TY_SHARING_AUTO && policy->busy);
	const enum ty_plan_beside beside = policy->in_process ? TY_PLAN_WITHIN : policy->busy || quiet ? TY_PLAN_BESIDE : TY_PLAN_ALONE;
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
		worth_a_kernel(cost[TY_PATH_STAGED], cost[best], owner_time(rates, shape, best, blocks), beside))
		return TY_PATH_STAGED;
	/* one run is one copy, whatever it would be called */
	return shape->runs == 1 && blocks == 1 ? TY_PATH_DIRECT : best;
}
