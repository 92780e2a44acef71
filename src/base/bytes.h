/* SPDX-License-Identifier: Apache-2.0
 *
 * Numbers in formats of ours: little-endian, at any address. The caller sees to it that the bytes are there.
 */
#ifndef TY_BASE_BYTES_H
#define TY_BASE_BYTES_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

static inline void ty_put16(uint8_t *at, uint16_t v)
{
	v = htole16(v);
	memcpy(at, &v, sizeof v);
}

static inline void ty_put32(uint8_t *at, uint32_t v)
{
	v = htole32(v);
	memcpy(at, &v, sizeof v);
}

static inline void ty_put64(uint8_t *at, uint64_t v)
{
	v = htole64(v);
	memcpy(at, &v, sizeof v);
}

static inline uint16_t ty_get16(const uint8_t *at)
{
	uint16_t v;

	memcpy(&v, at, sizeof v);
	return le16toh(v);
}

static inline uint32_t ty_get32(const uint8_t *at)
{
	uint32_t v;

	memcpy(&v, at, sizeof v);
	return le32toh(v);
}

static inline uint64_t ty_get64(const uint8_t *at)
{
	uint64_t v;

	memcpy(&v, at, sizeof v);
	return le64toh(v);
}

#endif
