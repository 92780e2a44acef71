/* SPDX-License-Identifier: Apache-2.0
 *
 * The driver's functions for what is queued: streams, events, kernels, copies, words. What the real ones answer to wrong arguments is
 * answered alike; what they let pass and then go wrong over, ends the process.
 */
#include <stdlib.h>
#include <string.h>

#include "api.h"
#include "kernels/gather.h"

#define FATBIN_MAGIC 0xba55ed50u

static void check_stream(cu_stream stream, const char *name)
{
	if (!stream)
		standin_misuse("%s on the legacy stream", name);
	if (stream->context != standin_current())
		standin_misuse("%s on another context's stream", name);
}

static void check_event(cu_event event, const char *name)
{
	if (!event || event->context != standin_current())
		standin_misuse("%s with no event of this context", name);
}

static void queue(cu_stream stream, const struct op *what, cu_result injected)
{
	struct op *op = malloc(sizeof *op);

	if (!op)
		standin_misuse("no memory");
	*op = *what;
	op->hangs = injected == STANDIN_HANG;
	standin_push(stream, op);
}

cu_result cuStreamCreate(cu_stream *stream, unsigned flags)
{
	ENTER(cuStreamCreate, true, false);
	if (flags != CU_STREAM_NON_BLOCKING)
		standin_misuse("a stream that waits for the legacy stream");
	*stream = standin_stream_create(standin_current());
	return CU_SUCCESS;
}

cu_result cuStreamDestroy(cu_stream stream)
{
	ENTER(cuStreamDestroy, true, false);
	check_stream(stream, "cuStreamDestroy");
	standin_stream_destroy(stream);
	return CU_SUCCESS;
}

cu_result cuStreamWaitEvent(cu_stream stream, cu_event event, unsigned flags)
{
	struct op op = {.kind = OP_WAIT, .event = event};

	ENTER(cuStreamWaitEvent, true, true);
	check_stream(stream, "cuStreamWaitEvent");
	check_event(event, "cuStreamWaitEvent");
	if (flags)
		return CU_INVALID_VALUE;
	op.lap = event->recorded; /* what has been recorded by now, not what may be later */
	queue(stream, &op, injected);
	return CU_SUCCESS;
}

cu_result cuEventCreate(cu_event *event, unsigned flags)
{
	cu_event e = calloc(1, sizeof *e);

	if (!e)
		standin_misuse("no memory");
	cu_result injected = standin_enter(STANDIN_cuEventCreate, true, false);

	if (injected != CU_SUCCESS || (flags != CU_EVENT_TIMED && flags != CU_EVENT_NO_TIMING)) {
		free(e);
		return injected != CU_SUCCESS ? injected : CU_INVALID_VALUE;
	}
	e->context = standin_current();
	standin_lock();
	e->next = e->context->events;
	e->context->events = e;
	standin_unlock();
	e->timed = flags == CU_EVENT_TIMED;
	*event = e;
	standin_objects++;
	return CU_SUCCESS;
}

cu_result cuEventDestroy(cu_event event)
{
	cu_event *at;

	ENTER(cuEventDestroy, true, false);
	check_event(event, "cuEventDestroy");
	if (event->reached != event->recorded)
		standin_misuse("cuEventDestroy of an event that is not reached");
	standin_lock();
	for (at = &event->context->events; *at != event;)
		at = &(*at)->next;
	*at = event->next;
	standin_unlock();
	free(event);
	standin_objects--;
	return CU_SUCCESS;
}

cu_result cuEventRecord(cu_event event, cu_stream stream)
{
	struct op op = {.kind = OP_RECORD, .event = event};

	ENTER(cuEventRecord, true, true);
	check_stream(stream, "cuEventRecord");
	check_event(event, "cuEventRecord");
	op.lap = ++event->recorded;
	queue(stream, &op, injected);
	return CU_SUCCESS;
}

cu_result cuEventQuery(cu_event event)
{
	ENTER(cuEventQuery, true, true);
	check_event(event, "cuEventQuery");
	if (injected == STANDIN_HANG)
		return CU_NOT_READY;
	if (event->reached < event->recorded)
		standin_advance(standin_current());
	return event->reached >= event->recorded ? CU_SUCCESS : CU_NOT_READY;
}

