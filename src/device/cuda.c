/* SPDX-License-Identifier: Apache-2.0
 *
 * A GPU's life: open, register host memory, close. Slow lane only.
 */
#include "cuda_private.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct ty_device_kind cuda_kind;

void ty_cuda_poison(struct cuda_device *dev, const char *call, cu_result result)
{
	if (dev->base.poisoned)
		return;
	dev->base.poisoned = true;
	(void)ty_fail(&dev->base.failure, TY_DEVICE_FAILED, "%s: %s: %s (%d)", dev->base.info.name, call,
		ty_cuda_error_name(&dev->api, result), result);
}

bool ty_cuda_stays(struct cuda_device *dev, const char *what, cu_result result)
{
	struct ty_error unused;

	if (!ty_cuda_sticky(result))
		return false;
	if (!dev->base.poisoned && ty_cuda_finish(dev, dev->lanes[0].kernel, what, &unused) == TY_OK)
		return false;
	ty_cuda_poison(dev, what, result);
	return true;
}

enum ty_code ty_cuda_slow_failed(struct cuda_device *dev, struct ty_error *err, const char *what, cu_result result)
{
	(void)!ty_cuda_stays(dev, what, result);
	return ty_cuda_fail(&dev->api, err, what, result);
}

enum ty_code ty_cuda_finish(struct cuda_device *dev, cu_stream stream, const char *what, struct ty_error *err)
{
	int64_t deadline = ty_device_clock() + dev->patience_ns;
	cu_result result = CU(dev, cuEventRecord, dev->slow, stream);

	while (result == CU_SUCCESS) {
		result = CU(dev, cuEventQuery, dev->slow);
		if (result == CU_SUCCESS)
			return TY_OK;
		if (result != CU_NOT_READY)
			break;
		if (ty_device_clock() > deadline) {
			/* what is queued can no more be taken back: the device is of no use */
			ty_cuda_poison(dev, what, result);
			return ty_fail(err, TY_DEVICE_STALLED, "%s: not done after %lld ms", what,
				(long long)(dev->patience_ns / 1000000));
		}
		sched_yield();
		result = CU_SUCCESS;
	}
	ty_cuda_poison(dev, what, result);
	return ty_cuda_fail(&dev->api, err, what, result);
}

static void note(struct cuda_device *dev, const char *fmt, ...) TY_PRINTF(2, 3);
static void note(struct cuda_device *dev, const char *fmt, ...)
{
	size_t used = strlen(dev->base.note);
	va_list args;

	if (used && used + 2 < sizeof dev->base.note) {
		strcpy(dev->base.note + used, "; ");
		used += 2;
	}
	va_start(args, fmt);
	vsnprintf(dev->base.note + used, sizeof dev->base.note - used, fmt, args);
	va_end(args);
}

/* A call of open failed. If its error stays, the context is left alone, as any poisoned device's. */
static enum ty_code open_failed(struct cuda_device *dev, struct ty_error *err, const char *what, cu_result result)
{
	if (ty_cuda_sticky(result))
		ty_cuda_poison(dev, what, result);
	return ty_cuda_fail(&dev->api, err, what, result);
}

static enum ty_code identify(struct cuda_device *dev, struct ty_error *err)
{
	struct ty_device_info *info = &dev->base.info;
	struct cu_uuid uuid;
	cu_result result;
	int processors = 0, pitch = 0;

