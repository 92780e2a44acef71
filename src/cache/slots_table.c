/* SPDX-License-Identifier: Apache-2.0
 *
 * The table in its memfd: a page that says what it is the table of, the namespaces, then a record a slot. Made anew, or taken over from a
 * process that is no more, whose every word is held against the others before it is believed.
 */
#include "slots_private.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static_assert(sizeof(struct ty_slot_record) == 64, "the table's layout is shared with later processes");

#define MAGIC "TYERSLOT"
#define VERSION 3u
#define TABLE_SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

/* Fixed layout, like the records. Written once, before anybody else has the descriptor. */
struct header {
	char magic[8];
	uint32_t version, record_bytes, slots_per_piece, pieces;
	uint64_t piece_bytes, arena_bytes;
	uint64_t arena_inode; /* of the arena that it is the table of: nothing in that tells whose it is */
	uint32_t spaces, space_bytes;
	uint64_t check;       /* of the other fields */
};

#define BORROWERS_AT 1024u
static_assert(BORROWERS_AT >= sizeof(struct header) && BORROWERS_AT + TY_BORROWERS * sizeof(struct borrower) <= TY_SLOTS_HEADER_BYTES,
	"both fit into the first page");

/* SipHash with a fixed key: it finds torn and scribbled words, it authenticates nothing. */
static uint64_t siphash(const void *bytes, size_t length)
{
	static const unsigned char key[crypto_shorthash_KEYBYTES] = "tyer.slot.v3";
	uint64_t check;

	static_assert(sizeof check == crypto_shorthash_BYTES, "one word");
	crypto_shorthash((unsigned char *)&check, bytes, length, key);
	return check;
}

/* ---- records ----------------------------------------------------------------------------------------- */

static const struct ty_slot_record zeros;

static bool record_is_clear(const struct ty_slot_record *record)
{
	return memcmp(record, &zeros, sizeof zeros) == 0;
}

static uint32_t record_check(const struct ty_slot_record *record)
{
	struct ty_slot_record copy = *record;

	copy.check = 0;
	atomic_init(&copy.checksum, 0); /* which comes later, by itself */
	return (uint32_t)siphash(&copy, sizeof copy);
}

bool ty_slots_record_whole(const struct ty_slot_record *record)
{
	return record_is_clear(record) || record->check == record_check(record);
}

/* `state` goes first to FREE and is set last, in program order: the fences are for the compiler, which is all it takes for
 * a process that finds the table after this one died. Nobody reads the table at the same time. */
void ty_slot_record_write(struct ty_slot_record *to, const struct ty_slot_record *from)
{
	to->state = TY_SLOT_FREE;
	atomic_signal_fence(memory_order_release);
	to->part = from->part;
	to->parts = from->parts;
	to->space = from->space;
	to->length = from->length;
	to->key = from->key;
	to->sequence = from->sequence;
	atomic_store_explicit(&to->checksum, atomic_load_explicit(&from->checksum, memory_order_relaxed), memory_order_relaxed);
	to->check = record_check(from);
	atomic_signal_fence(memory_order_release);
	to->state = from->state;
}

void ty_slot_record_clear(struct ty_slot_record *to)
{
	ty_slot_record_write(to, &zeros);
	to->check = 0;
}

/* ---- the header -------------------------------------------------------------------------------------- */

static enum ty_code describe(const struct ty_arena *arena, struct header *out, struct ty_error *err)
{
	struct stat st;

	if (fstat(arena->fd, &st) != 0)
		return ty_fail(err, TY_IO, "slot table: fstat of the arena: %s", strerror(errno));
	memset(out, 0, sizeof *out);
	memcpy(out->magic, MAGIC, sizeof out->magic);
	out->version = VERSION;
	out->record_bytes = sizeof(struct ty_slot_record);
	out->slots_per_piece = TY_SLOTS_PER_PIECE;
	out->pieces = arena->pieces;
	out->piece_bytes = TY_PIECE_BYTES;
	out->arena_bytes = arena->bytes;
	out->arena_inode = st.st_ino;
	out->spaces = TY_MAX_SPACES;
	out->space_bytes = TY_SPACE_BYTES;
	out->check = siphash(out, offsetof(struct header, check));
	return TY_OK;
}

