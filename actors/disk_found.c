/* SPDX-License-Identifier: Apache-2.0
 *
 * What the scan at the start finds, taken into the index, but for what went while it was on its way.
 */
#include "disk_state.h"

#include <stdlib.h>
#include <string.h>

#define FOUND_MAX 512         /* files of the scan's that are taken in at a time */

void disk_note_gone(struct disk_actor *a, const struct disk_job *job)
{
	if (!a->scanning || job->shape.key.bytes[0] != a->scanned || (job->work != DISK_REMOVE && job->work != DISK_ISOLATE))
		return;
	if (a->gone_count == a->gone_room) {
		uint32_t room = a->gone_room ? 2 * a->gone_room : 16;
		struct ty_key *more = realloc(a->gone, room * sizeof *more);

		if (!more)
			return; /* then it is found, and is a miss when it is read */
		a->gone = more;
		a->gone_room = room;
	}
	a->gone[a->gone_count++] = job->shape.key;
}

static bool is_gone(const struct disk_actor *a, const struct ty_key *key)
{
	for (uint32_t i = 0; i < a->gone_count; i++)
		if (memcmp(&a->gone[i], key, sizeof *key) == 0)
			return true;
	return false;
}

void disk_take_found(struct disk_actor *a, struct disk_found *found)
{
	uint32_t end = found->count - found->at < FOUND_MAX ? found->count : found->at + FOUND_MAX;

	for (; found->at < end; found->at++) {
		struct disk_shape *shape = &found->item[found->at];
		const struct ty_identity *whose = ty_tier_names_at(&found->names, shape->name);

		/* What was written meanwhile is newer, what is being removed is not there. */
		if (!disk_index_find(&a->index, &shape->key) && !disk_is_leaving(a, &shape->key) && !is_gone(a, &shape->key))
			(void)disk_index_put(&a->index, shape, whose, found->folder, true);
		disk_drop_twin(a, &shape->key, found->folder);
		free((void *)(uintptr_t)shape->length);
		shape->length = NULL;
	}
}
