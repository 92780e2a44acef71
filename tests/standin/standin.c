/* SPDX-License-Identifier: Apache-2.0
 *
 * Settings, records, and faults.
 */
#include "standin.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "standin_private.h"

#define RULES 32
#define THREADS 64

static const char *const names[STANDIN_NAMES] = {
#define STANDIN_STRING(name, suffix, parameters, ...) #name,
	TY_CUDA_FUNCTIONS(STANDIN_STRING)
	TY_CUDA_OPTIONAL(STANDIN_STRING)
	TY_CUDA_WORDS(STANDIN_STRING)
#undef STANDIN_STRING
};

struct rule {
	bool armed;
	enum standin_name name;
	uint64_t at; /* count of the call that it is for */
	int code;
};

struct standin_settings standin_settings = {
	.devices = 2, .version = 13000, .ops = 2, .memory = (size_t)4 << 30};
_Atomic uint64_t standin_objects;

/* Under the lock, all of them. */
static struct rule rules[RULES];
static uint64_t counts[STANDIN_NAMES];
static struct {
	pid_t thread;
	bool called[STANDIN_NAMES];
} threads[THREADS];
static unsigned thread_count;

static _Atomic bool released; /* relaxed: only looked at by what hangs */
static atomic_flag lock = ATOMIC_FLAG_INIT;
static _Thread_local cu_context current;

void standin_lock(void)
{
	while (atomic_flag_test_and_set_explicit(&lock, memory_order_acquire))
		;
}

void standin_unlock(void)
{
	atomic_flag_clear_explicit(&lock, memory_order_release);
}

_Noreturn void standin_misuse(const char *fmt, ...)
{
	va_list args;

	fprintf(stderr, "stand-in driver: misuse: ");
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fprintf(stderr, "\n");
	abort();
}

