/* SPDX-License-Identifier: Apache-2.0
 *
 * The engine's side. Its functions finish before they return, so they look at an event until it is there; that is for an engine's
 * stand-in only, no owner does it.
 */
#include "cuda_client.h"

#include <assert.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cuda_driver.h"
#include "device_private.h"
#include "kernels/gather.h"

#define GRANULE ((uint64_t)2 << 20) /* allocations are multiples of it: smaller ones would share a handle with others */
#define BOUNCE_BYTES ((uint64_t)4 << 20)
#define WAIT_NS ((int64_t)120 * 1000000000)

_Static_assert(sizeof(struct ty_pattern_run) == sizeof(struct ty_pattern_place), "runs are copied into jobs whole");

struct ty_cuda_client {
	struct ty_cuda api;
	const void *owner;
	int ordinal;
	cu_device device;
	cu_context context;
	cu_module module, launched; /* the second: of ty_cuda_client_launch */
	cu_function fill, check; /* null: no kernels in this build */
	cu_stream streams[2];    /* to the host, to the device */
	cu_event done, start, end;
	uint8_t uuid[TY_UUID_BYTES];
	uint8_t *bounce;         /* page-locked */
	cu_address verdict;
};

static enum ty_code enter(struct ty_cuda_client *c, struct ty_error *err)
{
	cu_result result;

	assert(c->owner == ty_device_thread());
	result = ty_cuda_use(&c->api, c->context);
	return result == CU_SUCCESS ? TY_OK : ty_cuda_fail(&c->api, err, "cuCtxSetCurrent", result);
}

static enum ty_code finish(struct ty_cuda_client *c, cu_event event, const char *what, struct ty_error *err)
{
	int64_t deadline = ty_device_clock() + WAIT_NS;
	cu_result result;

	while ((result = c->api.cuEventQuery(event)) == CU_NOT_READY) {
		if (ty_device_clock() > deadline)
			return ty_fail(err, TY_DEVICE_STALLED, "%s: not done after %d s", what, (int)(WAIT_NS / 1000000000));
		sched_yield();
	}
	return result == CU_SUCCESS ? TY_OK : ty_cuda_fail(&c->api, err, what, result);
}

static enum ty_code finish_stream(struct ty_cuda_client *c, cu_stream stream, const char *what, struct ty_error *err)
{
	cu_result result = c->api.cuEventRecord(c->done, stream);

	return result == CU_SUCCESS ? finish(c, c->done, what, err) : ty_cuda_fail(&c->api, err, "cuEventRecord", result);
}

static cu_result set_up(struct ty_cuda_client *c, const char **call)
{
	struct cu_uuid uuid;
	cu_result result;

#define STEP(function, ...)                                                                                            \
	*call = #function;                                                                                             \
	result = c->api.function(__VA_ARGS__);                                                                         \
	if (result != CU_SUCCESS)                                                                                      \
	return result
	STEP(cuDeviceGetUuid, &uuid, c->device);
	memcpy(c->uuid, uuid.bytes, sizeof c->uuid);
	STEP(cuStreamCreate, &c->streams[0], CU_STREAM_NON_BLOCKING);
	STEP(cuStreamCreate, &c->streams[1], CU_STREAM_NON_BLOCKING);
	STEP(cuEventCreate, &c->done, CU_EVENT_NO_TIMING);
	STEP(cuEventCreate, &c->start, CU_EVENT_TIMED);
	STEP(cuEventCreate, &c->end, CU_EVENT_TIMED);
	STEP(cuMemHostAlloc, (void **)&c->bounce, BOUNCE_BYTES, CU_HOST_PORTABLE);
	STEP(cuMemAlloc, &c->verdict, sizeof(struct ty_pattern_verdict));
	if (ty_kernels_image_bytes) {
		STEP(cuModuleLoadData, &c->module, ty_kernels_image);
		STEP(cuModuleGetFunction, &c->fill, c->module, TY_KERNEL_FILL);
		STEP(cuModuleGetFunction, &c->check, c->module, TY_KERNEL_CHECK);
	}
#undef STEP
	return CU_SUCCESS;
}

enum ty_code ty_cuda_client_open(const char *driver, int ordinal, struct ty_cuda_client **out, struct ty_error *err)
{
	struct ty_cuda_client *c = calloc(1, sizeof *c);
	const char *call = "";
	enum ty_code code;