static enum ty_code check_header(const struct header *found, const struct header *expected, struct ty_error *err)
{
	if (found->check != siphash(found, offsetof(struct header, check)))
		return ty_fail(err, TY_INVALID, "slot table: its header is damaged");
	if (found->record_bytes != expected->record_bytes || found->slots_per_piece != expected->slots_per_piece ||
		found->piece_bytes != expected->piece_bytes)
		return ty_fail(err, TY_UNSUPPORTED, "slot table: records of %u bytes, %u slots to a piece of %" PRIu64
			" bytes; expected %u, %u, %" PRIu64, found->record_bytes, found->slots_per_piece, found->piece_bytes,
			expected->record_bytes, expected->slots_per_piece, expected->piece_bytes);
	if (found->spaces != expected->spaces || found->space_bytes != expected->space_bytes)
		return ty_fail(err, TY_UNSUPPORTED, "slot table: %u namespaces of %u bytes, expected %u of %u", found->spaces,
			found->space_bytes, expected->spaces, expected->space_bytes);
	if (found->arena_bytes != expected->arena_bytes || found->pieces != expected->pieces)
		return ty_fail(err, TY_INVALID, "slot table: of an arena of %" PRIu64 " bytes in %u pieces, expected %" PRIu64
			" in %u", found->arena_bytes, found->pieces, expected->arena_bytes, expected->pieces);
	if (found->arena_inode != expected->arena_inode)
		return ty_fail(err, TY_INVALID, "slot table: of another arena (inode %" PRIu64 ", expected %" PRIu64 ")",
			found->arena_inode, expected->arena_inode);
	return TY_OK;
}

/* ---- open and close ---------------------------------------------------------------------------------- */

/* Everything but the descriptor and the mapping; null: no memory. */
static struct ty_slots *make(const struct ty_arena *arena)
{
	struct ty_slots *slots = calloc(1, sizeof *slots + arena->pieces * sizeof slots->pieces[0]);

	if (!slots)
		return NULL;
	slots->fd = -1;
	slots->arena = arena;
	slots->piece_count = arena->pieces;
	slots->free_head = NO_PIECE;
	slots->memory_bytes = TY_SLOTS_RECORDS_AT + (size_t)arena->pieces * TY_SLOTS_PER_PIECE * sizeof *slots->table;
	memset(slots->class_head, 0xff, sizeof slots->class_head);
	return slots;
}

static bool map(struct ty_slots *slots)
{
	slots->memory = mmap(NULL, slots->memory_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, slots->fd, 0);
	if (slots->memory == MAP_FAILED) {
		slots->memory = NULL;
		return false;
	}
	slots->spaces = (struct ty_space_record *)(void *)((char *)slots->memory + TY_SLOTS_HEADER_BYTES);
	slots->table = (struct ty_slot_record *)(void *)((char *)slots->memory + TY_SLOTS_RECORDS_AT);
	slots->borrowers = (struct borrower *)(void *)((char *)slots->memory + BORROWERS_AT);
	return true;
}

static enum ty_code failed(const struct ty_arena *arena, const char *step, struct ty_error *err)
{
	return ty_fail(err, errno == ENOMEM ? TY_NO_MEMORY : TY_IO, "slot table of %u pieces: %s: %s", arena->pieces, step,
		strerror(errno));
}

enum ty_code ty_slots_open(const struct ty_arena *arena, struct ty_slots **out, struct ty_error *err)
{
	const char *step = "memory";
	struct ty_slots *slots = make(arena);
	struct header header;
	enum ty_code code = slots ? describe(arena, &header, err) : TY_OK;

	if (code != TY_OK) {
		ty_slots_close(slots);
		return code;
	}
	if (!slots)
		goto fail;
	step = "libsodium";
	errno = ENOSYS;
	if (sodium_init() < 0)
		goto fail;
	step = "memfd_create";
	slots->fd = memfd_create("tyer-slots", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (slots->fd < 0)
		goto fail;
	step = "ftruncate";
	if (ftruncate(slots->fd, (off_t)slots->memory_bytes) < 0)
		goto fail;
	step = "seal";
	if (fcntl(slots->fd, F_ADD_SEALS, TABLE_SEALS) < 0)
		goto fail;
	step = "mmap";
	if (!map(slots))
		goto fail;
	memcpy(slots->memory, &header, sizeof header);
	*out = slots;
	return TY_OK;

fail:
	code = failed(arena, step, err);
	ty_slots_close(slots);
	return code;
}

void ty_slots_close(struct ty_slots *slots)
{
	if (!slots)
		return;
	ty_slots_forget_found(slots);
	for (uint32_t i = 0; i < slots->piece_count; i++)
		free(slots->pieces[i].bits);
	if (slots->memory)
		munmap(slots->memory, slots->memory_bytes);
	if (slots->fd >= 0)
		close(slots->fd);
	free(slots);
}

int ty_slots_fd(const struct ty_slots *slots)
{
	return slots->fd;
}

struct ty_space_record *ty_slots_spaces(const struct ty_slots *slots, uint32_t *count)
{
	*count = slots->space_count;
	return slots->spaces;
}

/* ---- taking over ------------------------------------------------------------------------------------- */

/* A descriptor that was handed to us: memory that can no longer shrink, with a table of this version, of its size? */
static enum ty_code check_descriptor(const struct ty_slots *slots, int fd, struct ty_error *err)
{
	int seals = fcntl(fd, F_GET_SEALS);
	struct header header = {.version = 0};
	struct stat st;

