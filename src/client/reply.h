/* SPDX-License-Identifier: Apache-2.0
 *
 * A reply's bytes turned into the result of the request that they answer. Pure: any thread.
 */
#ifndef TY_CLIENT_REPLY_H
#define TY_CLIENT_REPLY_H

#include <tyer/client.h>

#include "wire/tyer.pb-c.h"

struct ty_decoded {
	struct ty_result result; /* points into the rest */
	Tyer__V1__Reply *reply;  /* null when the bytes were no reply to this request */
	void *owned;             /* what STATUS and OPERATIONS need beside it */
	struct ty_error error;
};

/* Always leaves a result: what the service said, or TY_PROTOCOL for bytes that are no answer to request `id` of `verb` (its number in
 * Request's oneof); then nobody said that its blocks are not in use. Free with ty_decoded_free. */
void ty_reply_decode(uint32_t verb, uint64_t id, const void *bytes, size_t length, struct ty_decoded *out);
/* LOOKUP may find no more chunks than the chain has, which the engine has blocks for; and RETRIEVE has written `chunks`, or it is not over. Else
 * the result is TY_PROTOCOL. */
void ty_reply_hold_against(uint32_t verb, uint32_t chunks, struct ty_decoded *out);
/* The same for a request that got no reply: `code` (not TY_OK) and the text. Its blocks, if it had any, may be in use. */
void ty_reply_failed(uint32_t verb, enum ty_code code, const char *text, struct ty_decoded *out);
void ty_decoded_free(struct ty_decoded *decoded);

/* What HELLO said, bounds checked. *devices is allocated. */
TY_MUST_USE enum ty_code ty_hello_decode(const Tyer__V1__Reply *reply, struct ty_client_info *info,
	struct ty_device_info **devices, struct ty_error *err);

#endif
