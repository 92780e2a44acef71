/* SPDX-License-Identifier: Apache-2.0 */
#include "alone.h"

#include <stdio.h>
#include <stdlib.h>

static void must(enum ty_code code, const struct ty_error *err)
{
	if (code == TY_OK)
		return;
	fprintf(stderr, "%s: %s\n", ty_code_name(code), err->text);
	abort();
}

struct ty_service *alone_new(struct ty_config *config, uint32_t pieces, uint32_t pack_threads, const char *spec)
{
	struct ty_service *service = calloc(1, sizeof *service);
	struct ty_error err = {.text = ""};

	if (!service)
		abort();
	service->config = config;
	config->l1_size = pieces * TY_PIECE_BYTES;
	config->tier_count = 1;
	config->pack_threads = pack_threads;
	snprintf(config->tier[0], sizeof config->tier[0], "%s", spec);
	must(ty_arena_open(config->l1_size, &service->arena, &err), &err);
	must(ty_index_create(&service->index, &err), &err);
	return service;
}

void alone_spawn(struct ty_service *service, struct ty_msg *start)
{
	struct ty_tier *tier = service->tiers[0];
	struct ty_spawn_options own = {.size = sizeof own, .executor = tier->cls->executor, .cpu = -1};
	struct ty_error err = {.text = ""};

	must(ty_packers_spawn(service, &err), &err);
	if (tier->cls->spawn)
		must(tier->cls->spawn(tier, &err), &err);
	must(ty_spawn(service->rt, tier->cls->actor, tier, &own, &tier->actor), &err);
	*start = (struct ty_msg)TY_MSG_INIT;
	must(ty_send(tier->actor, start, TY_TIER_START), &err);
}

void alone_free(struct ty_service *service)
{
	ty_index_destroy(service->index);
	ty_arena_close(&service->arena);
	free(service);
}

void alone_close(struct ty_service *service)
{
	struct ty_tier *tier = service->tiers[0];

	ty_actor_unref(tier->actor);
	if (tier->cls->release)
		tier->cls->release(tier);
	ty_packers_release(service);
	ty_tiers_close(service);
	alone_free(service);
}
