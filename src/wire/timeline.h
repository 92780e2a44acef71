/* SPDX-License-Identifier: Apache-2.0
 *
 * A client's timeline page (TY_TIMELINE_WORDS words in a sealed memfd, wire/attach.h), mapped once in a process and held by whoever
 * uses it: the client, the service's connection and engine, an owner. Any thread.
 */
#ifndef TY_WIRE_TIMELINE_H
#define TY_WIRE_TIMELINE_H

#include <stdatomic.h>
#include <stdint.h>

#include <tyer/result.h>

struct ty_timeline {
	_Atomic uint64_t *words; /* TY_TIMELINE_WORDS; ready words: written by the client (release), read by owners
	                            (acquire); done words: written by owners (release), read by the client (acquire) */
	_Atomic uint32_t refs;
};

/* Map the page of a descriptor, which stays the caller's. *out has one reference, the caller's; null when it fails. */
TY_MUST_USE enum ty_code ty_timeline_open(int fd, struct ty_timeline **out, struct ty_error *err);
struct ty_timeline *ty_timeline_ref(struct ty_timeline *timeline);
void ty_timeline_unref(struct ty_timeline *timeline); /* the last one unmaps and frees it; null is allowed */

#endif