	result = CU(dev, cuDeviceGetName, info->model, (int)sizeof info->model - 1, dev->device);
	if (result != CU_SUCCESS)
		return open_failed(dev, err, "cuDeviceGetName", result);
	result = CU(dev, cuDeviceGetUuid, &uuid, dev->device);
	if (result != CU_SUCCESS)
		return open_failed(dev, err, "cuDeviceGetUuid", result);
	memcpy(info->uuid, uuid.bytes, sizeof info->uuid);
	/* only to be near it: without it the owner runs anywhere */
	if (CU(dev, cuDeviceGetPCIBusId, dev->base.pci, (int)sizeof dev->base.pci, dev->device) != CU_SUCCESS)
		dev->base.pci[0] = '\0';
	result = CU(dev, cuDeviceGetAttribute, &processors, CU_ATTRIBUTE_MULTIPROCESSORS, dev->device);
	if (result != CU_SUCCESS || processors < 1)
		return open_failed(dev, err, "cuDeviceGetAttribute", result);
	result = CU(dev, cuDeviceGetAttribute, &pitch, CU_ATTRIBUTE_MAX_PITCH, dev->device);
	if (result != CU_SUCCESS || pitch < 0)
		return open_failed(dev, err, "cuDeviceGetAttribute", result);
	dev->max_pitch = (uint64_t)pitch;
	dev->grid_max = (uint32_t)processors * 8; /* thread blocks that are resident at once */
	return TY_OK;
}

/* How many streams each way's copies go over in turn. */
static void count_streams(struct cuda_device *dev, const struct ty_device_options *options)
{
	static const uint32_t usual[TY_PATHS] = {[TY_PATH_STAGED] = 1, [TY_PATH_DIRECT] = 1, [TY_PATH_BATCH] = 1,
		[TY_PATH_STRIDED] = TY_CUDA_STREAMS_STRIDED};

	for (unsigned p = TY_PATH_PLANNED + 1; p < TY_PATHS; p++) {
		dev->streams[p] = options->copy_streams ? options->copy_streams : usual[p];
		if (options->in_process && !options->copy_streams && p == TY_PATH_STAGED)
			dev->streams[p] = TY_CUDA_STREAMS_WITHIN;
		dev->stream_count = dev->streams[p] > dev->stream_count ? dev->streams[p] : dev->stream_count;
	}
	dev->one_for_retrieves = options->in_process && !options->copy_streams;
}

static enum ty_code make_streams(struct cuda_device *dev, struct ty_error *err)
{
	cu_result result = CU(dev, cuEventCreate, &dev->slow, CU_EVENT_NO_TIMING);

	if (result != CU_SUCCESS)
		return open_failed(dev, err, "cuEventCreate", result);
	for (unsigned i = 0; i < 2; i++) {
		struct cuda_lane *lane = &dev->lanes[i];

		result = CU(dev, cuStreamCreate, &lane->kernel, CU_STREAM_NON_BLOCKING);
		for (unsigned s = 0; s < dev->stream_count && result == CU_SUCCESS; s++)
			result = CU(dev, cuStreamCreate, &lane->copy[s], CU_STREAM_NON_BLOCKING);
		if (result != CU_SUCCESS)
			return open_failed(dev, err, "cuStreamCreate", result);
		for (unsigned u = 0; u < TY_CUDA_UNITS; u++) {
			result = CU(dev, cuEventCreate, &lane->units[u].middle, CU_EVENT_NO_TIMING);
			for (unsigned s = 0; s < dev->stream_count && result == CU_SUCCESS; s++)
				result = CU(dev, cuEventCreate, &lane->units[u].ends[s], CU_EVENT_NO_TIMING);
			if (result != CU_SUCCESS)
				return open_failed(dev, err, "cuEventCreate", result);
		}
	}
	result = CU(dev, cuStreamCreate, &dev->engine.stream, CU_STREAM_NON_BLOCKING);
	if (result != CU_SUCCESS)
		return open_failed(dev, err, "cuStreamCreate", result);
	result = CU(dev, cuEventCreate, &dev->engine.end, CU_EVENT_NO_TIMING);
	if (result != CU_SUCCESS)
		return open_failed(dev, err, "cuEventCreate", result);
	result = CU(dev, cuMemHostAlloc, (void **)&dev->upload, TY_MAX_GROUPS * TY_MAX_PLANES * sizeof *dev->upload,
		CU_HOST_PORTABLE);
	return result == CU_SUCCESS ? TY_OK : open_failed(dev, err, "cuMemHostAlloc for plane tables", result);
}

