/* SPDX-License-Identifier: Apache-2.0
 *
 * probe URL ATTACH [DEVICE DRIVER]: a client for scenarios that are told from outside, which kill and restart the service. Commands come line by line
 * on standard input; its blocks lie in host memory, or on a GPU (cuda:N, by the driver's library). Each is answered by one line, "ok ..." or "error CODE words", but for flood, whose lines end with "done".
 *
 *   open              connect and register
 *   close
 *   store BASE N      the chunks BASE .. BASE+N-1, as one prompt: "ok STORED"
 *   check BASE N      look up and retrieve: "ok HITS WRONG", hits being chunks and wrong words of them
 *   flood BASE M N    M prompts of N chunks (BASE, BASE + N, ...), all at once: "stored BASE" for each as it is acknowledged,
 *                     "failed BASE CODE" for each that is not, in any order, then "done"
 *   hold BASE N       look up (and so lease) without retrieving: "ok HITS"
 */
#include "harness.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "device/cuda_client.h"

#define FLOOD_MAX 16 /* H_BLOCKS is room for so many prompts of four chunks */

static struct h_service service;
static struct h_client client;
static bool is_open;
static uint64_t session;

static struct ty_cuda_client *gpu; /* null: host memory */
static uint64_t gpu_pool;
static struct ty_region gpu_region;

/* On a GPU the pool in host memory is a mirror: out after it was written, in before it is read. */
static enum ty_code push(void)
{
	return gpu ? ty_cuda_client_write(gpu, gpu_pool, client.pool, H_POOL_BYTES, &client.refused) : TY_OK;
}

static enum ty_code pull(void)
{
	return gpu ? ty_cuda_client_read(gpu, client.pool, gpu_pool, H_POOL_BYTES, &client.refused) : TY_OK;
}

static enum ty_code open_gpu(const char *device, const char *driver)
{
	enum ty_code code = ty_cuda_client_open(driver, atoi(device + strlen("cuda:")), &gpu, &client.refused);

	return code == TY_OK ? ty_cuda_client_alloc(gpu, H_POOL_BYTES, &gpu_pool, &gpu_region, &client.refused) : code;
}

static enum ty_code register_gpu(void)
{
	struct ty_pool *pool = h_pool(&client, 0, 1);
	enum ty_code code;

	pool->regions = &gpu_region;
	ty_cuda_client_uuid(gpu, pool->device);
	code = h_wait(&client, ty_client_register(client.client, pool, h_done, &client, &client.refused));
	if (code == TY_OK)
		client.registration = client.last.registered.registration;
	else
		h_close(&client);
	return code;
}

static void say_error(enum ty_code code)
{
	printf("error %s %s\n", ty_code_name(code), client.error[0] ? client.error : client.refused.text);
}

static void do_open(void)
{
	enum ty_code code = h_try_open(&service, &client, NULL, "probe", 0, gpu ? 0 : 1);

	if (code == TY_OK && gpu)
		code = register_gpu();
	is_open = code == TY_OK;
	if (is_open)
		printf("ok\n");
	else
		say_error(code);
}

static void do_close(void)
{
	h_close(&client);
	is_open = false;
	printf("ok\n");
}

static void do_store(uint32_t base, uint32_t count)
{
	enum ty_code code = h_lookup(&client, ++session, base, count);

	h_fill(&client, base, count, 0);
	if (code == TY_OK)
		code = push();
	if (code == TY_OK)
		code = h_store(&client, session, 0, count, 0);
	if (code != TY_OK) {
		say_error(code);
		return;
	}
	printf("ok %u\n", client.last.store.stored);
	(void)h_end(&client, session);
}

static void do_check(uint32_t base, uint32_t count, bool retrieve)
{
	enum ty_code code = h_lookup(&client, ++session, base, count);
	uint32_t hits = client.last.lookup.hits;

	h_wipe(&client, count, 0);
	if (code == TY_OK)
		code = push();
	if (code == TY_OK && hits && retrieve)
		code = h_retrieve(&client, session, 0, hits, 0);
	if (code == TY_OK)
		code = pull();
	if (code != TY_OK) {
		say_error(code);
		return;
	}
	if (retrieve) {
		printf("ok %u %" PRIu64 "\n", hits, h_wrong(&client, base, hits, 0));
		(void)h_end(&client, session);
	} else {
		printf("ok %u\n", hits);
	}
}

