/* SPDX-License-Identifier: Apache-2.0
 *
 * Supervisors: an ordinary actor, made of what the header offers, and of a look whether the runtime stops. It spawns its
 * children, monitors them, and starts anew what ends and should not.
 *
 *	SERVING    every child that should be is up
 *	CLEARING   rest-for-one: those after the one that ended are stopped, the last first, one after the other; when
 *	           they are down, all from that one on are started again
 *	ENDING     the same for all; then the supervisor ends: stopped, or with the reason that it gave up for
 *
 * The children are in a table of their own, because monitors may be out longer than the supervisor's state lives when
 * the runtime cuts it short: whoever gives back the last frees it.
 */
#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/options.h"
#include "runtime/runtime.h"

enum { DOWN = 1 };
enum phase { SERVING, CLEARING, ENDING };

struct child {
	struct ty_monitor monitor;
	struct table *table;
	struct ty_actor *actor;  /* null: it is down */
	uint64_t restarts;
	bool done;               /* it ended and is not to come back */
};

struct table {
	_Atomic(uint32_t) refs;  /* the supervisor's, and one a monitor that is out; acq_rel */
	uint32_t count;
	int64_t *restarts;       /* when the last max_restarts were: a ring */
	struct child children[];
};

struct supervisor {
	const struct ty_supervisor_options *options;
	struct ty_supervisor_options adapted; /* they may be of another version */
	struct table *table;
	enum phase phase;
	uint32_t from;           /* CLEARING: the first that is to be down */
	uint32_t next_restart;   /* in the ring */
	enum ty_code reason;     /* ENDING: TY_OK, or what it gave up for */
	bool quiet;              /* the runtime stops: nothing is started any more */
};

static void table_unref(struct table *table)
{
	if (atomic_fetch_sub_explicit(&table->refs, 1, memory_order_acq_rel) != 1)
		return;
	free(table->restarts);
	free(table);
}

static void monitor_released(struct ty_monitor *monitor)
{
	table_unref(ty_container_of(monitor, struct child, monitor)->table);
}

static struct table *table_new(const struct ty_supervisor_options *options)
{
	struct table *table = calloc(1, sizeof *table + options->child_count * sizeof table->children[0]);

	if (!table)
		return NULL;
	table->restarts = calloc(options->max_restarts + 1, sizeof *table->restarts); /* never of size 0 */
	if (!table->restarts) {
		free(table);
		return NULL;
	}
	atomic_init(&table->refs, 1);
	table->count = options->child_count;
	for (uint32_t i = 0; i < table->count; i++) {
		table->children[i].table = table;
		table->children[i].monitor.release = monitor_released;
	}
	for (uint32_t i = 0; i < options->max_restarts; i++)
		table->restarts[i] = INT64_MIN;
	return table;
}

static void tell(struct supervisor *s, enum ty_supervision_kind kind, uint32_t index, enum ty_code reason)
{
	const struct child *child = &s->table->children[index];
	struct ty_supervision event = {.kind = kind, .child = index, .reason = reason, .actor = child->actor,
		.restarts = child->restarts};

	if (s->options->told)
		s->options->told(s->options->user, &event);
}

/* ---- stopping ------------------------------------------------------------------------------ */

static void give_up(struct supervisor *s, enum ty_code reason);

static enum ty_code start_child(struct supervisor *s, uint32_t index)
{
	const struct ty_child *spec = &s->options->children[index];
	struct child *child = &s->table->children[index];
	enum ty_code code = ty_spawn(s->options->rt, spec->cls, spec->arg, spec->options, &child->actor);

	if (code != TY_OK) {
		child->actor = NULL;
		return code;
	}
	atomic_fetch_add_explicit(&s->table->refs, 1, memory_order_relaxed);
	ty_monitor(child->actor, &child->monitor, DOWN);
	tell(s, TY_CHILD_STARTED, index, TY_OK);
	if (spec->name)
		code = ty_name(child->actor, spec->name);
	return code == TY_CLOSED ? TY_OK : code; /* it failed already: its DOWN is on its way */
}

static void start_from(struct supervisor *s, uint32_t first, uint32_t end)
{
	for (uint32_t i = first; i < end; i++) {
		enum ty_code code;

		if (s->table->children[i].actor || s->table->children[i].done)
			continue;
		code = start_child(s, i);
		if (code == TY_STOPPING) {
			s->quiet = true;
			return;
		}
		if (code != TY_OK) {
			give_up(s, code);
			return;
		}
	}
}

/* Stop the last child that is up, if it is at `from` or after. False: all of them are down. */
static bool stop_last(struct supervisor *s, uint32_t from)
{
	for (uint32_t i = s->table->count; i-- > from;) {
		if (s->table->children[i].actor) {
			ty_actor_stop(s->table->children[i].actor);
			return true;
		}
	}
	return false;
}