/* A GPU that cannot run the image still copies long runs well, so that is no failure of the device. */
static enum ty_code load_kernels(struct cuda_device *dev, const struct ty_device_options *options, struct ty_error *err)
{
	const void *image = options->kernels ? options->kernels : ty_kernels_image;
	size_t bytes = options->kernels ? options->kernels_bytes : ty_kernels_image_bytes;
	const struct {
		cu_function *function;
		const char *name;
	} kernels[] = {{&dev->gathers[0], TY_KERNEL_GATHER}, {&dev->gathers[1], TY_KERNEL_GATHER_FEW},
		{&dev->scatters[0], TY_KERNEL_SCATTER}, {&dev->scatters[1], TY_KERNEL_SCATTER_FEW}};
	const char *call = "cuModuleLoadData";
	cu_result result;

	if (bytes == 0) {
		note(dev, "no kernels in this build: short runs are copied one by one");
		return TY_OK;
	}
	result = CU(dev, cuModuleLoadData, &dev->module, image);
	for (unsigned i = 0; i < 4 && result == CU_SUCCESS; i++) {
		call = "cuModuleGetFunction";
		result = CU(dev, cuModuleGetFunction, kernels[i].function, dev->module, kernels[i].name);
	}
	if (result == CU_SUCCESS)
		return TY_OK;
	if (ty_cuda_sticky(result))
		return open_failed(dev, err, call, result);
	for (unsigned i = 0; i < 4; i++)
		*kernels[i].function = NULL;
	note(dev, "the kernels do not load (%s: %s): short runs are copied one by one", call,
		ty_cuda_error_name(&dev->api, result));
	return TY_OK;
}

static void identify_calibration(const struct cuda_device *dev, struct ty_calibration *c)
{
	memset(c, 0, sizeof *c);
	snprintf(c->model, sizeof c->model, "%s", dev->base.info.model);
	memcpy(c->uuid, dev->base.info.uuid, sizeof c->uuid);
	c->driver = dev->api.version;
}

static enum ty_code cuda_calibrate(struct ty_device *base, bool beside, uint64_t most_us, struct ty_calibration *out,
	struct ty_error *err)
{
	struct cuda_device *dev = (struct cuda_device *)base;
	struct ty_calibration c = *out;

	identify_calibration(dev, out);
	out->beside = c.beside;
	out->launch_ns = c.launch_ns;
	out->rates = c.rates;
	return ty_cuda_calibrate(dev, beside, (int64_t)most_us * 1000, out, err);
}

static enum ty_code take_staging(struct cuda_device *dev, struct ty_error *err)
{
	enum ty_code code = ty_cuda_take_staging(dev, err);

	if (code == TY_OK && dev->staging_bytes < dev->staging_wanted)
		note(dev, "staging has %llu bytes: %llu could not be had", (unsigned long long)dev->staging_bytes,
			(unsigned long long)dev->staging_wanted);
	return code;
}

/* Each kernel once, with nothing to do: the driver loads them lazily, and that must not happen between batches. */
static enum ty_code warm_up(struct cuda_device *dev, struct ty_error *err)
{
	cu_function functions[] = {dev->gathers[0], dev->gathers[1], dev->scatters[0], dev->scatters[1]};
	struct ty_gather_job job = {.run_units = 1, .plane_count = 1};
	void *parameters[] = {&job};

	for (unsigned i = 0; i < 4; i++) {
		cu_result result = CU(dev, cuLaunchKernel, functions[i], 1, 1, 1, TY_KERNEL_THREADS, 1, 1, 0,
			dev->lanes[0].kernel, parameters, NULL);
		enum ty_code code;

		if (result != CU_SUCCESS)
			return open_failed(dev, err, "cuLaunchKernel", result);
		code = ty_cuda_finish(dev, dev->lanes[0].kernel, "the first launch of a kernel", err);
		if (code != TY_OK)
			return code;
	}
	return TY_OK;
}

/* What was measured on this GPU before, or is now. Without it the compiled rates do. */
static enum ty_code calibrate(struct cuda_device *dev, const struct ty_device_options *options, struct ty_error *err)
{
	struct ty_calibration *c = &dev->calibration;
	int64_t least = (int64_t)TY_CUDA_WAITED_US * 1000;
	int64_t most = options->calibrate_us ? (int64_t)options->calibrate_us * 1000 : TY_CUDA_CALIBRATE_NS;
	struct ty_error why = {0};
	bool there = false;
	char path[512];

