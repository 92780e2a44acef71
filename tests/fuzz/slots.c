/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include <sodium.h>
#include <unistd.h>

#include "cache/slots_private.h"
#include "fuzz.h"

#define RECORD sizeof(struct ty_slot_record)
#define HEADER 72 /* of the table's first page, as much as has a meaning */

/* A slot table as a process that died, or a disk that lied, left it. The input: a byte, whose bit 0 says that 72 bytes over the
 * header follow; then records, each of two bytes that name a slot, one whose bit 0 says that its check is to fit, and 64. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct ty_arena arena;
	struct ty_slots *slots, *adopted = NULL;
	struct ty_slots_found found;
	struct ty_error err = {.text = ""};
	uint32_t pieces, listed = 0;
	enum ty_code code;
	size_t at = 1;
	int fd;

	if (arena.base == NULL)
		FUZZ_CHECK(sodium_init() >= 0 && ty_arena_open(TY_PIECE_BYTES, &arena, NULL) == TY_OK);
	FUZZ_CHECK(ty_slots_open(&arena, &slots, NULL) == TY_OK);
	fd = dup(ty_slots_fd(slots));
	ty_slots_close(slots);
	FUZZ_CHECK(fd >= 0);
	if (size > 0 && (data[0] & 1) && size - at >= HEADER) {
		FUZZ_CHECK(pwrite(fd, data + at, HEADER, 0) == HEADER);
		at += HEADER;
	}
	for (; size > at && size - at >= 3 + RECORD; at += 3 + RECORD) {
		uint32_t slot = (data[at] | (uint32_t)data[at + 1] << 8) % TY_SLOTS_PER_PIECE;
		struct ty_slot_record record, checked = {.state = TY_SLOT_FREE};

		memcpy(&record, data + at + 3, RECORD);
		if (data[at + 2] & 1) {
			ty_slot_record_write(&checked, &record);
			record = checked;
		}
		FUZZ_CHECK(pwrite(fd, &record, RECORD, (off_t)(TY_SLOTS_RECORDS_AT + slot * RECORD)) == (ssize_t)RECORD);
	}
	code = ty_slots_adopt(&arena, fd, &adopted, &found, &err);
	if (code != TY_OK) {
		FUZZ_CHECK(err.text[0] != '\0');
		close(fd);
		return 0;
	}
	for (uint32_t p = 0; p < (ty_slots_found(adopted, &pieces), pieces); p++) {
		const struct ty_found_piece *piece = &ty_slots_found(adopted, &pieces)[p];

		FUZZ_CHECK(piece->piece == 0);
		for (uint32_t i = 0; i < piece->count; i++) {
			const struct ty_slot_record *r = ty_slots_record(adopted, piece->slots[i]);
			uint8_t *address = ty_slots_address(adopted, piece->slots[i]);

			FUZZ_CHECK(r->state == TY_SLOT_READY && ty_slots_record_whole(r) && r->length > 0 && r->part < r->parts);
			FUZZ_CHECK(address >= arena.base && address + r->length <= arena.base + TY_PIECE_BYTES);
			listed++;
		}
	}
	FUZZ_CHECK(listed == found.ready);
	ty_slots_add_piece(adopted, 0);
	ty_slots_forget_found(adopted);
	FUZZ_CHECK(ty_slots_used(adopted) == found.ready);
	ty_slots_close(adopted);
	return 0;
}

size_t fuzz_seed(unsigned index, uint8_t *bytes)
{
	uint8_t *at = bytes;

	if (index >= 5)
		return SIZE_MAX;
	*at++ = index == 4;
	if (index == 4) {
		memcpy(at, "TYERSLOT", 8);
		memset(at + 8, 0, HEADER - 8);
		at += HEADER;
	}
	for (uint32_t i = 0; i < index * 3; i++) {
		struct ty_slot_record r = {.state = i % 3, .part = (uint8_t)(i % 2), .parts = 2, .length = 65536, .sequence = i + 1};

		r.key.bytes[0] = (uint8_t)(i / 2);
		*at++ = (uint8_t)i;
		*at++ = 0;
		*at++ = 1;
		memcpy(at, &r, RECORD);
		at += RECORD;
	}
	return (size_t)(at - bytes);
}