	if (seals < 0 || !(seals & F_SEAL_SHRINK))
		return ty_fail(err, TY_INVALID, "slot table: the descriptor is no memfd that is sealed against shrinking");
	if (fstat(fd, &st) != 0 || pread(fd, &header, sizeof header, 0) < 0)
		return ty_fail(err, TY_IO, "slot table: reading the descriptor: %s", strerror(errno));
	if (st.st_size < (off_t)sizeof header)
		return ty_fail(err, TY_INVALID, "slot table: %lld bytes, expected %zu for %u pieces", (long long)st.st_size,
			slots->memory_bytes, slots->piece_count);
	if (memcmp(header.magic, MAGIC, sizeof header.magic) != 0)
		return ty_fail(err, TY_INVALID, "slot table: it does not begin with " MAGIC);
	if (header.version != VERSION) /* its size says nothing then */
		return ty_fail(err, TY_UNSUPPORTED, "slot table: version %u, expected %u", header.version, VERSION);
	if ((uint64_t)st.st_size != slots->memory_bytes)
		return ty_fail(err, TY_INVALID, "slot table: %lld bytes, expected %zu for %u pieces", (long long)st.st_size,
			slots->memory_bytes, slots->piece_count);
	return TY_OK;
}

/* One of the table's two lists of records. */
struct list {
	uint64_t at, size; /* where it begins in the memfd; bytes of a record, which never lies in two pages */
};

static const struct list space_list = {TY_SLOTS_HEADER_BYTES, TY_SPACE_BYTES};
static const struct list slot_list = {TY_SLOTS_RECORDS_AT, sizeof(struct ty_slot_record)};

/* The next records from *first on that were ever written to, up to `end`; reading others would make pages for them. */
static bool next_stretch(const struct ty_slots *slots, const struct list *list, uint64_t *first, uint64_t *last, uint64_t end)
{
	off_t data = lseek(slots->fd, (off_t)(list->at + *first * list->size), SEEK_DATA), hole;

	if (data < 0 || (uint64_t)data >= list->at + end * list->size)
		return false;
	hole = lseek(slots->fd, data, SEEK_HOLE);
	if (hole <= data) /* the end is a hole always */
		return false;
	*first = ((uint64_t)data - list->at) / list->size;
	*last = ((uint64_t)hole - list->at) / list->size;
	if (*last > end)
		*last = end;
	return true;
}

/* Is what a whole record says possible? */
static bool plausible(const struct ty_slot_record *record, uint32_t number)
{
	return record->state == TY_SLOT_READY && record->parts >= 1 && record->parts <= TY_CHUNK_MAX_PARTS &&
		record->part < record->parts && record->space <= TY_MAX_SPACES && record->length >= 1 && record->length <= TY_PIECE_BYTES &&
		number < ty_slots_a_piece(record->length);
}

/* Looks at one record, and clears it unless it may be believed. *contradicts: it says that the piece is cut in another way than
 * those before it said. TY_NO_MEMORY. */
static enum ty_code judge(struct ty_slots *slots, uint32_t slot, struct ty_slots_found *found, bool *contradicts)
{
	struct ty_slot_record *record = &slots->table[slot];
	struct piece *p = &slots->pieces[ty_slots_piece(slot)];
	uint32_t number = slot % TY_SLOTS_PER_PIECE;

	if (record_is_clear(record))
		return TY_OK;
	if (record->state == TY_SLOT_FREE || (record->state == TY_SLOT_FILLING && ty_slots_record_whole(record))) {
		found->unfinished++;
		if (slots->lent) /* and may be written to yet: it stays, for whoever comes after us */
			p->aside = true;
		else
			ty_slot_record_clear(record);
		return TY_OK;
	}
	if (!ty_slots_record_whole(record) || !plausible(record, number)) {
		found->damaged++;
		ty_slot_record_clear(record);
		return TY_OK;
	}
	if (!p->bits && !ty_piece_set_bits(p, ty_slots_a_piece(record->length)))
		return TY_NO_MEMORY;
	if (ty_slots_a_piece(record->length) != p->capacity) {
		*contradicts = true;
		found->damaged++;
		ty_slot_record_clear(record);
		return TY_OK;
	}
	ty_piece_take_bit(p, number);
	slots->used++;
	slots->used_bytes += record->length;
	found->ready++;
	if (record->sequence > slots->sequence)
		slots->sequence = record->sequence;
	return TY_OK;
}

static enum ty_code judge_piece(struct ty_slots *slots, uint32_t piece, struct ty_slots_found *found)
{
	uint64_t first = (uint64_t)piece * TY_SLOTS_PER_PIECE, end = first + TY_SLOTS_PER_PIECE, last;
	bool contradicts = false;
	enum ty_code code = TY_OK;

