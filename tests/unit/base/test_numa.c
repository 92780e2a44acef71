/* SPDX-License-Identifier: Apache-2.0
 *
 * Nodes as a made-up sysfs tells them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/numa.h"

static char root[] = "/tmp/tyer-numa-XXXXXX";

/* With its folders, which are few. */
static void put(const char *name, const char *text)
{
	char path[256];
	FILE *f;

	snprintf(path, sizeof path, "%s/%s", root, name);
	for (char *at = path + sizeof root; (at = strchr(at, '/')); *at++ = '/') {
		*at = '\0';
		mkdir(path, 0700);
	}
	f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void nodes(void **state)
{
	(void)state;
	put("bus/pci/devices/0000:1b:00.0/numa_node", "1\n");
	put("bus/pci/devices/0000:1c:00.0/numa_node", "-1\n");
	put("bus/pci/devices/0000:1d:00.0/numa_node", "64\n");
	put("bus/pci/devices/0000:1e:00.0/numa_node", "");
	assert_int_equal(ty_numa_node(root, "0000:1B:00.0"), 1);
	assert_int_equal(ty_numa_node(root, "0000:1c:00.0"), -1);
	assert_int_equal(ty_numa_node(root, "0000:1d:00.0"), -1);
	assert_int_equal(ty_numa_node(root, "0000:1e:00.0"), -1);
	assert_int_equal(ty_numa_node(root, "0000:1f:00.0"), -1);
	assert_int_equal(ty_numa_node(root, "../0000:1b:00.0"), -1);
	assert_int_equal(ty_numa_node(root, "0000:1b:00.0000000000000000000000000000"), -1);
	assert_int_equal(ty_numa_node(NULL, "ffff:ff:1f.7"), -1);
}

static void processors(void **state)
{
	cpu_set_t before, now;
	struct ty_error err;
	char list[64];
	unsigned cpu = 0;

	(void)state;
	assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
	while (!CPU_ISSET(cpu, &before))
		cpu++;
	assert_int_equal(ty_numa_run_on(root, -1, &err), TY_OK);
	assert_int_equal(ty_numa_run_on(root, 3, &err), TY_IO); /* no such node */
	put("devices/system/node/node3/cpulist", "\n");
	assert_int_equal(ty_numa_run_on(root, 3, &err), TY_IO);
	put("devices/system/node/node3/cpulist", "5-2\n");
	assert_int_equal(ty_numa_run_on(root, 3, &err), TY_IO);
	put("devices/system/node/node3/cpulist", "0-99999999\n");
	assert_int_equal(ty_numa_run_on(root, 3, &err), TY_IO);
	snprintf(list, sizeof list, "%u-%u,1020\n", cpu, cpu);
	put("devices/system/node/node3/cpulist", list);
	assert_int_equal(ty_numa_run_on(root, 3, &err), TY_OK);
	assert_int_equal(sched_getaffinity(0, sizeof now, &now), 0);
	assert_int_equal(CPU_COUNT(&now), 1);
	assert_true(CPU_ISSET(cpu, &now));
	assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
}

static void memory(void **state)
{
	void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct ty_error err;
	enum ty_code code;

	(void)state;
	assert_int_equal(ty_numa_prefer(-1, page, 4096, &err), TY_OK);
	/* a machine without nodes, or that does not let us, says so; none does worse */
	code = ty_numa_prefer(0, page, 4096, &err);
	assert_true(code == TY_OK || code == TY_IO);
	memset(page, 1, 4096);
	munmap(page, 4096);
}

static int prepare(void **state)
{
	(void)state;
	return mkdtemp(root) == NULL;
}

static int finish(void **state)
{
	char command[64];

	(void)state;
	snprintf(command, sizeof command, "rm -rf %s", root);
	return system(command);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nodes),
		cmocka_unit_test(processors),
		cmocka_unit_test(memory),
	};

	return cmocka_run_group_tests_name("numa", tests, prepare, finish);
}
