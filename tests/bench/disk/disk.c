/* SPDX-License-Identifier: Apache-2.0
 *
 * bench-disk: how fast the disk tier puts, gets and scans; or another tier, if KIND:WHERE is given for the folder. usage:
 *
 *   bench-disk put|get FOLDER CHUNKS BYTES DEPTH [SETTINGS]   chunks 0.. of BYTES each, DEPTH in flight; one line of JSON
 *   bench-disk scan FOLDER [SETTINGS]                         until the index is complete
 *
 * tests/bench/disk/run compares it with fio on the same device, tests/bench/s3/run with curl at the same server.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "base/log.h"
#include "cache/checksum.h"
#include "tests/unit/tiers/house.h"

#define AT_ONCE 64 /* ios of one list */

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double cpu_seconds(void)
{
	struct rusage r;

	getrusage(RUSAGE_SELF, &r);
	return (double)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) + (double)(r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1e6;
}

static int transfer(struct house *h, enum ty_tier_verb verb, uint32_t chunks, uint64_t bytes)
{
	uint32_t places = (uint32_t)(h->service->arena.bytes / ty_envelope_padded(bytes)), bad = 0;
	struct ty_tier_io **ios = calloc(chunks, sizeof(void *));
	double began, took, cpu;

	/* Contents repeat, so that making them is no part of what is measured. */
	for (uint32_t i = 0; i < chunks; i++) {
		ios[i] = house_io(h, TY_TIER_GET, i, i % places, 1, bytes);
		ios[i]->verb = verb;
	}
	for (uint32_t i = 0; i < chunks && verb == TY_TIER_PUT; i++) {
		if (i < places)
			house_fill(ios[i]->part[0].data, bytes, i, 0);
		ios[i]->part[0].checksum = i < places ? ty_checksum(ios[i]->part[0].data, bytes) : ios[i % places]->part[0].checksum;
	}
	began = seconds();
	cpu = cpu_seconds();
	house_run(h, ios, chunks);
	took = seconds() - began;
	cpu = cpu_seconds() - cpu;
	for (uint32_t i = 0; i < chunks; i++) {
		bad += ios[i]->outcome != TY_TIER_DONE;
		house_free(ios[i]);
	}
	free(ios);
	printf("{\"verb\": \"%s\", \"bytes_per_s\": %.0f, \"chunks_per_s\": %.0f, \"seconds\": %.3f, \"cpu\": %.3f, \"failed\": %u, "
	       "\"note\": \"%s\"}\n", ty_tier_verb_name(verb), (double)chunks * (double)bytes / took, chunks / took, took, cpu / took,
		bad, h->tier->stats.note);
	return bad != 0;
}

int main(int argc, char **argv)
{
	bool scan = argc >= 3 && strcmp(argv[1], "scan") == 0;
	const char *settings = argc > (scan ? 3 : 6) ? argv[scan ? 3 : 6] : "";
	char spec[512];
	struct house h;
	double began;
	int status;

	if (!scan && argc < 6) {
		fprintf(stderr, "usage: bench-disk put|get FOLDER CHUNKS BYTES DEPTH [SETTINGS] | scan FOLDER [SETTINGS]\n");
		return 2;
	}
	ty_log_setup(TY_LOG_WARN, false);
	snprintf(spec, sizeof spec, "%s%s,ops=%s,bytes=8GiB%s", strchr(argv[2], ':') ? "" : "disk:", argv[2],
		scan ? "64" : argv[5], settings);
	began = seconds();
	if (house_open(&h, spec) != TY_OK) {
		fprintf(stderr, "%s\n", h.error);
		return 1;
	}
	house_scanned(&h);
	if (scan) {
		printf("{\"verb\": \"scan\", \"chunks\": %llu, \"seconds\": %.3f}\n", (unsigned long long)h.tier->stats.chunks,
			seconds() - began);
		status = 0;
	} else {
		status = transfer(&h, strcmp(argv[1], "put") ? TY_TIER_GET : TY_TIER_PUT, (uint32_t)atoi(argv[3]),
			strtoull(argv[4], NULL, 10));
	}
	house_close(&h);
	return status;
}