int64_t standin_clock(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

cu_context standin_current(void)
{
	return current;
}

void standin_set_current(cu_context context)
{
	current = context;
}

static enum standin_name look_up(const char *name)
{
	for (unsigned i = 0; i < STANDIN_NAMES; i++)
		if (!strcmp(names[i], name))
			return i;
	standin_misuse("there is no function %s", name);
}

static void record(enum standin_name name)
{
	pid_t self = gettid();
	unsigned i = 0;

	while (i < thread_count && threads[i].thread != self)
		i++;
	if (i == thread_count) {
		if (thread_count == THREADS)
			standin_misuse("more than %d threads", THREADS);
		threads[thread_count++].thread = self;
	}
	threads[i].called[name] = true;
	counts[name]++;
}

cu_result standin_enter(enum standin_name name, bool context, bool queues)
{
	cu_result result = CU_SUCCESS;

	standin_lock();
	record(name);
	for (unsigned i = 0; i < RULES; i++)
		if (rules[i].armed && rules[i].name == name && rules[i].at == counts[name]) {
			rules[i].armed = false;
			result = rules[i].code;
		}
	standin_unlock();
	if (context) {
		if (!current)
			return CU_INVALID_CONTEXT;
		if (current->owner != gettid() && !standin_settings.any_thread)
			standin_misuse("%s by thread %d, but the context belongs to thread %d", names[name], gettid(),
				current->owner);
		if (current->poison != CU_SUCCESS)
			return current->poison;
		if ((result >= CU_ILLEGAL_ADDRESS && result != CU_ALREADY_REGISTERED && result != CU_NOT_REGISTERED) ||
			result == CU_CONTAINED || result == CU_ECC_UNCORRECTABLE)
			current->poison = result;
	}
	if (result == STANDIN_HANG && !queues) {
		const struct timespec nap = {0, 1000000};

		while (!standin_released())
			nanosleep(&nap, NULL);
		result = CU_SUCCESS;
	}
	return result;
}

bool standin_released(void)
{
	return atomic_load_explicit(&released, memory_order_relaxed);
}

bool standin_missing(const char *name)
{
	return !strcmp(standin_settings.missing, name);
}

/* ---- settings ---------------------------------------------------------------------------------- */

STANDIN_EXPORT standin_fail_fn standin_fail;
void standin_fail(const char *name, uint64_t nth, int code)
{
	enum standin_name which = look_up(name);

	standin_lock();
	for (unsigned i = 0; i < RULES; i++)
		if (!rules[i].armed) {
			rules[i] = (struct rule){true, which, counts[which] + nth, code};
			standin_unlock();
			return;
		}
	standin_misuse("more than %d rules", RULES);
}

static uint64_t number(const char *setting, const char *text)
{
	char *end;
	uint64_t n = strtoull(text, &end, 10);

	if (end == text || *end || *text == '-')
		standin_misuse("%s=%s: expected a number", setting, text);
	return n;
}

static void set_one(char *setting)
{
	char *value = strchr(setting, '='), *nth, *code;

	if (!value)
		standin_misuse("setting %s has no value", setting);
	*value++ = '\0';
	if (!strcmp(setting, "devices")) {
		standin_settings.devices = (int)number(setting, value);
		if (standin_settings.devices > STANDIN_DEVICES)
			standin_misuse("devices=%s: at most %d", value, STANDIN_DEVICES);
	} else if (!strcmp(setting, "ops")) {
		atomic_store_explicit(&standin_settings.ops, (unsigned)number(setting, value), memory_order_relaxed);
	} else if (!strcmp(setting, "memory")) {
		standin_settings.memory = number(setting, value);
	} else if (!strcmp(setting, "version")) {
		standin_settings.version = (int)number(setting, value);
	} else if (!strcmp(setting, "threads")) {
		standin_settings.any_thread = !strcmp(value, "any");
	} else if (!strcmp(setting, "rows")) {
		standin_settings.rows = number(setting, value);
	} else if (!strcmp(setting, "unknown")) {
		standin_settings.unknown = number(setting, value);
	} else if (!strcmp(setting, "forget")) {
		standin_settings.forget = number(setting, value);
	} else if (!strcmp(setting, "missing")) {
		if (*value)
			look_up(value);
		snprintf(standin_settings.missing, sizeof standin_settings.missing, "%s", value);
	} else if (!strcmp(setting, "fail") || !strcmp(setting, "hang")) {
		nth = strchr(value, ':');
		if (!nth)
			standin_misuse("%s=%s: expected NAME:NTH", setting, value);
		*nth++ = '\0';
		code = strchr(nth, ':');
		if (!code != (setting[0] == 'h'))
			standin_misuse("%s=%s:%s: expected a code for fail, none for hang", setting, value, nth);
		if (code)
			*code++ = '\0';
		standin_fail(value, number("nth", nth), code ? (int)number("code", code) : STANDIN_HANG);
	} else {
		standin_misuse("unknown setting %s", setting);
	}
}

STANDIN_EXPORT standin_set_fn standin_set;
void standin_set(const char *settings)
{
	char *copy = strdup(settings), *at = copy, *one;

	if (!copy)
		standin_misuse("no memory");
	while ((one = strsep(&at, ",")))
		if (*one)
			set_one(one);
	free(copy);
}

__attribute__((constructor)) static void from_environment(void)
{
	const char *settings = getenv("TYER_STANDIN");

	if (settings)
		standin_set(settings);
}

/* ---- records ----------------------------------------------------------------------------------- */

STANDIN_EXPORT standin_calls_fn standin_calls;
uint64_t standin_calls(void)
{
	uint64_t sum = 0;

	standin_lock();
	for (unsigned i = 0; i < STANDIN_NAMES; i++)
		sum += counts[i];
	standin_unlock();
	return sum;
}

STANDIN_EXPORT standin_count_fn standin_count;
uint64_t standin_count(const char *name)
{
	enum standin_name which = look_up(name);
	uint64_t count;

	standin_lock();
	count = counts[which];
	standin_unlock();
	return count;
}

STANDIN_EXPORT standin_threads_fn standin_threads_seen;
unsigned standin_threads_seen(const char *name)
{
	enum standin_name which = name ? look_up(name) : 0;
	unsigned count = 0;

	standin_lock();
	for (unsigned i = 0; i < thread_count; i++)
		count += !name || threads[i].called[which];
	standin_unlock();
	return count;
}

STANDIN_EXPORT standin_release_fn standin_release;
void standin_release(void)
{
	atomic_store_explicit(&released, true, memory_order_relaxed);
}

STANDIN_EXPORT standin_live_fn standin_live;
uint64_t standin_live(void)
{
	return standin_objects;
}
