/* SPDX-License-Identifier: Apache-2.0
 *
 * Well-formed messages of every verb, for the fuzz targets to start from.
 */
#ifndef TY_TESTS_FUZZ_SAMPLES_H
#define TY_TESTS_FUZZ_SAMPLES_H

#include <stdbool.h>

#include "wire/tyer.pb-c.h"

/* Call `use` with request or reply number `index`, or return false when there are no more. */
bool sample_request(unsigned index, void (*use)(const Tyer__V1__Request *request, void *user), void *user);
bool sample_reply(unsigned index, void (*use)(const Tyer__V1__Reply *reply, void *user), void *user);

#define SAMPLE_ID 0x1234u /* of every sample */

#endif
