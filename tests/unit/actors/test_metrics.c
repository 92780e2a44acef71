/* SPDX-License-Identifier: Apache-2.0
 *
 * /metrics read as OpenMetrics demands, the same numbers in STATUS, and what the health pages say.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>
#include <jansson.h>

#include "actors/metrics_view.h"
#include "rpc_house.h"

static struct house house;
static struct ty_service *service;

static int set_up(void **state)
{
	(void)state;
	house_config(&house);
	house_open(&house, true);
	service = house.service;
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	house_close(&house);
	return 0;
}

/* ---- pages ---------------------------------------------------------------------------------------------------------- */

static _Atomic uint32_t pages_done;

static void page_done(struct ty_scrape *scrape)
{
	(void)scrape;
	atomic_fetch_add(&pages_done, 1);
}

/* The page's text, the caller's to free. */
static char *page(enum ty_page which, unsigned status)
{
	struct ty_scrape *scrape = calloc(1, sizeof *scrape);
	char *text;

	scrape->page = which;
	scrape->done = page_done;
	atomic_store(&pages_done, 0);
	assert_int_equal(ty_send(service->metrics, &scrape->msg, TY_METRICS_SCRAPE), TY_OK);
	house_wait(&pages_done, 1);
	assert_int_equal(scrape->status, status);
	text = malloc(scrape->length + 1);
	memcpy(text, scrape->body, scrape->length);
	text[scrape->length] = '\0';
	free(scrape->body);
	free(scrape);
	return text;
}

static void expect_page(enum ty_page which, unsigned status, const char *text)
{
	char *found = page(which, status);

	if (!strstr(found, text))
		fail_msg("\"%s\" does not say \"%s\"", found, text);
	assert_ptr_equal(strchr(found, '\n'), found + strlen(found) - 1); /* one line */
	free(found);
}

static void add_device(const char *name, enum ty_gpu_state state)
{
	struct ty_gpu_stats *stats = &service->gpu_stats[service->gpu_count++];

	snprintf(stats->info.name, sizeof stats->info.name, "%s", name);
	atomic_store(&stats->state, state);
}

/* ---- OpenMetrics ---------------------------------------------------------------------------------------------------- */

#define MAX_SAMPLES 2000
#define STALL_NS 10000000000 /* rpc_house.c: --gpu-stall-after */

struct sample {
	char name[256]; /* with its labels */
	double value;
};
static struct sample samples[MAX_SAMPLES];
static size_t sample_count;

static bool ends_with(const char *text, const char *end)
{
	size_t n = strlen(text), m = strlen(end);

	return n >= m && strcmp(text + n - m, end) == 0;
}

