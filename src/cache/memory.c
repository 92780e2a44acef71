/* SPDX-License-Identifier: Apache-2.0 */
#include "memory.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FILE_MAX 16384 /* bytes of a file that are looked at */

/* The first bytes of root + path as text; false: not readable. */
static bool read_text(const char *root, const char *path, char text[FILE_MAX])
{
	char full[PATH_MAX];
	size_t length = 0;
	int fd;

	if (snprintf(full, sizeof full, "%s%s", root, path) >= (int)sizeof full)
		return false;
	fd = open(full, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	while (length < FILE_MAX - 1) {
		ssize_t n = read(fd, text + length, FILE_MAX - 1 - length);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			close(fd);
			return false;
		}
		if (n == 0)
			break;
		length += (size_t)n;
	}
	close(fd);
	text[length] = '\0';
	return true;
}

static bool parse_number(const char *text, uint64_t *out)
{
	char *end;

	if (!isdigit((unsigned char)*text)) /* strtoull would take a sign */
		return false;
	errno = 0;
	*out = strtoull(text, &end, 10);
	return errno == 0 && (*end == '\0' || isspace((unsigned char)*end));
}

/* "Name:   123 kB" -> 123; the line must begin with the name. */
static bool meminfo_field(const char *text, const char *name, uint64_t *out)
{
	size_t length = strlen(name);

	for (const char *line = text; line; line = strchr(line, '\n')) {
		if (*line == '\n')
			line++;
		if (strncmp(line, name, length) == 0 && line[length] == ':')
			return parse_number(line + length + 1 + strspn(line + length + 1, " \t"), out);
	}
	return false;
}

static bool kib_to_bytes(uint64_t kib, uint64_t *bytes)
{
	return !__builtin_mul_overflow(kib, (uint64_t)1024, bytes);
}

static void take_limit(const char *root, const char *mount, const char *group, const char *file, uint64_t *limit)
{
	char path[PATH_MAX], text[FILE_MAX];
	uint64_t found;

	if (snprintf(path, sizeof path, "%s%s/%s", mount, group, file) >= (int)sizeof path)
		return;
	/* "max" is no number, and no limit. */
	if (read_text(root, path, text) && parse_number(text, &found) && found < *limit)
		*limit = found;
}

/* A group's limit binds with all those above it. Inside a container the path may name nothing that is mounted here, then
 * the root of the mount is the container's own group. */
static void take_limits(const char *root, const char *mount, char *group, const char *file, uint64_t *limit)
{
	for (;;) {
		char *slash;

		take_limit(root, mount, group, file, limit);
		slash = strrchr(group, '/');
		if (!slash)
			break;
		*slash = '\0';
	}
}

/* Lines are "id:controllers:/path": version 2 has no controllers, version 1 has "memory" among them. */
static uint64_t read_limit(const char *root)
{
	char text[FILE_MAX], *save = NULL;
	uint64_t limit = UINT64_MAX;

	if (!read_text(root, "/proc/self/cgroup", text))
		return limit;
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char *controllers = strchr(line, ':'), *group;

		if (!controllers)
			continue;
		controllers++;
		group = strchr(controllers, ':');
		if (!group)
			continue;
		*group++ = '\0';
		if (*controllers == '\0')
			take_limits(root, "/sys/fs/cgroup", group, "memory.max", &limit);
		for (char *inner = NULL, *name = strtok_r(controllers, ",", &inner); name;
			name = strtok_r(NULL, ",", &inner))
			if (strcmp(name, "memory") == 0)
				take_limits(root, "/sys/fs/cgroup/memory", group, "memory.limit_in_bytes", &limit);
	}
	return limit;
}

enum ty_code ty_memory_read(const char *root, struct ty_memory *out, struct ty_error *err)
{
	char text[FILE_MAX];
	uint64_t total, page, free_pages, promised;

	memset(out, 0, sizeof *out);
	if (!read_text(root, "/proc/meminfo", text))
		return ty_fail(err, TY_IO, "%s/proc/meminfo: %s", root, strerror(errno));
	if (!meminfo_field(text, "MemTotal", &total) || !kib_to_bytes(total, &out->total))
		return ty_fail(err, TY_IO, "%s/proc/meminfo: no MemTotal in it", root);
	if (meminfo_field(text, "Hugepagesize", &page) && kib_to_bytes(page, &out->huge_bytes) &&
		meminfo_field(text, "HugePages_Free", &free_pages) &&
		meminfo_field(text, "HugePages_Rsvd", &promised) && promised <= free_pages) {
		if (__builtin_mul_overflow(free_pages - promised, out->huge_bytes, &out->huge_free))
			out->huge_free = 0;
	}
	out->limit = read_limit(root);
	return TY_OK;
}
