/* SPDX-License-Identifier: Apache-2.0 */
#include <stdbool.h>
#include <string.h>

#include "client/reply.h"
#include "fuzz.h"
#include "samples.h"
#include "wire/request.h"

/* Whatever a service answers, to whichever verb: a result, with a text when it is no success. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	for (uint32_t verb = TYER__V1__REQUEST__VERB_PING; verb <= TYER__V1__REQUEST__VERB_OPERATIONS; verb++) {
		struct ty_device_info *devices = NULL;
		struct ty_client_info info;
		struct ty_decoded decoded;
		struct ty_error err;

		ty_reply_decode(verb, SAMPLE_ID, data, size, &decoded);
		FUZZ_CHECK(decoded.result.error != NULL);
		FUZZ_CHECK(decoded.result.code >= TY_OK && decoded.result.code < TY_CODE_COUNT);
		if (decoded.result.code == TY_OK) {
			FUZZ_CHECK(decoded.reply != NULL && decoded.reply->id == SAMPLE_ID && decoded.result.error[0] == '\0');
			if (verb == TYER__V1__REQUEST__VERB_LOOKUP)
				FUZZ_CHECK(decoded.result.lookup.hits <= decoded.result.lookup.chunks);
			if (verb == TYER__V1__REQUEST__VERB_STATUS) {
				Tyer__V1__StatusReply *status = tyer__v1__status_reply__unpack(
					NULL, decoded.result.status.length, decoded.result.status.bytes);

				FUZZ_CHECK(status != NULL);
				tyer__v1__status_reply__free_unpacked(status, NULL);
			}
			if (verb == TYER__V1__REQUEST__VERB_HELLO &&
				ty_hello_decode(decoded.reply, &info, &devices, &err) == TY_OK) {
				FUZZ_CHECK(info.client != 0 && info.chunk_tokens != 0);
				for (uint32_t i = 0; i < info.device_count; i++)
					FUZZ_CHECK(strnlen(info.devices[i].name, 32) < 32);
			}
			free(devices);
		}
		ty_decoded_free(&decoded);
	}
	return 0;
}

static void pack(const Tyer__V1__Reply *reply, void *user)
{
	uint8_t **at = user;

	*at += tyer__v1__reply__pack(reply, *at);
}

size_t fuzz_seed(unsigned index, uint8_t *bytes)
{
	uint8_t *end = bytes;

	return sample_reply(index, pack, &end) ? (size_t)(end - bytes) : SIZE_MAX;
}
