/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/record.h"

#include <string.h>

uint32_t ty_ring_read(const struct ty_ring *ring, struct ty_event *out)
{
	uint64_t end = atomic_load_explicit(&ring->written, memory_order_acquire);
	uint64_t first = end > TY_RING_EVENTS ? end - TY_RING_EVENTS : 0, now, lost;
	uint32_t count = (uint32_t)(end - first);

	for (uint64_t n = first; n < end; n++) {
		const struct ty_event_slot *slot = &ring->slots[n % TY_RING_EVENTS];
		uint32_t what;

		out[n - first].when = atomic_load_explicit(&slot->when, memory_order_acquire);
		what = atomic_load_explicit(&slot->what, memory_order_acquire);
		out[n - first].cls = atomic_load_explicit(&slot->cls, memory_order_acquire);
		out[n - first].msg = atomic_load_explicit(&slot->msg, memory_order_acquire);
		out[n - first].number = atomic_load_explicit(&slot->number, memory_order_acquire);
		out[n - first].kind = (enum ty_event_kind)(what >> 24);
		out[n - first].index = what & 0xffffff;
		if (out[n - first].kind == TY_EVENT_SEND)
			out[n - first].cls = NULL;
	}
	/* event `now` may be half written: it overwrites event now - TY_RING_EVENTS */
	now = atomic_load_explicit(&ring->written, memory_order_relaxed);
	if (now < TY_RING_EVENTS || now - TY_RING_EVENTS < first)
		return count;
	lost = now - TY_RING_EVENTS - first + 1;
	if (lost >= count)
		return 0;
	memmove(out, out + lost, (count - lost) * sizeof *out);
	return count - (uint32_t)lost;
}
