/* SPDX-License-Identifier: Apache-2.0
 *
 * Two structures side by side. The table (shared memory) says what each slot holds and is all that a later process
 * needs. The pieces (private memory) say what is free: a bitmap a piece, with a word of bits above it, so that the lowest
 * free slot is two bit scans away; it can be rebuilt from the table at any time.
 */
#include "slots_private.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static bool slot_is_free(const struct piece *p, uint32_t number)
{
	return p->bits[number / WORD_BITS] >> number % WORD_BITS & 1;
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
	struct piece *p = &slots->pieces[piece];

	assert(piece < slots->piece_count && p->state == PIECE_ABSENT);
	p->state = p->bits ? PIECE_CUT : PIECE_FREE;
	atomic_store_explicit(&p->usable, true, memory_order_release); /* pairs with ty_slots_usable */
	if (p->state == PIECE_FREE) {
		list_push(slots, &slots->free_head, piece);
		slots->free_count++;
	} else if (p->used < p->capacity) {
		list_push(slots, &slots->class_head[p->capacity], piece);
	}
}

bool ty_slots_usable(const struct ty_slots *slots, uint32_t piece)
{
	/* acquire: the piece's pages are there; pairs with ty_slots_add_piece */
	return atomic_load_explicit(&slots->pieces[piece].usable, memory_order_acquire);
}

bool ty_slots_aside(const struct ty_slots *slots, uint32_t piece)
{
	return slots->pieces[piece].aside;
}

void ty_slots_lose_piece(struct ty_slots *slots, uint32_t piece)
{
	struct piece *p = &slots->pieces[piece];

	assert(piece < slots->piece_count && p->state == PIECE_ABSENT);
	for (uint32_t number = 0; p->bits && number < p->capacity; number++) {
		struct ty_slot_record *record = &slots->table[piece * TY_SLOTS_PER_PIECE + number];

		if (slot_is_free(p, number))
			continue;
		slots->used--;
		slots->used_bytes -= record->length;
		ty_slot_record_clear(record);
	}
	free(p->bits);
	p->bits = NULL;
	p->capacity = p->class_bytes = p->used = 0;
}

/* ---- classes ---- */

uint32_t ty_slots_a_piece(uint64_t bytes)
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
	return class_bytes(ty_slots_a_piece(bytes));
}

static uint32_t bit_words(uint32_t capacity)
{
	return (capacity + WORD_BITS - 1) / WORD_BITS;
}

bool ty_piece_set_bits(struct piece *p, uint32_t capacity)
{
	uint32_t words = bit_words(capacity);

	p->bits = malloc(words * sizeof *p->bits);
	if (!p->bits)
		return false;
	memset(p->bits, 0xff, words * sizeof *p->bits);
	if (capacity % WORD_BITS)
		p->bits[words - 1] = (UINT64_C(1) << capacity % WORD_BITS) - 1;
	memset(p->summary, 0, sizeof p->summary);
	for (uint32_t i = 0; i < words; i++)
		p->summary[i / WORD_BITS] |= UINT64_C(1) << i % WORD_BITS;
	p->capacity = capacity;
	p->class_bytes = class_bytes(capacity);
	p->used = 0;
	return true;
}

