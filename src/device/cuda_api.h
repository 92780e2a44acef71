/* SPDX-License-Identifier: Apache-2.0
 *
 * The part of the CUDA driver's interface that Tyer uses, as of driver 11.4 and every later one (which keeps it). Declared here
 * so that no build needs the vendor's headers and no object a symbol of the driver: the table is filled at run time.
 *
 * Synchronizing calls, host callbacks and the legacy stream are absent on purpose: an owner never waits in the driver.
 */
#ifndef TY_DEVICE_CUDA_API_H
#define TY_DEVICE_CUDA_API_H

#include <stddef.h>
#include <stdint.h>

#define TY_CUDA_VERSION 11040 /* of the interface that is asked for */

typedef int cu_result;
typedef int cu_device;
typedef uint64_t cu_address;
typedef struct cu_context_object *cu_context;
typedef struct cu_stream_object *cu_stream;
typedef struct cu_event_object *cu_event;
typedef struct cu_module_object *cu_module;
typedef struct cu_function_object *cu_function;
struct cu_uuid {
	unsigned char bytes[16];
};
struct cu_ipc_handle {
	unsigned char bytes[64];
};
typedef unsigned long long cu_piece; /* of physical memory */
struct cu_location {
	int type, id;
};
struct cu_piece_properties {
	int type, handle_types;
	struct cu_location location;
	void *meta;
	struct {
		unsigned char compression, rdma;
		unsigned short usage;
		unsigned char reserved[4];
	} flags;
};
struct cu_access {
	struct cu_location location;
	int flags;
};
struct cu_copy_2d { /* rows of `width` bytes; the driver refuses rows that cross allocations */
	size_t from_x, from_y;
	unsigned from_type;
	const void *from_host;
	cu_address from_device;
	void *from_array;
	size_t from_pitch;
	size_t to_x, to_y;
	unsigned to_type;
	void *to_host;
	cu_address to_device;
	void *to_array;
	size_t to_pitch;
	size_t width, rows;
};
struct cu_batch_attributes { /* of copies of one batch */
	unsigned order; /* of the sources' accesses */
	struct {
		int type, id;
	} from_hint, to_hint; /* of managed memory only */
	unsigned flags;
};

enum {
	CU_SUCCESS = 0,
	CU_INVALID_VALUE = 1,
	CU_OUT_OF_MEMORY = 2,
	CU_NOT_INITIALIZED = 3,
	CU_DEINITIALIZED = 4,
	CU_NO_DEVICE = 100,
	CU_INVALID_DEVICE = 101,
	CU_INVALID_IMAGE = 200,
	CU_INVALID_CONTEXT = 201,
	CU_NO_BINARY_FOR_GPU = 209,
	CU_ECC_UNCORRECTABLE = 214,
	CU_NVLINK_UNCORRECTABLE = 220,
	CU_CONTAINED = 226,
	CU_INVALID_HANDLE = 400,
	CU_NOT_FOUND = 500,
	CU_NOT_READY = 600,
	CU_ILLEGAL_ADDRESS = 700,
	CU_LAUNCH_TIMEOUT = 702,
	CU_CONTEXT_IS_DESTROYED = 709,
	CU_ASSERT = 710,
	CU_ALREADY_REGISTERED = 712,
	CU_NOT_REGISTERED = 713,
	CU_HARDWARE_STACK_ERROR = 714,
	CU_LAUNCH_FAILED = 719,
	CU_TENSOR_MEMORY_LEAK = 721,
	CU_SYSTEM_NOT_READY = 802,
	CU_MPS_CLIENT_TERMINATED = 810,
	CU_EXTERNAL_DEVICE = 911,
	CU_UNKNOWN = 999,
};