struct flood {
	uint32_t base;
	bool stored, over;
	enum ty_code code;
};

static void flood_done(void *user, const struct ty_result *result)
{
	struct flood *f = user;

	f->code = result->code;
	f->over = true;
	if (result->code == TY_OK)
		printf("stored %u\n", f->base);
	else
		printf("failed %u %s\n", f->base, ty_code_name(result->code));
	fflush(stdout); /* whoever kills the service counts on it */
}

static void do_flood(uint32_t base, uint32_t prompts, uint32_t count)
{
	struct flood f[FLOOD_MAX];
	uint32_t ids[FLOOD_MAX][H_BLOCKS], length = count * H_PER_CHUNK, open = 0;

	for (uint32_t i = 0; i < prompts; i++) {
		uint32_t first = base + i * count, block = i * length;
		const uint32_t *lists[1] = {ids[i]};
		struct ty_transfer t = {.session = ++session, .registration = client.registration, .count = count, .blocks = lists,
			.block_counts = &length, .group_count = 1};
		enum ty_code code = h_lookup(&client, session, first, count);

		for (uint32_t k = 0; k < length; k++)
			ids[i][k] = block + k;
		h_fill(&client, first, count, block);
		if (code == TY_OK)
			code = push();
		f[i] = (struct flood){.base = first};
		if (code == TY_OK)
			code = ty_client_store(client.client, &t, flood_done, &f[i], &client.refused);
		if (code != TY_OK) {
			f[i].over = true;
			printf("failed %u %s\n", first, ty_code_name(code));
			fflush(stdout);
		}
	}
	do {
		open = 0;
		for (uint32_t i = 0; i < prompts; i++)
			open += !f[i].over;
		if (open)
			ty_client_poll(client.client, 0, 100000);
	} while (open);
	for (uint32_t i = 0; i < prompts; i++)
		if (f[i].code == TY_OK)
			(void)h_end(&client, session - prompts + 1 + i);
	printf("done\n");
}

static void obey(const char *line)
{
	char verb[16] = "";
	uint32_t a = 0, b = 0, c = 0;
	int n = sscanf(line, "%15s %" SCNu32 " %" SCNu32 " %" SCNu32, verb, &a, &b, &c);

	client.error[0] = client.refused.text[0] = '\0';
	if (n == 1 && !strcmp(verb, "open") && !is_open)
		do_open();
	else if (!is_open)
		printf("error CLOSED open first\n");
	else if (n == 1 && !strcmp(verb, "close"))
		do_close();
	else if (n == 3 && !strcmp(verb, "store"))
		do_store(a, b);
	else if (n == 3 && !strcmp(verb, "check"))
		do_check(a, b, true);
	else if (n == 3 && !strcmp(verb, "hold"))
		do_check(a, b, false);
	else if (n == 4 && !strcmp(verb, "flood") && b <= FLOOD_MAX && b * c * H_PER_CHUNK <= H_BLOCKS)
		do_flood(a, b, c);
	else
		printf("error INVALID %s", line);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	char line[128];

	if (argc != 3 && argc != 5)
		return 2;
	if (argc == 5 && open_gpu(argv[3], argv[4]) != TY_OK) {
		fprintf(stderr, "probe: %s\n", client.refused.text);
		return 1;
	}
	snprintf(service.url, sizeof service.url, "%s", argv[1]);
	snprintf(service.config.attach, sizeof service.config.attach, "%s", argv[2]);
	while (fgets(line, sizeof line, stdin))
		obey(line);
	if (is_open)
		h_close(&client);
	if (gpu) {
		ty_cuda_client_free(gpu, gpu_pool);
		ty_cuda_client_close(gpu);
	}
	return 0;
}