static void check_name(const char *name)
{
	assert_int_equal(strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_"), strlen(name));
	assert_int_equal(strncmp(name, "tyer_", 5), 0);
}

/* name="value",...: no quote, backslash or line end may be left bare in a value. */
static void check_labels(const char *labels)
{
	while (*labels) {
		size_t n = strspn(labels, "abcdefghijklmnopqrstuvwxyz_");

		assert_true(n > 0);
		assert_int_equal(strncmp(labels + n, "=\"", 2), 0);
		labels += n + 2;
		while (*labels && *labels != '"')
			labels += *labels == '\\' ? 2 : 1;
		assert_int_equal(*labels, '"');
		labels++;
		if (*labels == ',')
			labels++;
		else
			assert_int_equal(*labels, '\0');
	}
}

static const char *suffixes(const char *type)
{
	return strcmp(type, "counter") == 0	? " _total "
	       : strcmp(type, "info") == 0	? " _info "
	       : strcmp(type, "histogram") == 0 ? " _bucket _count _sum "
						: "  ";
}

static void check_sample(const char *family, const char *type, char *line)
{
	char *space = strrchr(line, ' '), *brace = strchr(line, '{'), *end, suffix[32];
	struct sample *s = &samples[sample_count++];

	assert_true(sample_count < MAX_SAMPLES);
	assert_non_null(space);
	*space = '\0';
	s->value = strtod(space + 1, &end);
	assert_true(end != space + 1 && *end == '\0');
	assert_true(strlen(line) < sizeof s->name);
	strcpy(s->name, line);
	for (size_t i = 0; i + 1 < sample_count; i++)
		assert_string_not_equal(samples[i].name, s->name); /* one series, one value */
	if (brace) {
		assert_int_equal(line[strlen(line) - 1], '}');
		line[strlen(line) - 1] = '\0';
		*brace = '\0';
		check_labels(brace + 1);
	}
	check_name(line);
	assert_int_equal(strncmp(line, family, strlen(family)), 0);
	snprintf(suffix, sizeof suffix, " %s ", line + strlen(family));
	if (!strstr(suffixes(type), suffix))
		fail_msg("%s is no sample of the %s %s", line, type, family);
}

/* Reads the page, line by line, into `samples`. */
static void parse(char *text)
{
	char family[128] = "", type[32] = "", seen[16384] = " ", key[160];
	bool has_help = true, has_samples = true, eof = false;
	char *save = NULL;

	sample_count = 0;
	assert_int_equal(text[strlen(text) - 1], '\n');
	assert_null(strstr(text, "\n\n"));
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char name[128], rest[256] = "";

		assert_false(eof);
		if (strcmp(line, "# EOF") == 0) {
			eof = true;
		} else if (sscanf(line, "# TYPE %127s %31s", name, type) == 2) {
			assert_true(has_help && has_samples);
			strcpy(family, name);
			check_name(family);
			snprintf(key, sizeof key, " %s ", family);
			assert_null(strstr(seen, key)); /* each family once, all of it in one place */
			strcat(seen, key + 1);
			has_help = has_samples = false;
		} else if (sscanf(line, "# UNIT %127s %255s", name, rest) == 2) {
			assert_string_equal(name, family);
			assert_true(ends_with(family, rest) && family[strlen(family) - strlen(rest) - 1] == '_');
			assert_true(strcmp(rest, "bytes") == 0 || strcmp(rest, "seconds") == 0);
			assert_false(has_samples);
		} else if (sscanf(line, "# HELP %127s %255[^\n]", name, rest) == 2) {
			assert_string_equal(name, family);
			assert_false(has_help || has_samples);
			has_help = true;
		} else {
			assert_int_not_equal(line[0], '#');
			assert_true(has_help);
			has_samples = true;
			check_sample(family, type, line);
		}
	}
	assert_true(eof);
}

static double value(const char *name)
{
	for (size_t i = 0; i < sample_count; i++)
		if (strcmp(samples[i].name, name) == 0)
			return samples[i].value;
	fail_msg("%s is not there", name);
	return 0;
}

static void expect_sample(const char *name, double expected)
{
	double found = value(name);

	if (found < expected - 1e-9 || found > expected + 1e-9)
		fail_msg("%s is %.17g, expected %.17g", name, found, expected);
}

static struct ty_device_stats device_stats;

/* Every counter gets a number of its own, so that none can be mistaken for another. */
static struct ty_tier tier = {.index = 0, .size = 5000, .config = {.kind = "disk"}};