enum {
	CU_STREAM_NON_BLOCKING = 1,
	CU_EVENT_TIMED = 0,
	CU_EVENT_NO_TIMING = 2,
	CU_HOST_PORTABLE = 1,
	CU_HOST_DEVICEMAP = 2,
	CU_WAIT_GEQ = 0,
	CU_PIECE_PINNED = 1,
	CU_HANDLE_POSIX_FD = 1,
	CU_LOCATION_DEVICE = 1,
	CU_ACCESS_READ_WRITE = 3,
	CU_IPC_LAZY_PEER = 1,
	CU_ATTRIBUTE_MAX_PITCH = 11,
	CU_ATTRIBUTE_MULTIPROCESSORS = 16,
	CU_MEMORY_HOST = 1,
	CU_MEMORY_DEVICE = 2,
	CU_ORDER_STREAM = 1,
};

/* F(name, suffix of the exported symbol for this version of it, parameters) */
#define TY_CUDA_FUNCTIONS(F)                                                                                                   \
	F(cuInit, "", (unsigned flags))                                                                                        \
	F(cuDriverGetVersion, "", (int *version))                                                                              \
	F(cuGetErrorName, "", (cu_result error, const char **name))                                                            \
	F(cuDeviceGetCount, "", (int *count))                                                                                  \
	F(cuDeviceGet, "", (cu_device * device, int ordinal))                                                                  \
	F(cuDeviceGetName, "", (char *name, int length, cu_device device))                                                     \
	F(cuDeviceGetPCIBusId, "", (char *id, int length, cu_device device))                                                   \
	F(cuDeviceGetUuid, "_v2", (struct cu_uuid *uuid, cu_device device))                                                    \
	F(cuDeviceGetAttribute, "", (int *value, int attribute, cu_device device))                                             \
	F(cuDevicePrimaryCtxRetain, "", (cu_context *context, cu_device device))                                               \
	F(cuDevicePrimaryCtxRelease, "_v2", (cu_device device))                                                                \
	F(cuCtxSetCurrent, "", (cu_context context))                                                                           \
	F(cuStreamCreate, "", (cu_stream *stream, unsigned flags))                                                             \
	F(cuStreamDestroy, "_v2", (cu_stream stream))                                                                          \
	F(cuStreamWaitEvent, "", (cu_stream stream, cu_event event, unsigned flags))                                           \
	F(cuEventCreate, "", (cu_event *event, unsigned flags))                                                                \
	F(cuEventDestroy, "_v2", (cu_event event))                                                                             \
	F(cuEventRecord, "", (cu_event event, cu_stream stream))                                                               \
	F(cuEventQuery, "", (cu_event event))                                                                                  \
	F(cuEventElapsedTime, "", (float *milliseconds, cu_event start, cu_event end))                                         \
	F(cuModuleLoadData, "", (cu_module *module, const void *image))                                                        \
	F(cuModuleUnload, "", (cu_module module))                                                                              \
	F(cuModuleGetFunction, "", (cu_function *function, cu_module module, const char *name))                                \
	F(cuLaunchKernel, "",                                                                                                  \
		(cu_function function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,                    \
			unsigned block_y, unsigned block_z, unsigned shared_bytes, cu_stream stream, void **parameters,        \
			void **extra))                                                                                         \
	F(cuMemAlloc, "_v2", (cu_address *address, size_t bytes))                                                              \
	F(cuMemFree, "_v2", (cu_address address))                                                                              \
	F(cuMemGetInfo, "_v2", (size_t *free_bytes, size_t *total_bytes))                                                      \
	F(cuMemGetAddressRange, "_v2", (cu_address *base, size_t *bytes, cu_address address))                                  \
	F(cuMemHostAlloc, "", (void **memory, size_t bytes, unsigned flags))                                                   \
	F(cuMemFreeHost, "", (void *memory))                                                                                   \
	F(cuMemHostRegister, "_v2", (void *memory, size_t bytes, unsigned flags))                                              \
	F(cuMemHostUnregister, "", (void *memory))                                                                             \
	F(cuMemcpyHtoDAsync, "_v2", (cu_address to, const void *from, size_t bytes, cu_stream stream))                         \
	F(cuMemcpyDtoHAsync, "_v2", (void *to, cu_address from, size_t bytes, cu_stream stream))                               \
	F(cuMemcpy2DAsync, "_v2", (const struct cu_copy_2d *copy, cu_stream stream))                                           \
	F(cuIpcGetMemHandle, "", (struct cu_ipc_handle *handle, cu_address address))                                           \
	F(cuIpcOpenMemHandle, "_v2", (cu_address *address, struct cu_ipc_handle handle, unsigned flags))                       \
	F(cuIpcCloseMemHandle, "", (cu_address address))                                                                       \
	F(cuMemCreate, "", (cu_piece * piece, size_t bytes, const struct cu_piece_properties *properties, uint64_t flags))     \
	F(cuMemRelease, "", (cu_piece piece))                                                                                  \
	F(cuMemExportToShareableHandle, "", (void *handle, cu_piece piece, int type, uint64_t flags))                          \
	F(cuMemImportFromShareableHandle, "", (cu_piece * piece, void *handle, int type))                                      \
	F(cuMemAddressReserve, "", (cu_address * address, size_t bytes, size_t alignment, cu_address wish, uint64_t flags))    \
	F(cuMemAddressFree, "", (cu_address address, size_t bytes))                                                            \
	F(cuMemMap, "", (cu_address address, size_t bytes, size_t offset, cu_piece piece, uint64_t flags))                     \
	F(cuMemUnmap, "", (cu_address address, size_t bytes))                                                                  \
	F(cuMemSetAccess, "", (cu_address address, size_t bytes, const struct cu_access *access, size_t count))

