/* SPDX-License-Identifier: Apache-2.0
 *
 * Device memory is a memfd per allocation, so that another process can open it; host memory is known once it is registered.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "standin_private.h"

struct range {
	struct range *next;
	uint64_t base, bytes;
	cu_context context;
	int fd;         /* device: of an allocation; -1 of an import */
	bool imported;  /* device */
	bool portable, allocated; /* host */
};

/* Under the lock. */
static struct range *device_ranges, *host_ranges;

static struct range *find(struct range *list, uint64_t address)
{
	for (; list; list = list->next)
		if (address >= list->base && address - list->base < list->bytes)
			return list;
	return NULL;
}

static struct range *add(struct range **list, uint64_t base, uint64_t bytes, cu_context context)
{
	struct range *r = calloc(1, sizeof *r);

	if (!r)
		standin_misuse("no memory");
	*r = (struct range){.next = *list, .base = base, .bytes = bytes, .context = context, .fd = -1};
	*list = r;
	standin_objects++;
	return r;
}

/* Takes out the range that begins at `base`; null if there is none. */
static struct range *take(struct range **list, uint64_t base)
{
	for (; *list; list = &(*list)->next)
		if ((*list)->base == base) {
			struct range *r = *list;

			*list = r->next;
			standin_objects--;
			return r;
		}
	return NULL;
}

cu_result standin_allocate(cu_context context, size_t bytes, cu_address *out)
{
	struct range *r;
	void *memory;
	int fd;

	if (bytes == 0)
		return CU_INVALID_VALUE;
	if (bytes > standin_settings.memory - context->used)
		return CU_OUT_OF_MEMORY;
	fd = memfd_create("standin", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, (off_t)bytes))
		return CU_OUT_OF_MEMORY;
	memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (memory == MAP_FAILED) {
		close(fd);
		return CU_OUT_OF_MEMORY;
	}
	context->used += bytes;
	standin_lock();
	r = add(&device_ranges, (uint64_t)(uintptr_t)memory, bytes, context);
	r->fd = fd;
	standin_unlock();
	*out = r->base;
	return CU_SUCCESS;
}

static void drop(cu_context context, cu_address address, bool imported)
{
	struct range *r;

	standin_lock();
	r = take(&device_ranges, address);
	standin_unlock();
	if (!r || r->imported != imported || r->context != context)
		standin_misuse("%s of %#llx, which is no %s of this context", imported ? "cuIpcCloseMemHandle" : "cuMemFree",
			(unsigned long long)address, imported ? "opened handle" : "allocation");
	munmap((void *)(uintptr_t)r->base, r->bytes);
	if (!imported) {
		close(r->fd);
		context->used -= r->bytes;
	}
	free(r);
}

void standin_free(cu_context context, cu_address address)
{
	drop(context, address, false);
}

void standin_close(cu_context context, cu_address address)
{
	drop(context, address, true);
}

cu_result standin_export(cu_address address, struct cu_ipc_handle *handle)
{
	struct standin_handle h = {.magic = STANDIN_MAGIC, .pid = getpid()};
	struct range *r;
	cu_result result = CU_INVALID_VALUE;

	standin_lock();
	r = find(device_ranges, address);
	if (r && !r->imported) {
		h.fd = r->fd;
		h.device = (uint32_t)r->context->ordinal;
		h.bytes = r->bytes;
		memcpy(handle, &h, sizeof h);
		result = CU_SUCCESS;
	}
	standin_unlock();
	return result;
}

cu_result standin_import(cu_context context, const struct cu_ipc_handle *handle, cu_address *out)
{
	struct standin_handle h;
	struct range *r;
	struct stat st;
	void *memory;
	char path[64];
	int fd;

	memcpy(&h, handle, sizeof h);
	if (h.magic != STANDIN_MAGIC || h.device != (uint32_t)context->ordinal)
		return CU_INVALID_VALUE;
	if (h.pid == getpid())
		return CU_INVALID_CONTEXT; /* as the real one: a handle is for another process */
	snprintf(path, sizeof path, "/proc/%d/fd/%d", h.pid, h.fd);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return CU_INVALID_VALUE;
	if (fstat(fd, &st) || (uint64_t)st.st_size != h.bytes) {
		close(fd);
		return CU_INVALID_VALUE;
	}
	memory = mmap(NULL, h.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (memory == MAP_FAILED)
		return CU_OUT_OF_MEMORY;
	standin_lock();
	r = add(&device_ranges, (uint64_t)(uintptr_t)memory, h.bytes, context);
	r->imported = true;
	standin_unlock();
	*out = r->base;
	return CU_SUCCESS;
}

bool standin_range(cu_address address, cu_address *base, size_t *bytes)
{
	struct range *r;
	bool found;

	standin_lock();
	r = find(device_ranges, address);
	if (r) {
		*base = r->base;
		*bytes = r->bytes;
	}
	found = r || standin_mapped(NULL, address, 1, base, bytes);
	standin_unlock();
	return found;
}

void standin_check_device(cu_context context, cu_address address, uint64_t bytes, const char *what)
{
	struct range *r;

	if (bytes == 0)
		return;
	standin_lock();
	r = find(device_ranges, address);
	if (!r && standin_mapped(context, address, bytes, NULL, NULL)) {
		standin_unlock();
		return;
	}
	if (!r || r->context != context || bytes > r->bytes - (address - r->base))
		standin_misuse("%s: %llu bytes at %#llx are not inside one live allocation of this context", what,
			(unsigned long long)bytes, (unsigned long long)address);
	standin_unlock();
}

cu_result standin_register(cu_context context, void *memory, size_t bytes, bool portable, bool allocated)
{
	uint64_t base = (uint64_t)(uintptr_t)memory;
	struct range *r;

	standin_lock();
	for (r = host_ranges; r; r = r->next)
		if (base < r->base + r->bytes && r->base < base + bytes) {
			standin_unlock();
			return CU_ALREADY_REGISTERED;
		}
	r = add(&host_ranges, base, bytes, context);
	r->portable = portable;
	r->allocated = allocated;
	standin_unlock();
	return CU_SUCCESS;
}

cu_result standin_unregister(cu_context context, void *memory, bool allocated)
{
	struct range *r;

	standin_lock();
	r = take(&host_ranges, (uint64_t)(uintptr_t)memory);
	standin_unlock();
	if (!r)
		return CU_NOT_REGISTERED;
	if (r->allocated != allocated || (r->context != context && !r->portable))
		standin_misuse("%p is given back by the wrong call or in the wrong context", memory);
	free(r);
	return CU_SUCCESS;
}

void standin_forget_host(cu_context context)
{
	struct range **at = &host_ranges;

	while (*at) {
		struct range *r = *at;

		if (r->context != context || r->allocated) {
			at = &r->next;
			continue;
		}
		*at = r->next;
		standin_objects--;
		free(r);
	}
}

void standin_check_host(cu_context context, const void *memory, size_t bytes, const char *what)
{
	uint64_t address = (uint64_t)(uintptr_t)memory;
	struct range *r;

	standin_lock();
	r = find(host_ranges, address);
	if (!r || (r->context != context && !r->portable) || bytes > r->bytes - (address - r->base))
		standin_misuse("%s: %zu bytes at %p are not inside one piece of page-locked memory", what, bytes, memory);
	standin_unlock();
}
