/* SPDX-License-Identifier: Apache-2.0
 *
 * Fork-join create: N actors, each is spawned, gets one message, answers it and stops; at most W live at a
 * time.
 */
#include "bench.h"

enum { JOB = 1, DONE };

struct job {
	struct ty_msg msg;
	struct ty_actor *creator;
	uint64_t value;
};

struct creator {
	struct ty_runtime *rt;
	uint64_t made, answered, expected, sum;
};

static void on_job(void *self, struct ty_msg *msg)
{
	struct job *job = ty_container_of(msg, struct job, msg);

	(void)self;
	job->value++;
	send(job->creator, msg, DONE);
	ty_actor_stop(ty_self());
}

static const struct ty_handler child_handlers[] = {{"job", on_job}};
static const struct ty_class child_class = {
	.name = "child", .first_type = JOB, .type_count = 1, .handlers = child_handlers};

static void on_done(void *self, struct ty_msg *msg)
{
	struct creator *creator = own(self);
	struct job *job = ty_container_of(msg, struct job, msg);
	struct ty_actor *child;

	if (job->value) { /* not the first time round */
		creator->sum += job->value;
		if (++creator->answered == creator->expected)
			finished();
	}
	if (creator->made == creator->expected)
		return;
	job->value = creator->made++;
	child = spawn(creator->rt, &child_class, NULL);
	send(child, msg, JOB);
	ty_actor_unref(child);
}

uint64_t run_fjcreate(struct ty_runtime *rt, const uint64_t *params)
{
	static const struct ty_handler handlers[] = {{"done", on_done}};
	static const struct ty_class cls = CLASS("creator", DONE, handlers);
	struct creator *creator = table_of(1, sizeof *creator);
	struct ty_actor *actor = spawn(rt, &cls, creator);
	struct job *jobs = table_of(params[1], sizeof *jobs);

	*creator = (struct creator){.rt = rt, .expected = params[0]};
	clock_start();
	for (uint64_t i = 0; i < params[1]; i++) {
		jobs[i].creator = actor;
		send(actor, &jobs[i].msg, DONE);
	}
	wait_finished();
	ty_actor_unref(actor);
	return creator->sum;
}