	*out = NULL;
	if (!c)
		return ty_fail(err, TY_NO_MEMORY, "no memory for a client of cuda:%d", ordinal);
	c->owner = ty_device_thread();
	c->ordinal = ordinal;
	code = ty_cuda_load(driver, &c->api, err);
	if (code == TY_OK)
		code = ty_cuda_context(&c->api, ordinal, &c->device, &c->context, err);
	if (code == TY_OK) {
		cu_result result = set_up(c, &call);

		if (result != CU_SUCCESS)
			code = ty_cuda_fail(&c->api, err, call, result);
	}
	if (code != TY_OK) {
		ty_cuda_client_close(c);
		return code;
	}
	*out = c;
	return TY_OK;
}

void ty_cuda_client_close(struct ty_cuda_client *c)
{
	struct ty_error err;

	if (!c)
		return;
	if (!c->context || enter(c, &err) != TY_OK)
		goto out;
	if (c->verdict)
		(void)c->api.cuMemFree(c->verdict);
	if (c->bounce)
		(void)c->api.cuMemFreeHost(c->bounce);
	if (c->launched)
		(void)c->api.cuModuleUnload(c->launched);
	if (c->module)
		(void)c->api.cuModuleUnload(c->module);
	if (c->done)
		(void)c->api.cuEventDestroy(c->done);
	if (c->start)
		(void)c->api.cuEventDestroy(c->start);
	if (c->end)
		(void)c->api.cuEventDestroy(c->end);
	for (unsigned i = 0; i < 2; i++)
		if (c->streams[i])
			(void)c->api.cuStreamDestroy(c->streams[i]);
	ty_cuda_forget(&c->api, c->context);
	(void)c->api.cuDevicePrimaryCtxRelease(c->device);
out:
	free(c);
}

void ty_cuda_client_uuid(const struct ty_cuda_client *c, uint8_t uuid[TY_UUID_BYTES])
{
	memcpy(uuid, c->uuid, TY_UUID_BYTES);
}

enum ty_code ty_cuda_client_alloc(struct ty_cuda_client *c, uint64_t bytes, uint64_t *address, struct ty_region *region,
	struct ty_error *err)
{
	struct cu_ipc_handle handle;
	enum ty_code code = enter(c, err);
	cu_result result;

	if (code != TY_OK)
		return code;
	if (bytes == 0 || bytes > UINT64_MAX - GRANULE)
		return ty_fail(err, TY_INVALID, "GPU memory: %llu bytes", (unsigned long long)bytes);
	bytes = (bytes + GRANULE - 1) / GRANULE * GRANULE;
	result = c->api.cuMemAlloc(address, bytes);
	if (result != CU_SUCCESS)
		return ty_fail(err, result == CU_OUT_OF_MEMORY ? TY_NO_MEMORY : TY_DEVICE_FAILED,
			"cuMemAlloc of %llu bytes: %s (%d)", (unsigned long long)bytes, ty_cuda_error_name(&c->api, result),
			result);
	result = c->api.cuIpcGetMemHandle(&handle, *address);
	if (result != CU_SUCCESS) {
		(void)c->api.cuMemFree(*address);
		return ty_cuda_fail(&c->api, err, "cuIpcGetMemHandle", result);
	}
	memset(region, 0, sizeof *region);
	region->fd = -1;
	memcpy(region->ipc_handle, handle.bytes, sizeof region->ipc_handle);
	region->allocation_bytes = region->length = bytes;
	return TY_OK;
}

void ty_cuda_client_free(struct ty_cuda_client *c, uint64_t address)
{
	struct ty_error err;

	if (enter(c, &err) == TY_OK)
		(void)c->api.cuMemFree(address);
}

void ty_cuda_client_free_pieces(struct ty_cuda_client *c, uint64_t address, uint32_t count, uint64_t bytes)
{
	struct ty_error err;

	if (enter(c, &err) != TY_OK)
		return;
	for (uint32_t i = 0; i < count; i++)
		(void)c->api.cuMemUnmap(address + i * bytes, bytes);
	(void)c->api.cuMemAddressFree(address, count * bytes);
}

enum ty_code ty_cuda_client_alloc_pieces(struct ty_cuda_client *c, uint32_t count, uint64_t bytes, uint64_t *address, int *fds,
	struct ty_error *err)
{
	const struct cu_location here = {CU_LOCATION_DEVICE, c->device};
	const struct cu_piece_properties properties = {.type = CU_PIECE_PINNED, .handle_types = CU_HANDLE_POSIX_FD, .location = here};
	const struct cu_access access = {here, CU_ACCESS_READ_WRITE};
	enum ty_code code = enter(c, err);
	const char *call = "cuMemAddressReserve";
	uint32_t mapped = 0, exported = 0;
	cu_result result;

