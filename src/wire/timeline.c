/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/timeline.h"

#include <stdlib.h>

#include "wire/attach.h"

enum ty_code ty_timeline_open(int fd, struct ty_timeline **out, struct ty_error *err)
{
	struct ty_timeline *t = calloc(1, sizeof *t);
	enum ty_code code;
	void *page;

	*out = NULL;
	if (!t)
		return ty_fail(err, TY_NO_MEMORY, "no memory for a timeline");
	code = ty_attach_timeline_map(fd, &page, err);
	if (code != TY_OK) {
		free(t);
		return code;
	}
	t->words = page;
	atomic_init(&t->refs, 1);
	*out = t;
	return TY_OK;
}

struct ty_timeline *ty_timeline_ref(struct ty_timeline *timeline)
{
	/* relaxed: whoever takes a reference has one already */
	atomic_fetch_add_explicit(&timeline->refs, 1, memory_order_relaxed);
	return timeline;
}

void ty_timeline_unref(struct ty_timeline *timeline)
{
	/* acq_rel: what every holder did with the page happens before the last one unmaps it */
	if (timeline && atomic_fetch_sub_explicit(&timeline->refs, 1, memory_order_acq_rel) == 1) {
		ty_attach_timeline_unmap((void *)timeline->words);
		free(timeline);
	}
}
