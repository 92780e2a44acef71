/* SPDX-License-Identifier: Apache-2.0
 *
 * Start and stop. Start: memory, sockets (so that their errors are told before anything runs), actors, then one START
 * message to each that begins something by itself. Stop: the reverse, from the edge inwards.
 */
#include "service.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/log.h"
#include "log.h"
#include "populate.h"

#define SPIN_CPUS 3
#define SPIN_US 20
#define STALL_US 1000000 /* an actor that is at one message for longer is named in the log */

struct starts { /* the START messages; they live as long as the service */
	struct ty_msg rpc, admin, events, clients, eviction, scrub, gpu[TY_MAX_DEVICES], tier[TY_MAX_TIERS], tier_stop[TY_MAX_TIERS];
};

struct service { /* what only this file sees */
	struct ty_service base;
	struct ty_rpc_socket *socket, *admin; /* admin: null if it is off */
	struct ty_events_socket *events;      /* likewise */
	struct ty_clients_socket *attach;
	struct ty_http *http;
	int listener; /* for it, until it has it; -1: none */
	struct starts starts;
	struct ty_gpu_arg gpu_args[TY_MAX_DEVICES];
	char calibration[256]; /* directory; "": none */

	struct ty_clients_arg clients_arg;
	struct ty_stop eviction_stop, writeback_stop, prefetch_stop, scrub_stop;
	int stop_fd;
};

static enum ty_code spawn(struct service *s, const struct ty_class *cls, void *arg, enum ty_executor executor,
	const char *thread_name, struct ty_actor **out, struct ty_error *err)
{
	struct ty_spawn_options options = {
		.size = sizeof options, .executor = executor, .thread_name = thread_name, .cpu = -1,
	};
	enum ty_code code = ty_spawn(s->base.rt, cls, arg, &options, out);

	return code == TY_OK ? TY_OK : ty_fail(err, code, "could not start the actor %s", cls->name);
}

static enum ty_code spawn_byteworkers(struct service *s, struct ty_error *err)
{
	enum ty_code code = TY_OK;

	for (uint32_t i = 0; code == TY_OK && i < s->base.config->checksum_threads; i++) {
		code = spawn(s, &ty_bytework_class, &s->base, TY_DEDICATED, "bytework", &s->base.bytework[i], err);
		if (code == TY_OK)
			s->base.bytework_count = i + 1;
	}
	return code;
}

static enum ty_code spawn_owners(struct service *s, struct ty_error *err)
{
	static const enum ty_sharing sharing[] = {
		[TY_CONFIG_SHARING_AUTO] = TY_SHARING_AUTO,
		[TY_CONFIG_SHARING_QUIET] = TY_SHARING_QUIET,
		[TY_CONFIG_SHARING_FAST] = TY_SHARING_FAST,
	};
	const struct ty_config *config = s->base.config;
	struct ty_error why;

	if (!strcmp(config->calibration, "auto")) {
		if (ty_default_calibration(s->calibration, sizeof s->calibration, &why) != TY_OK)
			ty_log(TY_LOG_WARN, "gpu", "%s", why.text);
	} else if (strcmp(config->calibration, "off") != 0) {
		snprintf(s->calibration, sizeof s->calibration, "%s", config->calibration);
	}
	for (uint32_t i = 0; i < config->device_count; i++) {
		char thread[24];

		s->gpu_args[i] = (struct ty_gpu_arg){
			.service = &s->base,
			.device = i,
			.ready_to = &s->base.clients,
			.ready_type = TY_CLIENTS_DEVICE,
			.options = {.name = config->device[i], .driver = config->cuda_driver, .staging_bytes = config->staging,
				.sharing = sharing[config->gpu_sharing], .calibration = s->calibration[0] ? s->calibration : NULL},
		};
		/* "host:FAULTS" is the host device with faults to inject */
		if (strncmp(config->device[i], "host:", 5) == 0) {
			s->gpu_args[i].options.name = "host";
			s->gpu_args[i].options.fault = config->device[i] + 5;
		}
		if (strncmp(config->device[i], "host", 4) != 0) /* which reaches any memory, and registers none */
			s->base.registrars |= 1u << i;
		snprintf(thread, sizeof thread, "owner-%u", i);
		enum ty_code code = spawn(s, &ty_gpu_class, &s->gpu_args[i], TY_DEDICATED, thread, &s->base.gpu[i], err);

		if (code != TY_OK)
			return code;
		s->base.gpu_count = i + 1;
	}
	return TY_OK;
}