/* A free piece becomes one of this class; NO_PIECE: there is none, or no memory for its bits. */
static uint32_t cut_piece(struct ty_slots *slots, uint32_t capacity)
{
	uint32_t piece = slots->free_head;

	if (piece == NO_PIECE || !ty_piece_set_bits(&slots->pieces[piece], capacity))
		return NO_PIECE;
	list_take_out(slots, &slots->free_head, piece);
	slots->free_count--;
	slots->pieces[piece].state = PIECE_CUT;
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

void ty_piece_take_bit(struct piece *p, uint32_t number)
{
	uint32_t word = number / WORD_BITS;

	p->bits[word] &= ~(UINT64_C(1) << number % WORD_BITS);
	if (!p->bits[word])
		p->summary[word / WORD_BITS] &= ~(UINT64_C(1) << word % WORD_BITS);
	p->used++;
}

static uint32_t take_lowest_bit(struct piece *p)
{
	for (uint32_t i = 0; i < SUMMARY_WORDS; i++) {
		uint32_t word, number;

		if (!p->summary[i])
			continue;
		word = i * WORD_BITS + (uint32_t)__builtin_ctzll(p->summary[i]);
		number = word * WORD_BITS + (uint32_t)__builtin_ctzll(p->bits[word]);
		ty_piece_take_bit(p, number);
		return number;
	}
	assert(false && "a piece in its class's list has room");
	return 0;
}

/* The piece of a slot that is taken; anything else is a bug of the caller's. */
static struct piece *taken_piece(const struct ty_slots *slots, uint32_t slot)
{
	uint32_t piece = ty_slots_piece(slot), number = slot % TY_SLOTS_PER_PIECE;
	const struct piece *p;

	assert(piece < slots->piece_count);
	p = &slots->pieces[piece];
	assert(p->bits && number < p->capacity && !slot_is_free(p, number));
	return (struct piece *)p;
}

uint32_t ty_slots_take(struct ty_slots *slots, uint64_t bytes, const struct ty_key *key, uint32_t part, uint32_t parts,
	uint16_t space)
{
	uint32_t capacity = ty_slots_a_piece(bytes), piece = slots->class_head[capacity], slot;
	struct ty_slot_record record = {.state = TY_SLOT_FILLING, .space = space, .length = (uint32_t)bytes, .key = *key};
	struct piece *p;

	assert(parts <= TY_CHUNK_MAX_PARTS && part < parts && space <= TY_MAX_SPACES);
	record.part = (uint8_t)part;
	record.parts = (uint8_t)parts;
	if (piece == NO_PIECE)
		piece = cut_piece(slots, capacity);
	if (piece == NO_PIECE)
		return TY_NO_SLOT;
	p = &slots->pieces[piece];
	slot = piece * TY_SLOTS_PER_PIECE + take_lowest_bit(p);
	if (p->used == p->capacity)
		list_take_out(slots, &slots->class_head[capacity], piece);
	slots->used++;
	slots->used_bytes += bytes;
	ty_slot_record_write(&slots->table[slot], &record);
	return slot;
}

void ty_slots_commit(struct ty_slots *slots, uint32_t slot, uint64_t checksum)
{
	struct ty_slot_record record = *ty_slots_record(slots, slot);

	assert(record.state == TY_SLOT_FILLING);
	record.state = TY_SLOT_READY;
	record.sequence = ++slots->sequence;
	atomic_init(&record.checksum, checksum);
	ty_slot_record_write(&slots->table[slot], &record);
}

void ty_slots_set_checksum(struct ty_slots *slots, uint32_t slot, uint64_t checksum)
{
	assert(ty_slots_record(slots, slot)->state == TY_SLOT_READY);
	atomic_store_explicit(&slots->table[slot].checksum, checksum, memory_order_relaxed);
}

uint64_t ty_slots_checksum(const struct ty_slots *slots, uint32_t slot)
{
	return atomic_load_explicit(&slots->table[slot].checksum, memory_order_relaxed);
}

void ty_slots_give(struct ty_slots *slots, uint32_t slot)
{
	struct piece *p = taken_piece(slots, slot);
	uint32_t piece = ty_slots_piece(slot), number = slot % TY_SLOTS_PER_PIECE, word = number / WORD_BITS;

	assert(p->state == PIECE_CUT);
	slots->used--;
	slots->used_bytes -= slots->table[slot].length;
	ty_slot_record_clear(&slots->table[slot]);
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

const struct ty_slot_record *ty_slots_held(const struct ty_slots *slots, uint32_t slot)
{
	assert(ty_slots_piece(slot) < slots->piece_count && slots->table[slot].state == TY_SLOT_READY);
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

uint32_t ty_slots_next(const struct ty_slots *slots, uint32_t from, uint32_t *budget, uint32_t *at)
{
	uint32_t piece = ty_slots_piece(from), number = from % TY_SLOTS_PER_PIECE;

	for (; piece < slots->piece_count && *budget; piece++, number = 0) {
		const struct piece *p = &slots->pieces[piece];

		if (p->state != PIECE_CUT)
			(*budget)--; /* a piece costs something too */
		for (; p->state == PIECE_CUT && number < p->capacity && *budget; number++) {
			(*budget)--;
			if (!slot_is_free(p, number)) {
				*at = piece * TY_SLOTS_PER_PIECE + number + 1;
				return piece * TY_SLOTS_PER_PIECE + number;
			}
		}
		if (p->state == PIECE_CUT && number < p->capacity)
			break;
	}
	*at = piece < slots->piece_count ? piece * TY_SLOTS_PER_PIECE + number : TY_NO_SLOT;
	return TY_NO_SLOT;
}
