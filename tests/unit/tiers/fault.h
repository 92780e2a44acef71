/* SPDX-License-Identifier: Apache-2.0
 *
 * A tier that misbehaves as it is told, over a store in memory: --tier fault:NUMBER. It keeps the tier's contract otherwise,
 * so that whatever goes wrong around it is somebody else's fault. A program that links this has this kind and the disk's.
 */
#ifndef TY_TESTS_TIERS_FAULT_H
#define TY_TESTS_TIERS_FAULT_H

#include "actors/service.h"

#define FAULTS 2

/* Set by the test at any time (relaxed). */
extern struct fault {
	_Atomic bool hang;            /* nothing ends until fault_let */
	_Atomic bool fail, full;      /* everything fails; every PUT finds it full */
	_Atomic uint32_t fail_every;  /* every nth operation fails; 0: none */
	_Atomic uint32_t silent_below; /* EXISTS of keys whose first byte is below it fails */
	_Atomic uint32_t wrong_every; /* every nth GET finds other bytes */
	_Atomic uint32_t odd_shape;   /* what is PUT lies there as if it had been: 1: of shorter parts, 2: of one part */
	_Atomic int64_t delay_ns;     /* an operation takes up to so long */
	_Atomic uint64_t gets, puts;  /* by the tier: that were carried out, whatever came of them */
} fault[FAULTS];

/* Let go what hangs. */
void fault_let(struct ty_tier *tier);

#endif
