/* SPDX-License-Identifier: Apache-2.0
 *
 * Where the pool's workers run: a set of CPUs for each, from what the process may use and the machine's NUMA nodes.
 */
#ifndef TY_RUNTIME_PLACEMENT_H
#define TY_RUNTIME_PLACEMENT_H

#include <sched.h>
#include <stdint.h>

#include <tyer/actor.h>

#define TY_MAX_NODES 64

struct ty_nodes {
	uint32_t count;                   /* at least 1 */
	cpu_set_t cpus[TY_MAX_NODES];     /* of each node: those that the process may use; none is empty */
};

/* The machine's nodes; `root` is /sys/devices/system/node but in tests. What cannot be read, or is no list of CPUs, is no
 * node; if none is found, all CPUs are one. */
void ty_nodes_read(const char *root, struct ty_nodes *out);
/* Where worker `index` runs. */
void ty_place(const struct ty_nodes *nodes, enum ty_placement placement, uint32_t index, cpu_set_t *out);
/* "0-3,8": false if it is malformed. CPUs above CPU_SETSIZE are left out. */
bool ty_cpus_parse(const char *text, cpu_set_t *out);

#endif
