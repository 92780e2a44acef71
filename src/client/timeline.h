/* SPDX-License-Identifier: Apache-2.0
 *
 * For an owner in the client's process (src/embed/): the timeline page's descriptor, the client's own.
 */
#ifndef TY_CLIENT_TIMELINE_H
#define TY_CLIENT_TIMELINE_H

#include <tyer/client.h>

int ty_client_timeline_fd(const struct ty_client *client); /* -1: it has none */

#endif
