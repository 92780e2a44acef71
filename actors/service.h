/* SPDX-License-Identifier: Apache-2.0
 *
 * The service: which actors there are and what they share. Filled by ty_service_start before any actor that reads it runs,
 * and constant from then on, but for the atomics in the statistics.
 */
#ifndef TY_ACTORS_SERVICE_H
#define TY_ACTORS_SERVICE_H

#include "checksum.h"
#include "clients.h"
#include "engine.h"
#include "eviction.h"
#include "gpu.h"
#include "metrics.h"
#include "rpc.h"
#include "base/config.h"

#define TY_MAX_DEVICES 16
#define TY_MAX_CLIENTS 1024

struct ty_service {
	const struct ty_config *config;
	struct ty_runtime *rt;
	uint64_t boot;
	int64_t started;

	struct ty_arena arena;
	struct ty_slots *slots; /* eviction's, but for ty_slots_address */
	struct ty_index *index;

	struct ty_actor *log, *rpc, *clients, *eviction, *metrics;
	struct ty_actor *populate[8];
	uint32_t populate_count;
	struct ty_actor *checksum[TY_MAX_CHECKSUMS];
	uint32_t checksum_count;
	struct ty_actor *gpu[TY_MAX_DEVICES];
	uint32_t gpu_count;

	/* Statistics: each block is written by its actor alone, but lookup_stats by every engine and
	 * checksum_stats by every checksum actor. */
	struct ty_gpu_stats gpu_stats[TY_MAX_DEVICES];
	struct ty_eviction_stats eviction_stats;
	struct ty_checksum_stats checksum_stats;
	struct ty_rpc_stats rpc_stats;
	struct ty_lookup_stats lookup_stats;
	struct ty_client_slot client_slots[TY_MAX_CLIENTS];
	_Atomic bool stopping; /* main: release; health pages: acquire */
};

/* Start everything; on TY_OK requests are answered (devices may still be opening). Undoes what it did on failure. */
TY_MUST_USE enum ty_code ty_service_start(const struct ty_config *config, struct ty_service **out, struct ty_error *err);
/* Refuse new requests, answer those that are open (within the config's stop_timeout), stop the actors, free. */
void ty_service_stop(struct ty_service *service);

#endif
