/* SPDX-License-Identifier: Apache-2.0
 *
 * The report of a run: a table for people on standard output, the same as JSON for programs.
 */
#ifndef TY_BENCH_REPORT_H
#define TY_BENCH_REPORT_H

#include "options.h"
#include "stats.h"

/* One figure over the repeats of `copy`. */
struct bench_spread {
	double median, min, max;
};

struct bench_copy_report {
	uint64_t seed, chunks, chunk_bytes;
	uint32_t repeats;
	struct bench_spread store, retrieve;         /* GB/s */
	struct bench_spread raw_store, raw_retrieve; /* of the raw copies; 0 without them */
	struct bench_spread store_ratio, retrieve_ratio;
	uint64_t raw_bytes;
	bool has_hbm;
	int64_t hbm_bytes;
};

struct bench_report {
	const struct bench_options *options;
	const struct bench_stats *stats; /* of the load; of the PINGs, in `ping` */
	const struct bench_stats *pings; /* of the PINGs beside the load; null = none */
	double wall_s;
	/* replay */
	const char *trace;
	uint64_t trace_blocks, ceiling; /* in the trace's blocks */
	uint32_t parts;                 /* chunks a block; 0: no client got that far */
	bool interrupted, missed_ceiling;
	/* copy */
	const struct bench_copy_report *copy;
};

/* Sorts `values`. */
struct bench_spread bench_spread_of(double *values, uint32_t count);

/* Of both reports. */
double bench_share(uint64_t part, uint64_t all);
double bench_rate_in_operation(uint64_t bytes, const struct ty_histogram *row); /* GB/s */
double bench_rate(uint64_t bytes, double seconds);                              /* GB/s */
uint64_t bench_sum_codes(const struct bench_stats *stats, enum ty_code code);

/* Prints it all (to standard error what went wrong, in words), writes the JSON, and returns the exit code. */
int bench_report(const struct bench_report *report);

#endif