/* The tiers, and those that talk to them. Without a tier there are none. */
static enum ty_code spawn_tiers(struct service *s, struct ty_error *err)
{
	struct ty_service *base = &s->base;
	enum ty_code code = ty_packers_spawn(base, err);

	for (uint32_t i = 0; code == TY_OK && i < base->tier_count; i++) {
		struct ty_tier *tier = base->tiers[i];
		char thread[24];

		snprintf(thread, sizeof thread, "tier-%u", i);
		if (tier->cls->spawn)
			code = tier->cls->spawn(tier, err);
		if (code == TY_OK)
			code = spawn(s, tier->cls->actor, tier, tier->cls->executor,
				tier->cls->executor == TY_DEDICATED ? thread : NULL, &tier->actor, err);
	}
	if (code == TY_OK && base->tier_count)
		code = spawn(s, &ty_writeback_class, base, TY_POOL, NULL, &base->writeback, err);
	if (code == TY_OK && base->tier_count)
		code = spawn(s, &ty_prefetch_class, base, TY_POOL, NULL, &base->prefetch, err);
	return code;
}

/* Spawned in this order and stopped in the reverse one: an actor outlives those that send to it unasked. */
static enum ty_code spawn_all(struct service *s, struct ty_error *err)
{
	struct ty_service *base = &s->base;
	enum ty_code code = spawn(s, &ty_log_class, base, TY_DEDICATED, "log", &base->log, err);

	if (code == TY_OK && s->events)
		code = spawn(s, &ty_events_class, s->events, TY_DEDICATED, "events", &base->events, err);
	if (code == TY_OK)
		code = spawn(s, &ty_eviction_class, base, TY_POOL, NULL, &base->eviction, err);
	if (code == TY_OK)
		code = spawn_byteworkers(s, err);
	for (uint32_t i = 0; code == TY_OK && i < base->config->populate_threads; i++) {
		code = spawn(s, &ty_populate_class, base, TY_DEDICATED, "populate", &base->populate[i], err);
		if (code == TY_OK)
			base->populate_count = i + 1;
	}
	if (code == TY_OK)
		code = spawn_owners(s, err);
	if (code == TY_OK)
		code = spawn(s, &ty_embedded_class, base, TY_DEDICATED, "embedded", &base->gpu[TY_EMBEDDED_DEVICE], err);
	if (code == TY_OK)
		code = spawn_tiers(s, err);
	if (code == TY_OK && base->config->scrub_rate)
		code = spawn(s, &ty_scrub_class, base, TY_POOL, NULL, &base->scrub, err);
	if (code == TY_OK)
		code = spawn(s, &ty_metrics_class, base, TY_POOL, NULL, &base->metrics, err);
	s->clients_arg = (struct ty_clients_arg){base, s->attach};
	if (code == TY_OK)
		code = spawn(s, &ty_clients_class, &s->clients_arg, TY_DEDICATED, "clients", &base->clients, err);

	if (code == TY_OK)
		code = spawn(s, &ty_rpc_class, s->socket, TY_DEDICATED, "rpc", &base->rpc, err);
	if (code == TY_OK && s->admin)
		code = spawn(s, &ty_rpc_class, s->admin, TY_DEDICATED, "admin", &base->admin, err);
	return code;
}

