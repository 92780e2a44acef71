/* SPDX-License-Identifier: Apache-2.0
 *
 * The driver's functions: itself, its devices and contexts, and how functions are found. What the real ones answer to wrong arguments is
 * answered alike; what they let pass and then go wrong over, ends the process.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "api.h"

static struct cu_context_object contexts[STANDIN_DEVICES]; /* each its owner's; references under the lock */
static _Atomic pid_t initialized; /* process that called cuInit; relaxed, the caller orders its own calls */

static pthread_mutex_t driver_lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;

pthread_mutex_t *standin_lock_driver(void)
{
	if (!standin_settings.any_thread)
		return NULL;
	pthread_mutex_lock(&driver_lock);
	return &driver_lock;
}

void standin_unlock_driver(pthread_mutex_t **lock)
{
	if (*lock)
		pthread_mutex_unlock(*lock);
}

void standin_would_wait(const char *name)
{
	/* where several threads share a context what is queued may be the engine's */
	if (!standin_settings.any_thread && !standin_idle(standin_current()))
		standin_misuse("%s while work is queued: it would wait", name);
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

cu_result cuCtxGetCurrent(cu_context *context)
{
	ENTER(cuCtxGetCurrent, false, false);
	*context = standin_current();
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
