/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "fuzz.h"
#include "trace.h"

/* A trace of whoever wrote it: read within its limits, or refused with a line and a reason. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bench_trace trace;
	struct ty_error err = {.text = ""};
	FILE *in = fmemopen((void *)(uintptr_t)data, size != 0 ? size : 1, "r");
	enum ty_code code;
	uint64_t hits;

	if (in == NULL)
		return 0;
	code = bench_trace_read(in, "trace", 0, 512, &trace, &err);
	fclose(in);
	if (code != TY_OK) {
		FUZZ_CHECK(err.text[0] != '\0');
		return 0;
	}
	for (uint32_t i = 0; i < trace.request_count; i++) {
		FUZZ_CHECK((uint64_t)trace.requests[i].first + trace.requests[i].count <= trace.id_count);
		FUZZ_CHECK(i == 0 || trace.requests[i].at_ms >= trace.requests[i - 1].at_ms);
	}
	if (bench_trace_ceiling(&trace, &hits, &err) == TY_OK)
		FUZZ_CHECK(hits <= trace.id_count);
	bench_trace_free(&trace);
	return 0;
}

size_t fuzz_seed(unsigned index, uint8_t *bytes)
{
	static const char *const seeds[] = {
		"{\"timestamp\": 0, \"input_length\": 1000, \"output_length\": 5, \"hash_ids\": [1, 2]}\n",
		"{\"timestamp\": 0, \"input_length\": 9, \"output_length\": 0, \"hash_ids\": [7]}\n\n{\"timestamp\": 3.5}\n",
		"{\"timestamp\": 3.5, \"input_length\": 1024, \"output_length\": 9, \"hash_ids\": [7, 4294967295]}\n",
		"{\"hash_ids\": [], \"timestamp\": 1, \"input_length\": 1, \"output_length\": 1}",
	};

	if (index >= sizeof seeds / sizeof seeds[0])
		return SIZE_MAX;
	memcpy(bytes, seeds[index], strlen(seeds[index]));
	return strlen(seeds[index]);
}