	if (code != TY_OK)
		return code;
	result = c->api.cuMemAddressReserve(address, count * bytes, 0, 0, 0);
	if (result != CU_SUCCESS)
		return ty_cuda_fail(&c->api, err, call, result);
	while (mapped < count && result == CU_SUCCESS) {
		cu_address at = *address + mapped * bytes;
		cu_piece piece;

		call = "cuMemCreate";
		result = c->api.cuMemCreate(&piece, bytes, &properties, 0);
		if (result != CU_SUCCESS)
			break;
		call = "cuMemMap";
		result = c->api.cuMemMap(at, bytes, 0, piece, 0);
		mapped += result == CU_SUCCESS;
		if (result == CU_SUCCESS) {
			call = "cuMemSetAccess";
			result = c->api.cuMemSetAccess(at, bytes, &access, 1);
		}
		if (result == CU_SUCCESS) {
			call = "cuMemExportToShareableHandle";
			result = c->api.cuMemExportToShareableHandle(&fds[exported], piece, CU_HANDLE_POSIX_FD, 0);
			exported += result == CU_SUCCESS;
		}
		(void)c->api.cuMemRelease(piece); /* the mapping keeps the memory */
	}
	if (result == CU_SUCCESS)
		return TY_OK;
	while (exported)
		close(fds[--exported]);
	for (uint32_t i = 0; i < mapped; i++)
		(void)c->api.cuMemUnmap(*address + i * bytes, bytes);
	(void)c->api.cuMemAddressFree(*address, count * bytes);
	return ty_cuda_fail(&c->api, err, call, result);
}

enum ty_code ty_cuda_client_host_alloc(struct ty_cuda_client *c, uint64_t bytes, void **out, struct ty_error *err)
{
	enum ty_code code = enter(c, err);
	cu_result result;

	if (code != TY_OK)
		return code;
	result = c->api.cuMemHostAlloc(out, bytes, CU_HOST_PORTABLE);
	return result == CU_SUCCESS ? TY_OK : ty_cuda_fail(&c->api, err, "cuMemHostAlloc", result);
}

void ty_cuda_client_host_free(struct ty_cuda_client *c, void *memory)
{
	struct ty_error err;

	if (enter(c, &err) == TY_OK)
		(void)c->api.cuMemFreeHost(memory);
}

enum ty_code ty_cuda_client_write(struct ty_cuda_client *c, uint64_t to, const void *from, uint64_t bytes,
	struct ty_error *err)
{
	const uint8_t *source = from;
	enum ty_code code = enter(c, err);

	for (uint64_t at = 0; at < bytes && code == TY_OK; at += BOUNCE_BYTES) {
		uint64_t part = bytes - at < BOUNCE_BYTES ? bytes - at : BOUNCE_BYTES;
		cu_result result;

		memcpy(c->bounce, source + at, part);
		result = c->api.cuMemcpyHtoDAsync(to + at, c->bounce, part, c->streams[1]);
		if (result != CU_SUCCESS)
			return ty_cuda_fail(&c->api, err, "cuMemcpyHtoDAsync", result);
		code = finish_stream(c, c->streams[1], "a copy to the device", err);
	}
	return code;
}

enum ty_code ty_cuda_client_read(struct ty_cuda_client *c, void *to, uint64_t from, uint64_t bytes, struct ty_error *err)
{
	uint8_t *target = to;
	enum ty_code code = enter(c, err);

	for (uint64_t at = 0; at < bytes && code == TY_OK; at += BOUNCE_BYTES) {
		uint64_t part = bytes - at < BOUNCE_BYTES ? bytes - at : BOUNCE_BYTES;
		cu_result result = c->api.cuMemcpyDtoHAsync(c->bounce, from + at, part, c->streams[0]);

		if (result != CU_SUCCESS)
			return ty_cuda_fail(&c->api, err, "cuMemcpyDtoHAsync", result);
		code = finish_stream(c, c->streams[0], "a copy to the host", err);
		if (code == TY_OK)
			memcpy(target + at, c->bounce, part);
	}
	return code;
}

