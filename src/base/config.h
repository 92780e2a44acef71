/* SPDX-License-Identifier: Apache-2.0
 *
 * tyerd's configuration: one table of options (config.c) that the command line, the file and --help all come from.
 */
#ifndef TY_BASE_CONFIG_H
#define TY_BASE_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <tyer/result.h>

#include "quota.h"

#define TY_CONFIG_DEVICES 16
#define TY_CONFIG_UIDS 16
#define TY_CONFIG_TIERS 8
#define TY_CONFIG_TIER_MAX 512 /* bytes of one's text */

enum ty_config_sharing { TY_CONFIG_SHARING_AUTO, TY_CONFIG_SHARING_QUIET, TY_CONFIG_SHARING_FAST };

enum ty_config_verify { TY_CONFIG_VERIFY_NONE, TY_CONFIG_VERIFY_SAMPLE, TY_CONFIG_VERIFY_FULL };

enum ty_config_policy { TY_CONFIG_POLICY_ARC, TY_CONFIG_POLICY_LRU, TY_CONFIG_POLICY_S3FIFO };

struct ty_uids {
	uint32_t count, uid[TY_CONFIG_UIDS];
};

struct ty_config {
	char listen[256];       /* --listen        nng URL; default ipc:///run/tyer/tyer.sock (or under XDG_RUNTIME_DIR, if not root) */
	char attach[108];       /* --attach        UNIX socket path; default beside it: attach.sock */
	struct ty_uids allow_uid; /* --allow-uid  users who may attach beside the service's own and root: "UID,UID..." */
	struct ty_uids embed_uid; /* --embed-uid  users whose engines may have an owner of their own over the whole arena (docs/embed.md) */
	int tcp_insecure;       /* --tcp-insecure  off, on: allow tcp:// without TLS; default off */
	char tls_cert[256];     /* --tls-cert      file with the certificate and its key, for tls+tcp:// */
	char tls_ca[256];       /* --tls-ca        file with certificates: clients must have one that these signed */
	char admin[256];        /* --admin         ipc URL of the administration socket; default --listen's path and .admin; "off" */
	char events[256];       /* --events        ipc URL of the events' PUB socket; default "off" */
	char http[64];          /* --http          IP:PORT; default 127.0.0.1:9700; "off" */
	uint64_t l1_size;       /* --l1-size       bytes, with suffix KiB MiB GiB TiB; default 4GiB; rounded up to 64 MiB */
	uint64_t l1_ahead;      /* --l1-ahead      bytes of the arena kept touched and free ahead of use; default 1GiB */
	int policy;             /* --policy        arc, lru, s3-fifo; default arc; an enum ty_config_policy */
	struct ty_tenant_quota quotas[TY_TENANT_QUOTAS_MAX]; /* --quota  TENANT=HARD[,SOFT]; repeatable; default: none */
	uint32_t quota_count;
	uint32_t keep_percent;  /* --keep-percent  of the arena that may be pinned; default 50 */
	uint32_t populate_threads; /* --populate-threads  1..8; default 1 */
	uint32_t pack_threads;     /* --pack-threads  1..8; default 2: that pack what goes down to tiers with compress=, and as many that unpack */
	uint32_t checksum_threads; /* --checksum-threads  0..8; default 2; 0: none are made in memory */
	char device[TY_CONFIG_DEVICES][64]; /* --device  "host", "host:FAULTS" or "cuda:N"; repeatable; default: cuda:0 if a driver is there, else host */
	uint32_t device_count;
	char tier[TY_CONFIG_TIERS][TY_CONFIG_TIER_MAX]; /* --tier  KIND:WHERE[,name=value]...; repeatable, in order; default none */
	uint32_t tier_count;
	uint32_t prefetch_wait_us; /* --prefetch-wait-us  of a LOOKUP, for the tiers; default 2 s */
	uint64_t scrub_rate;       /* --scrub-rate    bytes a second, of the arena and of each tier that lists; default 8MiB; 0: off */
	uint32_t scrub_interval_us; /* --scrub-interval  from one pass to the next; default 1 h */
	uint32_t drain_timeout_us; /* --drain-timeout-us  of chunks on their way down, at the stop; default 5 s */
	char cuda_driver[256];  /* --cuda-driver   default libcuda.so.1 */
	uint64_t staging;       /* --staging       bytes of GPU memory per GPU; default 160MiB */
	int gpu_sharing;        /* --gpu-sharing   auto, quiet, fast; default auto; an enum ty_config_sharing */
	char calibration[256];  /* --calibration   a directory, "auto" or "off"; default auto */
	uint32_t gpu_stall_after_us; /* --gpu-stall-after  a call or copy for longer: the device is stalled; default 10 s */
	uint32_t gpu_stall_limit_us; /* --gpu-stall-limit  and for longer than this: another worker; default 30 s, 0: never */
	const char *sysfs;      /* none; where NUMA nodes are looked up, for tests; null: /sys */
	uint32_t chunk_tokens;  /* --chunk-tokens  16..65536; default 256 */
	uint32_t workers;       /* --workers       pool threads; default 0 = one per CPU, at most 8 */
	uint32_t spin_us;       /* --spin-us       a thread without work looks for some so long; default 0 = the runtime's */

