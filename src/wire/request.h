/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests and replies off the wire, within bounds.
 *
 * protobuf-c allocates as it reads: an empty submessage of two bytes costs an object of forty. What one message may cost is
 * bounded here by its own size: TY_UNPACK_FACTOR times its bytes (packed numbers grow by four at most, strings and bytes not at
 * all) plus TY_UNPACK_BASE (what the largest well-formed REGISTER needs for its small objects). Everything that is given out
 * counts, with the heap's own overhead, also what is freed again while reading. A message that would need more is refused with
 * TY_LIMIT, and all of it is freed.
 */
#ifndef TY_WIRE_REQUEST_H
#define TY_WIRE_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <tyer/result.h>

#include "wire/tyer.pb-c.h"

#define TY_WIRE_VERSION 1
#define TY_UNPACK_FACTOR 5
#define TY_UNPACK_BASE (1024 * 1024)
#define TY_REPLY_MAX_BYTES (4 * 1024 * 1024) /* a client takes no longer reply */
#define TY_REQUEST_DEFAULT_MAX_BYTES (4 * 1024 * 1024) /* before HELLO said the service's limit */

/* Unpack a request of at most max_bytes. TY_LIMIT: too long, or would cost too much. TY_PROTOCOL: no Request. */
TY_MUST_USE enum ty_code ty_request_unpack(const void *bytes, size_t length, uint32_t max_bytes,
	Tyer__V1__Request **out, struct ty_error *err);
/* Has it this version, a verb, and a timeout of at most max_timeout_us? TY_UNSUPPORTED or TY_INVALID names the field. Apart
 * from unpacking, so that a refusal can still carry the request's id. */
TY_MUST_USE enum ty_code ty_request_check(const Tyer__V1__Request *request, uint32_t max_timeout_us, struct ty_error *err);
/* Null is allowed. (tyer__v1__request__free_unpacked(request, NULL) is the same.) */
void ty_request_free(Tyer__V1__Request *request);

/* A reply of at most TY_REPLY_MAX_BYTES; its code is one of enum ty_code. TY_PROTOCOL otherwise, TY_LIMIT as above. */
TY_MUST_USE enum ty_code ty_reply_unpack(const void *bytes, size_t length, Tyer__V1__Reply **out, struct ty_error *err);
void ty_reply_free(Tyer__V1__Reply *reply);

/* The verb's name for people ("STORE"), by the oneof's field number (Request.verb_case); "?" if it is none. */
const char *ty_verb_name(uint32_t verb);
bool ty_verb_is_admin(uint32_t verb); /* of the administration socket alone */

/* Is it `min`..`max` bytes of printable UTF-8: well formed, no control character, no zero? Null counts as "". TY_INVALID
 * names `field`. */
TY_MUST_USE enum ty_code ty_wire_check_text(const char *field, const char *text, size_t min, size_t max,
	struct ty_error *err);

#endif
