/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TY_BENCH_REPORT_JSON_H
#define TY_BENCH_REPORT_JSON_H

#include "report.h"

/* Writes options->json; on failure says so on standard error and returns -1. */
int bench_report_json(const struct bench_report *report, int exit_code);

#endif
