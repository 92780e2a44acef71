/* SPDX-License-Identifier: Apache-2.0 */
#include "cuda_driver.h"

#include <dlfcn.h>
#include <string.h>

static _Thread_local cu_context current;

typedef cu_result (*get_proc_2)(const char *, void **, int, uint64_t, int *);
typedef cu_result (*get_proc_1)(const char *, void **, int, uint64_t);

/* The driver's own way to name a version of a function; the exported symbol where a driver has no such way. */
static void *find(void *library, const char *name, const char *suffix, int version)
{
	void *get = dlsym(library, "cuGetProcAddress_v2"), *function = NULL;
	char symbol[80];
	size_t length = strlen(name);

	if (get) {
		get_proc_2 call;
		int status = 0;

		memcpy(&call, &get, sizeof call);
		if (call(name, &function, version, 0, &status) == CU_SUCCESS && function)
			return function;
		return NULL;
	}
	get = dlsym(library, "cuGetProcAddress");
	if (get) {
		get_proc_1 call;

		memcpy(&call, &get, sizeof call);
		if (call(name, &function, version, 0) == CU_SUCCESS && function)
			return function;
		return NULL;
	}
	memcpy(symbol, name, length);
	memcpy(symbol + length, suffix, strlen(suffix) + 1);
	return dlsym(library, symbol);
}

enum ty_code ty_cuda_load(const char *path, struct ty_cuda *api, struct ty_error *err)
{
	void *library, *function;
	cu_result result;

	if (!path || !*path)
		path = "libcuda.so.1";
	library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!library)
		return ty_fail(err, TY_UNSUPPORTED, "no CUDA driver: %.200s", dlerror());
#define LOAD(name, suffix, parameters)                                                                                 \
	function = find(library, #name, suffix, TY_CUDA_VERSION);                                                                       \
	if (!function)                                                                                                 \
		return ty_fail(err, TY_UNSUPPORTED, "the CUDA driver %s has no " #name " of version %d", path,         \
			TY_CUDA_VERSION);                                                                              \
	memcpy(&api->name, &function, sizeof function);
	TY_CUDA_FUNCTIONS(LOAD)
#undef LOAD
	api->library = library;
	result = api->cuInit(0);
	if (result != CU_SUCCESS)
		return ty_fail(err, result == CU_NO_DEVICE ? TY_UNSUPPORTED : TY_DEVICE_FAILED, "cuInit: %s (%d)",
			ty_cuda_error_name(api, result), result);
	result = api->cuDriverGetVersion(&api->version);
	if (result != CU_SUCCESS)
		return ty_cuda_fail(api, err, "cuDriverGetVersion", result);
	/* never for a version past the driver's: what a driver answers to that is not said */
#define LOAD(name, suffix, parameters, asked, since)                                                                   \
	function = api->version >= since ? find(library, asked, suffix, since) : NULL;                                 \
	memcpy(&api->name, &function, sizeof function);
	TY_CUDA_OPTIONAL(LOAD)
#undef LOAD
	if (api->version < TY_CUDA_VERSION)
		return ty_fail(err, TY_UNSUPPORTED, "the CUDA driver is for CUDA %d.%d, expected at least %d.%d",
			api->version / 1000, api->version % 1000 / 10, TY_CUDA_VERSION / 1000,
			TY_CUDA_VERSION % 1000 / 10);
	return TY_OK;
}

enum ty_code ty_cuda_load_words(const char *path, const struct ty_cuda *api, struct ty_cuda_words *words, struct ty_error *err)
{
	void *function;

#define LOAD(name, suffix, parameters, since)                                                                          \
	function = api->version >= since ? find(api->library, #name, suffix, since) : NULL;                            \
	if (!function)                                                                                                 \
		return ty_fail(err, TY_UNSUPPORTED, "the CUDA driver %s has no " #name " of version %d",               \
			path && *path ? path : "libcuda.so.1", since);                                                 \
	memcpy(&words->name, &function, sizeof function);
	TY_CUDA_WORDS(LOAD)
#undef LOAD
	return TY_OK;
}

cu_result ty_cuda_use(const struct ty_cuda *api, cu_context context)
{
	cu_result result = CU_SUCCESS;

	if (current != context) {
		result = api->cuCtxSetCurrent(context);
		if (result == CU_SUCCESS)
			current = context;
	}
	return result;
}

void ty_cuda_forget(const struct ty_cuda *api, cu_context context)
{
	if (current == context) {
		(void)api->cuCtxSetCurrent(NULL);
		current = NULL;
	}
}

const char *ty_cuda_error_name(const struct ty_cuda *api, cu_result result)
{
	const char *name = NULL;

	if (api->cuGetErrorName(result, &name) != CU_SUCCESS || !name)
		name = "unknown CUDA error";
	return name;
}

bool ty_cuda_sticky(cu_result result)
{
	switch (result) {
	case CU_DEINITIALIZED:
	case CU_ECC_UNCORRECTABLE:
	case CU_NVLINK_UNCORRECTABLE:
	case CU_CONTAINED:
	case CU_ILLEGAL_ADDRESS:
	case CU_LAUNCH_TIMEOUT:
	case CU_CONTEXT_IS_DESTROYED:
	case CU_ASSERT:
	case CU_TENSOR_MEMORY_LEAK:
	case CU_MPS_CLIENT_TERMINATED:
	case CU_EXTERNAL_DEVICE:
	case CU_UNKNOWN:
		return true;
	default: /* hardware stack error, illegal instruction, misaligned address, ..., launch failed */
		return result >= CU_HARDWARE_STACK_ERROR && result <= CU_LAUNCH_FAILED;
	}
}

bool ty_cuda_gone(cu_result result)
{
	/* what a driver may say of a context's end is not all known: only what surely says nothing of it does not count */
	return result != CU_SUCCESS && result != CU_NOT_READY && result != CU_OUT_OF_MEMORY && result != CU_INVALID_VALUE;
}

enum ty_code ty_cuda_fail(const struct ty_cuda *api, struct ty_error *err, const char *what, cu_result result)
{
	return ty_fail(err, result == CU_OUT_OF_MEMORY ? TY_NO_MEMORY : TY_DEVICE_FAILED, "%s: %s (%d)", what,
		ty_cuda_error_name(api, result), result);
}

enum ty_code ty_cuda_context(const struct ty_cuda *api, int ordinal, cu_device *device, cu_context *context,
	struct ty_error *err)
{
	cu_result result;
	int count = 0;

	result = api->cuDeviceGetCount(&count);
	if (result != CU_SUCCESS)
		return ty_cuda_fail(api, err, "cuDeviceGetCount", result);
	if (ordinal < 0 || ordinal >= count)
		return ty_fail(err, TY_INVALID, "device cuda:%d: the driver has %d devices", ordinal, count);
	result = api->cuDeviceGet(device, ordinal);
	if (result != CU_SUCCESS)
		return ty_cuda_fail(api, err, "cuDeviceGet", result);
	result = api->cuDevicePrimaryCtxRetain(context, *device);
	if (result != CU_SUCCESS) {
		*context = NULL;
		return ty_cuda_fail(api, err, "cuDevicePrimaryCtxRetain", result);
	}
	result = ty_cuda_use(api, *context);
	if (result != CU_SUCCESS) {
		(void)api->cuDevicePrimaryCtxRelease(*device);
		*context = NULL;
		return ty_cuda_fail(api, err, "cuCtxSetCurrent", result);
	}
	return TY_OK;
}
