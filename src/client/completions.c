/* SPDX-License-Identifier: Apache-2.0 */
#include "client/completions.h"

#include <stdint.h>
#include <unistd.h>

void ty_completions_signal(struct ty_completions *list)
{
	const uint64_t one = 1;
	ssize_t n;

	/* fails only when the counter is full: then it is readable already */
	n = write(list->event_fd, &one, sizeof one);
	(void)n;
}

void ty_completions_push(struct ty_completions *list, struct ty_completion *completion)
{
	struct ty_completion *head = atomic_load_explicit(&list->head, memory_order_relaxed);

	do
		completion->next = head;
	while (!atomic_compare_exchange_weak_explicit(
		&list->head, &head, completion, memory_order_release, memory_order_relaxed));
	/* `completion` may be taken and gone from here on. Who finds the list empty signals; the taker reads the eventfd before it
	 * takes, so a push that it does not take finds the list empty, and signals after that read. */
	if (head == NULL)
		ty_completions_signal(list);
}

struct ty_completion *ty_completions_take(struct ty_completions *list)
{
	struct ty_completion *taken, *oldest = NULL;
	uint64_t count;
	ssize_t n;

	n = read(list->event_fd, &count, sizeof count); /* EAGAIN: nothing was signalled */
	(void)n;
	taken = atomic_exchange_explicit(&list->head, NULL, memory_order_acquire);
	while (taken != NULL) {
		struct ty_completion *next = taken->next;

		taken->next = oldest;
		oldest = taken;
		taken = next;
	}
	return oldest;
}
