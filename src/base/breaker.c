/* SPDX-License-Identifier: Apache-2.0 */
#include "breaker.h"

bool ty_breaker_good(struct ty_breaker *b)
{
	bool was_open = b->open;

	b->failures = 0;
	b->pause = 0;
	b->open = b->probing = false;
	return was_open;
}

static void open_for(struct ty_breaker *b, int64_t pause, int64_t now)
{
	b->pause = pause < b->pause_max ? pause : b->pause_max;
	b->until = now + b->pause;
	b->open = true;
	b->probing = false;
}

bool ty_breaker_bad(struct ty_breaker *b, bool probe, int64_t now)
{
	if (b->open) {
		if (probe)
			open_for(b, 2 * b->pause, now);
		return false;
	}
	if (++b->failures < b->limit)
		return false;
	open_for(b, b->pause_min, now);
	return true;
}

bool ty_breaker_probe(struct ty_breaker *b, int64_t now)
{
	if (!b->open || b->probing || now < b->until)
		return false;
	b->probing = true;
	return true;
}

int64_t ty_backoff(uint32_t tries, int64_t base, int64_t most, uint64_t random)
{
	int64_t pause = base;

	for (uint32_t i = 1; i < tries && pause < most; i++)
		pause *= 2;
	if (pause > most)
		pause = most;
	return pause > 0 ? (int64_t)(random % ((uint64_t)pause + 1)) : 0;
}
