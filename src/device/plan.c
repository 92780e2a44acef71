/* SPDX-License-Identifier: Apache-2.0 */
#include "plan.h"

#include <assert.h>
#include <string.h>

/* One H100 80GB, driver 580.159.04, PCIe 5.0, 2026-11-25, by `tyer calibrate`: one contiguous page-locked copy runs at 55200 MB/s, 54900
 * beside an engine.
 *                        4K     8K    16K    32K    64K   128K   256K   512K     1M     2M */
const struct ty_plan_rates ty_plan_defaults = {
	.alone = {
		[TY_PATH_STAGED] = {
			{54200, 54700, 54700, 54700, 54700, 54800, 54800, 54900, 55000, 55000},
			{53600, 54500, 54600, 54600, 54600, 54600, 54900, 55100, 55100, 55200}},
		[TY_PATH_DIRECT] = {
			{ 2000,  3800,  7300, 12700, 19500, 28400, 39200, 45900, 50000, 52500},
			{ 1600,  3100,  6100, 10900, 18300, 27400, 36600, 43900, 49000, 52000}},
		[TY_PATH_BATCH] = {
			{10600, 21200, 43100, 54700, 54700, 54700, 54900, 55000, 55000, 55200},
			{ 9600, 19100, 38000, 54800, 54800, 54800, 54800, 55200, 55200, 55200}},
		[TY_PATH_STRIDED] = {
			{42600, 47000, 50900, 53000, 54000, 54700, 55000, 55100, 55100, 55100},
			{37200, 44200, 49100, 51800, 53700, 54600, 55000, 55100, 55100, 55200}},
	},
	.beside = {
		[TY_PATH_STAGED] = {
			{50800, 52500, 52500, 52600, 52600, 52600, 53300, 53300, 53400, 53400},
			{48600, 49400, 51700, 51700, 51800, 51800, 52300, 53100, 53100, 53100}},
		[TY_PATH_DIRECT] = {
			{  900,  1800,  3400,  6400, 11500, 18300, 27400, 35400, 44700, 48400},
			{ 1000,  1900,  3500,  6500, 11600, 19100, 27700, 36900, 43800, 48700}},
		[TY_PATH_BATCH] = {
			{10600, 17800, 42400, 53300, 54100, 54500, 54500, 54500, 54500, 54600},
			{ 9500, 17300, 38100, 53500, 54400, 54800, 54800, 54800, 54800, 54800}},
		[TY_PATH_STRIDED] = {
			{27600, 35700, 44700, 48600, 51600, 53400, 53400, 54600, 54600, 54600},
			{27600, 34200, 43200, 49000, 51600, 53500, 54400, 54800, 54800, 54800}},
	},
	.fixed_ns = {[TY_PATH_STAGED] = 10000, [TY_PATH_DIRECT] = 6000, [TY_PATH_BATCH] = 10000, [TY_PATH_STRIDED] = 10000},
	.copy_ns = 2200,
	.owner_ns = {[TY_PATH_DIRECT] = 2700, [TY_PATH_BATCH] = 440, [TY_PATH_STRIDED] = 1400},
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
	return cost;
}

/* Of the owner's, to queue it. */
static uint64_t owner_time(const struct ty_plan_rates *rates, const struct ty_plan_shape *shape, enum ty_path path, uint64_t blocks)
{
	uint32_t calls = path == TY_PATH_STRIDED ? shape->spans : shape->runs;

	return blocks * calls * rates->owner_ns[path];
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