static void set_everything(void)
{
	service->tiers[0] = &tier;
	service->tier_count = 1;
	atomic_store(&tier.stats.state, TY_TIER_SERVING);
	atomic_store(&tier.stats.chunks, 5001);
	atomic_store(&tier.stats.outcomes[TY_TIER_GET][TY_TIER_CORRUPT], 5002);
	atomic_store(&tier.stats.busy_ns[TY_TIER_PUT], 5000000000);
	atomic_store(&tier.stats.in_flight[1], 5003);
	atomic_store(&service->prefetch_stats.loaded, 5004);
	atomic_store(&service->writeback_stats.abandoned, 5005);
	struct ty_rpc_stats *rpc = &service->rpc_stats;
	struct ty_eviction_stats *eviction = &service->eviction_stats;
	struct ty_gpu_stats *gpu = &service->gpu_stats[0];

	add_device("cuda:0", TY_GPU_SERVING);
	add_device("host", TY_GPU_STALLED);
	add_device("", TY_GPU_STARTING); /* has not said yet what it is: goes by its configured name */
	strcpy(house.config.device[2], "host:delay-us=5");
	atomic_store(&rpc->requests[TYER__V1__REQUEST__VERB_STORE], 1001);
	atomic_store(&rpc->requests[0], 1002);
	atomic_store(&rpc->replies[TY_OK], 1003);
	atomic_store(&rpc->replies[TY_NO_SPACE], 1004);
	atomic_store(&rpc->malformed, 1005);
	atomic_store(&rpc->receive_errors, 1006);
	atomic_store(&rpc->unsent, 1007);
	atomic_store(&rpc->open, 1008);
	atomic_store(&rpc->connections, 1009);
	atomic_store(&rpc->connections_accepted, 1010);
	atomic_store(&rpc->connections_refused, 1011);
	atomic_store(&rpc->connections_broken, 1012);
	atomic_store(&rpc->latency[TYER__V1__REQUEST__VERB_STORE][0], 1);
	atomic_store(&rpc->latency[TYER__V1__REQUEST__VERB_STORE][4], 2);
	atomic_store(&rpc->latency[TYER__V1__REQUEST__VERB_STORE][TY_LATENCY_BUCKETS - 1], 4);
	atomic_store(&rpc->latency_us_sum[TYER__V1__REQUEST__VERB_STORE], 1500000);
	atomic_store(&eviction->limit_bytes, 2101);
	atomic_store(&eviction->ahead_bytes, 2102);
	atomic_store(&eviction->kept_limit_bytes, 2103);
	atomic_store(&eviction->ready_bytes, 2001);
	atomic_store(&eviction->failed_bytes, 2002);
	atomic_store(&eviction->used_bytes, 2003);
	atomic_store(&eviction->chunks, 2004);
	atomic_store(&eviction->evictions, 2005);
	atomic_store(&eviction->no_space, 2006);
	atomic_store(&eviction->commits, 2007);
	atomic_store(&eviction->aborts, 2008);
	atomic_store(&eviction->present, 2009);
	atomic_store(&eviction->reclaimed_pieces, 2010);
	atomic_store(&eviction->waiting, 2011);
	atomic_store(&service->events_stats.events, 2020);
	atomic_store(&service->events_stats.subscribers, 2021);
	atomic_store(&eviction->kept_bytes, 2012);
	atomic_store(&eviction->order_bytes, 2013);
	atomic_store(&gpu->queued, 3001);
	atomic_store(&gpu->in_flight, 3002);
	atomic_store(&gpu->stored_bytes, (uint64_t)1 << 52);
	atomic_store(&gpu->retrieved_bytes, 3004);
	atomic_store(&gpu->stored_chunks, 3005);
	atomic_store(&gpu->retrieved_chunks, 3006);
	atomic_store(&gpu->failed_ops, 3007);
	atomic_store(&gpu->mappings, 3008);
	atomic_store(&gpu->longest_slow_ns, 2500000000u);
	atomic_store(&device_stats.longest_call_ns, 125000000u);
	atomic_store(&device_stats.device_bytes, 4001);
	atomic_store(&device_stats.launches, 4002);
	atomic_store(&device_stats.copies, 4003);
	atomic_store(&gpu->device, &device_stats);
	service->arena.bytes = (uint64_t)6 << 30;
	service->arena.huge = true;
	atomic_store(&service->client_slots[3].state, 1);
	atomic_store(&service->client_slots[4].state, 2);
	atomic_store(&service->client_slots[1023].state, 2);
}