/* Now that every address is set, let go those that begin something by themselves. */
static void start_all(struct service *s)
{
	struct ty_service *base = &s->base;
	enum ty_code sent = TY_OK;

	for (uint32_t i = 0; i < base->gpu_count && sent == TY_OK; i++)
		sent = ty_send(base->gpu[i], &s->starts.gpu[i], TY_GPU_START);
	for (uint32_t i = 0; i < base->tier_count && sent == TY_OK; i++)
		sent = ty_send(base->tiers[i]->actor, &s->starts.tier[i], TY_TIER_START);
	if (sent == TY_OK)
		sent = ty_send(base->eviction, &s->starts.eviction, TY_EVICTION_START);
	if (sent == TY_OK && base->scrub)
		sent = ty_send(base->scrub, &s->starts.scrub, TY_SCRUB_START);
	if (sent == TY_OK)
		sent = ty_send(base->clients, &s->starts.clients, TY_CLIENTS_START);
	if (sent == TY_OK)
		sent = ty_send(base->rpc, &s->starts.rpc, TY_RPC_START);
	if (sent == TY_OK && base->admin)
		sent = ty_send(base->admin, &s->starts.admin, TY_RPC_START);
	if (sent == TY_OK && base->events)
		sent = ty_send(base->events, &s->starts.events, TY_EVENTS_START);
	assert(sent == TY_OK); /* nobody stops before ty_service_stop */
}

static void release(struct ty_actor **actor)
{
	if (*actor)
		ty_actor_unref(*actor);
	*actor = NULL;
}

/* The way back from any point of the start. */
static void tear_down(struct service *s)
{
	struct ty_service *base = &s->base;

	ty_http_stop(s->http);
	if (s->listener >= 0)
		close(s->listener);
	if (base->rt) {
		ty_runtime_destroy(base->rt);
		/* Only now: until its end an actor may send to any other. */
		release(&base->admin);
		release(&base->rpc);
		release(&base->clients);
		release(&base->metrics);
		for (uint32_t i = 0; i <= TY_EMBEDDED_DEVICE; i++)
			release(&base->gpu[i]);
		for (uint32_t i = 0; i < sizeof base->populate / sizeof base->populate[0]; i++)
			release(&base->populate[i]);
		for (uint32_t i = 0; i < TY_MAX_BYTEWORKERS; i++)
			release(&base->bytework[i]);
		release(&base->scrub);
		release(&base->prefetch);
		release(&base->writeback);
		for (uint32_t i = 0; i < base->tier_count; i++) {
			release(&base->tiers[i]->actor);
			if (base->tiers[i]->cls->release)
				base->tiers[i]->cls->release(base->tiers[i]);
		}
		ty_packers_release(base);
		release(&base->eviction);
		release(&base->events);
		release(&base->log);
	}
	ty_clients_close(s->attach);
	ty_rpc_close(s->socket);
	ty_rpc_close(s->admin);
	ty_events_close(s->events);
	ty_tiers_close(base);
	ty_op_table_close(&base->operations);
	if (base->index)
		ty_index_destroy(base->index);
	if (base->slots)
		ty_slots_close(base->slots);
	if (base->arena.base)
		ty_arena_close(&base->arena);
	ty_record_close(base->record);
	if (base->record_fd >= 0)
		close(base->record_fd);
	if (base->fault_fd >= 0)
		close(base->fault_fd);
	free(s);
}

/* On an owner's thread. */
static void faulted(struct ty_service *service)
{
	uint64_t one = 1;

	(void)!write(service->fault_fd, &one, sizeof one);
}

/* On the watchdog's thread. */
static void log_stall(void *unused, const struct ty_stall *stall)
{
	(void)unused;
	ty_log(TY_LOG_WARN, "watchdog", "%s has been at %s for %lld ms and goes on", stall->actor, stall->message,
		(long long)(stall->age / 1000000));
}

/* On an actor's thread: one of ours was sent what it does not know. */
static void log_misfit(void *unused, const struct ty_misfit *misfit)
{
	(void)unused;
	ty_log(TY_LOG_ERROR, "runtime", "%s was sent a message of type %u and %zu bytes, expected %s of %zu: a bug",
		misfit->actor, misfit->type, misfit->found, misfit->message ? misfit->message : "none",
		misfit->expected);
}

/* The socket for the pages: that of the process before, if it listens where they are to be. */
static enum ty_code open_listener(struct service *s, const struct ty_heritage *heritage, struct ty_error *err)
{
	const char *address = s->base.config->http;
	int kept = heritage ? heritage->http : -1;
	enum ty_code code = TY_OK;

	if (strcmp(address, "off") != 0)
		code = ty_http_listen(address, kept, &s->listener, err);
	else if (kept >= 0)
		close(kept);
	if (code == TY_OK && s->listener != kept && heritage && heritage->keep)
		heritage->keep("tyer-http", s->listener);
	return code;
}

