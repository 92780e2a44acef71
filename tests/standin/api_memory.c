/* SPDX-License-Identifier: Apache-2.0
 *
 * The driver's functions for memory: of a device, of the host, other processes', in pieces. What the real ones answer to wrong arguments is
 * answered alike; what they let pass and then go wrong over, ends the process.
 */
#include <stdlib.h>

#include "api.h"

cu_result cuMemAlloc(cu_address *address, size_t bytes)
{
	ENTER(cuMemAlloc, true, false);
	return standin_allocate(standin_current(), bytes, address);
}

cu_result cuMemFree(cu_address address)
{
	ENTER(cuMemFree, true, false);
	standin_would_wait("cuMemFree");
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
	standin_would_wait("cuMemFreeHost");
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
	standin_would_wait("cuMemHostUnregister");
	return standin_unregister(standin_current(), memory, false);
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
	standin_would_wait("cuIpcCloseMemHandle");
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
	standin_would_wait("cuMemUnmap");
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
