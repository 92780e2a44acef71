/* SPDX-License-Identifier: Apache-2.0
 *
 * populate: a dedicated thread that touches the arena's pages, a slice at a time, so that no owner and no worker pays for
 * page faults, and looks whether what a process before this one left in a piece is still what it was. Hands each piece on to a GPU's owner (TY_GPU_PIECE).
 */
#ifndef TY_ACTORS_POPULATE_H
#define TY_ACTORS_POPULATE_H

#include "eviction.h"

extern const struct ty_class ty_populate_class; /* arg: struct ty_service */

#endif
