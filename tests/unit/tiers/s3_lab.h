/* SPDX-License-Identifier: Apache-2.0
 *
 * An S3 tier and a server for it that misbehaves as told. The runtime is deterministic and the server is moved between its steps: time is
 * logical, so what is silent for ten seconds costs none.
 */
#ifndef TY_TESTS_TIERS_S3_LAB_H
#define TY_TESTS_TIERS_S3_LAB_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "actors/s3.h"
#include "driven.h"
#include "s3_server.h"
#include "base/log.h"
#include "cache/checksum.h"

#define CHUNK 10000 /* no multiple of anything */

extern struct driven lab; /* error: also that of the last lab_do */
extern struct s3_server server;

extern const char *lab_packing; /* one more of every tier's settings; lab_open: *state, or "" */
enum ty_code lab_open_tier(const char *settings);
void lab_step(void);
void lab_pass(int64_t ns);
void lab_close_tier(void);
int lab_open(void **state);
int lab_close(void **state);
struct ty_key lab_key(uint64_t number);
void lab_name(uint64_t number, char out[128]);
struct s3_object *lab_object(uint64_t number);
uint8_t lab_byte(uint64_t number, uint32_t part, uint64_t i);
struct ty_tier_io *lab_io(enum ty_tier_verb verb, uint64_t number, uint32_t place, uint32_t parts, uint64_t bytes);
void lab_free(struct ty_tier_io *io);
void lab_run(struct ty_tier_io **ios, uint32_t count);
bool lab_holds(const struct ty_tier_io *io, uint64_t number);
enum ty_tier_outcome lab_do(enum ty_tier_verb verb, uint64_t number, uint32_t parts, uint64_t bytes);
uint64_t lab_stat(const _Atomic uint64_t *counter);

/* A test with a server of its own; the second with a tier that packs. */
#define LAB_TEST(f) cmocka_unit_test_setup_teardown(f, lab_open, lab_close)
#define LAB_PACKED(f) cmocka_unit_test_prestate_setup_teardown(f, lab_open, lab_close, (void *)(uintptr_t)",compress=zstd")

#endif
