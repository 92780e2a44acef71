/* SPDX-License-Identifier: Apache-2.0
 *
 * When who lost the service tries again: at once, if it had been there for a while; then after 10 ms, doubled up to a second, each a quarter
 * more or less, so that the clients of a node do not come in step. One that takes everybody and loses everybody has not been back: its
 * brief UPs count as attempts that failed. Pure functions over the caller's struct; time (ns, of any clock that only grows) is given. Any
 * thread, one at a time.
 */
#ifndef TY_BASE_RECONNECT_H
#define TY_BASE_RECONNECT_H

#include <stdbool.h>
#include <stdint.h>

#define TY_RECONNECT_MIN_NS 10000000
#define TY_RECONNECT_MAX_NS 1000000000
#define TY_RECONNECT_BRIEF_NS 1000000000 /* who is UP for less has not been back */

struct ty_reconnect {
	uint32_t attempts; /* failed since it was UP for a while, and times that it was UP for less */
	int64_t up_at;     /* when it was last */
	uint64_t jitter;   /* state of the generator that spreads attempts. Seeded by the caller, with what differs among those of a node */
};

/* What there was is lost (`up`: the service was there, since up_at), or an attempt failed. The pause before the next attempt. */
int64_t ty_reconnect_pause(struct ty_reconnect *r, bool up, int64_t now);

#endif