/* A step further in taking children down; when they are, what comes after. */
static void go_on(struct supervisor *s)
{
	if (s->phase == CLEARING && !stop_last(s, s->from)) {
		s->phase = SERVING;
		start_from(s, s->from, s->table->count);
	}
	if (s->phase == ENDING && !stop_last(s, 0)) {
		if (s->reason == TY_OK)
			ty_actor_end();
		else
			ty_actor_fail(s->reason);
	}
}

static void give_up(struct supervisor *s, enum ty_code reason)
{
	if (s->phase == ENDING)
		return;
	s->phase = ENDING;
	s->reason = reason;
	go_on(s);
}

/* ---- restarting ---------------------------------------------------------------------------- */

/* One more restart: false if there were max_restarts within the window already. */
static bool within_limit(struct supervisor *s)
{
	uint32_t max = s->options->max_restarts;
	int64_t now = ty_now(), *oldest;

	if (max == 0)
		return false;
	oldest = &s->table->restarts[s->next_restart];
	if (*oldest > now - s->options->window)
		return false;
	*oldest = now;
	s->next_restart = (s->next_restart + 1) % max;
	return true;
}

static bool comes_back(const struct ty_child *spec, enum ty_code reason)
{
	return spec->restart == TY_PERMANENT || (spec->restart == TY_TRANSIENT && reason != TY_OK);
}

static void restart(struct supervisor *s, uint32_t index, enum ty_code reason)
{
	if (!within_limit(s)) {
		tell(s, TY_CHILD_GIVEN_UP, index, reason);
		give_up(s, reason == TY_OK ? TY_LIMIT : reason);
		return;
	}
	s->table->children[index].restarts++;
	if (s->options->strategy == TY_ONE_FOR_ONE) {
		start_from(s, index, index + 1);
		return;
	}
	s->phase = CLEARING;
	s->from = index;
	go_on(s);
}

/* Was it stopped to be started again, with one before it? */
static bool was_cleared(const struct supervisor *s, uint32_t index)
{
	return s->phase == CLEARING && index >= s->from && s->options->children[index].restart != TY_TEMPORARY;
}

static void on_down(void *self, struct ty_msg *msg)
{
	struct supervisor *s = self;
	struct child *child = ty_container_of(ty_container_of(msg, struct ty_monitor, msg), struct child, monitor);
	uint32_t index = (uint32_t)(child - s->table->children);
	enum ty_code reason = child->monitor.reason;
	bool back = comes_back(&s->options->children[index], reason);

	table_unref(s->table); /* the monitor's; the supervisor has one */
	tell(s, TY_CHILD_ENDED, index, reason);
	ty_actor_unref(child->actor);
	child->actor = NULL;
	child->done = !back && !was_cleared(s, index);
	/* A child that a runtime's stop ends is no failure, and uses up no restart. relaxed: it is set before the child is asked
	 * to stop, and this DOWN comes after that. */
	s->quiet = s->quiet || atomic_load_explicit(&s->options->rt->stopping, memory_order_relaxed);
	/* CLEARING: one that was not to be stopped has ended meanwhile, so all from it on are to be started */
	if (back && !s->quiet && (s->phase == SERVING || (s->phase == CLEARING && index < s->from)))
		restart(s, index, reason);
	else
		go_on(s);
}

/* ---- life ---------------------------------------------------------------------------------- */

static bool options_valid(const struct ty_supervisor_options *o)
{
	if (!o->rt || o->child_count > TY_CHILDREN_MAX || (o->child_count && !o->children))
		return false;
	if (o->max_restarts > TY_RESTARTS_MAX || o->window < 0)
		return false;
	return o->strategy == TY_ONE_FOR_ONE || o->strategy == TY_REST_FOR_ONE;
}

static enum ty_code on_start(void *self, void *arg)
{
	static const struct ty_supervisor_options none = {.size = sizeof none};
	struct supervisor *s = self;
	struct ty_error err;

	s->options = ty_options_take(arg, sizeof *s->options, &none, &s->adapted, &err);
	if (!s->options)
		return err.code;
	if (!options_valid(s->options))
		return TY_INVALID;
	s->table = table_new(s->options);
	if (!s->table)
		return TY_NO_MEMORY;
	start_from(s, 0, s->table->count);
	return TY_OK;
}

static void on_stopping(void *self)
{
	give_up(self, TY_OK);
}

/* Children are here only when the runtime cut the supervisor short. */
static void on_stop(void *self)
{
	struct supervisor *s = self;

	if (!s->table)
		return;
	for (uint32_t i = s->table->count; i-- > 0;) {
		if (s->table->children[i].actor) {
			ty_actor_stop(s->table->children[i].actor);
			ty_actor_unref(s->table->children[i].actor);
		}
	}
	table_unref(s->table);
}

const struct ty_class *ty_supervisor(void)
{
	static const struct ty_handler handlers[] = {{"down", on_down}};
	static const struct ty_class cls = {
		.name = "supervisor",
		.state_size = sizeof(struct supervisor),
		.first_type = DOWN,
		.type_count = 1,
		.handlers = handlers,
		.start = on_start,
		.stopping = on_stopping,
		.stop = on_stop,
	};

	return &cls;
}
