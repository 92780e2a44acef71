/* SPDX-License-Identifier: Apache-2.0 */
#include "reconnect.h"

#define DOUBLINGS_MAX 7 /* 1.28 s: past the longest pause */

int64_t ty_reconnect_pause(struct ty_reconnect *r, bool up, int64_t now)
{
	uint32_t doublings;
	int64_t pause;

	if (up && now - r->up_at >= TY_RECONNECT_BRIEF_NS) {
		r->attempts = 0;
		return 0;
	}
	doublings = r->attempts < DOUBLINGS_MAX ? r->attempts : DOUBLINGS_MAX;
	r->attempts++;
	pause = (int64_t)TY_RECONNECT_MIN_NS << doublings;
	if (pause > TY_RECONNECT_MAX_NS)
		pause = TY_RECONNECT_MAX_NS;
	r->jitter = r->jitter * 6364136223846793005u + 1442695040888963407u;
	return pause - pause / 4 + (int64_t)((r->jitter >> 33) % (uint64_t)(pause / 2));
}
