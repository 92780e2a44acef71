/* SPDX-License-Identifier: Apache-2.0
 *
 * Streams and what runs in them: so many operations whenever an event is queried, in turn over the context's streams.
 */
#include <stdlib.h>
#include <string.h>

#include "kernels/gather.h"
#include "standin_private.h"
#include "tools/busy/kernels.h"

cu_stream standin_stream_create(cu_context context)
{
	cu_stream s = calloc(1, sizeof *s), *at = &context->streams;

	if (!s)
		standin_misuse("no memory");
	s->context = context;
	while (*at)
		at = &(*at)->next;
	*at = s;
	standin_objects++;
	return s;
}

void standin_stream_destroy(cu_stream stream)
{
	cu_stream *at = &stream->context->streams;

	if (stream->first)
		standin_misuse("cuStreamDestroy of a stream with work in it");
	while (*at && *at != stream)
		at = &(*at)->next;
	if (!*at)
		standin_misuse("cuStreamDestroy of no stream of this context");
	*at = stream->next;
	if (stream->context->turn == stream)
		stream->context->turn = NULL;
	free(stream);
	standin_objects--;
}

void standin_push(cu_stream stream, struct op *op)
{
	op->next = NULL;
	if (stream->last)
		stream->last->next = op;
	else
		stream->first = op;
	stream->last = op;
}

bool standin_idle(cu_context context)
{
	for (cu_stream s = context->streams; s; s = s->next)
		if (s->first)
			return false;
	return true;
}

/* ---- kernels --------------------------------------------------------------------------------- */

/* Everything that a job reaches is looked at before it runs: what would be an illegal address on a GPU is one here. */
static void check_gather(const struct ty_gather_job *job)
{
	cu_context context = standin_current();
	uint64_t bytes = (uint64_t)job->run_units * TY_GATHER_UNIT;
	const uint64_t *planes;

	if (ty_gather_units(job) > TY_GATHER_UNITS_MAX || job->block_count > TY_GATHER_BLOCKS)
		standin_misuse("a gather job of %llu units", (unsigned long long)ty_gather_units(job));
	if (ty_gather_units(job) == 0)
		return;
	if (job->tile % TY_GATHER_UNIT || job->block_stride % TY_GATHER_UNIT)
		standin_misuse("a gather job that is not aligned");
	standin_check_device(context, job->tile, ty_gather_units(job) * TY_GATHER_UNIT, "a gather job's tile");
	standin_check_device(context, job->planes, job->plane_count * sizeof *planes, "a gather job's plane table");
	planes = (const uint64_t *)(uintptr_t)job->planes;
	for (uint32_t b = 0; b < job->block_count; b++)
		for (uint32_t p = 0; p < job->plane_count && job->blocks[b] < job->block_limit; p++) {
			if (planes[p] % TY_GATHER_UNIT)
				standin_misuse("a plane that is not aligned");
			standin_check_device(context, planes[p] + job->blocks[b] * job->block_stride, bytes,
				"a gather job's run");
		}
}

static void run_gather(const void *parameters, unsigned grid)
{
	const struct ty_gather_job *job = parameters;

	(void)grid; /* any grid does all of it */
	check_gather(job);
	ty_gather_c(job, 0, ty_gather_units(job));
}

static void run_scatter(const void *parameters, unsigned grid)
{
	const struct ty_gather_job *job = parameters;

	(void)grid;
	check_gather(job);
	ty_scatter_c(job, 0, ty_gather_units(job));
}

static void check_few(const void *parameters)
{
	const struct ty_gather_few *job = parameters;

	if (job->block_count > TY_GATHER_FEW)
		standin_misuse("a job of %u blocks for the kernel of few", job->block_count);
}

static void run_gather_few(const void *parameters, unsigned grid)
{
	check_few(parameters);
	run_gather(parameters, grid);
}

static void run_scatter_few(const void *parameters, unsigned grid)
{
	check_few(parameters);
	run_scatter(parameters, grid);
}

static void check_pattern(const struct ty_pattern_job *job, unsigned grid)
{
	if (grid != job->run_count || job->run_count > TY_PATTERN_RUNS)
		standin_misuse("a pattern job of %u runs on a grid of %u", job->run_count, grid);
	for (uint32_t i = 0; i < job->run_count; i++)
		standin_check_device(standin_current(), job->runs[i].address, (uint64_t)job->words * 8, "a pattern's run");
}

static void run_fill(const void *parameters, unsigned grid)
{
	check_pattern(parameters, grid);
	ty_pattern_fill_c(parameters);
}

static void run_check(const void *parameters, unsigned grid)
{
	const struct ty_pattern_job *job = parameters;

	check_pattern(job, grid);
	standin_check_device(standin_current(), job->verdict, sizeof(struct ty_pattern_verdict), "a verdict");
	ty_pattern_check_c(job);
}