/* One kernel over all runs, a job's worth of them at a time. */
static enum ty_code run_pattern(struct ty_cuda_client *c, cu_function function, uint64_t seed,
	const struct ty_pattern_run *runs, uint32_t count, uint32_t words, struct ty_error *err)
{
	struct ty_pattern_job job = {.seed = seed, .verdict = c->verdict, .words = words};
	void *parameters[] = {&job};

	if (!function)
		return ty_fail(err, TY_UNSUPPORTED, "no kernels in this build: nothing to fill or check GPU memory with");
	for (uint32_t at = 0; at < count; at += job.run_count) {
		cu_result result;

		job.first_run = at;
		job.run_count = count - at < TY_PATTERN_RUNS ? count - at : TY_PATTERN_RUNS;
		memcpy(job.runs, runs + at, job.run_count * sizeof job.runs[0]);
		result = c->api.cuLaunchKernel(function, job.run_count, 1, 1, TY_KERNEL_THREADS, 1, 1, 0, c->streams[0],
			parameters, NULL);
		if (result != CU_SUCCESS)
			return ty_cuda_fail(&c->api, err, "cuLaunchKernel", result);
		/* far below the depth at which a launch blocks */
		if (at / TY_PATTERN_RUNS % 256 == 255) {
			enum ty_code code = finish_stream(c, c->streams[0], "a pattern kernel", err);

			if (code != TY_OK)
				return code;
		}
	}
	return finish_stream(c, c->streams[0], "a pattern kernel", err);
}

enum ty_code ty_cuda_client_fill(struct ty_cuda_client *c, uint64_t seed, const struct ty_pattern_run *runs, uint32_t count,
	uint32_t words, struct ty_error *err)
{
	enum ty_code code = enter(c, err);

	return code == TY_OK ? run_pattern(c, c->fill, seed, runs, count, words, err) : code;
}

enum ty_code ty_cuda_client_check(struct ty_cuda_client *c, uint64_t seed, const struct ty_pattern_run *runs, uint32_t count,
	uint32_t words, struct ty_pattern_wrong *wrong, struct ty_error *err)
{
	struct ty_pattern_verdict verdict = {0, UINT64_MAX};
	enum ty_code code = ty_cuda_client_write(c, c->verdict, &verdict, sizeof verdict, err);

	memset(wrong, 0, sizeof *wrong);
	if (code == TY_OK)
		code = run_pattern(c, c->check, seed, runs, count, words, err);
	if (code == TY_OK)
		code = ty_cuda_client_read(c, &verdict, c->verdict, sizeof verdict, err);
	if (code != TY_OK || verdict.count == 0)
		return code;
	wrong->count = verdict.count;
	wrong->run = verdict.first >> 32;
	wrong->word = verdict.first & UINT32_MAX;
	if (wrong->run >= count || wrong->word >= words)
		return ty_fail(err, TY_INTERNAL, "the check kernel names word %llu of run %llu, of %u runs of %u words",
			(unsigned long long)wrong->word, (unsigned long long)wrong->run, count, words);
	return ty_cuda_client_read(c, &wrong->found, runs[wrong->run].address + wrong->word * 8, 8, err);
}

enum ty_code ty_cuda_client_time_copy(struct ty_cuda_client *c, bool to_host, void *host, uint64_t device, uint64_t bytes,
	double *seconds, struct ty_error *err)
{
	cu_stream stream = c->streams[!to_host];
	enum ty_code code = enter(c, err);
	const char *call = "cuEventRecord";
	float milliseconds = 0;
	cu_result result;

	if (code != TY_OK)
		return code;
	result = c->api.cuEventRecord(c->start, stream);
	if (result == CU_SUCCESS) {
		call = to_host ? "cuMemcpyDtoHAsync" : "cuMemcpyHtoDAsync";
		result = to_host ? c->api.cuMemcpyDtoHAsync(host, device, bytes, stream)
				 : c->api.cuMemcpyHtoDAsync(device, host, bytes, stream);
	}
	if (result == CU_SUCCESS) {
		call = "cuEventRecord";
		result = c->api.cuEventRecord(c->end, stream);
	}
	if (result != CU_SUCCESS)
		return ty_cuda_fail(&c->api, err, call, result);
	code = finish(c, c->end, "a timed copy", err);
	if (code != TY_OK)
		return code;
	result = c->api.cuEventElapsedTime(&milliseconds, c->start, c->end);
	if (result != CU_SUCCESS)
		return ty_cuda_fail(&c->api, err, "cuEventElapsedTime", result);
	*seconds = (double)milliseconds / 1e3;
	return TY_OK;
}

