/* SPDX-License-Identifier: Apache-2.0
 *
 * For an owner in the client's process (src/embed/): the timeline page as the client has it mapped.
 */
#ifndef TY_CLIENT_TIMELINE_H
#define TY_CLIENT_TIMELINE_H

#include <tyer/client.h>

#include "wire/timeline.h"

struct ty_timeline *ty_client_timeline_page(const struct ty_client *client); /* the client's reference; null: it has none */

#endif
