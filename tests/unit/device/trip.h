/* SPDX-License-Identifier: Apache-2.0
 *
 * A round trip through any device, held against the formula of layout.h bit for bit.
 */
#ifndef TY_TEST_TRIP_H
#define TY_TEST_TRIP_H

#include "device/device.h"
#include "pools.h"

struct test_trip {
	struct ty_device *dev;
	struct ty_mapping *mapping;
	const struct ty_layout *layout;
	const struct test_pool *pool;
	uint8_t *view[TY_MAX_REGIONS]; /* this process's own view of region i, from its offset on */
	uint8_t *slots;                /* registered memory */
	size_t slot_bytes;             /* of it, in all */
	uint64_t random;
};
/* Store random contents from random blocks, retrieve them into others with some skipped, then both at once; asserts (cmocka)
 * that every byte of slots and pool is as it must be. */
void test_round_trip(struct test_trip *trip);

/* Poll until `want` batches are done; fails the test when the device takes more than `polls` of them. */
void test_drive(struct ty_device *dev, uint32_t want, uint64_t polls);

#endif
