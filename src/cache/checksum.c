/* SPDX-License-Identifier: Apache-2.0 */
#include "checksum.h"

static uint64_t not_zero(uint64_t sum)
{
	return sum ? sum : 1;
}

uint64_t ty_checksum(const void *bytes, size_t length)
{
	return not_zero(XXH3_64bits(bytes, length));
}

/* The library's calls fail for null pointers only. */
void ty_checksum_begin(struct ty_checksum *sum)
{
	(void)XXH3_64bits_reset(&sum->state);
}

void ty_checksum_add(struct ty_checksum *sum, const void *bytes, size_t length)
{
	(void)XXH3_64bits_update(&sum->state, bytes, length);
}

uint64_t ty_checksum_end(const struct ty_checksum *sum)
{
	return not_zero(XXH3_64bits_digest(&sum->state));
}
