/* SPDX-License-Identifier: Apache-2.0
 *
 * Two structures side by side. The table (shared memory) says what each slot holds and is all that a later process
 * needs. The pieces (private memory) say what is free: a bitmap a piece, with a word of bits above it, so that the lowest
 * free slot is two bit scans away; it can be rebuilt from the table at any time.
 */
#include "slots.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static_assert(sizeof(struct ty_slot_record) == 64, "the table's layout is shared with later processes");

#define NO_PIECE UINT32_MAX
#define WORD_BITS 64u
#define SUMMARY_WORDS (TY_SLOTS_PER_PIECE / WORD_BITS / WORD_BITS)
#define TABLE_SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

enum piece_state { PIECE_ABSENT, PIECE_FREE, PIECE_CUT };

struct piece {
	uint64_t *bits;          /* 1 = free; null unless the piece is cut */
	uint64_t summary[SUMMARY_WORDS]; /* bit i: bits[i] is not 0 */
	uint32_t class_bytes;    /* of its slots, at most 64 MiB */
	uint32_t capacity, used; /* slots */
	uint32_t previous, next; /* in its list: of the free pieces, or of its class, if it has room */
	enum piece_state state;
};

struct ty_slots {
	const struct ty_arena *arena;
	struct ty_slot_record *table;
	size_t table_bytes;
	int fd;
	uint32_t piece_count, free_count, free_head;
	uint32_t used;
	uint64_t used_bytes, sequence;
	/* First piece with room, by slots a piece. Most of these pages are never touched. */
	uint32_t class_head[TY_SLOTS_PER_PIECE + 1];
	struct piece pieces[];
};

/* SipHash with a fixed key: it finds torn and scribbled records, it authenticates nothing. */
static uint32_t record_check(const struct ty_slot_record *record)
{
	static const unsigned char key[crypto_shorthash_KEYBYTES] = "tyer.slot.v2";
	struct ty_slot_record copy = *record;
	uint64_t check;

	copy.check = 0;
	static_assert(sizeof check == crypto_shorthash_BYTES, "one word");
	crypto_shorthash((unsigned char *)&check, (const unsigned char *)&copy, sizeof copy, key);
	return (uint32_t)check;
}

bool ty_slots_record_whole(const struct ty_slot_record *record)
{
	static const struct ty_slot_record zeros;

	return memcmp(record, &zeros, sizeof zeros) == 0 || record->check == record_check(record);
}

/* `state` goes first to FREE and is set last, in program order: the fences are for the compiler, which is all it takes for
 * a process that finds the table after this one died. Nobody reads the table at the same time. */
static void record_write(struct ty_slot_record *to, const struct ty_slot_record *from)
{
	to->state = TY_SLOT_FREE;
	atomic_signal_fence(memory_order_release);
	to->part = from->part;
	to->parts = from->parts;
	to->length = from->length;
	to->key = from->key;
	to->sequence = from->sequence;
	to->checksum = from->checksum;
	to->check = record_check(from);
	atomic_signal_fence(memory_order_release);
	to->state = from->state;
}

enum ty_code ty_slots_open(const struct ty_arena *arena, struct ty_slots **out, struct ty_error *err)
{
	const char *step = "memory";
	struct ty_slots *slots = calloc(1, sizeof *slots + arena->pieces * sizeof slots->pieces[0]);
	enum ty_code code;