static const struct {
	const char *name;
	double value;
} expected[] = {
	{"tyer_requests_total{verb=\"STORE\"}", 1001},
	{"tyer_requests_total{verb=\"none\"}", 1002},
	{"tyer_requests_total{verb=\"PING\"}", 0},
	{"tyer_replies_total{code=\"OK\"}", 1003},
	{"tyer_replies_total{code=\"NO_SPACE\"}", 1004},
	{"tyer_replies_total{code=\"INTERNAL\"}", 0},
	{"tyer_requests_malformed_total", 1005},
	{"tyer_receive_errors_total", 1006},
	{"tyer_replies_unsent_total", 1007},
	{"tyer_requests_open", 1008},
	{"tyer_connections", 1009},
	{"tyer_connections_accepted_total", 1010},
	{"tyer_connections_refused_total", 1011},
	{"tyer_connections_broken_total", 1012},
	{"tyer_request_seconds_bucket{verb=\"STORE\",le=\"0.0001\"}", 1},
	{"tyer_request_seconds_bucket{verb=\"STORE\",le=\"0.1\"}", 1},
	{"tyer_request_seconds_bucket{verb=\"STORE\",le=\"1.0\"}", 3},
	{"tyer_request_seconds_bucket{verb=\"STORE\",le=\"100.0\"}", 3},
	{"tyer_request_seconds_bucket{verb=\"STORE\",le=\"+Inf\"}", 7},
	{"tyer_request_seconds_count{verb=\"STORE\"}", 7},
	{"tyer_request_seconds_sum{verb=\"STORE\"}", 1.5},
	{"tyer_clients{state=\"attached\"}", 1},
	{"tyer_clients{state=\"joined\"}", 2},
	{"tyer_arena_size_bytes", 6442450944.0},
	{"tyer_arena_huge_pages", 1},
	{"tyer_arena_ready_bytes", 2001},
	{"tyer_arena_failed_bytes", 2002},
	{"tyer_arena_used_bytes", 2003},
	{"tyer_cache_chunks", 2004},
	{"tyer_cache_evictions_total", 2005},
	{"tyer_cache_no_space_total", 2006},
	{"tyer_cache_commits_total", 2007},
	{"tyer_cache_aborts_total", 2008},
	{"tyer_cache_present_total", 2009},
	{"tyer_arena_reclaimed_pieces_total", 2010},
	{"tyer_events_total", 2020},
	{"tyer_events_subscribers", 2021},
	{"tyer_arena_kept_bytes", 2012},
	{"tyer_arena_order_bytes", 2013},
	{"tyer_cache_waiting", 2011},
	{"tyer_device_queued{device=\"cuda:0\"}", 3001},
	{"tyer_device_in_flight{device=\"cuda:0\"}", 3002},
	{"tyer_device_stored_bytes_total{device=\"cuda:0\"}", 4503599627370496.0},
	{"tyer_device_retrieved_bytes_total{device=\"cuda:0\"}", 3004},
	{"tyer_device_stored_chunks_total{device=\"cuda:0\"}", 3005},
	{"tyer_device_retrieved_chunks_total{device=\"cuda:0\"}", 3006},
	{"tyer_device_failed_operations_total{device=\"cuda:0\"}", 3007},
	{"tyer_device_mappings{device=\"cuda:0\"}", 3008},
	{"tyer_device_mappings{device=\"host\"}", 0},
	{"tyer_device_longest_slow_call_seconds{device=\"cuda:0\"}", 2.5},
	{"tyer_device_longest_call_seconds{device=\"cuda:0\"}", 0.125},
	{"tyer_device_longest_call_seconds{device=\"host\"}", 0},
	{"tyer_device_memory_bytes{device=\"cuda:0\"}", 4001},
	{"tyer_device_launches_total{device=\"cuda:0\"}", 4002},
	{"tyer_device_copies_total{device=\"cuda:0\"}", 4003},
	{"tyer_device_call_seconds{device=\"cuda:0\"}", 0},
	{"tyer_device_state{device=\"cuda:0\",tyer_device_state=\"serving\"}", 1},
	{"tyer_device_state{device=\"cuda:0\",tyer_device_state=\"failed\"}", 0},
	{"tyer_device_state{device=\"host\",tyer_device_state=\"stalled\"}", 1},
	{"tyer_tier_serving{tier=\"0\",kind=\"disk\"}", 1},
	{"tyer_tier_chunks{tier=\"0\",kind=\"disk\"}", 5001},
	{"tyer_tier_size_bytes{tier=\"0\",kind=\"disk\"}", 5000},
	{"tyer_tier_operations_total{tier=\"0\",kind=\"disk\",verb=\"get\",outcome=\"corrupt\"}", 5002},
	{"tyer_tier_operation_seconds_total{tier=\"0\",kind=\"disk\",verb=\"put\"}", 5},
	{"tyer_tier_in_flight{tier=\"0\",kind=\"disk\",direction=\"down\"}", 5003},
	{"tyer_prefetch_loaded_total", 5004},
	{"tyer_writeback_abandoned_total", 5005},
	{"tyer_stopping", 0},
	{"tyer_healthy", 0}, /* host is stalled */
	{"tyer_ready", 1},   /* but cuda:0 serves */
	{"tyer_service_info{version=\"" TY_VERSION "\",boot=\"1122334455667788\"}", 1},
	{"tyer_limit_requests", 16},
	{"tyer_limit_timeout_seconds", 600},
	{"tyer_limit_default_timeout_seconds", 30},
	{"tyer_limit_stop_timeout_seconds", 10},
	{"tyer_limit_request_bytes", 4194304},
	{"tyer_limit_arena_bytes", 2101},
	{"tyer_limit_arena_ahead_bytes", 2102},
	{"tyer_limit_arena_kept_bytes", 2103},
	{"tyer_limit_operation_bytes", 17179869184.0},
	{"tyer_limit_log_lines", 1024},
};

