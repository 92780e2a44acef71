/* SPDX-License-Identifier: Apache-2.0
 *
 * The two actors beside the disk tier's own, with threads of their own because they may wait for the disk: workers, who do a
 * job from its first step to its last where there is no io_uring, and the scanner, which reads what lies in the folders at the start, one
 * hash folder a message.
 */
#include "disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/give_way.h"
#include "base/log.h"

/* ---- workers ----------------------------------------------------------------------------------------------- */

struct worker {
	struct ty_packer packer;
};

static void on_work(void *self, struct ty_msg *msg)
{
	struct disk_job *job = ty_container_of(msg, struct disk_job, msg);

	job->packer = &((struct worker *)self)->packer;
	while (job->step != DISK_OVER) {
		bool goes = job->step == DISK_MOVE ? disk_job_stage(job) : job->step == DISK_CHECK ? disk_job_unstage(job) : true;

		if (goes)
			disk_job_perform(job);
		else if (job->step == DISK_CHECK)
			job->outcome = TY_TIER_LATE;
		disk_job_next(job);
	}
	if (ty_send(job->home, &job->msg, DISK_WORKED) != TY_OK)
		disk_job_free(job); /* an errand, and nobody waits for it any more */
}

static void stop_working(void *self)
{
	ty_packer_clear(&((struct worker *)self)->packer);
}

static const struct ty_handler worker_handlers[] = {{"work", on_work}};

const struct ty_class disk_worker_class = {
	.name = "disk worker",
	.state_size = sizeof(struct worker),
	.first_type = TY_DISK_WORK,
	.type_count = 1,
	.handlers = worker_handlers,
	.stop = stop_working,
};

/* ---- the scan ----------------------------------------------------------------------------------------------- */

struct scanner {
	struct disk *disk;
};

static void add(struct disk_found *found, const struct ty_envelope *e)
{
	bool packed = ty_envelope_is_packed(e);
	struct disk_shape *item;
	uint64_t *length;

	if (found->count == found->room) {
		uint32_t room = found->room ? 2 * found->room : 64;

		item = realloc(found->item, room * sizeof *item);
		if (!item)
			return; /* not known, so not there; the next start finds it */
		found->item = item;
		found->room = room;
	}
	item = &found->item[found->count];
	length = malloc((packed ? 2 : 1) * e->parts * sizeof *length);
	if (!length)
		return;
	item->length = length;
	item->stored = packed ? length + e->parts : NULL;
	item->key = e->key;
	/* every identity has a model: without one it was not known when the chunk went down */
	item->name = e->identity.model[0] ? ty_tier_names_take(&found->names, &e->identity) : 0;
	if (e->identity.model[0] && !item->name) {
		free(length);
		return;
	}
	item->parts = e->parts;
	memcpy(length, e->length, e->parts * sizeof *length);
	for (uint32_t i = 0; packed && i < e->parts; i++)
		length[e->parts + i] = e->packed[i].stored;
	found->count++;
}

/* "KEY.tyer": is it a name that this folder's files have? */
static bool parse_name(const char *name, unsigned hash, struct ty_key *key)
{
	size_t length = strlen(name), used;

	return length == 2 * sizeof key->bytes + strlen(DISK_SUFFIX) && strcmp(name + 2 * sizeof key->bytes, DISK_SUFFIX) == 0 &&
	       strspn(name, "0123456789abcdef") == 2 * sizeof key->bytes &&
	       sodium_hex2bin(key->bytes, sizeof key->bytes, name, 2 * sizeof key->bytes, NULL, &used, NULL) == 0 &&
	       used == sizeof key->bytes && key->bytes[0] == hash;
}

static bool is_leftover(const struct disk *d, const char *name)
{
	char own[32];

	if (!strstr(name, DISK_SUFFIX ".tmp-"))
		return false;
	snprintf(own, sizeof own, ".tmp-%016llx-", (unsigned long long)d->boot);
	return !strstr(name, own);
}

/* Its header is whole and its own, and its size is what the header says. */
static bool look_at(int dir, const char *name, const struct ty_key *key, struct ty_envelope *out)
{
	uint8_t header[TY_ENVELOPE_BYTES];
	struct ty_error err;
	struct stat st;
	bool good;
	int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

	if (fd < 0)
		return false;
	good = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && pread(fd, header, sizeof header, 0) == (ssize_t)sizeof header &&
	       ty_envelope_read(header, out, &err) == TY_OK && memcmp(&out->key, key, sizeof *key) == 0 &&
	       (uint64_t)st.st_size == ty_envelope_total(out);
	close(fd);
	return good;
}

void disk_found_free(struct disk_found *found)
{
	for (uint32_t i = 0; i < found->count; i++)
		free((void *)(uintptr_t)found->item[i].length);
	free(found->item);
	ty_tier_names_clear(&found->names);
	free(found);
}

/* Everything in one hash folder. Files that are not ours, or of another version, or damaged, are left as they are. */
static void read_folder(struct disk *d, struct disk_found *found)
{
	struct ty_tier_stats *stats = &d->tier->stats;
	struct ty_envelope envelope;
	struct ty_key key;
	char path[4];
	DIR *dir;
	int fd;

	snprintf(path, sizeof path, "%02x", found->hash);
	fd = openat(d->folder[found->folder].fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir) {
		ty_log(TY_LOG_WARN, "tier", "disk: %s/%s: %s", d->folder[found->folder].path, path, strerror(errno));
		if (fd >= 0)
			close(fd);
		return;
	}
	/* acquire: pairs with main's release. Files may be many, and the end waits for this thread */
	for (struct dirent *entry; !atomic_load_explicit(&d->tier->ending, memory_order_acquire) && (entry = readdir(dir));) {
		if (entry->d_name[0] == '.')
			continue;
		if (parse_name(entry->d_name, found->hash, &key) && look_at(fd, entry->d_name, &key, &envelope))
			add(found, &envelope);
		else if (is_leftover(d, entry->d_name))
			unlinkat(fd, entry->d_name, 0);
		else if (!strstr(entry->d_name, DISK_SUFFIX ".tmp-"))
			atomic_fetch_add_explicit(&stats->foreign, 1, memory_order_relaxed);
	}
	closedir(dir);
}

static void on_scan(void *self, struct ty_msg *msg)
{
	struct scanner *s = self;
	struct disk_found *found = ty_container_of(msg, struct disk_found, msg);

	found->at = found->count = 0;
	ty_tier_names_clear(&found->names);
	read_folder(s->disk, found);
	found->last = found->folder == s->disk->folder_count - 1 && found->hash == DISK_HASH_FOLDERS - 1;
	if (ty_send(s->disk->tier->actor, &found->msg, DISK_FOUND) != TY_OK)
		disk_found_free(found);
}

static enum ty_code start(void *self, void *arg)
{
	((struct scanner *)self)->disk = arg;
	ty_give_way();
	return TY_OK;
}

static const struct ty_handler scanner_handlers[] = {{"scan", on_scan}};

const struct ty_class disk_scanner_class = {
	.name = "disk scanner",
	.state_size = sizeof(struct scanner),
	.first_type = TY_DISK_SCAN,
	.type_count = 1,
	.handlers = scanner_handlers,
	.start = start,
};
