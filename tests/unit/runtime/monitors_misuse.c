/* SPDX-License-Identifier: Apache-2.0
 *
 * Monitors and failing: what nobody may do.
 */
#include "misuse.h"
#include "monitors_house.h"

static void in_actor(struct script *script)
{
	struct fixture f;

	set_up(&f, 9);
	script->target = f.b;
	run_in(f.a, script);
	settle(&f);
}

static void twice(struct script *s)
{
	do_watch(s);
	do_watch(s);
}

static void watch_twice(void)
{
	struct watch w = make_watch();

	in_actor(&(struct script){.run = twice, .watch = &w});
}

static void unknown_type(struct script *s)
{
	ty_monitor(s->target, &s->watch->monitor, 99);
}

static void watch_with_unknown_type(void)
{
	struct watch w = make_watch();

	in_actor(&(struct script){.run = unknown_type, .watch = &w});
}

static void watch_from_outside(void)
{
	struct fixture f;
	struct watch w = make_watch();

	set_up(&f, 10);
	ty_monitor(f.a, &w.monitor, DOWN);
}

static void unwatch_for_another(void)
{
	struct watch w = make_watch();
	struct script watch = {.run = do_watch, .watch = &w}, unwatch = {.run = do_unwatch, .watch = &w};
	struct fixture f;

	set_up(&f, 11);
	watch.target = f.b;
	run_in(f.a, &watch);
	settle(&f);
	run_in(f.b, &unwatch);
	settle(&f);
}

static void fail_with_ok(void)
{
	in_actor(&(struct script){.run = do_fail, .code = TY_OK});
}

static void fail_outside(void)
{
	ty_actor_fail(TY_IO);
}

static void test_misuse(void **unused)
{
	(void)unused;
	misuse(watch_twice, "ty_monitor_home");
	misuse(watch_with_unknown_type, "type_count");
	misuse(watch_from_outside, "ty_current->self");
	misuse(unwatch_for_another, "core->watcher");
	misuse(fail_with_ok, "code != TY_OK");
	misuse(fail_outside, "self");
}

int main(void)
{
	static const struct CMUnitTest tests[] = {cmocka_unit_test(test_misuse)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
