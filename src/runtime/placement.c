/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/placement.h"

#include <ctype.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define LIST_BYTES 4096 /* the longest list of CPUs that is read */

static bool number(const char **text, uint32_t *out)
{
	uint64_t n = 0;

	if (!isdigit((unsigned char)**text))
		return false;
	while (isdigit((unsigned char)**text)) {
		n = n * 10 + (uint64_t)(*(*text)++ - '0');
		if (n > UINT32_MAX)
			return false;
	}
	*out = (uint32_t)n;
	return true;
}

bool ty_cpus_parse(const char *text, cpu_set_t *out)
{
	CPU_ZERO(out);
	while (*text && *text != '\n') {
		uint32_t first, last;

		if (!number(&text, &first))
			return false;
		last = first;
		if (*text == '-') {
			text++;
			if (!number(&text, &last) || last < first)
				return false;
		}
		for (uint32_t cpu = first; cpu <= last && cpu < CPU_SETSIZE; cpu++)
			CPU_SET(cpu, out);
		if (*text == ',')
			text++;
		else if (*text && *text != '\n')
			return false;
	}
	return true;
}

/* A node's CPUs. False: there is no such node. */
static bool read_node(const char *root, uint32_t node, cpu_set_t *out)
{
	char path[256], text[LIST_BYTES];
	ssize_t length;
	int fd;

	if (snprintf(path, sizeof path, "%s/node%u/cpulist", root, node) >= (int)sizeof path)
		return false;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	length = read(fd, text, sizeof text - 1);
	close(fd);
	if (length < 0)
		return false;
	text[length] = 0;
	return ty_cpus_parse(text, out);
}

void ty_nodes_read(const char *root, struct ty_nodes *out)
{
	cpu_set_t allowed, node;

	CPU_ZERO(&allowed);
	if (sched_getaffinity(0, sizeof allowed, &allowed))
		CPU_SET(0, &allowed);
	out->count = 0;
	for (uint32_t i = 0; i < TY_MAX_NODES; i++) {
		if (!read_node(root, i, &node))
			continue;
		CPU_AND(&node, &node, &allowed);
		if (CPU_COUNT(&node))
			out->cpus[out->count++] = node;
	}
	if (!out->count)
		out->cpus[out->count++] = allowed;
}

/* The `index`-th CPU of the node, counted round. */
static void pick(const cpu_set_t *node, uint32_t index, cpu_set_t *out)
{
	uint32_t left = index % (uint32_t)CPU_COUNT(node);

	CPU_ZERO(out);
	for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (CPU_ISSET(cpu, node) && left-- == 0) {
			CPU_SET(cpu, out);
			return;
		}
	}
}

/* Workers go to the nodes in turn, so that each has its share of them. */
void ty_place(const struct ty_nodes *nodes, enum ty_placement placement, uint32_t index, cpu_set_t *out)
{
	const cpu_set_t *node = &nodes->cpus[index % nodes->count];

	if (placement == TY_ON_NODES)
		*out = *node;
	else
		pick(node, index / nodes->count, out);
}