cu_result cuEventElapsedTime(float *milliseconds, cu_event start, cu_event end)
{
	ENTER(cuEventElapsedTime, true, false);
	check_event(start, "cuEventElapsedTime");
	check_event(end, "cuEventElapsedTime");
	if (!start->timed || !end->timed || !start->recorded || !end->recorded)
		return CU_INVALID_HANDLE;
	if (start->reached < start->recorded || end->reached < end->recorded)
		return CU_NOT_READY;
	*milliseconds = (float)(end->time - start->time) / 1e6f + 0.001f;
	return CU_SUCCESS;
}

static char loaded; /* every module */

cu_result cuModuleLoadData(cu_module *module, const void *image)
{
	uint32_t magic;

	ENTER(cuModuleLoadData, true, false);
	memcpy(&magic, image, sizeof magic);
	if (magic != FATBIN_MAGIC)
		return CU_INVALID_IMAGE;
	*module = (cu_module)(void *)&loaded;
	standin_objects++;
	return CU_SUCCESS;
}

cu_result cuModuleUnload(cu_module module)
{
	ENTER(cuModuleUnload, true, false);
	standin_would_wait("cuModuleUnload");
	if (module != (cu_module)(void *)&loaded)
		standin_misuse("cuModuleUnload of no module");
	standin_objects--;
	return CU_SUCCESS;
}

cu_result cuModuleGetFunction(cu_function *function, cu_module module, const char *name)
{
	ENTER(cuModuleGetFunction, true, false);
	if (!module)
		return CU_INVALID_HANDLE;
	*function = standin_function(name);
	return *function ? CU_SUCCESS : CU_NOT_FOUND;
}

cu_result cuLaunchKernel(cu_function function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
	unsigned block_y, unsigned block_z, unsigned shared_bytes, cu_stream stream, void **parameters, void **extra)
{
	struct op op = {.kind = OP_LAUNCH, .function = function, .grid = grid_x};

	ENTER(cuLaunchKernel, true, true);
	check_stream(stream, "cuLaunchKernel");
	if (grid_x < 1 || grid_y != 1 || grid_z != 1 || block_x != TY_KERNEL_THREADS || block_y != 1 || block_z != 1 ||
		shared_bytes || !parameters || extra)
		return CU_INVALID_VALUE;
	memcpy(op.parameters, parameters[0], function->bytes);
	queue(stream, &op, injected);
	return CU_SUCCESS;
}

cu_result cuMemcpyHtoDAsync(cu_address to, const void *from, size_t bytes, cu_stream stream)
{
	struct op op = {.kind = OP_COPY, .to = (void *)(uintptr_t)to, .from = from, .bytes = bytes};

	ENTER(cuMemcpyHtoDAsync, true, true);
	check_stream(stream, "cuMemcpyHtoDAsync");
	standin_check_device(standin_current(), to, bytes, "cuMemcpyHtoDAsync");
	standin_check_host(standin_current(), from, bytes, "cuMemcpyHtoDAsync");
	queue(stream, &op, injected);
	return CU_SUCCESS;
}

cu_result cuMemcpyDtoHAsync(void *to, cu_address from, size_t bytes, cu_stream stream)
{
	struct op op = {.kind = OP_COPY, .to_host = true, .to = to, .from = (const void *)(uintptr_t)from,
		.bytes = bytes};

	ENTER(cuMemcpyDtoHAsync, true, true);
	check_stream(stream, "cuMemcpyDtoHAsync");
	standin_check_device(standin_current(), from, bytes, "cuMemcpyDtoHAsync");
	standin_check_host(standin_current(), to, bytes, "cuMemcpyDtoHAsync");
	queue(stream, &op, injected);
	return CU_SUCCESS;
}

cu_result cuMemcpy2DAsync(const struct cu_copy_2d *copy, cu_stream stream)
{
	bool to_host = copy->from_type == CU_MEMORY_DEVICE;
	struct op op = {.kind = OP_COPY, .to_host = to_host, .bytes = copy->width, .rows = copy->rows,
		.to_pitch = copy->to_pitch, .from_pitch = copy->from_pitch};
	cu_address device = to_host ? copy->from_device : copy->to_device, base;
	size_t pitch = to_host ? copy->from_pitch : copy->to_pitch, room;

	ENTER(cuMemcpy2DAsync, true, true);
	check_stream(stream, "cuMemcpy2DAsync");
	if (copy->from_type + copy->to_type != CU_MEMORY_HOST + CU_MEMORY_DEVICE || copy->from_x || copy->from_y || copy->to_x ||
		copy->to_y || copy->from_array || copy->to_array || !copy->width || !copy->rows ||
		copy->from_pitch < copy->width || copy->to_pitch < copy->width || copy->from_pitch > STANDIN_PITCH ||
		copy->to_pitch > STANDIN_PITCH)
		return CU_INVALID_VALUE;
	/* rows that cross allocations are refused by a real one too */
	if (!standin_range(device, &base, &room) || (copy->rows - 1) * pitch + copy->width > room - (device - base))
		return CU_INVALID_VALUE;
	op.to = to_host ? copy->to_host : (void *)(uintptr_t)copy->to_device;
	op.from = to_host ? (const void *)(uintptr_t)copy->from_device : copy->from_host;
	standin_check_host(standin_current(), to_host ? op.to : op.from,
		(copy->rows - 1) * (to_host ? copy->to_pitch : copy->from_pitch) + copy->width, "cuMemcpy2DAsync");
	queue(stream, &op, injected);
	return CU_SUCCESS;
}