	identify_calibration(dev, c);
	ty_calibration_default(c);
	if (options->calibration) {
		ty_calibration_name(path, sizeof path, options->calibration, c->uuid, c->driver);
		if (ty_calibration_read(path, c, &there, &why) != TY_OK)
			note(dev, "%s", why.text);
		if (!there && dev->in_process)
			note(dev, "compiled rates: there is no %.200s", path);
		else if (!there && ty_cuda_calibrate(dev, false, most, c, &why) != TY_OK)
			note(dev, "compiled rates: %s", why.text);
		else if (!there && ty_calibration_write(options->calibration, c, &why) != TY_OK)
			note(dev, "the calibration is not kept: %s", why.text);
		if (dev->base.poisoned)
			return ty_fail(err, TY_DEVICE_FAILED, "%s", dev->base.failure.text);
	}
	dev->waited_ns = (int64_t)c->launch_ns * TY_CUDA_WAITED_LAUNCHES;
	dev->waited_ns = options->waited_us ? (int64_t)options->waited_us * 1000 : dev->waited_ns < least ? least : dev->waited_ns;
	return TY_OK;
}

/* Whatever open has got so far. A poisoned context is left to the end of the process: no call on it is sure to return. */
static void cuda_close(struct ty_device *base)
{
	struct cuda_device *dev = (struct cuda_device *)base;
	struct ty_error err;

	assert(base->poisoned || (!dev->lanes[0].queue.count && !dev->lanes[1].queue.count));
	if (base->poisoned || !dev->context)
		goto out;
	if (ty_cuda_use(&dev->api, dev->context) != CU_SUCCESS)
		goto out;
	for (unsigned i = 0; i < 2; i++) {
		struct cuda_lane *lane = &dev->lanes[i];

		for (unsigned u = 0; u < TY_CUDA_UNITS; u++) {
			if (lane->units[u].middle)
				(void)CU(dev, cuEventDestroy, lane->units[u].middle);
			for (unsigned s = 0; s < TY_CUDA_STREAMS; s++)
				if (lane->units[u].ends[s])
					(void)CU(dev, cuEventDestroy, lane->units[u].ends[s]);
		}
		if (lane->kernel)
			(void)CU(dev, cuStreamDestroy, lane->kernel);
		for (unsigned s = 0; s < TY_CUDA_STREAMS; s++)
			if (lane->copy[s])
				(void)CU(dev, cuStreamDestroy, lane->copy[s]);
	}
	if (ty_cuda_end_probe(dev, &err) != TY_OK)
		goto out;
	if (dev->engine.end)
		(void)CU(dev, cuEventDestroy, dev->engine.end);
	if (dev->engine.stream)
		(void)CU(dev, cuStreamDestroy, dev->engine.stream);
	if (dev->slow)
		(void)CU(dev, cuEventDestroy, dev->slow);
	if (dev->staging)
		(void)CU(dev, cuMemFree, dev->staging);
	if (dev->upload)
		(void)CU(dev, cuMemFreeHost, dev->upload);
	if (dev->module)
		(void)CU(dev, cuModuleUnload, dev->module);
	ty_cuda_forget(&dev->api, dev->context);
	(void)CU(dev, cuDevicePrimaryCtxRelease, dev->device);
out:
	free(dev);
}

enum ty_code ty_cuda_open(const struct ty_device_options *options, int ordinal, struct ty_device_call *call,
	struct ty_device **out, struct ty_error *err)
{
	struct cuda_device *dev;
	enum ty_code code;
	bool stages;

