/* SPDX-License-Identifier: Apache-2.0
 *
 * The service: which actors there are and what they share. Filled by ty_service_start before any actor that reads it runs,
 * and constant from then on, but for the atomics in the statistics.
 */
#ifndef TY_ACTORS_SERVICE_H
#define TY_ACTORS_SERVICE_H

#include "bytework.h"
#include "clients.h"
#include "embedded.h"
#include "engine.h"
#include "events.h"
#include "eviction.h"
#include "gpu.h"
#include "metrics.h"
#include "record.h"
#include "prefetch.h"
#include "rpc.h"
#include "scrub.h"
#include "tier.h"
#include "writeback.h"
#include "base/config.h"
#include "cache/space.h"

#define TY_MAX_CLIENTS 1024

/* What a process before this one left, for this one to go on with. */
struct ty_heritage {
	int arena, slots, record; /* descriptors of arena, slot table and record, -1: none */
	int http;            /* a socket that listens on what was --http, -1: none */
	uint32_t restarts;   /* processes that ended and were started again */
	char reason[200];    /* why the last of them ended; "": none did */
	int64_t ended;       /* when that was, ns of the monotonic clock; 0: not known */
	/* Called with each descriptor that the next process is to be given, before anything is served. */
	void (*keep)(const char *name, int fd);
};

/* What became of it. Written before any actor runs. */
struct ty_restart {
	uint32_t restarts;
	char reason[200];
	int64_t pause;               /* ns from the end of the last one until this one listened */
	bool adopted;                /* arena and table were taken over ... */
	struct ty_slots_found found; /* ... with this in them ... */
	char refused[244];           /* ... or were not, for this reason; "": there were none */
};

struct ty_service {
	const struct ty_config *config;
	struct ty_runtime *rt;
	uint16_t http_port; /* of the pages; 0: there are none */
	uint32_t spin_us; /* threads that answer look for work so long before they sleep; constant */
	uint64_t boot;
	int64_t started;

	struct ty_arena arena;
	struct ty_slots *slots; /* eviction's, but for ty_slots_address */
	struct ty_index *index;
	struct ty_record *record; /* each owner's part is written by that owner; null: none is kept */
	int record_fd;
	int fault_fd;             /* an eventfd: raised when a device is beyond use for this process */
	void (*faulted)(struct ty_service *service); /* raises it; null: nobody listens. Owners' threads */
	struct ty_restart restart;
	_Atomic bool damage_seen; /* populate threads, relaxed: something that was left is not what was committed */

	struct ty_actor *admin, *events; /* null: off */
	struct ty_actor *log, *rpc, *clients, *eviction, *metrics;
	struct ty_actor *populate[8];
	uint32_t populate_count;
	struct ty_actor *bytework[TY_MAX_BYTEWORKERS];
	uint32_t bytework_count;
	struct ty_actor *packers[TY_MAX_PACKERS], *unpackers[TY_MAX_PACKERS]; /* bytework, too; none without tiers */
	uint32_t packer_count, unpacker_count;
	struct ty_spaces spaces;

	struct ty_actor *prefetch, *writeback; /* null without tiers */
	struct ty_actor *scrub; /* null: off */
	struct ty_tier *tiers[TY_MAX_TIERS];
	uint32_t tier_count;
	struct ty_actor *gpu[TY_MAX_DEVICES + 1]; /* the last one: embedded */
	uint32_t gpu_count;
	uint32_t registrars; /* bits: devices whose registration of the arena counts for all; 0: for each of them it does */

	/* Statistics: each block is written by its actor alone, but lookup_stats by every engine and
	 * checksum_stats by every bytework actor. */
	struct ty_gpu_stats gpu_stats[TY_MAX_DEVICES + 1]; /* of embedded: its name alone */
	struct ty_embedded_stats embedded_stats;
	struct ty_eviction_stats eviction_stats;
	struct ty_checksum_stats checksum_stats;
	struct ty_prefetch_stats prefetch_stats;
	struct ty_writeback_stats writeback_stats;
	struct ty_events_stats events_stats;
	struct ty_scrub_stats scrub_stats[1 + TY_MAX_TIERS]; /* the arena's, the tiers' */
	struct ty_rpc_stats rpc_stats;
	struct ty_clients_stats clients_stats;
	struct ty_op_table operations;
	struct ty_share session_chunks, pool_bytes, fetches;
	struct ty_lookup_stats lookup_stats;
	struct ty_client_slot client_slots[TY_MAX_CLIENTS];
	_Atomic bool stopping; /* main: release; health pages: acquire */
};

/* Start everything; on TY_OK requests are answered (devices may still be opening). Undoes what it did on failure. `heritage` may
 * be null: an empty cache. Its descriptors are the service's, whatever comes out: if they cannot be used (restart.refused
 * says why) the cache begins empty. But not for want of memory: TY_NO_MEMORY, for another try with the same descriptors. */
TY_MUST_USE enum ty_code ty_service_start(const struct ty_config *config, const struct ty_heritage *heritage,
	struct ty_service **out, struct ty_error *err);
/* heritage.c: its memory, before all else. */
TY_MUST_USE enum ty_code ty_service_open_cache(struct ty_service *service, const struct ty_heritage *heritage,
	struct ty_error *err);
/* Refuse new requests, answer those that are open (within the config's stop_timeout), stop the actors, free. */
void ty_service_stop(struct ty_service *service);

#endif