static void test_metrics(void **state)
{
	char *text;

	(void)state;
	set_everything();
	text = page(TY_PAGE_METRICS, 200);
	parse(text);
	free(text);
	for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++)
		expect_sample(expected[i].name, expected[i].value);
	/* two devices of one name: still two series, and the second is told by its place */
	expect_sample("tyer_device_mappings{device=\"host#2\"}", 0);
	assert_true(value("tyer_process_resident_bytes") > 100000);
	assert_true(value("tyer_runtime_actors") >= 4);
	assert_true(value("tyer_runtime_messages_total") >= 1);
	assert_true(value("tyer_uptime_seconds") > 0);
	assert_true(sample_count > 200);
}

/* Of both workers. */
static double of_workers(const char *name)
{
	char series[128];
	double sum = 0;

	for (unsigned i = 0; i < 2; i++) {
		snprintf(series, sizeof series, "%s{worker=\"%u\"}", name, i);
		sum += value(series);
	}
	return sum;
}

/* Worker by worker, and of each actor that the service has under a name. */
static void test_runtime_parts(void **state)
{
	char *text;

	(void)state;
	set_everything();
	service->populate[0] = service->populate[1] = service->metrics; /* who it is does not matter here, but the names */
	service->populate_count = 2;
	tier.actor = service->rpc;
	do { /* what a run counts is seen when it is over; rpc's is its START, metrics' a page */
		text = page(TY_PAGE_METRICS, 200);
		parse(text);
		free(text);
	} while (value("tyer_actor_messages_total{actor=\"rpc\"}") < 1 || value("tyer_actor_runs_total{actor=\"rpc\"}") < 1 ||
		value("tyer_actor_messages_total{actor=\"metrics\"}") < 2 || value("tyer_actor_runs_total{actor=\"metrics\"}") < 2 ||
		value("tyer_actor_running_seconds_total{actor=\"metrics\"}") <= 0 || value("tyer_actor_queue_high{actor=\"metrics\"}") < 1 ||
		of_workers("tyer_worker_messages_total") < 2 || of_workers("tyer_worker_runs_total") < 2 ||
		of_workers("tyer_worker_running_seconds_total") <= 0);
	expect_sample("tyer_actor_exhausted_total{actor=\"rpc\"}", 0);
	assert_true(value("tyer_actor_messages_total{actor=\"populate-0\"}") <= value("tyer_actor_messages_total{actor=\"populate-1\"}"));
	assert_true(value("tyer_actor_messages_total{actor=\"tier-0\"}") >= 1);
	for (size_t i = 0; i < sample_count; i++) /* those that are not there, and workers beyond the two */
		assert_false(strstr(samples[i].name, "actor=\"admin\"") || strstr(samples[i].name, "worker=\"2\""));
	assert_true(of_workers("tyer_worker_messages_total") <= value("tyer_runtime_messages_total"));
	assert_true(of_workers("tyer_worker_runs_total") <= value("tyer_runtime_runs_total"));
	assert_true(of_workers("tyer_worker_parks_total") <= value("tyer_runtime_parks_total"));
	assert_true(of_workers("tyer_worker_wakes_total") <= value("tyer_runtime_wakes_total"));
	assert_true(of_workers("tyer_worker_steals_total") <= value("tyer_runtime_steals_total"));
	assert_true(of_workers("tyer_worker_exhausted_total") <= value("tyer_runtime_exhausted_total"));
	assert_true(of_workers("tyer_worker_queue_high") >= 0);
	tier.actor = NULL;
}

