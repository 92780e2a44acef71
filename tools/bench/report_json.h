/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TY_BENCH_REPORT_JSON_H
#define TY_BENCH_REPORT_JSON_H

#include "report.h"

/* Writes options->json; on failure says so on standard error and returns -1. */
int bench_report_json(const struct bench_report *report, int exit_code);

/* Of both reports. */
double bench_share(uint64_t part, uint64_t all);
double bench_rate_in_operation(uint64_t bytes, const struct ty_histogram *row); /* GB/s */
double bench_rate(uint64_t bytes, double seconds);                              /* GB/s */
uint64_t bench_sum_codes(const struct bench_stats *stats, enum ty_code code);

#endif
