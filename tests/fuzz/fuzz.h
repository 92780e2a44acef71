/* SPDX-License-Identifier: Apache-2.0
 *
 * A fuzz target: what libFuzzer calls, and the seeds that it starts from. Each target is built twice: as a plain program that
 * feeds its seeds and mutations of them from a fixed random seed (plain.c; every build, every test run), and with
 * -Dfuzz=true under clang as a libFuzzer program.
 */
#ifndef TY_TESTS_FUZZ_H
#define TY_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define FUZZ_SEED_MAX 65536

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
/* Seed number `index` into `bytes` (FUZZ_SEED_MAX of them); returns its length, or SIZE_MAX when there are no more. */
size_t fuzz_seed(unsigned index, uint8_t *bytes);

/* What must hold for every input. Not assert(): it says what failed, and stays with NDEBUG. */
#define FUZZ_CHECK(what) \
	do { \
		if (!(what)) { \
			fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #what); \
			abort(); \
		} \
	} while (0)

#endif
