/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "device/calibration.h"
#include "fuzz.h"

static struct ty_calibration ours(void)
{
	struct ty_calibration c = {.model = "fuzz", .driver = 13000};

	ty_calibration_default(&c);
	return c;
}

/* Whatever lies in the cache's directory: a calibration of this GPU whose every rate is one, or a refusal that changed nothing. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct ty_calibration c = ours(), before = c;
	struct ty_error err = {0};
	FILE *in;

	if (size == 0)
		return 0; /* fmemopen takes none */
	in = fmemopen((void *)(uintptr_t)data, size, "r");
	FUZZ_CHECK(in != NULL);
	if (ty_calibration_parse(in, "fuzz", &c, &err) == TY_OK) {
		FUZZ_CHECK(c.driver == before.driver && memcmp(c.uuid, before.uuid, sizeof c.uuid) == 0 && c.launch_ns > 0);
		for (unsigned p = 1; p < TY_PATHS; p++)
			for (unsigned d = 0; d < 2; d++)
				for (unsigned i = 0; i < TY_PLAN_RUNS; i++)
					FUZZ_CHECK(c.rates.alone[p][d][i] && c.rates.beside[p][d][i]);
	} else {
		FUZZ_CHECK(err.text[0] != '\0' && memcmp(&c, &before, sizeof c) == 0);
	}
	fclose(in);
	return 0;
}

size_t fuzz_seed(unsigned index, uint8_t *bytes)
{
	const struct ty_calibration c = ours();
	FILE *out;
	long size;

	if (index)
		return SIZE_MAX;
	out = fmemopen(bytes, FUZZ_SEED_MAX, "w");
	FUZZ_CHECK(out != NULL);
	ty_calibration_print(out, &c);
	size = ftell(out);
	fclose(out);
	return (size_t)size;
}