/* STATUS counts the same under the same names. */
static void test_status_counters(void **state)
{
	Tyer__V1__Request r = TYER__V1__REQUEST__INIT;
	Tyer__V1__Status status = TYER__V1__STATUS__INIT;
	nng_socket s = house_dial(&house);
	Tyer__V1__Reply *reply;
	char *text;

	(void)state;
	set_everything();
	snprintf(service->gpu_stats[0].info.model, sizeof service->gpu_stats[0].info.model, "Model \"X\"");
	memset(service->gpu_stats[0].info.uuid, 0x5a, 16);
	snprintf(service->gpu_stats[1].note, sizeof service->gpu_stats[1].note, "half a character \xe2\x82");
	snprintf(service->client_slots[4].name, sizeof service->client_slots[4].name, "rank 0");
	service->client_slots[4].number = CLIENT(3, 4);
	service->client_slots[4].pid = 4242;
	atomic_store(&service->client_slots[4].leases, 99);
	r.version = 1;
	r.id = 1;
	r.verb_case = TYER__V1__REQUEST__VERB_STATUS;
	r.status = &status;
	reply = house_ask(s, &r);
	assert_int_equal(reply->verb_case, TYER__V1__REPLY__VERB_STATUS);
	text = page(TY_PAGE_METRICS, 200);
	parse(text);
	free(text);
	/* Series that come and go with what runs apart, they are the same. */
	for (size_t i = 0; i < sample_count; i++) {
		bool found = strncmp(samples[i].name, "tyer_runtime_running", 20) == 0;

		for (size_t j = 0; j < reply->status->n_counters && !found; j++)
			found = strcmp(reply->status->counters[j]->name, samples[i].name) == 0;
		if (!found)
			fail_msg("STATUS lacks %s", samples[i].name);
	}
	for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
		bool rpc_counts = strncmp(expected[i].name, "tyer_re", 7) == 0; /* this very request counts, too */

		for (size_t j = 0; j < reply->status->n_counters && !rpc_counts; j++)
			if (strcmp(reply->status->counters[j]->name, expected[i].name) == 0)
				assert_true(reply->status->counters[j]->value == expected[i].value);
	}
	assert_string_equal(reply->status->version, TY_VERSION);
	assert_true(reply->status->arena->size_bytes == (uint64_t)6 << 30);
	assert_true(reply->status->arena->ready_bytes == 2001 && reply->status->arena->chunks == 2004);
	assert_int_equal(reply->status->n_devices, 3);
	assert_string_equal(reply->status->devices[0]->device->name, "cuda:0");
	assert_string_equal(reply->status->devices[0]->device->model, "Model \"X\"");
	assert_int_equal(reply->status->devices[0]->device->uuid.len, 16);
	assert_int_equal(reply->status->devices[0]->device->uuid.data[15], 0x5a);
	assert_true(reply->status->devices[0]->stored_bytes == (uint64_t)1 << 52);
	assert_string_equal(reply->status->devices[1]->state, "stalled");
	assert_int_equal(reply->status->n_clients, 2); /* those that joined */
	assert_true(reply->status->clients[0]->client == CLIENT(3, 4));
	assert_string_equal(reply->status->clients[0]->name, "rank 0");
	assert_true(reply->status->clients[0]->pid == 4242 && reply->status->clients[0]->leases == 99);
	tyer__v1__reply__free_unpacked(reply, NULL);
	nng_close(s);
}