	uint32_t max_request_bytes;    /* --max-request-bytes    default 4MiB */
	uint32_t max_requests;         /* --max-requests         open at once; default 256 */
	uint32_t max_timeout_us;       /* --max-timeout-us       default 600 s */
	uint32_t default_timeout_us;   /* --default-timeout-us   default 30 s */
	uint32_t max_clients;          /* --max-clients          default 256, at most 1024 */
	uint32_t max_registrations;    /* --max-registrations    per engine; default 64 */
	uint32_t max_sessions;         /* --max-sessions         per engine; default 4096 */
	uint32_t max_session_chunks;   /* --max-session-chunks   default 65536 */
	uint32_t max_operations;       /* --max-operations       per engine, in flight; default 64 */
	uint32_t client_weight;        /* --client-weight        1..100; of clients whose HELLO asks for none; default 10 */
	uint32_t max_client_weight;    /* --max-client-weight    default 100 */
	uint32_t max_all_operations;   /* --max-all-operations   of all engines, in flight; default 1024 */
	uint64_t max_all_operation_bytes; /* --max-all-operation-bytes  likewise; default 64GiB */
	uint32_t max_client_requests;  /* --max-client-requests  of one client, open; default 64 */
	uint32_t max_operation_chunks; /* --max-operation-chunks default 4096 */
	uint64_t max_operation_bytes;  /* --max-operation-bytes  per engine, in flight; default 16GiB */
	uint32_t stop_timeout_us;      /* --stop-timeout-us      default 10 s */

	int supervise;          /* --supervise     on, off; default on: 1 */
	uint32_t restart_backoff_us; /* --restart-backoff-us  longest pause between two workers; default 30 s */
	int restart_verify;     /* --restart-verify  none, sample, full; default sample; an enum ty_config_verify */

	int log_level;          /* --log-level     error, warn, info, debug; default info */
	bool log_json;          /* --log-format    text, json; default text */
	bool check;             /* --check         it was only to be seen whether the others hold */
};

/* Defaults, then --config FILE (lines "name = value", # comments), then the command line. TY_INVALID names the option (and
 * file and line), what was found, what was expected. *help or *version: the caller prints and exits 0. */
TY_MUST_USE enum ty_code ty_config_parse(struct ty_config *config, int argc, char **argv, bool *help, bool *version,
	struct ty_error *err);
void ty_config_help(FILE *out, const char *program);

/* Every option with its effective value, in the file's own form: name and value of each call are a valid line of a config
 * file, and all lines together give the same configuration. Repeatable options take one call a value. */
void ty_config_dump(const struct ty_config *config, void (*line)(void *user, const char *name, const char *value),
	void *user);

/* May a process of this user be a client: the service's own user, root, and those of --allow-uid. */
bool ty_config_allows_uid(const struct ty_config *config, uint32_t uid);
/* Is the user one of these? */
bool ty_uids_have(const struct ty_uids *uids, uint32_t uid);

/* Where the service listens when nothing else was said: under /run/tyer for root, else $XDG_RUNTIME_DIR/tyer, else
 * /tmp/tyer-UID. What tools connect to when nothing else was said. */
TY_MUST_USE enum ty_code ty_default_listen(char *out, size_t size, struct ty_error *err);
/* The attach socket beside a listen URL: attach.sock in the folder of an ipc:// path, else in the default folder. */
TY_MUST_USE enum ty_code ty_default_attach(const char *listen, char *out, size_t size, struct ty_error *err);
/* The administration socket's URL: the path of an ipc:// URL and .admin; else admin.sock in the default folder. */
TY_MUST_USE enum ty_code ty_default_admin(const char *listen, char *out, size_t size, struct ty_error *err);

/* Where calibrations of GPUs are kept when nothing else was said: /var/cache/tyer for root, else $XDG_CACHE_HOME/tyer, else
 * ~/.cache/tyer. */
TY_MUST_USE enum ty_code ty_default_calibration(char *out, size_t size, struct ty_error *err);

/* "64KiB", "1.5GiB", "4096" -> bytes (a fraction of a byte is cut off). Used by every tool. */
TY_MUST_USE enum ty_code ty_parse_bytes(const char *text, uint64_t *out, struct ty_error *err);
/* "250ms", "1.5s", "30us", "4096" -> microseconds. */
TY_MUST_USE enum ty_code ty_parse_time_us(const char *text, uint64_t *out, struct ty_error *err);
/* "42": decimal digits alone, at most `max`. */
TY_MUST_USE enum ty_code ty_parse_count(const char *text, uint64_t max, uint64_t *out, struct ty_error *err);
/* The other way round: the largest unit that gives a whole number, "4GiB", "250ms". At least 32 bytes of room. */
void ty_format_bytes(char *out, size_t size, uint64_t bytes);
void ty_format_time_us(char *out, size_t size, uint64_t us);

#endif