/* Where a CPU is to be had for it, who answered just now stays awake a little: what comes next often comes soon. */
static uint32_t spin_of(const struct ty_config *config)
{
	cpu_set_t cpus;

	if (config->spin_us)
		return config->spin_us;
	return sched_getaffinity(0, sizeof cpus, &cpus) == 0 && CPU_COUNT(&cpus) >= SPIN_CPUS ? SPIN_US : 0; /* 0: the runtime's own */
}

enum ty_code ty_service_start(const struct ty_config *config, const struct ty_heritage *heritage, struct ty_service **out,
	struct ty_error *err)
{
	struct service *s = calloc(1, sizeof *s);
	struct ty_runtime_options options = {
		.size = sizeof options,
		.name = "tyer",
		.workers = config->workers,
		.spin_us = spin_of(config),
		.stall_us = STALL_US,
		.stalled = log_stall,
		.misfit = log_misfit,
	};
	enum ty_code code;

	if (!s)
		return ty_fail(err, TY_NO_MEMORY, "no memory for the service");
	if (sodium_init() < 0) {
		free(s);
		return ty_fail(err, TY_INTERNAL, "libsodium could not be initialized");
	}
	s->base.config = config;
	s->base.session_chunks.all = TY_SESSION_CHUNKS_ALL;
	s->base.pool_bytes.all = TY_POOL_BYTES_ALL;
	s->base.fetches.all = TY_FETCHES;
	s->base.spin_us = options.spin_us;
	while (s->base.boot == 0) /* which says none */
		randombytes_buf(&s->base.boot, sizeof s->base.boot);
	s->base.record_fd = -1;
	s->listener = -1;
	s->base.fault_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	s->base.faulted = faulted;
	code = s->base.fault_fd < 0 ? ty_fail(err, TY_IO, "eventfd: %s", strerror(errno))
				    : open_listener(s, heritage, err);
	if (code == TY_OK)
		code = ty_service_open_cache(&s->base, heritage, err);
	if (code == TY_OK)
		code = ty_index_create(&s->base.index, err);
	if (code == TY_OK)
		code = ty_tiers_open(&s->base, err);
	if (code == TY_OK)
		code = ty_op_table_open(&s->base.operations, config->max_all_operations, config->max_all_operation_bytes, err);
	if (code == TY_OK)
		code = ty_rpc_open(&s->base, config->listen, false, &s->socket, err);
	if (code == TY_OK && config->admin[0] && strcmp(config->admin, "off") != 0)
		code = ty_rpc_open(&s->base, config->admin, true, &s->admin, err);
	if (code == TY_OK)
		code = ty_events_open(&s->base, &s->events, err);
	if (code == TY_OK)
		code = ty_clients_listen(&s->base, &s->attach, err);
	if (code == TY_OK)
		code = ty_runtime_create(&options, &s->base.rt, err);
	if (code == TY_OK) {
		s->base.started = ty_runtime_now(s->base.rt);
		if (heritage && heritage->ended)
			s->base.restart.pause = s->base.started - heritage->ended;
		code = spawn_all(s, err);
	}
	if (code == TY_OK && s->listener >= 0) {
		code = ty_http_start(&s->base, config->http, s->listener, &s->http, err);
		if (code == TY_OK)
			s->listener = -1; /* the server's */
		if (code == TY_OK)
			s->base.http_port = ty_http_port(s->http);
	}
	if (code != TY_OK) {
		tear_down(s);
		return code;
	}
	start_all(s);
	*out = &s->base;
	return TY_OK;
}

/* ---- stop ------------------------------------------------------------------------------------------------ */

static void stopped(struct ty_stop *stop)
{
	uint64_t one = 1;

	(void)!write(*(int *)stop->user, &one, sizeof one);
}

/* Did `count` actors say that they have stopped? Waits for them; only the thread that stops the service waits at all. */
static bool wait_stopped(int fd, uint64_t *seen, uint64_t count, uint32_t timeout_us)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	uint64_t n;

	while (*seen < count) {
		if (poll(&p, 1, (int)(timeout_us / 1000)) <= 0)
			return false;
		if (read(fd, &n, sizeof n) == sizeof n)
			*seen += n;
	}
	return true;
}