	if (!slots)
		goto fail;
	slots->fd = -1;
	slots->arena = arena;
	slots->piece_count = arena->pieces;
	slots->free_head = NO_PIECE;
	slots->table_bytes = (size_t)arena->pieces * TY_SLOTS_PER_PIECE * sizeof *slots->table;
	memset(slots->class_head, 0xff, sizeof slots->class_head);
	step = "libsodium";
	errno = ENOSYS;
	if (sodium_init() < 0)
		goto fail;
	step = "memfd_create";
	slots->fd = memfd_create("tyer-slots", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (slots->fd < 0)
		goto fail;
	step = "ftruncate";
	if (ftruncate(slots->fd, (off_t)slots->table_bytes) < 0)
		goto fail;
	step = "seal";
	if (fcntl(slots->fd, F_ADD_SEALS, TABLE_SEALS) < 0)
		goto fail;
	step = "mmap";
	slots->table = mmap(NULL, slots->table_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, slots->fd, 0);
	if (slots->table == MAP_FAILED) {
		slots->table = NULL;
		goto fail;
	}
	*out = slots;
	return TY_OK;

fail:
	code = ty_fail(err, errno == ENOMEM ? TY_NO_MEMORY : TY_IO, "slot table of %u pieces: %s: %s", arena->pieces,
		step, strerror(errno));
	ty_slots_close(slots);
	return code;
}

void ty_slots_close(struct ty_slots *slots)
{
	if (!slots)
		return;
	for (uint32_t i = 0; i < slots->piece_count; i++)
		free(slots->pieces[i].bits);
	if (slots->table)
		munmap(slots->table, slots->table_bytes);
	if (slots->fd >= 0)
		close(slots->fd);
	free(slots);
}

/* ---- lists of pieces ---- */

static void list_push(struct ty_slots *slots, uint32_t *head, uint32_t piece)
{
	slots->pieces[piece].previous = NO_PIECE;
	slots->pieces[piece].next = *head;
	if (*head != NO_PIECE)
		slots->pieces[*head].previous = piece;
	*head = piece;
}

static void list_take_out(struct ty_slots *slots, uint32_t *head, uint32_t piece)
{
	struct piece *p = &slots->pieces[piece];

	if (p->previous != NO_PIECE)
		slots->pieces[p->previous].next = p->next;
	else
		*head = p->next;
	if (p->next != NO_PIECE)
		slots->pieces[p->next].previous = p->previous;
}

void ty_slots_add_piece(struct ty_slots *slots, uint32_t piece)
{
	assert(piece < slots->piece_count && slots->pieces[piece].state == PIECE_ABSENT);
	slots->pieces[piece].state = PIECE_FREE;
	list_push(slots, &slots->free_head, piece);
	slots->free_count++;
}

/* ---- classes ---- */

static uint32_t slots_a_piece(uint64_t bytes)
{
	uint64_t rounded;

	assert(bytes >= 1 && bytes <= TY_PIECE_BYTES);
	rounded = (bytes + TY_SLOT_ALIGN - 1) / TY_SLOT_ALIGN * TY_SLOT_ALIGN;
	return (uint32_t)(TY_PIECE_BYTES / rounded);
}

static uint32_t class_bytes(uint32_t capacity)
{
	return (uint32_t)(TY_PIECE_BYTES / capacity / TY_SLOT_ALIGN * TY_SLOT_ALIGN);
}

uint64_t ty_slots_class_of(uint64_t bytes)
{
	return class_bytes(slots_a_piece(bytes));
}

static uint32_t bit_words(uint32_t capacity)
{
	return (capacity + WORD_BITS - 1) / WORD_BITS;
}

/* A free piece becomes one of this class; NO_PIECE: there is none, or no memory for its bits. */
static uint32_t cut_piece(struct ty_slots *slots, uint32_t capacity)
{
	uint32_t words = bit_words(capacity), piece = slots->free_head;
	struct piece *p;

	if (piece == NO_PIECE)
		return NO_PIECE;
	p = &slots->pieces[piece];
	p->bits = malloc(words * sizeof *p->bits);
	if (!p->bits)
		return NO_PIECE;
	memset(p->bits, 0xff, words * sizeof *p->bits);
	if (capacity % WORD_BITS)
		p->bits[words - 1] = (UINT64_C(1) << capacity % WORD_BITS) - 1;
	memset(p->summary, 0, sizeof p->summary);
	for (uint32_t i = 0; i < words; i++)
		p->summary[i / WORD_BITS] |= UINT64_C(1) << i % WORD_BITS;
	list_take_out(slots, &slots->free_head, piece);
	slots->free_count--;
	p->state = PIECE_CUT;
	p->capacity = capacity;
	p->class_bytes = class_bytes(capacity);
	p->used = 0;
	list_push(slots, &slots->class_head[capacity], piece);
	return piece;
}

static void melt_piece(struct ty_slots *slots, uint32_t piece)
{
	struct piece *p = &slots->pieces[piece];

	list_take_out(slots, &slots->class_head[p->capacity], piece);
	free(p->bits);
	p->bits = NULL;
	p->capacity = p->class_bytes = 0;
	p->state = PIECE_FREE;
	list_push(slots, &slots->free_head, piece);
	slots->free_count++;
}

static uint32_t take_bit(struct piece *p)
{
	for (uint32_t i = 0; i < SUMMARY_WORDS; i++) {
		uint32_t word, bit;

		if (!p->summary[i])
			continue;
		word = i * WORD_BITS + (uint32_t)__builtin_ctzll(p->summary[i]);
		bit = (uint32_t)__builtin_ctzll(p->bits[word]);
		p->bits[word] &= ~(UINT64_C(1) << bit);
		if (!p->bits[word])
			p->summary[i] &= ~(UINT64_C(1) << word % WORD_BITS);
		return word * WORD_BITS + bit;
	}
	assert(false && "a piece in its class's list has room");
	return 0;
}

static bool slot_is_free(const struct piece *p, uint32_t number)
{
	return p->bits[number / WORD_BITS] >> number % WORD_BITS & 1;
}

/* The piece of a slot that is taken; anything else is a bug of the caller's. */
static struct piece *taken_piece(const struct ty_slots *slots, uint32_t slot)
{
	uint32_t piece = ty_slots_piece(slot), number = slot % TY_SLOTS_PER_PIECE;
	const struct piece *p;

