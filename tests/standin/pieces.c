/* SPDX-License-Identifier: Apache-2.0
 *
 * Physical memory in pieces, and addresses for it: a piece is a memfd, a reserved range is mapped without access until a piece lies
 * in it. What real drivers answer to wrong sizes is answered alike; what they would crash over ends the process.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "standin_private.h"

#define GRANULE ((size_t)2 << 20)

struct piece {
	int fd;
	size_t bytes;
	cu_context charged; /* whose memory it is; null: another process's */
	unsigned uses;      /* the handle, and its mappings */
};

struct mapped {
	struct mapped *next;
	uint64_t base, bytes;
	struct piece *piece;
	bool usable;
};

struct reserved {
	struct reserved *next;
	uint64_t base, bytes;
	cu_context context;
	struct mapped *mapped;
};

static struct reserved *ranges; /* under the lock, with all that hangs on it */

static cu_result make(int fd, size_t bytes, cu_context charged, cu_piece *out)
{
	struct piece *p = calloc(1, sizeof *p);

	if (!p)
		standin_misuse("no memory");
	*p = (struct piece){fd, bytes, charged, 1};
	standin_objects++;
	*out = (cu_piece)(uintptr_t)p;
	return CU_SUCCESS;
}

cu_result standin_piece_create(cu_context context, size_t bytes, cu_piece *out)
{
	int fd;

	if (bytes == 0 || bytes % GRANULE)
		return CU_INVALID_VALUE;
	if (bytes > standin_settings.memory - context->used)
		return CU_OUT_OF_MEMORY;
	fd = memfd_create("standin-piece", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, (off_t)bytes))
		return CU_OUT_OF_MEMORY;
	context->used += bytes;
	return make(fd, bytes, context, out);
}

cu_result standin_piece_import(int fd, cu_piece *out)
{
	struct stat st;
	int own;

	if (fcntl(fd, F_GET_SEALS) < 0 || fstat(fd, &st) || st.st_size <= 0 || (size_t)st.st_size % GRANULE)
		return CU_INVALID_VALUE; /* nothing that a driver exported */
	own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	return own < 0 ? CU_OUT_OF_MEMORY : make(own, (size_t)st.st_size, NULL, out);
}

cu_result standin_piece_export(cu_piece piece, int *fd)
{
	struct piece *p = (struct piece *)(uintptr_t)piece;

	*fd = fcntl(p->fd, F_DUPFD_CLOEXEC, 0);
	return *fd < 0 ? CU_OUT_OF_MEMORY : CU_SUCCESS;
}

/* Under the lock. */
static void unuse(struct piece *p)
{
	if (--p->uses)
		return;
	if (p->charged)
		p->charged->used -= p->bytes;
	close(p->fd);
	free(p);
	standin_objects--;
}

void standin_piece_release(cu_piece piece)
{
	standin_lock();
	unuse((struct piece *)(uintptr_t)piece);
	standin_unlock();
}

cu_result standin_reserve(cu_context context, size_t bytes, cu_address *out)
{
	struct reserved *r;
	void *at;

	if (bytes == 0 || bytes % GRANULE)
		return CU_INVALID_VALUE;
	at = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (at == MAP_FAILED)
		return CU_OUT_OF_MEMORY;
	r = calloc(1, sizeof *r);
	if (!r)
		standin_misuse("no memory");
	standin_lock();
	*r = (struct reserved){ranges, (uint64_t)(uintptr_t)at, bytes, context, NULL};
	ranges = r;
	standin_objects++;
	standin_unlock();
	*out = r->base;
	return CU_SUCCESS;
}

void standin_unreserve(cu_address address, size_t bytes)
{
	struct reserved **at = &ranges, *r;

	standin_lock();
	while (*at && (*at)->base != address)
		at = &(*at)->next;
	r = *at;
	if (!r || r->bytes != bytes || r->mapped)
		standin_misuse("cuMemAddressFree of %#llx, which is no reserved range, or has pieces in it", (unsigned long long)address);
	*at = r->next;
	munmap((void *)(uintptr_t)r->base, r->bytes);
	free(r);
	standin_objects--;
	standin_unlock();
}

static struct reserved *around(uint64_t address, uint64_t bytes)
{
	for (struct reserved *r = ranges; r; r = r->next)
		if (address >= r->base && bytes <= r->bytes && address - r->base <= r->bytes - bytes)
			return r;
	return NULL;
}

cu_result standin_map_piece(cu_address address, size_t bytes, cu_piece piece)
{
	struct piece *p = (struct piece *)(uintptr_t)piece;
	struct reserved *r;
	struct mapped *m;

	if (bytes == 0 || bytes % GRANULE || bytes > p->bytes)
		return CU_INVALID_VALUE;
	standin_lock();
	r = around(address, bytes);
	if (!r)
		standin_misuse("cuMemMap of %#llx, which is not reserved", (unsigned long long)address);
	for (m = r->mapped; m; m = m->next)
		if (address < m->base + m->bytes && m->base < address + bytes)
			standin_misuse("cuMemMap over a piece that is mapped");
	m = calloc(1, sizeof *m);
	if (!m || mmap((void *)(uintptr_t)address, bytes, PROT_NONE, MAP_SHARED | MAP_FIXED, p->fd, 0) == MAP_FAILED)
		standin_misuse("no memory");
	*m = (struct mapped){r->mapped, address, bytes, p, false};
	r->mapped = m;
	p->uses++;
	standin_objects++;
	standin_unlock();
	return CU_SUCCESS;
}

void standin_unmap_piece(cu_address address, size_t bytes)
{
	struct reserved *r;
	struct mapped **at, *m;

	standin_lock();
	r = around(address, bytes);
	at = r ? &r->mapped : NULL;
	while (at && *at && (*at)->base != address)
		at = &(*at)->next;
	if (!at || !*at || (*at)->bytes != bytes)
		standin_misuse("cuMemUnmap of %#llx, where no piece of %zu bytes is mapped", (unsigned long long)address, bytes);
	m = *at;
	*at = m->next;
	if (mmap((void *)(uintptr_t)address, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) ==
		MAP_FAILED)
		standin_misuse("no memory");
	unuse(m->piece);
	free(m);
	standin_objects--;
	standin_unlock();
}

cu_result standin_access(cu_context context, cu_address address, size_t bytes)
{
	cu_result result = CU_INVALID_VALUE;
	struct reserved *r;

	standin_lock();
	r = around(address, bytes);
	for (struct mapped *m = r && r->context == context ? r->mapped : NULL; m; m = m->next)
		if (m->base == address && m->bytes == bytes) {
			m->usable = !mprotect((void *)(uintptr_t)address, bytes, PROT_READ | PROT_WRITE);
			result = m->usable ? CU_SUCCESS : CU_OUT_OF_MEMORY;
		}
	standin_unlock();
	return result;
}

bool standin_mapped(cu_context context, cu_address address, uint64_t bytes, cu_address *base, size_t *extent)
{
	struct reserved *r = around(address, bytes);
	uint64_t at = address;

	if (!r || (context && r->context != context))
		return false;
	while (at < address + bytes) {
		struct mapped *m = r->mapped;

		while (m && !(m->usable && at >= m->base && at - m->base < m->bytes))
			m = m->next;
		if (!m)
			return false;
		if (base && at == address) {
			*base = standin_settings.rows ? r->base : m->base;
			*extent = standin_settings.rows ? r->bytes : m->bytes;
		}
		at = m->base + m->bytes;
	}
	return true;
}
