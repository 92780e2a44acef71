/* SPDX-License-Identifier: Apache-2.0
 *
 * Which processors and which memory are near a device. Where the system tells nothing, or has one node, all of it does nothing.
 */
#ifndef TY_BASE_NUMA_H
#define TY_BASE_NUMA_H

#include <stddef.h>

#include <tyer/result.h>

/* The node of a PCI device ("0000:1B:00.0", as the driver prints it), by sysfs at `root` (null: "/sys"); -1: none is told. */
int ty_numa_node(const char *root, const char *pci);
/* This thread runs on the node's processors from now on, as far as it may. node -1: nothing is done. */
TY_MUST_USE enum ty_code ty_numa_run_on(const char *root, int node, struct ty_error *err);
/* Pages of this memory that are made from now on come from the node, if it has any. node -1: nothing is done. */
TY_MUST_USE enum ty_code ty_numa_prefer(int node, void *base, size_t bytes, struct ty_error *err);

#endif