	if (options->copy_streams > TY_CUDA_STREAMS)
		return ty_fail(err, TY_INVALID, "copy streams: %u, expected at most %u", options->copy_streams, TY_CUDA_STREAMS);
	if (options->path >= TY_PATHS || options->sharing > TY_SHARING_FAST)
		return ty_fail(err, TY_INVALID, "path %d, sharing %d: there are none such", (int)options->path,
			(int)options->sharing);
	dev = calloc(1, sizeof *dev);
	if (!dev)
		return ty_fail(err, TY_NO_MEMORY, "no memory for device cuda:%d", ordinal);
	dev->base.kind = &cuda_kind;
	dev->base.owner = ty_device_thread();
	dev->base.call = call;
	dev->base.now = ty_device_clock();
	dev->base.slow = true;
	count_streams(dev, options);
	dev->sharing = options->sharing;
	dev->forced = options->path;
	dev->in_process = options->in_process;
	dev->batch_bytes = TY_CUDA_STAGING_DEFAULT;
	dev->patience_ns = options->patience_us ? (int64_t)options->patience_us * 1000 : TY_CUDA_PATIENCE_NS;
	snprintf(dev->base.info.name, sizeof dev->base.info.name, "cuda:%d", ordinal);
	code = ty_cuda_load(options->driver, &dev->api, err);
	if (code == TY_OK)
		code = ty_cuda_context(&dev->api, ordinal, &dev->device, &dev->context, err);
	if (code == TY_OK)
		code = identify(dev, err);
	if (options->kernel_blocks && options->kernel_blocks < dev->grid_max)
		dev->grid_max = options->kernel_blocks;
	if (code == TY_OK)
		code = make_streams(dev, err);
	if (code == TY_OK)
		code = load_kernels(dev, options, err);
	if (code == TY_OK && dev->gathers[0])
		code = ty_cuda_plan_staging(dev, options, err);
	/* `quiet` never launches a kernel, and what the engines leave of the memory is little */
	stages = dev->gathers[0] && (dev->sharing != TY_SHARING_QUIET || dev->forced == TY_PATH_STAGED);
	if (code == TY_OK && stages)
		code = take_staging(dev, err);
	if (code == TY_OK && stages)
		code = warm_up(dev, err);
	if (code == TY_OK)
		code = calibrate(dev, options, err);
	dev->base.slow = false;
	if (code != TY_OK) {
		cuda_close(&dev->base);
		return code;
	}
	*out = &dev->base;
	return TY_OK;
}

static enum ty_code cuda_register(struct ty_device *base, void *memory, size_t bytes, struct ty_error *err)
{
	struct cuda_device *dev = (struct cuda_device *)base;
	cu_result result = ty_cuda_use(&dev->api, dev->context);

	if (result == CU_SUCCESS)
		result = CU(dev, cuMemHostRegister, memory, bytes, CU_HOST_PORTABLE);
	if (result != CU_SUCCESS)
		return ty_cuda_slow_failed(dev, err, "cuMemHostRegister", result);
	if (!dev->host_piece && !dev->host_mixed) {
		dev->host_piece = bytes;
		dev->host_phase = (uintptr_t)memory % bytes;
	} else if (bytes != dev->host_piece || (uintptr_t)memory % bytes != dev->host_phase) {
		dev->host_piece = 0;
		dev->host_mixed = true;
	}
	return TY_OK;
}

static void cuda_unregister(struct ty_device *base, void *memory)
{
	struct cuda_device *dev = (struct cuda_device *)base;
	cu_result result;

	if (base->poisoned)
		return;
	result = ty_cuda_use(&dev->api, dev->context);
	if (result == CU_SUCCESS)
		result = CU(dev, cuMemHostUnregister, memory);
	if (result != CU_SUCCESS)
		ty_cuda_poison(dev, "cuMemHostUnregister", result); /* never registered: a bug; or the context is gone */
}

static const struct ty_device_kind cuda_kind = {
	.close = cuda_close,
	.map = ty_cuda_map,
	.unmap = ty_cuda_unmap,
	.register_host = cuda_register,
	.unregister_host = cuda_unregister,
	.submit = ty_cuda_submit,
	.batch_limit = ty_cuda_batch_limit,
	.calibrate = cuda_calibrate,
	.path = ty_cuda_path,
	.poll = ty_cuda_poll,
};