static void run_load(const void *parameters, unsigned grid)
{
	const struct ty_load_job *job = parameters;

	(void)grid; /* it reads, and nobody sees what */
	standin_check_device(standin_current(), job->address, job->units * TY_BUSY_UNIT, "a load");
	standin_check_device(standin_current(), job->sink, 16, "a load's sink");
}

static void run_spin(const void *parameters, unsigned grid)
{
	const struct ty_spin_job *job = parameters;

	(void)grid;
	standin_check_device(standin_current(), job->address, 8, "a spinning kernel's word");
}

static bool spin_ready(const void *parameters)
{
	const struct ty_spin_job *job = parameters;

	return *(const volatile uint64_t *)(uintptr_t)job->address != 0;
}

static struct cu_function_object functions[] = {
	{TY_KERNEL_GATHER, sizeof(struct ty_gather_job), run_gather, NULL},
	{TY_KERNEL_SCATTER, sizeof(struct ty_gather_job), run_scatter, NULL},
	{TY_KERNEL_GATHER_FEW, sizeof(struct ty_gather_few), run_gather_few, NULL},
	{TY_KERNEL_SCATTER_FEW, sizeof(struct ty_gather_few), run_scatter_few, NULL},
	{TY_KERNEL_FILL, sizeof(struct ty_pattern_job), run_fill, NULL},
	{TY_KERNEL_CHECK, sizeof(struct ty_pattern_job), run_check, NULL},
	{TY_BUSY_LOAD, sizeof(struct ty_load_job), run_load, NULL},
	{TY_BUSY_SPIN, sizeof(struct ty_spin_job), run_spin, spin_ready},
};

cu_function standin_function(const char *name)
{
	for (unsigned i = 0; i < sizeof functions / sizeof functions[0]; i++)
		if (!strcmp(functions[i].name, name))
			return &functions[i];
	return NULL;
}

/* ---- running ---------------------------------------------------------------------------------- */

static bool ready(const struct op *op)
{
	if (op->kind == OP_LAUNCH && op->function->ready && !op->function->ready(op->parameters))
		return false;
	if (op->hangs && !standin_released())
		return false;
	if (op->kind == OP_UNTIL) /* acquire: pairs with whoever raised it, in another process too */
		return atomic_load_explicit((_Atomic uint64_t *)op->to, memory_order_acquire) >= op->lap;
	return op->kind != OP_WAIT || op->event->reached >= op->lap;
}

static void run_copy(cu_context context, const struct op *op)
{
	size_t rows = op->rows ? op->rows : 1;
	uint64_t to_bytes = (rows - 1) * op->to_pitch + op->bytes, from_bytes = (rows - 1) * op->from_pitch + op->bytes;

	/* what was fine when it was queued may have been given back since */
	if (op->to_host) {
		standin_check_device(context, (uint64_t)(uintptr_t)op->from, from_bytes, "a copy to the host");
		standin_check_host(context, op->to, to_bytes, "a copy to the host");
	} else {
		standin_check_device(context, (uint64_t)(uintptr_t)op->to, to_bytes, "a copy to the device");
		standin_check_host(context, op->from, from_bytes, "a copy to the device");
	}
	for (size_t r = 0; r < rows; r++)
		memcpy((char *)op->to + r * op->to_pitch, (const char *)op->from + r * op->from_pitch, op->bytes);
}

static void run(cu_stream stream)
{
	struct op *op = stream->first;
	cu_context context = stream->context;

	switch (op->kind) {
	case OP_COPY:
		run_copy(context, op);
		break;
	case OP_LAUNCH:
		op->function->run(op->parameters, op->grid);
		break;
	case OP_RECORD:
		if (op->lap > op->event->reached) /* of one that was recorded in another stream since, the later record counts */
			op->event->reached = op->lap;
		op->event->time = standin_clock();
		break;
	case OP_WRITE: /* release: what ran before it in the stream is seen by whoever sees it */
		atomic_store_explicit((_Atomic uint64_t *)op->to, op->lap, memory_order_release);
		break;
	case OP_WAIT:
	case OP_UNTIL:
		break;
	}
	stream->first = op->next;
	if (!stream->first)
		stream->last = NULL;
	free(op);
}

void standin_advance(cu_context context)
{
	const unsigned ops = atomic_load_explicit(&standin_settings.ops, memory_order_relaxed);

	for (unsigned done = 0; done < ops; done++) {
		cu_stream start = context->turn ? context->turn : context->streams, s = start;

		do {
			if (s && s->first && ready(s->first))
				break;
			s = s && s->next ? s->next : context->streams;
		} while (s != start);
		if (!s || !s->first || !ready(s->first))
			return;
		run(s);
		context->turn = s->next; /* null: from the beginning */
	}
}
