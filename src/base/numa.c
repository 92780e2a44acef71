/* SPDX-License-Identifier: Apache-2.0 */
#include "base/numa.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/mempolicy.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NODES 64 /* bits of the mask that the kernel is given */
#define PCI_MAX 32

/* A small file of sysfs, terminated; false: it cannot be read. */
static bool read_file(const char *path, char *out, size_t room)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return false;
	n = read(fd, out, room - 1);
	close(fd);
	out[n > 0 ? n : 0] = '\0';
	return n > 0;
}

int ty_numa_node(const char *root, const char *pci)
{
	char name[PCI_MAX] = "", path[256], text[32];
	long node;

	if (strlen(pci) >= sizeof name)
		return -1;
	for (size_t i = 0; pci[i]; i++) {
		if (!isxdigit((unsigned char)pci[i]) && pci[i] != ':' && pci[i] != '.')
			return -1;
		name[i] = (char)tolower((unsigned char)pci[i]);
	}
	snprintf(path, sizeof path, "%.128s/bus/pci/devices/%s/numa_node", root ? root : "/sys", name);
	if (!read_file(path, text, sizeof text))
		return -1;
	node = strtol(text, NULL, 10);
	return node >= 0 && node < NODES ? (int)node : -1;
}

/* "0-3,8,10-11" into a set; false: it is no such list, or empty. */
static bool parse_cpus(const char *text, cpu_set_t *set)
{
	CPU_ZERO(set);
	while (isdigit((unsigned char)*text)) {
		char *end;
		unsigned long first = strtoul(text, &end, 10), last = first;

		if (*end == '-')
			last = strtoul(end + 1, &end, 10);
		if (first > last || last >= CPU_SETSIZE)
			return false;
		for (unsigned long cpu = first; cpu <= last; cpu++)
			CPU_SET(cpu, set);
		text = end + (*end == ',');
	}
	return CPU_COUNT(set) > 0;
}

enum ty_code ty_numa_run_on(const char *root, int node, struct ty_error *err)
{
	char path[256], text[1024];
	cpu_set_t cpus;

	if (node < 0)
		return TY_OK;
	snprintf(path, sizeof path, "%.128s/devices/system/node/node%d/cpulist", root ? root : "/sys", node);
	if (!read_file(path, text, sizeof text) || !parse_cpus(text, &cpus))
		return ty_fail(err, TY_IO, "%s: no list of processors", path);
	if (sched_setaffinity(0, sizeof cpus, &cpus) != 0)
		return ty_fail(err, TY_IO, "running on the processors of node %d: %s", node, strerror(errno));
	return TY_OK;
}

enum ty_code ty_numa_prefer(int node, void *base, size_t bytes, struct ty_error *err)
{
	unsigned long mask[NODES / (8 * sizeof(unsigned long)) + 1] = {0};

	if (node < 0)
		return TY_OK;
	mask[(size_t)node / (8 * sizeof mask[0])] = 1ul << (size_t)node % (8 * sizeof mask[0]);
	if (syscall(SYS_mbind, base, bytes, MPOL_PREFERRED, mask, NODES + 1ul, 0u) != 0)
		return ty_fail(err, TY_IO, "memory of node %d: %s", node, strerror(errno));
	return TY_OK;
}
