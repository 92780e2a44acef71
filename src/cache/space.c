/* SPDX-License-Identifier: Apache-2.0 */
#include "space.h"

#include <assert.h>
#include <string.h>

#include "checksum.h"

static_assert(sizeof(struct ty_space_record) == TY_SPACE_BYTES, "the table's layout is shared with later processes");

/* ---- a record ------------------------------------------------------------------------------------------ */

static const struct ty_space_record clear;

bool ty_space_is_clear(const struct ty_space_record *record)
{
	return memcmp(record, &clear, sizeof clear) == 0;
}

bool ty_space_is_whole(const struct ty_space_record *record)
{
	const struct ty_identity *id = &record->identity;
	struct ty_identity said; /* no field is read past its end: the longest is too long */

	return record->check == ty_checksum(id, sizeof *id) &&
	       ty_identity_set(&said, id->tenant, id->model, id->revision, id->dtype, id->quantization, NULL) == TY_OK;
}

void ty_space_clear(struct ty_space_record *record)
{
	memset(record, 0, sizeof *record);
}

void ty_space_spoil(struct ty_space_record *record)
{
	ty_space_clear(record);
	record->unused[0] = 1; /* not clear; and its check, 0, is no identity's */
}

/* `check` goes first to 0 and is set last, in program order: the fence is for the compiler, which is all it takes for a process
 * that finds the record after this one died. */
static void write_record(struct ty_space_record *record, const struct ty_identity *identity)
{
	ty_space_clear(record);
	record->identity = *identity;
	atomic_signal_fence(memory_order_release);
	record->check = ty_checksum(&record->identity, sizeof record->identity);
}

/* ---- numbers ------------------------------------------------------------------------------------------- */

void ty_spaces_open(struct ty_spaces *spaces, struct ty_space_record *records, uint32_t count)
{
	assert(count <= TY_MAX_SPACES);
	spaces->records = records;
	spaces->count = count;
	for (uint32_t i = 0; i < count; i++)
		atomic_init(&spaces->identity[i], ty_space_is_whole(&records[i]) ? &records[i].identity : NULL);
}

size_t ty_space_user(const char *tenant)
{
	static const char word[] = "uid ";
	size_t digits;

	if (strncmp(tenant, word, sizeof word - 1) != 0)
		return 0;
	digits = strspn(tenant + sizeof word - 1, "0123456789");
	return digits && !strncmp(tenant + sizeof word - 1 + digits, ": ", 2) ? sizeof word - 1 + digits + 2 : 0;
}

uint16_t ty_spaces_number_of(struct ty_spaces *spaces, const struct ty_identity *identity, const char *whose, bool shared)
{
	uint32_t next = spaces->count, known_count = 0, its = 0;
	size_t length = strlen(whose);

	for (uint32_t i = spaces->count; i-- > 0;) {
		const struct ty_identity *known = atomic_load_explicit(&spaces->identity[i], memory_order_relaxed);

		if (known && ty_identity_is(known, identity))
			return (uint16_t)(i + 1);
		if (!known && ty_space_is_clear(&spaces->records[i])) {
			next = i;
			continue;
		}
		known_count++;
		its += known && !strncmp(known->tenant, whose, length);
	}
	if (next == TY_MAX_SPACES || (shared && its && its >= TY_MAX_SPACES - known_count))
		return 0;
	write_record(&spaces->records[next], identity);
	/* release: pairs with ty_spaces_identity */
	atomic_store_explicit(&spaces->identity[next], &spaces->records[next].identity, memory_order_release);
	if (next == spaces->count)
		spaces->count++;
	return (uint16_t)(next + 1);
}

uint16_t ty_spaces_number(struct ty_spaces *spaces, const struct ty_identity *identity)
{
	return ty_spaces_number_of(spaces, identity, "", false);
}

const struct ty_identity *ty_spaces_identity(const struct ty_spaces *spaces, uint16_t number)
{
	if (number == 0 || number > TY_MAX_SPACES)
		return NULL;
	/* acquire: pairs with ty_spaces_number */
	return atomic_load_explicit(&spaces->identity[number - 1], memory_order_acquire);
}
