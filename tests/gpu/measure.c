/* SPDX-License-Identifier: Apache-2.0 */
#include "measure.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MIB ((uint64_t)1 << 20)

static const char *const sides[MEASURE_SIDES] = {"store", "retrieve", "both"};

double measure_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

uint64_t measure_number(const char *name, const char *text, uint64_t least, uint64_t most)
{
	char *end;
	unsigned long long n = strtoull(text, &end, 10);

	if (end == text || *end || text[0] == '-' || n < least || n > most) {
		fprintf(stderr, "--%s %s: expected a number of %llu..%llu\n", name, text, (unsigned long long)least,
			(unsigned long long)most);
		exit(2);
	}
	return n;
}

/* ---- lists --------------------------------------------------------------------------------------- */

static _Noreturn void no_such(const char *what, const char *word, size_t length)
{
	fprintf(stderr, "%.*s: no such %s\n", (int)length, word, what);
	exit(2);
}

/* The word up to the next comma; its length, 0 at the end. */
static size_t next_word(const char **list, const char **word)
{
	size_t length = strcspn(*list, ",");

	*word = *list;
	*list += length + ((*list)[length] == ',');
	return length;
}

/* "-t4" at *at: its letter, and its number if it has one. */
static char take_suffix(const char **at, unsigned long *number)
{
	char letter = (*at)[0] == '-' ? (*at)[1] : '\0', *end = (char *)(uintptr_t)*at;

	*number = 0;
	if (!letter)
		return '\0';
	end += 2;
	if (*end >= '0' && *end <= '9')
		*number = strtoul(end, &end, 10);
	*at = end;
	return letter;
}

static bool take_base(struct measure_way *way, const char *word, size_t length)
{
	static const struct {
		const char *name;
		enum ty_path path;
		enum ty_sharing sharing;
	} bases[] = {{"fast", TY_PATH_PLANNED, TY_SHARING_FAST}, {"quiet", TY_PATH_PLANNED, TY_SHARING_QUIET},
		{"auto", TY_PATH_PLANNED, TY_SHARING_AUTO}, {"staged", TY_PATH_STAGED, TY_SHARING_FAST},
		{"direct", TY_PATH_DIRECT, TY_SHARING_FAST}, {"batch", TY_PATH_BATCH, TY_SHARING_FAST},
		{"strided", TY_PATH_STRIDED, TY_SHARING_FAST}};

	for (unsigned i = 0; i < sizeof bases / sizeof bases[0]; i++)
		if (strlen(bases[i].name) == length && !strncmp(bases[i].name, word, length)) {
			way->how.path = bases[i].path;
			way->how.sharing = bases[i].sharing;
			return true;
		}
	return false;
}

bool measure_next_way(const char **list, struct measure_way *out)
{
	const char *word, *at;
	size_t length = next_word(list, &word);
	unsigned long number;
	char letter;

	*out = (struct measure_way){.name = ""};
	if (!length)
		return false;
	if (length >= sizeof out->name || !take_base(out, word, strcspn(word, ",-")))
		no_such("way", word, length);
	memcpy(out->name, word, length);
	at = out->name + strcspn(out->name, "-");
	while ((letter = take_suffix(&at, &number))) {
		if (letter == 'k' && !number)
			out->how.keep_tiles = true;
		else if (letter == 's' && number)
			out->how.copy_streams = (uint32_t)number;
		else if (letter == 't' && number)
			out->how.tile_bytes = number * MIB;
		else if (letter == 'm' && number)
			out->how.staging_bytes = number * MIB;
		else if (letter == 'b' && number)
			out->how.kernel_blocks = (uint32_t)number;
		else
			no_such("way", word, length);
	}
	if (*at)
		no_such("way", word, length);
	return true;
}

uint32_t measure_next_run(const char **list)
{
	const char *word;
	size_t length = next_word(list, &word);
	unsigned long kib = length ? strtoul(word, NULL, 10) : 0;

	if (length && (kib < 4 || kib > 2048 || (kib & (kib - 1))))
		no_such("run length", word, length);
	return (uint32_t)kib * 1024;
}

struct measure_shape measure_shape(uint32_t joined, uint64_t most)
{
	struct measure_shape s = {.run_bytes = joined, .planes = 64, .blocks_per_chunk = 16};

