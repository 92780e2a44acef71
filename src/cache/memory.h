/* SPDX-License-Identifier: Apache-2.0
 *
 * How much memory this process may have: what the machine has, and what its control groups leave of it. Reads a few
 * small files; any thread.
 */
#ifndef TY_CACHE_MEMORY_H
#define TY_CACHE_MEMORY_H

#include <tyer/result.h>
#include <stdint.h>

struct ty_memory {
	uint64_t total;      /* MemTotal */
	uint64_t limit;      /* the smallest control group limit above this process; UINT64_MAX: none, or not readable */
	uint64_t huge_bytes; /* of one default huge page; 0: none */
	uint64_t huge_free;  /* bytes in huge pages that are neither used nor promised */
};

/* `root` is "" for this machine, a directory that looks like it for tests. TY_IO: no MemTotal. */
TY_MUST_USE enum ty_code ty_memory_read(const char *root, struct ty_memory *out, struct ty_error *err);

#endif
