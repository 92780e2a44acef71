/* SPDX-License-Identifier: Apache-2.0 */
#include "disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/log.h"

#define PROBE ".probe"
#define WORKERS_DEFAULT 4

static enum ty_code bad_folder(const struct disk_folder *f, const char *what, struct ty_error *err)
{
	enum ty_code code = errno == EACCES || errno == EPERM || errno == EROFS ? TY_DENIED : TY_IO;

	return ty_fail(err, code, "--tier: disk: %s: %s: %s", f->path, what, strerror(errno));
}

/* One service a folder: two would take each other's files away. */
static enum ty_code lock(struct disk_folder *f, struct ty_error *err)
{
	f->lock_fd = openat(f->fd, "lock", O_RDONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600); /* a writer would keep it from being remounted */
	if (f->lock_fd < 0)
		return bad_folder(f, "lock", err);
	if (flock(f->lock_fd, LOCK_EX | LOCK_NB) == 0)
		return TY_OK;
	if (errno == EWOULDBLOCK)
		return ty_fail(err, TY_EXISTS, "--tier: disk: %s: another service uses this folder", f->path);
	return bad_folder(f, "lock", err);
}

static enum ty_code write_format(struct disk_folder *f, struct ty_error *err)
{
	int fd = openat(f->fd, DISK_FORMAT, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	enum ty_code code = TY_OK;
	ssize_t n;

	if (fd < 0)
		return bad_folder(f, DISK_FORMAT, err);
	n = write(fd, DISK_FORMAT_TEXT, strlen(DISK_FORMAT_TEXT));
	if (n >= 0 && n < (ssize_t)strlen(DISK_FORMAT_TEXT))
		errno = ENOSPC; /* what a short write means to a file */
	if (n != (ssize_t)strlen(DISK_FORMAT_TEXT) || fsync(fd) < 0)
		code = bad_folder(f, DISK_FORMAT, err);
	close(fd);
	return code;
}

/* What the folder says that it is; if it says nothing it becomes ours. If it has half of a word (the power went, the disk was full), it was
 * about to. */
static enum ty_code check_format(struct disk_folder *f, struct ty_error *err)
{
	char text[64] = "";
	int fd = openat(f->fd, DISK_FORMAT, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	ssize_t n;

	if (fd < 0 && errno == ENOENT)
		return write_format(f, err);
	if (fd < 0)
		return bad_folder(f, DISK_FORMAT, err);
	n = read(fd, text, sizeof text - 1);
	close(fd);
	if (n < 0)
		return bad_folder(f, DISK_FORMAT, err);
	if (strcmp(text, DISK_FORMAT_TEXT) == 0)
		return TY_OK;
	if (strncmp(text, DISK_FORMAT_TEXT, strlen(text)) == 0) /* or zeros, where a journal knew its length alone */
		return write_format(f, err);
	text[strcspn(text, "\n")] = '\0';
	return ty_fail(err, TY_UNSUPPORTED, "--tier: disk: %s: its format is \"%.40s\"; expected \"tyer-disk 1\": empty it, or name another",
		f->path, text);
}

static enum ty_code make_folder(struct disk_folder *f, const char *name, struct ty_error *err)
{
	if (mkdirat(f->fd, name, 0700) == 0 || errno == EEXIST)
		return TY_OK;
	return bad_folder(f, name, err);
}

static bool is_full(int error)
{
	return error == ENOSPC || error == EDQUOT;
}

/* Does the file system take O_DIRECT, from memory and at offsets of 4096? One that has no room for the answer is taken to. */
static enum ty_code probe_direct(struct disk_folder *f, struct ty_error *err)
{
	void *page = aligned_alloc(TY_ENVELOPE_ALIGN, TY_ENVELOPE_ALIGN);
	enum ty_code code = TY_OK;
	bool direct = false;
	int fd;

