/* SPDX-License-Identifier: Apache-2.0 */
#include "monitors_house.h"

struct seen seen;
struct ty_actor *note_to;
static struct ty_msg last_note;

static enum ty_code on_start(void *self, void *arg)
{
	enum ty_code *code = arg;

	(void)self;
	return code ? *code : TY_OK;
}

static void on_run(void *self, struct ty_msg *msg)
{
	struct script *script = ty_container_of(msg, struct script, msg);

	(void)self;
	script->ran++;
	script->run(script);
}

static void on_down(void *self, struct ty_msg *msg)
{
	struct watch *w = ty_container_of(msg, struct watch, monitor.msg);

	(void)self;
	assert_true(ty_monitor_home(&w->monitor));
	w->downs++;
	w->reason = w->monitor.reason;
	seen.notes_at_down = seen.notes;
}

static void on_note(void *self, struct ty_msg *msg)
{
	(void)self;
	(void)msg;
	seen.notes++;
}

static void on_stop(void *self)
{
	(void)self;
	seen.stopped++;
	if (note_to)
		assert_int_equal(ty_send(note_to, &last_note, NOTE), TY_OK);
	note_to = NULL;
}

static void on_refuse(void *self, struct ty_msg *msg)
{
	(void)self;
	(void)msg;
	seen.refused++;
}

static void on_release(struct ty_monitor *monitor)
{
	ty_container_of(monitor, struct watch, monitor)->released++;
}

static const struct ty_handler handlers[] = {{"run", on_run}, {"down", on_down}, {"note", on_note}};
const struct ty_class cls = {.name = "actor", .state_size = 8, .first_type = RUN, .type_count = 3,
	.handlers = handlers, .start = on_start, .stop = on_stop, .refuse = on_refuse};

void do_watch(struct script *s)
{
	ty_monitor(s->target, &s->watch->monitor, DOWN);
}

void do_unwatch(struct script *s)
{
	ty_demonitor(&s->watch->monitor);
}

void do_fail(struct script *s)
{
	ty_actor_fail(s->code);
	ty_actor_fail(TY_INTERNAL); /* the first counts */
}

void set_up(struct fixture *f, uint64_t seed)
{
	seen = (struct seen){0};
	note_to = NULL;
	set_up_of(f, seed, &cls);
	settle(f);
}

void run_in(struct ty_actor *actor, struct script *script)
{
	assert_int_equal(ty_send(actor, &script->msg, RUN), TY_OK);
}

struct watch make_watch(void)
{
	return (struct watch){.monitor = {.release = on_release}};
}
