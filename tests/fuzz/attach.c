/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "fuzz.h"
#include "wire/attach.h"

/* There is one way to write a frame: what is accepted is written back as the same bytes. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t bytes[TY_ATTACH_FRAME_MAX];
	struct ty_attach_frame frame;
	struct ty_error err = {.code = TY_OK};
	enum ty_code code = ty_attach_decode(data, size, &frame, &err);

	if (code == TY_OK) {
		FUZZ_CHECK(ty_attach_encode(&frame, bytes) == size);
		FUZZ_CHECK(memcmp(bytes, data, size) == 0);
	} else {
		FUZZ_CHECK(code == TY_PROTOCOL || code == TY_UNSUPPORTED);
		FUZZ_CHECK(err.code == code && err.text[0] != '\0');
	}
	return 0;
}

size_t fuzz_seed(unsigned index, uint8_t *bytes)
{
	struct ty_attach_frame frame = {.type = TY_ATTACH_WELCOME};

	switch (index) {
	case 0:
		frame.welcome.boot = UINT64_MAX;
		memset(frame.welcome.token, 7, TY_ATTACH_TOKEN_BYTES);
		break;
	case 1:
		frame = (struct ty_attach_frame){.type = TY_ATTACH_REFUSED, .refused = {.code = TY_LIMIT, .text = "max_clients"}};
		break;
	case 2:
		frame = (struct ty_attach_frame){.type = TY_ATTACH_REFUSED, .refused = {.code = TY_INTERNAL}};
		break;
	case 3:
		frame = (struct ty_attach_frame){.type = TY_ATTACH_DESCRIPTOR, .descriptor.number = 63};
		break;
	case 4:
		frame = (struct ty_attach_frame){.type = TY_ATTACH_DESCRIPTOR_OK, .descriptor_ok = {.number = 0, .code = TY_OK}};
		break;
	case 5:
		frame = (struct ty_attach_frame){.type = TY_ATTACH_TIMELINE};
		break;
	case 6:
		frame = (struct ty_attach_frame){.type = TY_ATTACH_EMBED};
		break;
	default:
		return SIZE_MAX;
	}
	return ty_attach_encode(&frame, bytes);
}