static cu_result queue_batch(const cu_address *to, const cu_address *from, const size_t *bytes, size_t count,
	const struct cu_batch_attributes *attributes, const size_t *first, size_t attribute_count, cu_stream stream,
	cu_result injected)
{
	cu_address base;
	size_t room;

	check_stream(stream, "cuMemcpyBatchAsync");
	if (count == 0 || attribute_count != 1 || first[0] != 0 || attributes->order != CU_ORDER_STREAM || attributes->flags)
		return CU_INVALID_VALUE;
	for (size_t i = 0; i < count; i++)
		if (bytes[i] == 0 || standin_range(from[i], &base, &room) == standin_range(to[i], &base, &room))
			return CU_INVALID_VALUE;
	for (size_t i = 0; i < count; i++) {
		struct op op = {.kind = OP_COPY, .to_host = standin_range(from[i], &base, &room), .bytes = bytes[i],
			.to = (void *)(uintptr_t)to[i], .from = (const void *)(uintptr_t)from[i]};

		standin_check_device(standin_current(), op.to_host ? from[i] : to[i], bytes[i], "cuMemcpyBatchAsync");
		standin_check_host(standin_current(), op.to_host ? op.to : op.from, bytes[i], "cuMemcpyBatchAsync");
		queue(stream, &op, i == 0 ? injected : CU_SUCCESS);
	}
	return CU_SUCCESS;
}

cu_result cuMemcpyBatchAsync(cu_address *to, cu_address *from, size_t *bytes, size_t count,
	struct cu_batch_attributes *attributes, size_t *first, size_t attribute_count, size_t *failed, cu_stream stream)
{
	ENTER(cuMemcpyBatchAsync, true, true);
	if (!failed)
		return CU_INVALID_VALUE;
	*failed = SIZE_MAX;
	return queue_batch(to, from, bytes, count, attributes, first, attribute_count, stream, injected);
}

cu_result cuMemcpyBatchAsync_v2(const cu_address *to, const cu_address *from, const size_t *bytes, size_t count,
	struct cu_batch_attributes *attributes, size_t *first, size_t attribute_count, cu_stream stream)
{
	ENTER(cuMemcpyBatchAsync_v2, true, true);
	return queue_batch(to, from, bytes, count, attributes, first, attribute_count, stream, injected);
}

static void queue_word(cu_stream stream, enum op_kind kind, cu_address address, uint64_t value, const char *name, cu_result injected)
{
	struct op op = {.to = (void *)(uintptr_t)address, .lap = value};

	op.kind = kind;
	check_stream(stream, name);
	if (address % sizeof(uint64_t))
		standin_misuse("%s at %#llx, which is not aligned", name, (unsigned long long)address);
	standin_check_host(standin_current(), op.to, sizeof(uint64_t), name);
	queue(stream, &op, injected);
}

cu_result cuStreamWriteValue64(cu_stream stream, cu_address address, uint64_t value, unsigned flags)
{
	ENTER(cuStreamWriteValue64, true, true);
	if (flags)
		return CU_INVALID_VALUE;
	queue_word(stream, OP_WRITE, address, value, "cuStreamWriteValue64", injected);
	return CU_SUCCESS;
}

cu_result cuStreamWaitValue64(cu_stream stream, cu_address address, uint64_t value, unsigned flags)
{
	ENTER(cuStreamWaitValue64, true, true);
	if (flags != CU_WAIT_GEQ)
		return CU_INVALID_VALUE;
	queue_word(stream, OP_UNTIL, address, value, "cuStreamWaitValue64", injected);
	return CU_SUCCESS;
}
