/* SPDX-License-Identifier: Apache-2.0
 *
 * A fuzz target without libFuzzer: TARGET [COUNT [SEED [FOLDER]]] feeds every seed, every file of the folder,
 * and COUNT mutations of them; TARGET --corpus DIR writes the seeds
 * for libFuzzer; TARGET --input FILE feeds one file.
 */
#include <dirent.h>
#include <string.h>

#include "fuzz.h"

static uint64_t state;

static uint64_t rnd(uint64_t below)
{
	state += 0x9e3779b97f4a7c15u;
	uint64_t z = state;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return (z ^ (z >> 31)) % below;
}

/* One to eight changes: bits, bytes, numbers that are at some border, pieces moved, removed and repeated. */
static size_t mutate(uint8_t *b, size_t size)
{
	static const uint8_t borders[] = {0, 1, 0x0f, 0x10, 0x3f, 0x40, 0x7f, 0x80, 0xfe, 0xff};

	for (uint64_t n = 1 + rnd(8); n > 0; n--) {
		size_t at = size > 0 ? rnd(size) : 0, length = size > at ? 1 + rnd(size - at < 32 ? size - at : 32) : 0;
		size_t to = size > 0 ? rnd(size) : 0;

		switch (rnd(7)) {
		case 0:
			if (size > 0)
				b[at] ^= (uint8_t)(1u << rnd(8));
			break;
		case 1:
			if (size > 0)
				b[at] = (uint8_t)rnd(256);
			break;
		case 2:
			if (size > 0)
				b[at] = borders[rnd(sizeof borders)];
			break;
		case 3: /* cut out */
			memmove(b + at, b + at + length, size - at - length);
			size -= length;
			break;
		case 4: /* repeat */
			if (size + length <= FUZZ_SEED_MAX) {
				memmove(b + at + length, b + at, size - at);
				size += length;
			}
			break;
		case 5: /* over something else */
			if (to + length <= size)
				memmove(b + to, b + at, length);
			break;
		case 6: /* the end away */
			size = at;
			break;
		}
	}
	return size;
}

/* At the end of an allocation of its own, so that a sanitizer sees a read past it. */
static void feed(const uint8_t *bytes, size_t size)
{
	uint8_t *exact = malloc(size != 0 ? size : 1);

	FUZZ_CHECK(exact != NULL);
	memcpy(exact, bytes, size);
	LLVMFuzzerTestOneInput(exact, size);
	free(exact);
}

static int write_corpus(const char *directory)
{
	static uint8_t bytes[FUZZ_SEED_MAX];
	char path[4096];
	size_t size;

	for (unsigned i = 0; (size = fuzz_seed(i, bytes)) != SIZE_MAX; i++) {
		FILE *file;

		snprintf(path, sizeof path, "%s/seed-%03u", directory, i);
		file = fopen(path, "wb");
		if (file == NULL || fwrite(bytes, 1, size, file) != size || fclose(file) != 0) {
			perror(path);
			return 1;
		}
	}
	return 0;
}

static int feed_file(const char *path)
{
	static uint8_t bytes[FUZZ_SEED_MAX];
	FILE *file = fopen(path, "rb");

	if (file == NULL) {
		perror(path);
		return 1;
	}
	feed(bytes, fread(bytes, 1, sizeof bytes, file));
	fclose(file);
	return 0;
}

/* Inputs that were found worth keeping; null is allowed: there are none. */
#define CORPUS_MAX 4096
static struct {
	uint8_t *bytes;
	size_t size;
} corpus[CORPUS_MAX];
static unsigned corpus_count;

static void read_corpus(const char *directory)
{
	static uint8_t bytes[FUZZ_SEED_MAX];
	DIR *dir = opendir(directory);
	char path[4096];

	for (struct dirent *entry; dir != NULL && corpus_count < CORPUS_MAX && (entry = readdir(dir)) != NULL;) {
		FILE *file;

		snprintf(path, sizeof path, "%s/%s", directory, entry->d_name);
		file = entry->d_name[0] != '.' ? fopen(path, "rb") : NULL;
		if (file == NULL)
			continue;
		corpus[corpus_count].size = fread(bytes, 1, sizeof bytes, file);
		corpus[corpus_count].bytes = malloc(corpus[corpus_count].size + 1);
		FUZZ_CHECK(corpus[corpus_count].bytes != NULL);
		memcpy(corpus[corpus_count].bytes, bytes, corpus[corpus_count].size);
		corpus_count++;
		fclose(file);
	}
	if (dir != NULL)
		closedir(dir);
}

int main(int argc, char **argv)
{
	static uint8_t bytes[FUZZ_SEED_MAX];
	unsigned seeds = 0;
	uint64_t count;
	size_t size;

	if (argc == 3 && strcmp(argv[1], "--corpus") == 0)
		return write_corpus(argv[2]);
	if (argc == 3 && strcmp(argv[1], "--input") == 0)
		return feed_file(argv[2]);
	count = argc > 1 ? strtoull(argv[1], NULL, 10) : 20000;
	state = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
	if (argc > 3)
		read_corpus(argv[3]);
	for (; (size = fuzz_seed(seeds, bytes)) != SIZE_MAX; seeds++)
		feed(bytes, size);
	FUZZ_CHECK(seeds > 0);
	for (unsigned i = 0; i < corpus_count; i++)
		feed(corpus[i].bytes, corpus[i].size);
	for (uint64_t i = 0; i < count; i++) {
		unsigned which = (unsigned)rnd(seeds + corpus_count);

		if (which < seeds) {
			size = fuzz_seed(which, bytes);
		} else {
			size = corpus[which - seeds].size;
			memcpy(bytes, corpus[which - seeds].bytes, size);
		}
		feed(bytes, mutate(bytes, size));
	}
	printf("%u seeds, %u of the corpus, %llu mutations\n", seeds, corpus_count, (unsigned long long)count);
	return 0;
}
