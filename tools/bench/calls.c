/* SPDX-License-Identifier: Apache-2.0 */
#include "calls.h"

#include <assert.h>
#include <stdlib.h>

struct bench_calls *bench_calls_new(struct bench_stats *stats)
{
	struct bench_calls *calls = calloc(1, sizeof *calls);

	if (calls)
		calls->stats = stats;
	return calls;
}

struct bench_call *bench_call_begin(struct bench_calls *calls, enum bench_row verb, int64_t intended,
	bench_reply_fn reply, void *user)
{
	struct bench_call *call;

	assert(calls->open < BENCH_CALLS / 2);
	do
		call = &calls->ring[calls->next++ % BENCH_CALLS];
	while (call->open);
	*call = (struct bench_call){
		.calls = calls, .reply = reply, .user = user, .verb = verb, .sent = bench_now(), .open = true};
	call->intended = intended ? intended : call->sent;
	calls->open++;
	calls->stats->sent++;
	return call;
}

void bench_call_refused(struct bench_call *call)
{
	assert(call->open);
	call->open = false;
	call->calls->open--;
	call->calls->stats->sent--;
}

void bench_call_done(void *user, const struct ty_result *result)
{
	struct bench_call *call = user;
	struct bench_calls *calls = call->calls;
	struct bench_stats *stats = calls->stats;
	int64_t now = bench_now();

	if (!call->open) {
		stats->doubled++;
		bench_note_error(stats, "%s: a second reply (%s)", bench_row_name(call->verb), ty_code_name(result->code));
		return;
	}
	call->open = false;
	calls->open--;
	stats->completed++;
	if ((unsigned)result->code < TY_CODE_COUNT)
		stats->codes[call->verb][result->code]++;
	if (calls->closing)
		return;
	if (result->code == TY_OK || result->code == TY_NO_SPACE) {
		ty_histogram_add(&stats->rows[call->verb], (uint64_t)(now - call->sent));
		if (call->verb == BENCH_ROW_PING)
			ty_histogram_add(&stats->rows[BENCH_ROW_PING_INTENDED], (uint64_t)(now - call->intended));
	}
	call->reply(call->user, call->verb, result);
}

uint32_t bench_calls_overdue(struct bench_calls *calls, int64_t now, int64_t age)
{
	uint32_t overdue = 0;

	if (calls->open == 0)
		return 0;
	for (uint32_t i = 0; i < BENCH_CALLS; i++)
		overdue += calls->ring[i].open && now - calls->ring[i].sent > age;
	return overdue;
}

void bench_calls_free(struct bench_calls *calls)
{
	if (!calls)
		return;
	calls->stats->lost += calls->open;
	free(calls);
}
