/* SPDX-License-Identifier: Apache-2.0 */
#include "adopt_house.h"

#include <string.h>
#include <unistd.h>

struct ty_error err;
struct ty_arena arena;
struct ty_slots *slots;

int open_both(void **state)
{
	(void)state;
	return ty_arena_open(PIECES * TY_PIECE_BYTES, &arena, &err) || ty_slots_open(&arena, &slots, &err);
}

int close_both(void **state)
{
	(void)state;
	ty_slots_close(slots);
	ty_arena_close(&arena);
	slots = NULL;
	return 0;
}

enum ty_code hand_over(struct ty_slots_found *found)
{
	int arena_fd = dup(arena.fd), table_fd = dup(ty_slots_fd(slots));
	struct ty_slots *next = NULL;
	enum ty_code code;

	ty_slots_close(slots);
	ty_arena_close(&arena);
	slots = NULL;
	assert_ok(ty_arena_adopt(PIECES * TY_PIECE_BYTES, arena_fd, &arena, &err), &err);
	code = ty_slots_adopt(&arena, table_fd, &next, found, &err);
	if (code == TY_OK)
		slots = next;
	else
		close(table_fd);
	return code;
}

struct ty_key key_of(uint64_t n)
{
	struct ty_key key = {{0}};

	memcpy(key.bytes, &n, sizeof n);
	return key;
}

uint32_t take(uint64_t bytes, uint64_t n)
{
	struct ty_key key = key_of(n);

	return ty_slots_take(slots, bytes, &key, 0, 1, 0);
}