enum ty_code ty_cuda_client_time_both(struct ty_cuda_client *c, void *host[2], const uint64_t device[2], uint64_t bytes,
	uint32_t copies, double *seconds, struct ty_error *err)
{
	cu_event ends[2] = {c->start, c->end};
	enum ty_code code = enter(c, err);
	cu_result result = CU_SUCCESS;
	int64_t began = ty_device_clock();

	if (code != TY_OK)
		return code;
	for (uint32_t i = 0; i < copies && result == CU_SUCCESS; i++) {
		result = c->api.cuMemcpyDtoHAsync(host[0], device[0], bytes, c->streams[0]);
		if (result == CU_SUCCESS)
			result = c->api.cuMemcpyHtoDAsync(device[1], host[1], bytes, c->streams[1]);
	}
	for (unsigned i = 0; i < 2 && result == CU_SUCCESS; i++)
		result = c->api.cuEventRecord(ends[i], c->streams[i]);
	if (result != CU_SUCCESS)
		return ty_cuda_fail(&c->api, err, "copies both ways", result);
	for (unsigned i = 0; i < 2 && code == TY_OK; i++)
		code = finish(c, ends[i], "copies both ways", err);
	*seconds = (double)(ty_device_clock() - began) / 1e9;
	return code;
}

enum ty_code ty_cuda_client_launch(struct ty_cuda_client *c, const void *image, const char *kernel, const void *job, struct ty_error *err)
{
	void *parameters[] = {(void *)(uintptr_t)job};
	enum ty_code code = enter(c, err);
	cu_function function = NULL;
	cu_result result;

	if (code != TY_OK)
		return code;
	if (c->launched)
		return ty_fail(err, TY_LIMIT, "%s: this client has started a kernel before", kernel);
	result = c->api.cuModuleLoadData(&c->launched, image);
	if (result == CU_SUCCESS)
		result = c->api.cuModuleGetFunction(&function, c->launched, kernel);
	if (result == CU_SUCCESS)
		result = c->api.cuLaunchKernel(function, 1, 1, 1, TY_KERNEL_THREADS, 1, 1, 0, c->streams[0], parameters, NULL);
	return result == CU_SUCCESS ? TY_OK : ty_cuda_fail(&c->api, err, kernel, result);
}

void *ty_cuda_client_stream(struct ty_cuda_client *c, bool to_host)
{
	assert(c->owner == ty_device_thread());
	return c->streams[!to_host];
}

enum ty_code ty_cuda_client_queue(struct ty_cuda_client *c, bool to_host, void *host, uint64_t device, uint64_t bytes,
	struct ty_error *err)
{
	enum ty_code code = enter(c, err);
	cu_result result;

	if (code != TY_OK)
		return code;
	result = to_host ? c->api.cuMemcpyDtoHAsync(host, device, bytes, c->streams[0])
			 : c->api.cuMemcpyHtoDAsync(device, host, bytes, c->streams[1]);
	return result == CU_SUCCESS ? TY_OK : ty_cuda_fail(&c->api, err, "a queued copy", result);
}

enum ty_code ty_cuda_client_done(struct ty_cuda_client *c, bool to_host, bool *done, struct ty_error *err)
{
	enum ty_code code = enter(c, err);
	cu_result result;

	*done = false;
	if (code != TY_OK)
		return code;
	result = c->api.cuEventRecord(c->done, c->streams[!to_host]);
	if (result == CU_SUCCESS)
		result = c->api.cuEventQuery(c->done);
	*done = result == CU_SUCCESS;
	return result == CU_SUCCESS || result == CU_NOT_READY ? TY_OK : ty_cuda_fail(&c->api, err, "a stream", result);
}

enum ty_code ty_cuda_client_memory(struct ty_cuda_client *c, uint64_t *free_bytes, uint64_t *total_bytes, struct ty_error *err)
{
	enum ty_code code = enter(c, err);
	size_t available = 0, total = 0;
	cu_result result;

	if (code != TY_OK)
		return code;
	result = c->api.cuMemGetInfo(&available, &total);
	if (result != CU_SUCCESS)
		return ty_cuda_fail(&c->api, err, "cuMemGetInfo", result);
	*free_bytes = available;
	*total_bytes = total;
	return TY_OK;
}
