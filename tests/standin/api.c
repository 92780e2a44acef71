/* SPDX-License-Identifier: Apache-2.0
 *
 * The driver's functions. What the real ones answer to wrong arguments is answered alike; what they let pass and then go wrong
 * over, ends the process.
 */
#include <pthread.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/gather.h"
#include "standin_private.h"

#define FATBIN_MAGIC 0xba55ed50u

static struct cu_context_object contexts[STANDIN_DEVICES]; /* each its owner's; references under the lock */
static _Atomic pid_t initialized; /* process that called cuInit; relaxed, the caller orders its own calls */

/* Several threads in one context, where that is allowed: one after the other, as a driver's own lock has it. */
static pthread_mutex_t driver_lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;

static pthread_mutex_t *lock_driver(void)
{
	if (!standin_settings.any_thread)
		return NULL;
	pthread_mutex_lock(&driver_lock);
	return &driver_lock;
}

static void unlock_driver(pthread_mutex_t **lock)
{
	if (*lock)
		pthread_mutex_unlock(*lock);
}

/* A function that may fail: ENTER(name, context, queues) returns what was injected. */
#define ENTER(name, context, queues)                                                                                   \
	cu_result injected = standin_enter(STANDIN_##name, context, queues);                                           \
	if (injected != CU_SUCCESS && injected != STANDIN_HANG)                                                        \
		return injected;                                                                                       \
	__attribute__((cleanup(unlock_driver), unused)) pthread_mutex_t *locked = lock_driver()

/* A call that really waits for all work of the context: not between batches. */
static void would_wait(const char *name)
{
	/* where several threads share a context what is queued may be the engine's */
	if (!standin_settings.any_thread && !standin_idle(standin_current()))
		standin_misuse("%s while work is queued: it would wait", name);
}

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

cu_result cuInit(unsigned flags)
{
	ENTER(cuInit, false, false);
	if (flags)
		return CU_INVALID_VALUE;
	if (initialized && initialized != getpid())
		return CU_NOT_INITIALIZED; /* a child of a process that uses CUDA cannot */
	initialized = getpid();
	return standin_settings.devices ? CU_SUCCESS : CU_NO_DEVICE;
}

cu_result cuDriverGetVersion(int *version)
{
	ENTER(cuDriverGetVersion, false, false);
	*version = standin_settings.version;
	return CU_SUCCESS;
}

cu_result cuGetErrorName(cu_result error, const char **name)
{
	static const struct {
		cu_result error;
		const char *name;
	} known[] = {
		{CU_SUCCESS, "CUDA_SUCCESS"},
		{CU_INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE"},
		{CU_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"},
		{CU_NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED"},
		{CU_NO_DEVICE, "CUDA_ERROR_NO_DEVICE"},
		{CU_INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE"},
		{CU_INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT"},
		{CU_NOT_READY, "CUDA_ERROR_NOT_READY"},
		{CU_ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS"},
		{CU_ALREADY_REGISTERED, "CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED"},
		{CU_LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED"},
		{CU_UNKNOWN, "CUDA_ERROR_UNKNOWN"},
	};

	ENTER(cuGetErrorName, false, false);
	for (unsigned i = 0; i < sizeof known / sizeof known[0]; i++)
		if (known[i].error == error) {
			*name = known[i].name;
			return CU_SUCCESS;
		}
	*name = NULL;
	return CU_INVALID_VALUE;
}

cu_result cuDeviceGetCount(int *count)
{
	ENTER(cuDeviceGetCount, false, false);
	if (initialized != getpid())
		return CU_NOT_INITIALIZED;
	*count = standin_settings.devices;
	return CU_SUCCESS;
}

cu_result cuDeviceGet(cu_device *device, int ordinal)
{
	ENTER(cuDeviceGet, false, false);
	if (ordinal < 0 || ordinal >= standin_settings.devices)
		return CU_INVALID_DEVICE;
	*device = ordinal;
	return CU_SUCCESS;
}

cu_result cuDeviceGetName(char *name, int length, cu_device device)
{
	ENTER(cuDeviceGetName, false, false);
	snprintf(name, (size_t)length, "Stand-in GPU %d", device);
	return CU_SUCCESS;
}

cu_result cuDeviceGetPCIBusId(char *id, int length, cu_device device)
{
	ENTER(cuDeviceGetPCIBusId, false, false);
	snprintf(id, (size_t)length, "FFFF:%02X:00.0", device); /* none that a machine has */
	return CU_SUCCESS;
}

cu_result cuDeviceGetUuid(struct cu_uuid *uuid, cu_device device)
{
	ENTER(cuDeviceGetUuid, false, false);
	memset(uuid, 0x5a, sizeof *uuid);
	uuid->bytes[15] = (unsigned char)device;
	return CU_SUCCESS;
}

cu_result cuDeviceGetAttribute(int *value, int attribute, cu_device device)
{
	(void)device;
	ENTER(cuDeviceGetAttribute, false, false);
	if (attribute != CU_ATTRIBUTE_MULTIPROCESSORS && attribute != CU_ATTRIBUTE_MAX_PITCH)
		return CU_INVALID_VALUE;
	*value = attribute == CU_ATTRIBUTE_MULTIPROCESSORS ? 4 : STANDIN_PITCH;
	return CU_SUCCESS;
}

cu_result cuDevicePrimaryCtxRetain(cu_context *context, cu_device device)
{
	cu_context c = &contexts[device];

	ENTER(cuDevicePrimaryCtxRetain, false, false);
	standin_lock();
	if (c->references++ == 0) {
		*c = (struct cu_context_object){.ordinal = device, .references = 1, .owner = gettid()};
	} else if (c->owner != gettid() && !standin_settings.any_thread) {
		standin_misuse("a second thread retains the context of device %d", device);
	}
	standin_unlock();
	*context = c;
	return CU_SUCCESS;
}

cu_result cuDevicePrimaryCtxRelease(cu_device device)
{
	cu_context c = &contexts[device];

	ENTER(cuDevicePrimaryCtxRelease, false, false);
	standin_lock();
	if (c->references < 1 || (c->owner != gettid() && !standin_settings.any_thread))
		standin_misuse("device %d's context is released by a thread that has none", device);
	if (--c->references == 0 && (c->streams || c->used))
		standin_misuse("device %d's context is released with streams or memory in it", device);
	if (c->references == 0 && standin_settings.forget)
		standin_forget_host(c);
	standin_unlock();
	return CU_SUCCESS;
}

cu_result cuCtxSetCurrent(cu_context context)
{
	ENTER(cuCtxSetCurrent, false, false);
	if (context && (context->references < 1 || (context->owner != gettid() && !standin_settings.any_thread)))
		standin_misuse("a thread makes another's context current");
	standin_set_current(context);
	return CU_SUCCESS;
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
	e->timed = flags == CU_EVENT_TIMED;
	*event = e;
	standin_objects++;
	return CU_SUCCESS;
}

cu_result cuEventDestroy(cu_event event)
{
	ENTER(cuEventDestroy, true, false);
	check_event(event, "cuEventDestroy");
	if (event->reached != event->recorded)
		standin_misuse("cuEventDestroy of an event that is not reached");
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

cu_result cuModuleLoadData(cu_module *module, const void *image)
{
	uint32_t magic;

	ENTER(cuModuleLoadData, true, false);
	memcpy(&magic, image, sizeof magic);
	if (magic != FATBIN_MAGIC)
		return CU_INVALID_IMAGE;
	*module = malloc(1);
	standin_objects++;
	return *module ? CU_SUCCESS : CU_OUT_OF_MEMORY;
}

cu_result cuModuleUnload(cu_module module)
{
	ENTER(cuModuleUnload, true, false);
	would_wait("cuModuleUnload");
	free(module);
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

cu_result cuMemAlloc(cu_address *address, size_t bytes)
{
	ENTER(cuMemAlloc, true, false);
	return standin_allocate(standin_current(), bytes, address);
}

cu_result cuMemFree(cu_address address)
{
	ENTER(cuMemFree, true, false);
	would_wait("cuMemFree");
	standin_free(standin_current(), address);
	return CU_SUCCESS;
}

cu_result cuMemGetInfo(size_t *free_bytes, size_t *total_bytes)
{
	ENTER(cuMemGetInfo, true, false);
	*total_bytes = standin_settings.memory;
	*free_bytes = standin_settings.memory - standin_current()->used;
	return CU_SUCCESS;
}

cu_result cuMemGetAddressRange(cu_address *base, size_t *bytes, cu_address address)
{
	ENTER(cuMemGetAddressRange, true, false);
	return standin_range(address, base, bytes) ? CU_SUCCESS : CU_INVALID_VALUE;
}

cu_result cuMemHostAlloc(void **memory, size_t bytes, unsigned flags)
{
	ENTER(cuMemHostAlloc, true, false);
	if (posix_memalign(memory, 4096, bytes))
		return CU_OUT_OF_MEMORY;
	return standin_register(standin_current(), *memory, bytes, flags & CU_HOST_PORTABLE, true);
}

cu_result cuMemFreeHost(void *memory)
{
	cu_result result;

	ENTER(cuMemFreeHost, true, false);
	would_wait("cuMemFreeHost");
	result = standin_unregister(standin_current(), memory, true);
	if (result == CU_SUCCESS)
		free(memory);
	return result;
}

cu_result cuMemHostRegister(void *memory, size_t bytes, unsigned flags)
{
	ENTER(cuMemHostRegister, true, false);
	if (!memory || !bytes || flags & ~(unsigned)(CU_HOST_PORTABLE | CU_HOST_DEVICEMAP))
		return CU_INVALID_VALUE;
	return standin_register(standin_current(), memory, bytes, flags & CU_HOST_PORTABLE, false);
}

cu_result cuMemHostUnregister(void *memory)
{
	ENTER(cuMemHostUnregister, true, false);
	would_wait("cuMemHostUnregister");
	return standin_unregister(standin_current(), memory, false);
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

/* A handle that is none: some drivers do not know what to say. The context is well. */
static cu_result handle_answer(cu_result result)
{
	return result == CU_INVALID_VALUE && standin_settings.unknown ? CU_UNKNOWN : result;
}

cu_result cuIpcGetMemHandle(struct cu_ipc_handle *handle, cu_address address)
{
	ENTER(cuIpcGetMemHandle, true, false);
	return standin_export(address, handle);
}

cu_result cuIpcOpenMemHandle(cu_address *address, struct cu_ipc_handle handle, unsigned flags)
{
	ENTER(cuIpcOpenMemHandle, true, false);
	if (flags != CU_IPC_LAZY_PEER)
		return CU_INVALID_VALUE;
	return handle_answer(standin_import(standin_current(), &handle, address));
}

cu_result cuIpcCloseMemHandle(cu_address address)
{
	ENTER(cuIpcCloseMemHandle, true, false);
	would_wait("cuIpcCloseMemHandle");
	standin_close(standin_current(), address);
	return CU_SUCCESS;
}

cu_result cuMemCreate(cu_piece *piece, size_t bytes, const struct cu_piece_properties *properties, uint64_t flags)
{
	ENTER(cuMemCreate, true, false);
	if (flags || properties->type != CU_PIECE_PINNED || properties->handle_types != CU_HANDLE_POSIX_FD ||
		properties->location.type != CU_LOCATION_DEVICE || properties->location.id != standin_current()->ordinal)
		return CU_INVALID_VALUE;
	return standin_piece_create(standin_current(), bytes, piece);
}

cu_result cuMemRelease(cu_piece piece)
{
	ENTER(cuMemRelease, true, false);
	standin_piece_release(piece);
	return CU_SUCCESS;
}

cu_result cuMemExportToShareableHandle(void *handle, cu_piece piece, int type, uint64_t flags)
{
	ENTER(cuMemExportToShareableHandle, true, false);
	return type != CU_HANDLE_POSIX_FD || flags ? CU_INVALID_VALUE : standin_piece_export(piece, handle);
}

cu_result cuMemImportFromShareableHandle(cu_piece *piece, void *handle, int type)
{
	ENTER(cuMemImportFromShareableHandle, true, false);
	return type != CU_HANDLE_POSIX_FD ? CU_INVALID_VALUE : handle_answer(standin_piece_import((int)(intptr_t)handle, piece));
}

cu_result cuMemAddressReserve(cu_address *address, size_t bytes, size_t alignment, cu_address wish, uint64_t flags)
{
	ENTER(cuMemAddressReserve, true, false);
	return alignment || wish || flags ? CU_INVALID_VALUE : standin_reserve(standin_current(), bytes, address);
}

cu_result cuMemAddressFree(cu_address address, size_t bytes)
{
	ENTER(cuMemAddressFree, true, false);
	standin_unreserve(address, bytes);
	return CU_SUCCESS;
}

cu_result cuMemMap(cu_address address, size_t bytes, size_t offset, cu_piece piece, uint64_t flags)
{
	ENTER(cuMemMap, true, false);
	return offset || flags ? CU_INVALID_VALUE : standin_map_piece(address, bytes, piece);
}

cu_result cuMemUnmap(cu_address address, size_t bytes)
{
	ENTER(cuMemUnmap, true, false);
	would_wait("cuMemUnmap");
	standin_unmap_piece(address, bytes);
	return CU_SUCCESS;
}

cu_result cuMemSetAccess(cu_address address, size_t bytes, const struct cu_access *access, size_t count)
{
	ENTER(cuMemSetAccess, true, false);
	if (count != 1 || access->location.type != CU_LOCATION_DEVICE || access->location.id != standin_current()->ordinal ||
		access->flags != CU_ACCESS_READ_WRITE)
		return CU_INVALID_VALUE;
	return standin_access(standin_current(), address, bytes);
}

cu_result cuCtxGetCurrent(cu_context *context)
{
	ENTER(cuCtxGetCurrent, false, false);
	*context = standin_current();
	return CU_SUCCESS;
}

cu_result cuMemHostGetDevicePointer(cu_address *address, void *memory, unsigned flags)
{
	ENTER(cuMemHostGetDevicePointer, true, false);
	if (flags)
		return CU_INVALID_VALUE;
	standin_check_host(standin_current(), memory, 1, "cuMemHostGetDevicePointer");
	*address = (cu_address)(uintptr_t)memory;
	return CU_SUCCESS;
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

STANDIN_EXPORT standin_queued_fn standin_queued;
uint64_t standin_queued(void)
{
	uint64_t most = 0;

	for (unsigned i = 0; i < STANDIN_DEVICES; i++)
		for (cu_stream s = contexts[i].references ? contexts[i].streams : NULL; s; s = s->next) {
			uint64_t count = 0;

			for (const struct op *op = s->first; op; op = op->next)
				count++;
			most = count > most ? count : most;
		}
	return most;
}

/* How the functions are found. */
STANDIN_EXPORT cu_result cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, int *status);
cu_result cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, int *status)
{
	static const struct {
		const char *name;
		void (*function)(void);
		int since;
	} known[] = {
#define STANDIN_ENTRY(name, suffix, parameters) {#name, (void (*)(void))name, TY_CUDA_VERSION},
		TY_CUDA_FUNCTIONS(STANDIN_ENTRY)
#undef STANDIN_ENTRY
#define STANDIN_ENTRY(name, suffix, parameters, asked, since) {asked, (void (*)(void))name, since},
		TY_CUDA_OPTIONAL(STANDIN_ENTRY) /* a later one of a name replaces the earlier */
#undef STANDIN_ENTRY
#define STANDIN_ENTRY(name, suffix, parameters, since) {#name, (void (*)(void))name, since},
		TY_CUDA_WORDS(STANDIN_ENTRY)
#undef STANDIN_ENTRY
	};

	(void)flags;
	*function = NULL;
	for (unsigned i = 0; i < STANDIN_NAMES && version <= standin_settings.version && !standin_missing(name); i++)
		if (!strcmp(known[i].name, name) && known[i].since <= version)
			memcpy(function, &known[i].function, sizeof *function);
	if (status)
		*status = *function ? 0 : 1;
	return *function ? CU_SUCCESS : CU_NOT_FOUND;
}
