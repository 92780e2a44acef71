/* SPDX-License-Identifier: Apache-2.0
 *
 * Start and stop. Start: memory, sockets (so that their errors are told before anything runs), actors, then one START
 * message to each that begins something by itself. Stop: the reverse, from the edge inwards.
 */
#include "service.h"

#include <assert.h>
#include <poll.h>
#include <sodium.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/log.h"
#include "log.h"
#include "populate.h"

struct starts { /* the START messages; they live as long as the service */
	struct ty_msg rpc, clients, eviction, gpu[TY_MAX_DEVICES];
};

struct service { /* what only this file sees */
	struct ty_service base;
	struct ty_rpc_socket *socket;
	struct ty_clients_socket *attach;
	struct ty_http *http;
	struct starts starts;
	struct ty_gpu_arg gpu_args[TY_MAX_DEVICES];
	struct ty_rpc_arg rpc_arg;
	struct ty_clients_arg clients_arg;
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

static enum ty_code spawn_owners(struct service *s, struct ty_error *err)
{
	const struct ty_config *config = s->base.config;

	for (uint32_t i = 0; i < config->device_count; i++) {
		char thread[16];

		/* "host:FAULTS" is the host device with faults to inject */
		char *fault = NULL;

		s->gpu_args[i] = (struct ty_gpu_arg){
			.service = &s->base,
			.device = i,
			.options = {.name = config->device[i], .driver = config->cuda_driver, .staging_bytes = config->staging},
		};
		if (strncmp(config->device[i], "host:", 5) == 0) {
			fault = (char *)config->device[i] + 5;
			s->gpu_args[i].options.name = "host";
			s->gpu_args[i].options.fault = fault;
		}
		snprintf(thread, sizeof thread, "owner-%u", i);
		enum ty_code code = spawn(s, &ty_gpu_class, &s->gpu_args[i], TY_DEDICATED, thread, &s->base.gpu[i], err);

		if (code != TY_OK)
			return code;
		s->base.gpu_count = i + 1;
	}
	return TY_OK;
}

/* Spawned in this order and stopped in the reverse one: an actor outlives those that send to it unasked. */
static enum ty_code spawn_all(struct service *s, struct ty_error *err)
{
	struct ty_service *base = &s->base;
	enum ty_code code = spawn(s, &ty_log_class, NULL, TY_DEDICATED, "log", &base->log, err);

	if (code == TY_OK)
		ty_log_actor_attach(base->log);
	if (code == TY_OK)
		code = spawn(s, &ty_eviction_class, base, TY_POOL, NULL, &base->eviction, err);
	for (uint32_t i = 0; code == TY_OK && i < base->config->populate_threads; i++) {
		code = spawn(s, &ty_populate_class, base, TY_DEDICATED, "populate", &base->populate[i], err);
		if (code == TY_OK)
			base->populate_count = i + 1;
	}
	if (code == TY_OK)
		code = spawn_owners(s, err);
	if (code == TY_OK)
		code = spawn(s, &ty_metrics_class, base, TY_POOL, NULL, &base->metrics, err);
	s->clients_arg = (struct ty_clients_arg){base, s->attach};
	if (code == TY_OK)
		code = spawn(s, &ty_clients_class, &s->clients_arg, TY_DEDICATED, "clients", &base->clients, err);
	s->rpc_arg = (struct ty_rpc_arg){base, s->socket};
	if (code == TY_OK)
		code = spawn(s, &ty_rpc_class, &s->rpc_arg, TY_POOL, NULL, &base->rpc, err);
	return code;
}
