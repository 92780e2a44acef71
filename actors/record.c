/* SPDX-License-Identifier: Apache-2.0 */
#include "record.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MAGIC "TYERRECD"
#define VERSION 1u

static const char *const names[TY_RECORD_EVENTS] = {
	[TY_RECORD_NONE] = "nothing", [TY_RECORD_OPEN] = "open", [TY_RECORD_CAME] = "came", [TY_RECORD_SUBMIT] = "submit",
	[TY_RECORD_DONE] = "done", [TY_RECORD_END] = "end", [TY_RECORD_MAP] = "map pool", [TY_RECORD_UNMAP] = "unmap pool",
	[TY_RECORD_PIECE] = "register piece", [TY_RECORD_FAULT] = "fault",
};

static enum ty_code map(int fd, struct ty_record **out, struct ty_error *err)
{
	void *memory = mmap(NULL, sizeof **out, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (memory == MAP_FAILED)
		return ty_fail(err, errno == ENOMEM ? TY_NO_MEMORY : TY_IO, "record: mmap: %s", strerror(errno));
	*out = memory;
	return TY_OK;
}

enum ty_code ty_record_open(struct ty_record **out, int *fd, struct ty_error *err)
{
	enum ty_code code = TY_OK;

	*fd = memfd_create("tyer-record", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (*fd < 0 || ftruncate(*fd, sizeof **out) != 0 || fcntl(*fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0)
		code = ty_fail(err, TY_IO, "record: memfd: %s", strerror(errno));
	if (code == TY_OK)
		code = map(*fd, out, err);
	if (code != TY_OK) {
		if (*fd >= 0)
			close(*fd);
		*fd = -1;
		return code;
	}
	ty_record_begin(*out);
	return TY_OK;
}

enum ty_code ty_record_adopt(int fd, struct ty_record **out, struct ty_error *err)
{
	int seals = fcntl(fd, F_GET_SEALS);
	enum ty_code code;
	struct stat st;

	if (seals < 0 || !(seals & F_SEAL_SHRINK) || fstat(fd, &st) != 0 || (uint64_t)st.st_size != sizeof **out)
		return ty_fail(err, TY_INVALID, "record: the descriptor is no record of this version");
	code = map(fd, out, err);
	if (code == TY_OK && (memcmp((*out)->magic, MAGIC, sizeof (*out)->magic) != 0 || (*out)->version != VERSION)) {
		ty_record_close(*out);
		code = ty_fail(err, TY_INVALID, "record: it is none, or of another version");
	}
	return code;
}

void ty_record_begin(struct ty_record *record)
{
	memset(record, 0, sizeof *record);
	memcpy(record->magic, MAGIC, sizeof record->magic);
	record->version = VERSION;
	record->pid = getpid();
}

void ty_record_close(struct ty_record *record)
{
	if (record)
		munmap(record, sizeof *record);
}

static void put(_Atomic uint64_t *word, uint64_t value)
{
	atomic_store_explicit(word, value, memory_order_relaxed);
}

void ty_record_note(struct ty_record_owner *owner, enum ty_record_event event, bool store, enum ty_code code, uint64_t op,
	uint64_t detail)
{
	struct ty_record_entry *entry;
	struct timespec now;
	uint64_t number;

	if (!owner)
		return;
	clock_gettime(CLOCK_MONOTONIC, &now);
	number = atomic_load_explicit(&owner->last, memory_order_relaxed) + 1;
	entry = &owner->entries[number % TY_RECORD_ENTRIES];
	put(&entry->number, 0);
	atomic_thread_fence(memory_order_release); /* pairs with the reader's: who sees a word of the new one sees this 0 */
	put(&entry->when, (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec);
	put(&entry->what, (uint64_t)event | (uint64_t)store << 8 | (uint64_t)code << 16);
	put(&entry->op, op);
	put(&entry->detail, detail);
	atomic_store_explicit(&entry->number, number, memory_order_release);
	atomic_store_explicit(&owner->last, number, memory_order_release);
}

struct seen {
	uint64_t when, what, op, detail;
};

/* False: it is being written, or was overwritten. */
static bool read_entry(const struct ty_record_owner *owner, uint64_t number, struct seen *out)
{
	const struct ty_record_entry *entry = &owner->entries[number % TY_RECORD_ENTRIES];

	if (atomic_load_explicit(&entry->number, memory_order_acquire) != number)
		return false;
	out->when = atomic_load_explicit(&entry->when, memory_order_relaxed);
	out->what = atomic_load_explicit(&entry->what, memory_order_relaxed);
	out->op = atomic_load_explicit(&entry->op, memory_order_relaxed);
	out->detail = atomic_load_explicit(&entry->detail, memory_order_relaxed);
	atomic_thread_fence(memory_order_acquire);
	return atomic_load_explicit(&entry->number, memory_order_relaxed) == number;
}

static void format(char *out, size_t size, const char *device, const struct seen *seen, uint64_t last)
{
	unsigned event = seen->what & 0xff;
	uint64_t code = seen->what >> 16 & 0xffff, before = last > seen->when ? last - seen->when : 0;
	const char *op = event >= TY_RECORD_CAME && event <= TY_RECORD_END ? seen->what & 0x100 ? "STORE " : "RETRIEVE " : "";

	snprintf(out, size, "%s: %9.3f ms before: %s%s, op %" PRIu64 ", %s %" PRIu64 "%s%s", device, (double)before / 1e6, op,
		event < TY_RECORD_EVENTS ? names[event] : "?", seen->op,
		event == TY_RECORD_PIECE ? "number" : event >= TY_RECORD_MAP ? "registration" : "chunks", seen->detail,
		code ? ", " : "", code < TY_CODE_COUNT && code ? ty_code_name((enum ty_code)code) : "");
}

/* When anybody did anything last. */
static uint64_t last_of(const struct ty_record *record)
{
	uint64_t last = 0;
	struct seen seen;

	for (uint32_t o = 0; o < TY_RECORD_OWNERS; o++) {
		const struct ty_record_owner *owner = &record->owners[o];
		uint64_t number = atomic_load_explicit(&owner->last, memory_order_acquire);

		if (number && read_entry(owner, number, &seen) && seen.when > last)
			last = seen.when;
	}
	return last;
}

void ty_record_tell(const struct ty_record *record, bool (*line)(void *user, const char *text), void *user)
{
	const uint64_t end = last_of(record);
	struct seen seen[TY_RECORD_TOLD];
	char text[192];

	for (uint32_t o = 0; o < TY_RECORD_OWNERS; o++) {
		const struct ty_record_owner *owner = &record->owners[o];
		uint64_t last = atomic_load_explicit(&owner->last, memory_order_acquire); /* pairs with ty_record_note */
		uint32_t count = 0;
		char device[sizeof owner->device];

		for (uint64_t n = last >= TY_RECORD_TOLD ? last - TY_RECORD_TOLD + 1 : 1; n <= last && n != 0; n++)
			count += read_entry(owner, n, &seen[count]);
		for (size_t i = 0; i < sizeof device; i++) /* it may be another process's, who knows what it wrote */
			device[i] = owner->device[i] >= ' ' && owner->device[i] < 127 ? owner->device[i] : '\0';
		device[sizeof device - 1] = '\0';
		for (uint32_t i = 0; i < count; i++) {
			format(text, sizeof text, device, &seen[i], end);
			if (!line(user, text))
				return;
		}
	}
}