	if (!page)
		return ty_fail(err, TY_NO_MEMORY, "no memory for a disk tier");
	memset(page, 0, TY_ENVELOPE_ALIGN);
	unlinkat(f->fd, PROBE, 0);
	fd = openat(f->fd, PROBE, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_DIRECT, 0600);
	if (fd >= 0) {
		ssize_t n = pwrite(fd, page, TY_ENVELOPE_ALIGN, 0);

		direct = n < 0 ? is_full(errno)
			       : n != TY_ENVELOPE_ALIGN || pread(fd, page, TY_ENVELOPE_ALIGN, 0) == TY_ENVELOPE_ALIGN;
		close(fd);
	} else if (errno == EINVAL) { /* then the file may be there all the same */
		unlinkat(f->fd, PROBE, 0);
		fd = openat(f->fd, PROBE, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (fd >= 0)
			close(fd);
	} else {
		direct = is_full(errno);
	}
	if (fd < 0 && !is_full(errno))
		code = bad_folder(f, "cannot write", err);
	unlinkat(f->fd, PROBE, 0);
	free(page);
	atomic_store_explicit(&f->direct, direct, memory_order_relaxed);
	return code;
}

/* Bytes of the files that a process before this one put aside. */
static uint64_t count_quarantine(const struct disk_folder *f)
{
	int fd = openat(f->fd, "quarantine", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	uint64_t bytes = 0;
	struct stat st;

	if (!dir) {
		if (fd >= 0)
			close(fd);
		return 0;
	}
	for (struct dirent *entry; (entry = readdir(dir));)
		if (fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode))
			bytes += (uint64_t)st.st_size;
	closedir(dir);
	return bytes;
}

static enum ty_code open_folder(struct disk_folder *f, struct ty_error *err)
{
	char name[4];
	enum ty_code code;

	if (mkdir(f->path, 0700) < 0 && errno != EEXIST)
		return bad_folder(f, "mkdir", err);
	f->fd = open(f->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (f->fd < 0)
		return bad_folder(f, "open", err);
	code = lock(f, err);
	if (code == TY_OK)
		code = check_format(f, err);
	if (code == TY_OK)
		code = make_folder(f, "quarantine", err);
	for (unsigned i = 0; code == TY_OK && i < DISK_HASH_FOLDERS; i++) {
		snprintf(name, sizeof name, "%02x", i);
		code = make_folder(f, name, err);
	}
	if (code == TY_OK)
		code = probe_direct(f, err);
	return code;
}

/* What only this kind understands. */
static enum ty_code take_arguments(struct disk *d, const char **io, struct ty_error *err)
{
	const struct ty_tier_config *c = &d->tier->config;
	const struct ty_policy_class *policy = &ty_policy_lru, *found;
	uint64_t number;

	*io = "auto";
	d->quarantine = DISK_QUARANTINE;
	d->worker_count = WORKERS_DEFAULT;
	for (uint32_t i = 0; i < c->arg_count; i++) {
		const char *name = c->args[i].name, *value = c->args[i].value;

		if (strcmp(name, "io") == 0 && (!strcmp(value, "auto") || !strcmp(value, "uring") || !strcmp(value, "plain"))) {
			*io = value;
		} else if (strcmp(name, "sync") == 0 && (!strcmp(value, "yes") || !strcmp(value, "no"))) {
			d->sync = value[0] == 'y';
		} else if (strcmp(name, "threads") == 0 && ty_parse_count(value, DISK_WORKERS, &number, err) == TY_OK && number) {
			d->worker_count = (uint32_t)number;
		} else if (strcmp(name, "policy") == 0 && (found = ty_policy_find(value))) {
			policy = found;
		} else if (strcmp(name, "quarantine") == 0 && ty_parse_bytes(value, &number, err) == TY_OK) {
			d->quarantine = number;
		} else {
			return ty_fail(err, TY_INVALID, "--tier: disk: found \"%s=%.60s\", expected io=auto|uring|plain, sync=yes|no,"
				" threads=1..%d, policy=lru|arc|s3-fifo or quarantine=BYTES" TY_TIER_EVERY, name, value, DISK_WORKERS);
		}
	}
	/* relaxed: nobody runs yet */
	atomic_store_explicit(&d->tier->policy, policy, memory_order_relaxed);
	return TY_OK;
}

static enum ty_code take_folders(struct disk *d, struct ty_error *err)
{
	char copy[TY_CONFIG_TIER_MAX], *save = NULL;