static void test_status_page(void **state)
{
	json_error_t error;
	json_t *root, *device, *client;
	char *text;

	(void)state;
	set_everything();
	snprintf(service->gpu_stats[1].note, sizeof service->gpu_stats[1].note, "a \"quote\", a \\ and a \x01");
	snprintf(service->client_slots[4].model, sizeof service->client_slots[4].model, "m\xc3\xb6" "del\n");
	service->client_slots[4].number = UINT64_MAX;
	text = page(TY_PAGE_STATUS, 200);
	root = json_loads(text, JSON_REJECT_DUPLICATES, &error);
	if (!root)
		fail_msg("%s in %s", error.text, text);
	assert_string_equal(json_string_value(json_object_get(root, "boot")), "1122334455667788");
	assert_int_equal(json_integer_value(json_object_get(json_object_get(root, "arena"), "used_bytes")), 2003);
	assert_int_equal(json_array_size(json_object_get(root, "devices")), 3);
	device = json_array_get(json_object_get(root, "devices"), 1);
	assert_string_equal(json_string_value(json_object_get(device, "state")), "stalled");
	assert_non_null(strstr(json_string_value(json_object_get(device, "note")), "a \"quote\", a \\"));
	client = json_array_get(json_object_get(root, "clients"), 0);
	assert_string_equal(json_string_value(json_object_get(client, "client")), "18446744073709551615");
	assert_non_null(strstr(json_string_value(json_object_get(client, "model")), "m\xc3\xb6" "del"));
	assert_true(json_number_value(json_object_get(json_object_get(root, "counters"),
			    "tyer_requests_total{verb=\"STORE\"}")) == 1001);
	json_decref(root);
	free(text);
}

/* ---- health --------------------------------------------------------------------------------------------------------- */