	if (joined >= MEASURE_CROSS_LAYER) {
		s.cross_layer = true;
		s.planes = MEASURE_CROSS_PLANES;
		s.run_bytes = joined / MEASURE_CROSS_PLANES;
	}
	while (!s.cross_layer && s.planes > 1 && (uint64_t)s.run_bytes * s.planes * s.blocks_per_chunk > most)
		s.planes /= 2;
	while (s.blocks_per_chunk > 1 && (uint64_t)s.run_bytes * s.planes * s.blocks_per_chunk > most)
		s.blocks_per_chunk /= 2;
	s.chunk_bytes = (uint64_t)s.run_bytes * s.planes * s.blocks_per_chunk;
	return s;
}

/* ---- rounds ---------------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

struct measure_spread measure_spread(const double *a, const double *b, uint32_t count)
{
	double sorted[MEASURE_ROUNDS];

	count = count < MEASURE_ROUNDS ? count : MEASURE_ROUNDS;
	if (!count)
		return (struct measure_spread){0};
	for (uint32_t i = 0; i < count; i++)
		sorted[i] = !b ? a[i] : b[i] > 0 ? a[i] / b[i] : 0;
	qsort(sorted, count, sizeof sorted[0], by_value);
	return (struct measure_spread){sorted[count / 2], sorted[0], sorted[count - 1]};
}

void measure_print_head(FILE *out, bool engine)
{
	fprintf(out, "%9s  %-20s %-7s", "run", "way", "goes");
	for (unsigned i = 0; i < MEASURE_SIDES; i++)
		fprintf(out, "  %-26s%s", sides[i], engine ? " step  of plain" : "");
	fprintf(out, "  queueing us\n");
}

void measure_print_row(FILE *out, uint32_t joined, const char *way, const char *path, const struct measure_rounds *r, bool engine)
{
	fprintf(out, "%5u KiB  %-20s %-7s", joined / 1024, way, path);
	for (unsigned i = 0; i < MEASURE_SIDES; i++) {
		const struct measure_series *s = &r->side[i];
		struct measure_spread ratio = measure_spread(s->gbs, s->limit_gbs, r->count);

		fprintf(out, "  %6.2f %5.3f (%5.3f..%5.3f)", measure_spread(s->gbs, NULL, r->count).median, ratio.median, ratio.least,
			ratio.most);
		if (engine)
			fprintf(out, " %5.0f %5.3f   ", measure_spread(s->step_us, NULL, r->count).median,
				measure_spread(s->step_us, s->plain_step_us, r->count).median);
	}
	for (unsigned i = 0; i < MEASURE_BOTH; i++)
		fprintf(out, "  %5.1f", measure_spread(r->side[i].queue_us, NULL, r->count).median);
	fprintf(out, "\n");
	fflush(out);
}

void measure_print_json(FILE *out, const struct measure_rounds *r, bool engine)
{
	double alone = measure_spread(r->alone_us, NULL, r->count).median;

	fprintf(out, ", \"rounds\": %u", r->count);
	if (alone > 0)
		fprintf(out, ", \"step_alone_us\": %.1f", alone);
	for (unsigned i = 0; i < MEASURE_SIDES; i++) {
		const struct measure_series *s = &r->side[i];
		struct measure_spread ratio = measure_spread(s->gbs, s->limit_gbs, r->count);
		struct measure_spread step = measure_spread(s->step_us, s->plain_step_us, r->count);

		fprintf(out, ",\n     \"%s_gbs\": %.3f, \"%s_limit_gbs\": %.3f, \"%s_ratio\": %.4f, \"%s_ratio_min\": %.4f, \"%s_ratio_max\": %.4f, "
			     "\"%s_queue_us\": %.2f", sides[i], measure_spread(s->gbs, NULL, r->count).median, sides[i],
			measure_spread(s->limit_gbs, NULL, r->count).median, sides[i], ratio.median, sides[i], ratio.least, sides[i], ratio.most,
			sides[i], measure_spread(s->queue_us, NULL, r->count).median);
		if (engine)
			fprintf(out, ", \"%s_step_us\": %.1f, \"%s_plain_step_us\": %.1f, \"%s_step_ratio\": %.4f, \"%s_step_ratio_min\": %.4f, "
				     "\"%s_step_ratio_max\": %.4f", sides[i], measure_spread(s->step_us, NULL, r->count).median, sides[i],
				measure_spread(s->plain_step_us, NULL, r->count).median, sides[i], step.median, sides[i], step.least, sides[i],
				step.most);
		if (engine && alone > 0)
			fprintf(out, ", \"%s_step_of_alone\": %.4f, \"%s_plain_step_of_alone\": %.4f", sides[i],
				measure_spread(s->step_us, r->alone_us, r->count).median, sides[i],
				measure_spread(s->plain_step_us, r->alone_us, r->count).median);
	}
}
