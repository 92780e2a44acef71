/* SPDX-License-Identifier: Apache-2.0 */
#include <stdbool.h>
#include <string.h>

#include "fuzz.h"
#include "samples.h"
#include "wire/request.h"

/* What is accepted can be written and read again, and says the same then. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	Tyer__V1__Request *request, *again;
	struct ty_error err = {.code = TY_OK};
	enum ty_code code = ty_request_unpack(data, size, FUZZ_SEED_MAX, &request, &err);
	size_t length;
	uint8_t *bytes, *second;

	if (code != TY_OK) {
		FUZZ_CHECK(request == NULL && (code == TY_PROTOCOL || code == TY_LIMIT));
		FUZZ_CHECK(err.code == code && err.text[0] != '\0');
		return 0;
	}
	code = ty_request_check(request, 1000000, &err);
	FUZZ_CHECK(code == TY_OK || code == TY_INVALID || code == TY_UNSUPPORTED);
	FUZZ_CHECK(ty_verb_name(request->verb_case)[0] != (code == TY_OK ? '?' : '\0'));
	length = tyer__v1__request__get_packed_size(request);
	bytes = malloc(length + 1);
	second = malloc(length + 1);
	FUZZ_CHECK(tyer__v1__request__pack(request, bytes) == length);
	/* strings may have been cut at a zero byte, so only now is it stable; and what is written may be longer than what was read */
	if (length <= FUZZ_SEED_MAX && ty_request_unpack(bytes, length, FUZZ_SEED_MAX, &again, &err) == TY_OK) {
		FUZZ_CHECK(tyer__v1__request__get_packed_size(again) == length);
		FUZZ_CHECK(tyer__v1__request__pack(again, second) == length && memcmp(bytes, second, length) == 0);
		ty_request_free(again);
	}
	free(bytes);
	free(second);
	ty_request_free(request);
	return 0;
}

static void pack(const Tyer__V1__Request *request, void *user)
{
	uint8_t **at = user;

	*at += tyer__v1__request__pack(request, *at);
}

size_t fuzz_seed(unsigned index, uint8_t *bytes)
{
	uint8_t *end = bytes;

	return sample_request(index, pack, &end) ? (size_t)(end - bytes) : SIZE_MAX;
}
