/* SPDX-License-Identifier: Apache-2.0
 *
 * For tests of the disk tier: a folder of its own for each, and the files in it.
 */
#ifndef TESTS_DISK_FOLDER_H
#define TESTS_DISK_FOLDER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <cmocka.h>

#include "house.h"

extern char dir[32], spec[256];  /* the folder, and a tier in it as --tier takes it */
extern const char *settings;     /* what was added to it: "", or ",io=plain" */

/* cmocka's; the state is the settings. */
int make_dir(void **state);
int remove_dir(void **state);
#define IN_FOLDER(name) cmocka_unit_test_setup_teardown(test_##name, make_dir, remove_dir)
/* Each test (at most 64) by io_uring, where this machine allows it, and by worker threads; the first one with sync=yes, too. */
int run_both_ways(const struct CMUnitTest *tests, size_t count);

void path_of(uint64_t number, char out[256]); /* where that chunk's file is */
void flip(uint64_t number, off_t at);         /* a bit of it */
int files_in(const char *folder);

#endif