/* F(member, suffix, parameters, name that is asked for, version that is asked for). A driver may lack them: then they are null.
 * Both are cuMemcpyBatchAsync; CUDA 13 took a parameter away. */
#define TY_CUDA_OPTIONAL(F)                                                                                                    \
	F(cuMemcpyBatchAsync, "",                                                                                              \
		(cu_address * to, cu_address *from, size_t *bytes, size_t count, struct cu_batch_attributes *attributes,       \
			size_t *first, size_t attribute_count, size_t *failed, cu_stream stream),                              \
		"cuMemcpyBatchAsync", 12080)                                                                                   \
	F(cuMemcpyBatchAsync_v2, "_v2",                                                                                         \
		(const cu_address *to, const cu_address *from, const size_t *bytes, size_t count,                              \
			struct cu_batch_attributes *attributes, size_t *first, size_t attribute_count, cu_stream stream),      \
		"cuMemcpyBatchAsync", 13000)

/* Of an engine's side alone (cuda_words.c). F(name, suffix, parameters, version that is asked for) */
#define TY_CUDA_WORDS(F)                                                                                                       \
	F(cuCtxGetCurrent, "", (cu_context *context), 4000)                                                                    \
	F(cuMemHostGetDevicePointer, "_v2", (cu_address *address, void *memory, unsigned flags), 3020)                         \
	F(cuStreamWriteValue64, "_v2", (cu_stream stream, cu_address address, uint64_t value, unsigned flags), 11070)          \
	F(cuStreamWaitValue64, "_v2", (cu_stream stream, cu_address address, uint64_t value, unsigned flags), 11070)

struct ty_cuda_words {
#define TY_CUDA_MEMBER(name, suffix, parameters, ...) cu_result(*name) parameters;
	TY_CUDA_WORDS(TY_CUDA_MEMBER)
#undef TY_CUDA_MEMBER
};

struct ty_cuda {
#define TY_CUDA_MEMBER(name, suffix, parameters, ...) cu_result(*name) parameters;
	TY_CUDA_FUNCTIONS(TY_CUDA_MEMBER)
	TY_CUDA_OPTIONAL(TY_CUDA_MEMBER)
#undef TY_CUDA_MEMBER
	int version; /* of the driver */
	void *library;
};

#endif
