/* SPDX-License-Identifier: Apache-2.0
 *
 * WARM: brings chunks up. Those that were named, in their order, by one fetch; or, page by page, those of the tiers that are selected,
 * until all are up or as much came as the arena holds.
 */
#include "eviction_control.h"

#include <stdlib.h>

#include "prefetch.h"
#include "tier.h"

#define STUCK_MAX 8 /* chunks in a row that do not come up: the tier's next ones will not either */

static bool fetch(struct eviction_job *job, const struct ty_key *keys, uint32_t count)
{
	struct ty_fetch *fetch = ty_fetch_create(keys, count);

	if (!fetch) {
		eviction_job_refuse(job, TY_NO_MEMORY, "no memory for a fetch");
		return false;
	}
	fetch->home = ty_self();
	fetch->home_type = TY_EVICTION_FETCHED;
	fetch->priority = TY_FETCH_WARM;
	fetch->user = job;
	job->fetch = fetch;
	if (ty_send(job->e->service->prefetch, &fetch->msg, TY_PREFETCH_FETCH) == TY_OK)
		return true;
	job->fetch = NULL;
	ty_fetch_free(fetch);
	eviction_job_refuse(job, TY_STOPPING, "the service stops");
	return false;
}

/* A fetch is of keys, whoever's they are and however they begin. */
static bool has_more_than_keys(const struct eviction_select *s)
{
	return s->key_count && (!s->any_space || s->select->key_prefix.len);
}

void eviction_warm_begin(struct eviction_job *job)
{
	job->phase = EVICTION_OVER; /* when what was begun is home */
	if (eviction_select_is_empty(job->select.select))
		eviction_job_refuse(job, TY_INVALID, "select: is empty");
	else if (!job->e->service->tier_count)
		eviction_job_refuse(job, TY_UNSUPPORTED, "this service has no tiers (--tier)");
	else if (has_more_than_keys(&job->select))
		eviction_job_refuse(job, TY_INVALID, "select: has keys or a prompt, and more; expected them alone (WARM)");
	else if (job->select.key_count)
		(void)fetch(job, job->select.keys, job->select.key_count);
	else
		job->phase = EVICTION_BELOW;
	eviction_job_step(job);
}

void eviction_warm_go_on(struct eviction_job *job)
{
	(void)fetch(job, job->again_keys + job->at, job->again_count - job->at);
}

/* Of a page. A fetch ends at the first chunk that is nowhere, or of another shape: that one is passed over. */
static void advance(struct eviction_job *job, uint32_t came)
{
	job->at += came ? came : 1;
	job->stuck = came ? 0 : job->stuck + 1;
	if (job->at >= job->again_count)
		job->at = job->again_count = 0;
	if (job->bytes >= job->e->limit) {
		job->phase = EVICTION_OVER;
	} else if (job->stuck == STUCK_MAX) {
		job->stuck = job->again_count = 0;
		eviction_below_give_up(job, "its chunks do not come up");
	}
}

/* What came up is touched as any request's would be, and let go. */
void eviction_fetched(struct eviction *e, struct ty_msg *msg)
{
	struct ty_fetch *fetched = ty_container_of(msg, struct ty_fetch, msg);
	struct eviction_job *job = fetched->user;
	struct ty_lease *lease = fetched->lease;
	uint32_t came = lease ? lease->count : 0;

	for (uint32_t i = came; i-- > 0;) {
		struct ty_chunk *chunk = lease->chunks[i];

		job->chunks++;
		job->bytes += eviction_chunk_bytes(e, chunk);
		eviction_used(e, chunk, &eviction_no_hint);
		ty_chunk_unpin(chunk);
	}
	job->fetch = NULL;
	ty_fetch_free(fetched); /* with its lease */
	if (job->phase == EVICTION_BELOW)
		advance(job, came);
	eviction_job_step(job);
}