/* What is on its way down may arrive, within the drain's time; then the tiers end whatever they still have. */
static bool stop_tiers(struct service *s, int fd, uint64_t *seen, uint32_t timeout_us)
{
	struct ty_service *base = &s->base;
	uint64_t all = *seen + (base->tier_count ? 3 : 0) + (base->scrub ? 1 : 0);

	s->stop_fd = fd;
	s->eviction_stop = s->writeback_stop = s->prefetch_stop = s->scrub_stop =
		(struct ty_stop){.stopped = stopped, .user = &s->stop_fd};
	/* What was stored last goes down when its sum is there: writeback stops after it has that as well. */
	if (base->tier_count && ty_send(base->eviction, &s->eviction_stop.msg, TY_EVICTION_STOP) != TY_OK)
		abort();
	if (base->tier_count && !wait_stopped(fd, seen, *seen + 1, base->config->drain_timeout_us))
		ty_log(TY_LOG_WARN, "main", "chunks have no checksums yet: leaving them");
	if (base->scrub && ty_send(base->scrub, &s->scrub_stop.msg, TY_SCRUB_STOP) != TY_OK)
		abort();
	if (base->tier_count && (ty_send(base->writeback, &s->writeback_stop.msg, TY_WRITEBACK_STOP) != TY_OK ||
		ty_send(base->prefetch, &s->prefetch_stop.msg, TY_PREFETCH_STOP) != TY_OK))
		abort();
	if (!wait_stopped(fd, seen, all, base->config->drain_timeout_us))
		ty_log(TY_LOG_WARN, "main", "chunks are still on their way to a tier: leaving them");
	for (uint32_t i = 0; i < base->tier_count; i++) {
		/* release: pairs with the packers' acquire */
		atomic_store_explicit(&base->tiers[i]->ending, true, memory_order_release);
		if (ty_send(base->tiers[i]->actor, &s->starts.tier_stop[i], TY_TIER_STOP) != TY_OK)
			abort();
	}
	return wait_stopped(fd, seen, all, timeout_us);
}

void ty_service_stop(struct ty_service *service)
{
	struct service *s = ty_container_of(service, struct service, base);
	uint32_t timeout = service->config->stop_timeout_us;
	int fd = eventfd(0, EFD_CLOEXEC);
	struct ty_stop rpc = {.stopped = stopped, .user = &fd}, admin = rpc, clients = rpc;
	uint64_t seen = 0, edges = service->admin ? 2 : 1;
	bool all;

	/* release: pairs with the health pages' acquire */
	atomic_store_explicit(&service->stopping, true, memory_order_release);
	if (ty_send(service->rpc, &rpc.msg, TY_RPC_STOP) != TY_OK)
		abort();
	if (service->admin && ty_send(service->admin, &admin.msg, TY_RPC_STOP) != TY_OK)
		abort();
	/* Half of the time for what is open to end by itself; then its clients are taken to be gone, and it is cancelled. */
	if (!wait_stopped(fd, &seen, edges, timeout / 2))
		ty_log(TY_LOG_WARN, "main", "requests are still open: cancelling them");
	if (ty_send(service->clients, &clients.msg, TY_CLIENTS_STOP) != TY_OK)
		abort();
	all = wait_stopped(fd, &seen, edges + 1, timeout / 2) && stop_tiers(s, fd, &seen, timeout / 2);
	if (!all) {
		/* An owner or a tier sits in a call that does not return: joining its thread would wait for ever. */
		struct ty_running r = ty_runtime_longest(service->rt);

		ty_log_set_sink(NULL);
		ty_log(TY_LOG_ERROR, "main", "not everything came back in time (longest: %s, %s): exiting as it is",
			r.actor ? r.actor : "-", r.message ? r.message : "-");
		_exit(EXIT_FAILURE);
	}
	/* relaxed: whoever reads it does so after this process */
	atomic_store_explicit(&service->record->told, 1, memory_order_relaxed); /* it ended as it should */
	tear_down(s);
	close(fd);
}
