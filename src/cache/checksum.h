/* SPDX-License-Identifier: Apache-2.0
 *
 * The checksum of a slot's contents: XXH3, 64 bits. It finds bytes that changed by themselves on their way or at rest;
 * nothing keeps who wants to from making others of the same sum. 0 stands for "none was made" and is no contents' sum.
 *
 * Pure functions: any thread.
 */
#ifndef TY_CACHE_CHECKSUM_H
#define TY_CACHE_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

#define XXH_STATIC_LINKING_ONLY /* the state's size */
#include <xxhash.h>

uint64_t ty_checksum(const void *bytes, size_t length);

/* The same, a stretch at a time. */
struct ty_checksum {
	XXH3_state_t state;
};
void ty_checksum_begin(struct ty_checksum *sum);
void ty_checksum_add(struct ty_checksum *sum, const void *bytes, size_t length);
uint64_t ty_checksum_end(const struct ty_checksum *sum);

#endif