	assert(piece < slots->piece_count);
	p = &slots->pieces[piece];
	assert(p->state == PIECE_CUT && number < p->capacity && !slot_is_free(p, number));
	return (struct piece *)p;
}

uint32_t ty_slots_take(struct ty_slots *slots, uint64_t bytes, const struct ty_key *key, uint32_t part, uint32_t parts)
{
	uint32_t capacity = slots_a_piece(bytes), piece = slots->class_head[capacity], slot;
	struct ty_slot_record record = {.state = TY_SLOT_FILLING, .length = (uint32_t)bytes, .key = *key};
	struct piece *p;

	assert(parts <= UINT16_MAX && part < parts);
	record.part = (uint16_t)part;
	record.parts = (uint16_t)parts;
	if (piece == NO_PIECE)
		piece = cut_piece(slots, capacity);
	if (piece == NO_PIECE)
		return TY_NO_SLOT;
	p = &slots->pieces[piece];
	slot = piece * TY_SLOTS_PER_PIECE + take_bit(p);
	if (++p->used == p->capacity)
		list_take_out(slots, &slots->class_head[capacity], piece);
	slots->used++;
	slots->used_bytes += bytes;
	record_write(&slots->table[slot], &record);
	return slot;
}

void ty_slots_commit(struct ty_slots *slots, uint32_t slot, uint64_t checksum)
{
	struct ty_slot_record record = *ty_slots_record(slots, slot);

	assert(record.state == TY_SLOT_FILLING);
	record.state = TY_SLOT_READY;
	record.sequence = ++slots->sequence;
	record.checksum = checksum;
	record_write(&slots->table[slot], &record);
}

void ty_slots_give(struct ty_slots *slots, uint32_t slot)
{
	struct piece *p = taken_piece(slots, slot);
	uint32_t piece = ty_slots_piece(slot), number = slot % TY_SLOTS_PER_PIECE, word = number / WORD_BITS;
	static const struct ty_slot_record zeros;

	slots->used--;
	slots->used_bytes -= slots->table[slot].length;
	record_write(&slots->table[slot], &zeros);
	slots->table[slot].check = 0;
	p->bits[word] |= UINT64_C(1) << number % WORD_BITS;
	p->summary[word / WORD_BITS] |= UINT64_C(1) << word % WORD_BITS;
	if (p->used-- == p->capacity)
		list_push(slots, &slots->class_head[p->capacity], piece);
	if (p->used == 0)
		melt_piece(slots, piece);
}

uint8_t *ty_slots_address(const struct ty_slots *slots, uint32_t slot)
{
	/* class_bytes was written before the slot came to whoever asks, and stays while it is held. */
	const struct piece *p = &slots->pieces[ty_slots_piece(slot)];

	assert(ty_slots_piece(slot) < slots->piece_count && slot % TY_SLOTS_PER_PIECE < p->capacity);
	return slots->arena->base + ty_slots_piece(slot) * TY_PIECE_BYTES +
		(uint64_t)(slot % TY_SLOTS_PER_PIECE) * p->class_bytes;
}

const struct ty_slot_record *ty_slots_record(const struct ty_slots *slots, uint32_t slot)
{
	(void)taken_piece(slots, slot);
	return &slots->table[slot];
}

uint32_t ty_slots_piece(uint32_t slot)
{
	return slot / TY_SLOTS_PER_PIECE;
}

uint64_t ty_slots_class(const struct ty_slots *slots, uint32_t slot)
{
	return taken_piece(slots, slot)->class_bytes;
}

uint32_t ty_slots_free_pieces(const struct ty_slots *slots)
{
	return slots->free_count;
}

uint32_t ty_slots_used(const struct ty_slots *slots)
{
	return slots->used;
}

uint64_t ty_slots_used_bytes(const struct ty_slots *slots)
{
	return slots->used_bytes;
}

void ty_slots_each_in_piece(const struct ty_slots *slots, uint32_t piece, bool (*visit)(void *user, uint32_t slot),
	void *user)
{
	const struct piece *p = &slots->pieces[piece];

	assert(piece < slots->piece_count);
	/* Looked at anew each time: a visit may empty the piece, which ends its being cut at all. */
	for (uint32_t number = 0; p->state == PIECE_CUT && number < p->capacity; number++)
		if (!slot_is_free(p, number) && !visit(user, piece * TY_SLOTS_PER_PIECE + number))
			return;
}
