/* SPDX-License-Identifier: Apache-2.0
 *
 * The service's arena and slot table: those of the process before, if they can be used, else new ones.
 */
#include "service.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

static enum ty_code adopt(struct ty_service *base, const struct ty_heritage *heritage, struct ty_error *err)
{
	struct ty_restart *r = &base->restart;
	int slots = heritage->slots;
	enum ty_code code = TY_INVALID;

	if (heritage->arena < 0 || slots < 0)
		(void)ty_fail(err, TY_INVALID, "there is %s", slots < 0 ? "an arena without a slot table" : "a slot table without an arena");
	else
		code = ty_arena_adopt(base->config->l1_size, heritage->arena, &base->arena, err);
	if (code != TY_OK) {
		if (heritage->arena >= 0)
			close(heritage->arena);
	} else {
		code = ty_slots_adopt(&base->arena, slots, &base->slots, &r->found, err);
	}
	if (code == TY_OK) {
		r->adopted = true;
		return code;
	}
	if (slots >= 0)
		close(slots);
	if (base->arena.base)
		ty_arena_close(&base->arena);
	return code;
}

static bool log_line(void *unused, const char *text)
{
	(void)unused;
	ty_log(TY_LOG_WARN, "record", "%s", text);
	return true;
}

/* The record of the process before is told, unless that has done so itself; then it is this one's. */
static enum ty_code open_record(struct ty_service *base, const struct ty_heritage *heritage, struct ty_error *err)
{
	enum ty_code code = TY_INVALID;

	base->record_fd = heritage ? heritage->record : -1;
	if (base->record_fd >= 0) {
		code = ty_record_adopt(base->record_fd, &base->record, err);
		if (code != TY_OK)
			close(base->record_fd);
	}
	if (code != TY_OK)
		return ty_record_open(&base->record, &base->record_fd, err);
	if (!atomic_load_explicit(&base->record->told, memory_order_relaxed)) { /* its writer is no more */
		ty_log(TY_LOG_WARN, "record", "what the owners of process %d did last:", base->record->pid);
		ty_record_tell(base->record, log_line, NULL);
	}
	ty_record_begin(base->record);
	return TY_OK;
}

static void open_spaces(struct ty_service *base)
{
	uint32_t count;
	struct ty_space_record *records = ty_slots_spaces(base->slots, &count);

	ty_spaces_open(&base->spaces, records, count);
}

enum ty_code ty_service_open_cache(struct ty_service *base, const struct ty_heritage *heritage, struct ty_error *err)
{
	struct ty_restart *r = &base->restart;
	enum ty_code code;

	if (heritage) {
		r->restarts = heritage->restarts;
		memcpy(r->reason, heritage->reason, sizeof r->reason);
	}
	code = open_record(base, heritage, err);
	if (code != TY_OK)
		return code;
	if (heritage && heritage->keep && base->record_fd != heritage->record)
		heritage->keep("tyer-record", base->record_fd);
	if (heritage && (heritage->arena >= 0 || heritage->slots >= 0)) {
		code = adopt(base, heritage, err);
		if (code == TY_OK) {
			uint32_t pieces;

			open_spaces(base);
			(void)ty_slots_found(base->slots, &pieces);
			atomic_init(&base->eviction_stats.returning, pieces); /* seen from the start; eviction's from then on */
			ty_log(r->found.damaged ? TY_LOG_WARN : TY_LOG_INFO, "main",
				"the cache of the process before is taken over: %u parts; %u unfinished ones are gone, %u damaged ones; %u "
				"pieces are set aside, for an engine may still copy into them%s",
				r->found.ready, r->found.unfinished, r->found.damaged, r->found.aside,
				r->found.nameless ? "; whose some are is not known any more" : "");
			return code;
		}
		/* That passes, and a new cache would need as much: whoever started us keeps this one, and tries again. */
		if (code == TY_NO_MEMORY)
			return code;
		snprintf(r->refused, sizeof r->refused, "%s", err->text);
		ty_log(TY_LOG_WARN, "main", "the cache of the process before cannot be used and is given up: %s", err->text);
	}
	code = ty_arena_open(base->config->l1_size, &base->arena, err);
	if (code == TY_OK)
		code = ty_slots_open(&base->arena, &base->slots, err);
	if (code == TY_OK)
		open_spaces(base);
	if (code == TY_OK && heritage && heritage->keep) {
		heritage->keep("tyer-arena", base->arena.fd);
		heritage->keep("tyer-slots", ty_slots_fd(base->slots));
	}
	return code;
}
