/* SPDX-License-Identifier: Apache-2.0
 *
 * Credits: how much is admitted at an edge. Requests and bytes are one word, so that both are taken or neither, and
 * nobody is refused for what another was about to give back.
 *
 *            who with whom    take   give   read
 *            all              yes    yes    yes
 */
#include <assert.h>
#include <stdatomic.h>
#include <stdalign.h>

#include <tyer/actor.h>

#define BYTES_BITS 40
#define ONE_REQUEST (UINT64_C(1) << BYTES_BITS)
#define BYTES_MASK (ONE_REQUEST - 1)

static_assert(TY_CREDITS_BYTES_MAX == BYTES_MASK && TY_CREDITS_REQUESTS_MAX == UINT64_MAX >> BYTES_BITS, "one word");

/* What ty_credits.opaque holds. */
struct credits {
	_Atomic(uint64_t) used; /* requests << 40 | bytes. acquire, release: what a holder wrote is seen by the next */
	uint64_t requests, bytes; /* the limits: constant */
	_Atomic(uint64_t) taken, busy, requests_high, bytes_high; /* statistics: relaxed */
};
static_assert(sizeof(struct credits) <= sizeof(((struct ty_credits *)0)->opaque), "fits");
static_assert(alignof(struct credits) <= alignof(uint64_t), "fits");

static struct credits *core_of(struct ty_credits *credits)
{
	return (struct credits *)(void *)credits->opaque;
}

static uint64_t read_relaxed(const _Atomic(uint64_t) *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

static void raise_to(_Atomic(uint64_t) *high, uint64_t value)
{
	uint64_t old = read_relaxed(high);

	while (old < value && !atomic_compare_exchange_weak_explicit(
				      high, &old, value, memory_order_relaxed, memory_order_relaxed))
		;
}

enum ty_code ty_credits_init(struct ty_credits *credits, uint64_t requests, uint64_t bytes)
{
	struct credits *core = core_of(credits);

	if (requests > TY_CREDITS_REQUESTS_MAX || bytes > TY_CREDITS_BYTES_MAX)
		return TY_INVALID;
	*core = (struct credits){.requests = requests, .bytes = bytes};
	return TY_OK;
}

enum ty_code ty_credits_take(struct ty_credits *credits, uint64_t bytes)
{
	struct credits *core = core_of(credits);
	uint64_t old = read_relaxed(&core->used), next;

	if (bytes > core->bytes || core->requests == 0)
		return TY_LIMIT;
	do {
		if ((old >> BYTES_BITS) + 1 > core->requests || (old & BYTES_MASK) + bytes > core->bytes) {
			atomic_fetch_add_explicit(&core->busy, 1, memory_order_relaxed);
			return TY_BUSY;
		}
		next = old + ONE_REQUEST + bytes;
	} while (!atomic_compare_exchange_weak_explicit(
		&core->used, &old, next, memory_order_acquire, memory_order_relaxed));
	atomic_fetch_add_explicit(&core->taken, 1, memory_order_relaxed);
	raise_to(&core->requests_high, next >> BYTES_BITS);
	raise_to(&core->bytes_high, next & BYTES_MASK);
	return TY_OK;
}

void ty_credits_give(struct ty_credits *credits, uint64_t bytes)
{
	uint64_t old = atomic_fetch_sub_explicit(&core_of(credits)->used, ONE_REQUEST + bytes, memory_order_release);
	bool were_taken = old >= ONE_REQUEST && (old & BYTES_MASK) >= bytes;

	assert(were_taken);
	(void)were_taken;
}

void ty_credits_stats(const struct ty_credits *credits, struct ty_credits_stats *out)
{
	const struct credits *core = (const struct credits *)(const void *)credits->opaque;
	uint64_t used = read_relaxed(&core->used);

	*out = (struct ty_credits_stats){
		.requests = used >> BYTES_BITS,
		.bytes = used & BYTES_MASK,
		.requests_high = read_relaxed(&core->requests_high),
		.bytes_high = read_relaxed(&core->bytes_high),
		.taken = read_relaxed(&core->taken),
		.busy = read_relaxed(&core->busy),
	};
}