	for (; code == TY_OK && next_stretch(slots, &slot_list, &first, &last, end); first = last)
		for (uint64_t slot = first; slot < last && code == TY_OK; slot++)
			code = judge(slots, (uint32_t)slot, found, &contradicts);
	if (slots->pieces[piece].aside) {
		found->ready -= slots->pieces[piece].used;
		found->aside++;
		ty_slots_lose_piece(slots, piece);
	} else if (contradicts) { /* and nobody can say which of them are right */
		found->ready -= slots->pieces[piece].used;
		found->damaged += slots->pieces[piece].used;
		ty_slots_lose_piece(slots, piece);
	}
	return code;
}

/* ---- lending ------------------------------------------------------------------------------------------- */

/* When the process began, in ticks since boot; 0: there is none of this number. */
static uint64_t process_start(uint32_t pid)
{
	char path[32], text[512];
	unsigned long long start = 0;
	const char *at;
	ssize_t n;
	int fd;

	snprintf(path, sizeof path, "/proc/%u/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
	if (fd >= 0)
		close(fd);
	text[n > 0 ? n : 0] = '\0';
	at = strrchr(text, ')'); /* the end of its name, the 2nd field, which may be anything; the 22nd is its start */
	for (int field = 2; at && field < 22; field++)
		at = strchr(at + 1, ' ');
	return at && sscanf(at, " %llu", &start) == 1 ? start : 0;
}

/* Those of the process before: is any of them still there? */
static bool look_at_borrowers(struct ty_slots *slots)
{
	bool any = false;

	for (uint32_t i = 0; i < TY_BORROWERS; i++) {
		struct borrower *b = &slots->borrowers[i];
		uint32_t pid = atomic_load_explicit(&b->pid, memory_order_relaxed);

		slots->inherited[i] = pid && process_start(pid) == b->start;
		any |= slots->inherited[i];
		if (!slots->inherited[i])
			atomic_store_explicit(&b->pid, 0, memory_order_relaxed);
	}
	return any;
}

uint32_t ty_slots_lend(struct ty_slots *slots, uint32_t pid)
{
	uint64_t start = process_start(pid);

	for (uint32_t i = 0; start && i < TY_BORROWERS; i++) /* of the process before ours: it has come back */
		if (slots->borrowers[i].start == start &&
			atomic_load_explicit(&slots->borrowers[i].pid, memory_order_relaxed) == pid)
			return i;
	for (uint32_t i = 0; start && i < TY_BORROWERS; i++) {
		struct borrower *b = &slots->borrowers[i];
		uint32_t was = atomic_load_explicit(&b->pid, memory_order_relaxed);

		if (was && (!slots->inherited[i] || process_start(was) == b->start))
			continue;
		slots->inherited[i] = false;
		b->start = start;
		/* release: the number last, for a process that finds the table */
		atomic_store_explicit(&b->pid, pid, memory_order_release);
		return i;
	}
	return TY_BORROWERS;
}

void ty_slots_lent_over(struct ty_slots *slots, uint32_t place, bool ended)
{
	assert(place < TY_BORROWERS);
	if (slots->inherited[place] && !ended) /* what the process before ours lent it we do not know: another owner may have it still */
		return;
	slots->inherited[place] = false;
	atomic_store_explicit(&slots->borrowers[place].pid, 0, memory_order_release);
}

static int younger_slot(const void *a, const void *b, void *user)
{
	const struct ty_slot_record *table = user;
	uint64_t x = table[*(const uint32_t *)a].sequence, y = table[*(const uint32_t *)b].sequence;

	return x < y ? 1 : x > y ? -1 : 0;
}

static int younger_piece(const void *a, const void *b, void *user)
{
	const struct ty_found_piece *x = a, *y = b;

	return younger_slot(x->slots, y->slots, user);
}

/* Write down what was found, in the order in which it is to come back. */
static enum ty_code list_found(struct ty_slots *slots)
{
	uint32_t pieces = 0, *next;

	for (uint32_t piece = 0; piece < slots->piece_count; piece++)
		pieces += slots->pieces[piece].used != 0;
	if (!pieces)
		return TY_OK;
	slots->found = calloc(pieces, sizeof *slots->found);
	next = slots->found_slots = calloc(slots->used, sizeof *slots->found_slots);
	if (!slots->found || !slots->found_slots)
		return TY_NO_MEMORY;
	for (uint32_t piece = 0; piece < slots->piece_count; piece++) {
		const struct piece *p = &slots->pieces[piece];
		struct ty_found_piece *f = &slots->found[slots->found_count];

		if (!p->used)
			continue;
		slots->found_count++;
		*f = (struct ty_found_piece){.piece = piece, .count = p->used, .slots = next};
		for (uint32_t number = 0; number < p->capacity; number++)
			if (!(p->bits[number / WORD_BITS] >> number % WORD_BITS & 1))
				*next++ = piece * TY_SLOTS_PER_PIECE + number;
		qsort_r(f->slots, f->count, sizeof *f->slots, younger_slot, slots->table);
	}
	qsort_r(slots->found, slots->found_count, sizeof *slots->found, younger_piece, slots->table);
	return TY_OK;
}

/* Namespaces that nothing which was found belongs to may be given to others. One that something belongs to, and that is not
 * whole, may not: its number stays without an identity. */
static void judge_spaces(struct ty_slots *slots, struct ty_slots_found *found)
{
	bool needed[TY_MAX_SPACES + 1] = {false};
	uint64_t first = 0, last;

	for (uint32_t i = 0; i < slots->found_count; i++)
		for (uint32_t k = 0; k < slots->found[i].count; k++)
			needed[slots->table[slots->found[i].slots[k]].space] = true;
	for (; next_stretch(slots, &space_list, &first, &last, TY_MAX_SPACES); first = last)
		for (uint64_t i = first; i < last; i++)
			if (!needed[i + 1] && !ty_space_is_clear(&slots->spaces[i]))
				ty_space_clear(&slots->spaces[i]);
	for (uint32_t i = 0; i < TY_MAX_SPACES; i++) {
		if (!needed[i + 1])
			continue;
		slots->space_count = i + 1;
		if (!ty_space_is_whole(&slots->spaces[i])) {
			ty_space_spoil(&slots->spaces[i]);
			found->nameless++;
		}
	}
}

enum ty_code ty_slots_adopt(const struct ty_arena *arena, int fd, struct ty_slots **out, struct ty_slots_found *found,
	struct ty_error *err)
{
	struct ty_slots *slots = make(arena);
	struct header expected, header;
	enum ty_code code;

	memset(found, 0, sizeof *found);
	if (!slots)
		return ty_fail(err, TY_NO_MEMORY, "slot table of %u pieces: memory", arena->pieces);
	code = sodium_init() < 0 ? ty_fail(err, TY_INTERNAL, "slot table: libsodium does not start")
				 : describe(arena, &expected, err);
	if (code == TY_OK)
		code = check_descriptor(slots, fd, err);
	if (code == TY_OK) {
		slots->fd = fd;
		if (!map(slots))
			code = failed(arena, "mmap", err);
	}
	if (code == TY_OK) {
		memcpy(&header, slots->memory, sizeof header);
		code = check_header(&header, &expected, err);
	}
	if (code == TY_OK)
		slots->lent = look_at_borrowers(slots);
	for (uint32_t piece = 0; code == TY_OK && piece < slots->piece_count; piece++) {
		uint64_t first = (uint64_t)piece * TY_SLOTS_PER_PIECE, last;

		if (!next_stretch(slots, &slot_list, &first, &last, (uint64_t)slots->piece_count * TY_SLOTS_PER_PIECE))
			break;
		piece = (uint32_t)(first / TY_SLOTS_PER_PIECE);
		code = judge_piece(slots, piece, found);
	}
	if (code == TY_OK)
		code = list_found(slots);
	if (code == TY_OK)
		judge_spaces(slots, found);
	if (code != TY_OK) {
		if (code == TY_NO_MEMORY)
			(void)ty_fail(err, code, "slot table of %u pieces: no memory to take it over", arena->pieces);
		slots->fd = -1; /* still the caller's */
		ty_slots_close(slots);
		return code;
	}
	*out = slots;
	return TY_OK;
}

const struct ty_found_piece *ty_slots_found(const struct ty_slots *slots, uint32_t *count)
{
	*count = slots->found_count;
	return slots->found;
}

void ty_slots_forget_found(struct ty_slots *slots)
{
	free(slots->found);
	free(slots->found_slots);
	slots->found = NULL;
	slots->found_slots = NULL;
	slots->found_count = 0;
}