	strcpy(copy, d->tier->config.where);
	for (char *path = strtok_r(copy, ":", &save); path; path = strtok_r(NULL, ":", &save)) {
		if (d->folder_count == DISK_FOLDERS)
			return ty_fail(err, TY_INVALID, "--tier: disk: found more than %d folders", DISK_FOLDERS);
		if (path[0] != '/')
			return ty_fail(err, TY_INVALID, "--tier: disk: found \"%.60s\", expected an absolute path", path);
		strcpy(d->folder[d->folder_count++].path, path);
	}
	if (!d->folder_count)
		return ty_fail(err, TY_INVALID, "--tier: disk: found no folder");
	return TY_OK;
}

/* Of all its file systems, each once, whoever else has something there; 0: it cannot be told. */
static uint64_t space_of(const struct disk *d)
{
	uint64_t bytes = 0;
	dev_t seen[DISK_FOLDERS];

	for (uint32_t i = 0; i < d->folder_count; i++) {
		struct statvfs fs;
		struct stat st;
		bool new = true;

		if (fstat(d->folder[i].fd, &st) != 0 || fstatvfs(d->folder[i].fd, &fs) != 0)
			return 0;
		seen[i] = st.st_dev;
		for (uint32_t k = 0; k < i; k++)
			new &= seen[k] != st.st_dev;
		if (new && __builtin_add_overflow(bytes, (uint64_t)fs.f_blocks * fs.f_frsize, &bytes))
			return 0;
	}
	return bytes;
}

/* It serves all the same, with what fits; whoever said so may have meant another disk. */
static void compare_size(const struct disk *d)
{
	uint64_t space = space_of(d), size = d->tier->config.size;
	char wanted[32], there[32];

	if (!space || size == UINT64_MAX || size <= space)
		return;
	ty_format_bytes(wanted, sizeof wanted, size);
	ty_format_bytes(there, sizeof there, space);
	ty_log(TY_LOG_WARN, "tier", "disk:%s: found size=%s, expected at most the %s of its file systems: what fits is kept",
		d->tier->config.where, wanted, there);
}

/* io_uring, unless it is not wanted or not to be had. */
static enum ty_code open_ring(struct disk *d, const char *io, char why[96], struct ty_error *err)
{
	d->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (d->event_fd < 0)
		return ty_fail(err, TY_IO, "--tier: disk: eventfd: %s", strerror(errno));
	if (strcmp(io, "plain") == 0 || disk_ring_open(&d->ring, &d->tier->service->arena, d->event_fd, why) ||
		strcmp(io, "uring") != 0)
		return TY_OK;
	return ty_fail(err, TY_UNSUPPORTED, "--tier: disk: %s", why);
}

enum ty_code disk_open(struct ty_tier *tier, struct ty_error *err)
{
	struct disk *d = calloc(1, sizeof *d);
	char why[96] = "io=plain";
	const char *io = NULL;
	uint32_t direct = 0;
	enum ty_code code;

	if (!d)
		return ty_fail(err, TY_NO_MEMORY, "no memory for a disk tier");
	d->tier = tier;
	d->event_fd = -1;
	tier->state = d;
	for (uint32_t i = 0; i < DISK_FOLDERS; i++)
		d->folder[i].fd = d->folder[i].lock_fd = -1;
	randombytes_buf(&d->boot, sizeof d->boot);
	code = take_arguments(d, &io, err);
	if (code == TY_OK)
		code = take_folders(d, err);
	for (uint32_t i = 0; i < d->folder_count && code == TY_OK; i++) {
		code = open_folder(&d->folder[i], err);
		atomic_fetch_add_explicit(&tier->stats.quarantine_bytes, code == TY_OK ? count_quarantine(&d->folder[i]) : 0,
			memory_order_relaxed);
		direct += atomic_load_explicit(&d->folder[i].direct, memory_order_relaxed);
	}
	if (code == TY_OK)
		code = open_ring(d, io, why, err);
	if (code != TY_OK) {
		disk_close(tier);
		return code;
	}
	compare_size(d);
	tier->capabilities = TY_TIER_LASTING | TY_TIER_LOCAL | TY_TIER_LISTS | (direct == d->folder_count ? TY_TIER_DIRECT : 0);
	/* from before anybody can ask: the actor begins to scan when its first message comes */
	atomic_store_explicit(&tier->stats.scanning, 1, memory_order_relaxed);
	snprintf(tier->stats.note, sizeof tier->stats.note, "%s%s%s", d->ring.on ? "io_uring" : "worker threads: ",
		d->ring.on ? "" : why,
		direct == d->folder_count ? ", O_DIRECT" : ", through the page cache: a file system takes no O_DIRECT");
	return TY_OK;
}

void disk_close(struct ty_tier *tier)
{
	struct disk *d = tier->state;

	disk_ring_close(&d->ring);
	if (d->event_fd >= 0)
		close(d->event_fd);
	for (uint32_t i = 0; i < DISK_FOLDERS; i++) {
		if (d->folder[i].lock_fd >= 0)
			close(d->folder[i].lock_fd);
		if (d->folder[i].fd >= 0)
			close(d->folder[i].fd);
	}
	free(d);
	tier->state = NULL;
}
