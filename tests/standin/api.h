/* SPDX-License-Identifier: Apache-2.0
 *
 * How each of the driver's functions begins, and what several of them refuse.
 */
#ifndef TY_STANDIN_API_H
#define TY_STANDIN_API_H

#include <pthread.h>

#include "standin_private.h"

/* Several threads in one context, where that is allowed: one after the other, as a driver's own lock has it. Else null. */
pthread_mutex_t *standin_lock_driver(void);
void standin_unlock_driver(pthread_mutex_t **lock);

/* A function that may fail: ENTER(name, context, queues) returns what was injected. */
#define ENTER(name, context, queues)                                                                                   \
	cu_result injected = standin_enter(STANDIN_##name, context, queues);                                           \
	if (injected != CU_SUCCESS && injected != STANDIN_HANG)                                                        \
		return injected;                                                                                       \
	__attribute__((cleanup(standin_unlock_driver), unused)) pthread_mutex_t *locked = standin_lock_driver()

/* A call that really waits for all work of the context: not between batches. */
void standin_would_wait(const char *name);

#endif
