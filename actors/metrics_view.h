/* SPDX-License-Identifier: Apache-2.0
 *
 * What metrics saw of the service at one moment, and the table that turns it into samples. Inside of metrics only.
 */
#ifndef TY_ACTORS_METRICS_VIEW_H
#define TY_ACTORS_METRICS_VIEW_H

#include "service.h"

/* ---- a moment of the service ---------------------------------------------------------------------------------------- */

struct ty_device_view {
	char name[48];     /* unlike any other's of the service */
	enum ty_gpu_state state;
	bool known;        /* the owner has told what it is: info and note may be read */
	const char *call;  /* what the owner is inside of, null for nothing */
	uint64_t call_ns;  /* for how long */
};

#define TY_VIEW_WORKERS 64 /* as many as a runtime may have */
/* Those with a place of their own in struct ty_service. */
#define TY_VIEW_ACTORS (10 + 8 + TY_MAX_BYTEWORKERS + 2 * TY_MAX_PACKERS + TY_MAX_DEVICES + 1 + TY_MAX_TIERS)

struct ty_actor_view {
	char name[24]; /* unlike any other's */
	struct ty_actor_stats stats;
};

struct ty_view {
	const struct ty_service *service;
	const struct ty_config *config;
	int64_t now; /* runtime's clock */
	uint64_t uptime_ns;
	bool stopping;
	uint32_t device_count;
	struct ty_device_view devices[TY_MAX_DEVICES + 1]; /* the last one is embedded: its name alone, for operations */
	uint32_t attached, joined;
	struct ty_runtime_stats runtime;
	struct ty_thread_stats workers[TY_VIEW_WORKERS];
	uint32_t worker_count;
	struct ty_actor_view actors[TY_VIEW_ACTORS];
	uint32_t actor_count;
	struct ty_running running;
	uint64_t running_ns;
	uint64_t resident_bytes; /* of the process, beside the arena */
	bool healthy, ready;
	char health[320], readiness[256]; /* the pages' text: a line, with its newline */
};

void ty_view_take(struct ty_view *view, const struct ty_service *service);
const char *ty_device_state_name(enum ty_gpu_state state);

/* ---- the table ------------------------------------------------------------------------------------------------------ */

enum ty_metric_type { TY_COUNTER, TY_GAUGE, TY_HISTOGRAM, TY_INFO, TY_STATESET };

struct ty_value {
	bool whole;
	uint64_t number;
	double real;
};

struct ty_metric;

/* Takes one sample: the metric's name, a suffix ("_total", ...), labels as they are written in braces ("" for none). */
struct ty_metric_sink {
	void (*sample)(struct ty_metric_sink *sink, const struct ty_metric *metric, const char *suffix, const char *labels,
		struct ty_value value);
};

struct ty_metric {
	const char *name;
	enum ty_metric_type type;
	const char *unit; /* "": none; else the name ends in it */
	void (*read)(const struct ty_view *view, const struct ty_metric *metric, struct ty_metric_sink *sink);
	size_t offset;    /* of what `read` reads, in the struct that it knows */
	const char *help;
};

/* metrics_runtime.c */
void ty_view_runtime(struct ty_view *view); /* its part of ty_view_take, when service and devices are known */

/* metrics_tiers.c, and from ty_read_runtime on metrics_runtime.c */
typedef void ty_metric_read(const struct ty_view *view, const struct ty_metric *metric, struct ty_metric_sink *sink);
ty_metric_read ty_read_tier, ty_read_tier_seconds, ty_read_tier_limit, ty_read_tier_serving, ty_read_tier_size, ty_read_tier_outcomes, ty_read_tier_verbs,
	ty_read_tier_lanes, ty_read_scrub, ty_read_scrub_seconds, ty_read_prefetch, ty_read_writeback,
	ty_read_runtime, ty_read_running, ty_read_worker, ty_read_actor;

extern const struct ty_metric ty_metrics[];
extern const size_t ty_metric_count;

/* ---- what is made of them ------------------------------------------------------------------------------------------- */

/* Text that grows. Once there was no memory for it, `failed` stays set and nothing is added. */
struct ty_text {
	char *data;
	size_t length, room;
	bool failed;
};
void ty_text_add(struct ty_text *text, const char *fmt, ...) TY_PRINTF(2, 3);

void ty_metrics_write(struct ty_text *out, const struct ty_view *view); /* OpenMetrics 1.0 */
/* Null: no memory. Freed by tyer__v1__status_reply__free_unpacked(..., NULL). */
Tyer__V1__StatusReply *ty_status_make(const struct ty_view *view);
void ty_status_write_json(struct ty_text *out, const Tyer__V1__StatusReply *status, uint64_t boot);

#endif
