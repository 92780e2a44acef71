/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TYER_CLI_CALIBRATE_H
#define TYER_CLI_CALIBRATE_H

#include "options.h"

/* Measure, print, keep; the exit status. Before this process has called the driver. */
int cli_calibrate(const struct cli_options *o);

#endif
