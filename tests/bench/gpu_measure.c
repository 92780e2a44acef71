/* SPDX-License-Identifier: Apache-2.0 */
#include "gpu_parent.h"

#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

FILE *json;
static bool first_row = true;

/* ---- measuring ---------------------------------------------------------------------------------------- */

static void sum(uint64_t clients, uint64_t bytes[2])
{
	bytes[0] = bytes[1] = 0;
	for (unsigned i = 0; i < options.clients; i++)
		if (clients >> i & 1)
			for (unsigned d = 0; d < 2; d++)
				bytes[d] += atomic_load_explicit(&shared->line[i].bytes[d], memory_order_relaxed);
}

void nap_until(int64_t end)
{
	while (load_now() < end) {
		look_for_failures();
		usleep(NAP_US);
	}
}

void look(uint64_t clients, double seconds, struct window *w)
{
	uint64_t before[2], after[2];

	w->from = load_now();
	sum(clients, before);
	nap_until(w->from + (int64_t)(seconds * 1e9));
	sum(clients, after);
	w->to = load_now();
	for (unsigned d = 0; d < 2; d++)
		w->rate[d] = (double)(after[d] - before[d]) / (double)(w->to - w->from);
}

void warm(uint64_t clients)
{
	uint64_t rounds[LOAD_CLIENTS];
	int64_t end = load_now() + PATIENCE_NS;

	for (unsigned i = 0; i < options.clients; i++)
		rounds[i] = atomic_load_explicit(&shared->line[i].rounds, memory_order_relaxed);
	for (unsigned i = 0; i < options.clients; i++)
		while ((clients >> i & 1) &&
			atomic_load_explicit(&shared->line[i].rounds, memory_order_relaxed) == rounds[i]) {
			look_for_failures();
			if (load_now() > end) {
				fprintf(stderr, "gpu_load: client %u gets nowhere\n", i);
				stop_all(1);
			}
			usleep(NAP_US);
		}
}

struct window measure(enum load_mode mode, uint64_t clients)
{
	struct window w;

	set_phase(mode, clients);
	warm(clients);
	look(clients, options.seconds, &w);
	set_phase(LOAD_IDLE, 0);
	wait_idle();
	return w;
}

int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double part_of(const double *sorted, uint32_t count, double part)
{
	uint32_t at = (uint32_t)(part * count);

	return count ? sorted[at < count ? at : count - 1] : 0;
}

struct pings pings_of(const struct window *w)
{
	/* acquire: pairs with the PING's release */
	uint32_t all = atomic_load_explicit(&shared->pings, memory_order_acquire);
	double *took = malloc((all + 1) * sizeof *took);
	struct pings p = {0};

	for (uint32_t i = 0; took && i < all; i++)
		if (shared->ping[i].due >= w->from && shared->ping[i].due <= w->to)
			took[p.count++] = (double)shared->ping[i].took / 1e3;
	if (took && p.count) {
		qsort(took, p.count, sizeof *took, by_value);
		p.p50 = part_of(took, p.count, 0.5);
		p.p99 = part_of(took, p.count, 0.99);
		p.p999 = part_of(took, p.count, 0.999);
		p.most = took[p.count - 1];
	}
	free(took);
	return p;
}

/* ---- the report ---------------------------------------------------------------------------------------- */

void row(const char *fmt, ...)
{
	va_list args;

	if (!json)
		return;
	fputs(first_row ? "\n    {" : ",\n    {", json);
	first_row = false;
	va_start(args, fmt);
	vfprintf(json, fmt, args);
	va_end(args);
	fputc('}', json);
}

const char *layout(void)
{
	return options.cross_layer ? "cross-layer" : "split";
}

void say_pings(const char *when, const struct pings *p)
{
	printf("%-24s PING p50 %.0f us, p99 %.0f, p99.9 %.0f, max %.0f, of %u\n", when, p->p50, p->p99, p->p999, p->most, p->count);
	row("\"when\": \"%s\", \"pings\": %u, \"p50_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f, \"max_us\": %.1f", when, p->count,
		p->p50, p->p99, p->p999, p->most);
}

int check(void)
{
	uint64_t checked = 0, wrong = 0;

	once(LOAD_CHECK);
	for (unsigned i = 0; i < options.clients; i++) {
		checked += shared->line[i].checked_chunks;
		wrong += shared->line[i].wrong_words;
	}
	printf("%llu chunks compared, %llu wrong words\n", (unsigned long long)checked, (unsigned long long)wrong);
	row("\"checked_chunks\": %llu, \"wrong_words\": %llu", (unsigned long long)checked, (unsigned long long)wrong);
	return wrong || !checked;
}
