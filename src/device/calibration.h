/* SPDX-License-Identifier: Apache-2.0
 *
 * What was measured on one GPU with one driver: the planner's rates, and how long a launch takes while nobody else is there. A text
 * file a GPU and driver, so that it is measured once. Any thread.
 */
#ifndef TY_DEVICE_CALIBRATION_H
#define TY_DEVICE_CALIBRATION_H

#include <stdio.h>

#include "plan.h"

#define TY_CALIBRATION_LAUNCH_NS 10000u /* of the GPU that the compiled rates come from */

struct ty_calibration {
	char model[96];
	uint8_t uuid[TY_UUID_BYTES];
	int driver;         /* its version: 13000 */
	bool beside;        /* rates.beside was measured too; else it is the compiled one, by as much more as this GPU is faster alone */
	uint32_t launch_ns; /* from a launch to its end, the median */
	struct ty_plan_rates rates;
};

/* The compiled rates, as if measured on this GPU. */
void ty_calibration_default(struct ty_calibration *c);
/* Set rates.beside from rates.alone. */
void ty_calibration_scale(struct ty_calibration *c);

/* One way's rates in one direction, as measured; 0: there is no such way at that length. A longer run is no slower than a shorter one: a
 * length that is slower than both of its neighbours by more than TY_PLAN_GAIN was measured while the machine was busy otherwise, and is
 * given the less of theirs. A way that there is none of at a length goes as fast as at the next shorter one, and one that there is none of at
 * all as the compiled rates say: it is not chosen anyhow. */
void ty_calibration_smooth(uint32_t rates[TY_PLAN_RUNS], const uint32_t compiled[TY_PLAN_RUNS]);

/* The file's name in `directory`. */
void ty_calibration_name(char *out, size_t size, const char *directory, const uint8_t uuid[TY_UUID_BYTES], int driver);
/* *there: there is a file, and c has been read. TY_INVALID: it is no calibration, or of another GPU or driver than c's, which the
 * caller set. */
TY_MUST_USE enum ty_code ty_calibration_read(const char *path, struct ty_calibration *c, bool *there, struct ty_error *err);
/* The same of a file that is open; c is as it was when it fails. */
TY_MUST_USE enum ty_code ty_calibration_parse(FILE *in, const char *path, struct ty_calibration *c, struct ty_error *err);
/* Makes the directory (its last part) where there is none; the file appears whole. */
TY_MUST_USE enum ty_code ty_calibration_write(const char *directory, const struct ty_calibration *c, struct ty_error *err);
/* In the file's own form. */
void ty_calibration_print(FILE *out, const struct ty_calibration *c);

#endif
