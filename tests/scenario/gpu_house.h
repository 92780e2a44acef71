/* SPDX-License-Identifier: Apache-2.0
 *
 * The service over the stand-in driver in this process, its clients' memory in another one (as an engine's is), for the tests of
 * what a GPU's owner does. Device 0 and up are the service's; the last one is the test's own, for streams of an engine.
 */
#ifndef TY_TESTS_GPU_HOUSE_H
#define TY_TESTS_GPU_HOUSE_H

#include "harness.h"
#include "unit/device/engine.h"

#define G_DEVICES 5 /* of the driver: four for services, one for the test */

struct g_house {
	struct h_service service;
	struct standin driver;
};

/* Once, first of all. */
void g_prepare(struct g_house *g);
void g_finish(void);

/* A service with `devices` GPUs; or only its configuration, to change before h_start. */
void g_start(struct g_house *g, uint32_t devices);
void g_prepare_service(struct g_house *g, uint32_t devices);
/* And the driver has nothing of it any more. */
void g_stop(struct g_house *g);

/* For cmocka: a test that a service with one GPU is started for, and stopped after; it is the file's `house`. */
#define G_TEST(test) cmocka_unit_test_prestate_setup_teardown(test, g_setup, g_teardown, &house)
int g_setup(void **state);
int g_teardown(void **state);

/* A client as h_open makes it, with the harness's pool on the GPU that cuda:`device` is, but not registered. */
void g_open(struct g_house *g, struct h_client *c, uint32_t device);
/* The same, its memory in pieces that are exported as descriptors, with a seam in the pool's middle. */
void g_open_pieces(struct g_house *g, struct h_client *c, uint32_t device);
struct ty_pool *g_pool(struct h_client *c); /* to change, and to register */
enum ty_code g_register(struct h_client *c);
void g_close(struct h_client *c);
/* Chunks base, base + 1, ... in blocks 0, 1, ..., stored by session 1, which then has a lease of them. */
void g_store(struct h_client *c, uint32_t base, uint32_t count);
/* The block ids of what h_transfer made, to change. */
uint32_t *g_ids(const struct ty_transfer *t);

#endif