static int64_t monotonic(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static void test_health(void **state)
{
	struct ty_device_call *call = &service->gpu_stats[1].call;

	(void)state;
	add_device("cuda:0", TY_GPU_SERVING);
	add_device("cuda:1", TY_GPU_STARTING);
	expect_page(TY_PAGE_HEALTH, 200, "ok");

	atomic_store(&call->since, monotonic() - STALL_NS / 2);
	atomic_store(&call->name, "cuMemHostRegister");
	expect_page(TY_PAGE_HEALTH, 200, "ok");
	atomic_store(&call->since, monotonic() - STALL_NS - 1000000000);
	expect_page(TY_PAGE_HEALTH, 503, "stalled: in cuMemHostRegister for 11.");
	atomic_store(&call->name, NULL); /* it came back */
	expect_page(TY_PAGE_HEALTH, 200, "ok");

	atomic_store(&service->gpu_stats[1].state, TY_GPU_STALLED);
	expect_page(TY_PAGE_HEALTH, 503, "device cuda:1 stalled");
	snprintf(service->gpu_stats[1].note, sizeof service->gpu_stats[1].note, "an illegal address");
	atomic_store(&service->gpu_stats[1].state, TY_GPU_FAILED);
	expect_page(TY_PAGE_HEALTH, 503, "device cuda:1 failed: an illegal address");
	service->gpu_stats[1].note[0] = '\0';
	expect_page(TY_PAGE_HEALTH, 503, "device cuda:1 failed: the log says why");
	atomic_store(&service->stopping, true);
	expect_page(TY_PAGE_HEALTH, 503, "stopping");
}

static void test_readiness(void **state)
{
	(void)state;
	expect_page(TY_PAGE_READY, 503, "no device serves");
	for (int i = 0; i < TY_MAX_DEVICES; i++) /* more text than the line has room for */
		add_device("a-device-of-a-very-long-name-ok", TY_GPU_FAILED);
	expect_page(TY_PAGE_READY, 503, "a-device-of-a-very-long-name-ok is failed");
	atomic_store(&service->gpu_stats[7].state, TY_GPU_SERVING);
	expect_page(TY_PAGE_READY, 503, "no piece of the arena");
	atomic_store(&service->eviction_stats.ready_bytes, TY_PIECE_BYTES);
	expect_page(TY_PAGE_READY, 200, "ok");
	atomic_store(&service->stopping, true);
	expect_page(TY_PAGE_READY, 503, "stopping");
}

/* Whatever a device calls itself, the page stays well formed. */
static void test_hostile_names(void **state)
{
	char *text;

	(void)state;
	service->tiers[0] = &tier;
	service->tier_count = 1;
	add_device("a\"b\\c\nd}", TY_GPU_SERVING);
	add_device("\xff\xfe", TY_GPU_SERVING);
	add_device("", TY_GPU_FAILED);
	text = page(TY_PAGE_METRICS, 200);
	parse(text);
	free(text);
	expect_sample("tyer_device_queued{device=\"a_b_c_d}\"}", 0);
}

/* ---- the handbook ---------------------------------------------------------------------------------------------------- */

static char *read_file(const char *path)
{
	char *text = calloc(1, 1 << 18);
	FILE *f = fopen(path, "re");

	if (!f)
		fail_msg("cannot open %s", path);
	assert_true(fread(text, 1, (1 << 18) - 1, f) > 0);
	fclose(f);
	return text;
}

/* docs/operations.md has a row for each metric, with its type and its words, and no row for any other. */
static void test_handbook(void **state)
{
	static const char *const types[] = {"counter", "gauge", "histogram", "info", "stateset"};
	char *text = read_file(TY_SOURCE_ROOT "/docs/operations.md"), row[512];
	size_t rows = 0;

	(void)state;
	for (size_t i = 0; i < ty_metric_count; i++) {
		const char *at, *help;

		snprintf(row, sizeof row, "\n| `%s` | %s | ", ty_metrics[i].name, types[ty_metrics[i].type]);
		at = strstr(text, row);
		if (!at)
			fail_msg("no row for %s", ty_metrics[i].name);
		snprintf(row, sizeof row, "| %s |\n", ty_metrics[i].help);
		help = strstr(at, row);
		if (!help || help > strchr(at + 1, '\n'))
			fail_msg("%s: the row does not say \"%s\"", ty_metrics[i].name, ty_metrics[i].help);
	}
	for (const char *at = text; (at = strstr(at, "\n| `tyer_")) != NULL; at++)
		rows++;
	assert_int_equal(rows, ty_metric_count);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_metrics, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_runtime_parts, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_status_counters, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_status_page, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_health, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_readiness, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_hostile_names, set_up, tear_down),
		cmocka_unit_test(test_handbook),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
