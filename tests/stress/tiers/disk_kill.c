/* SPDX-License-Identifier: Apache-2.0
 *
 * A process that writes chunks to a disk tier is killed at any point; the next one finds every chunk that was announced as
 * stored, right, and no other that is not whole. Again and again in one folder, so that leftovers pile up if any are left.
 *
 * usage: disk_kill [ROUNDS [SEED [FOLDER]]]
 */
#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "tests/unit/tiers/house.h"

#define BATCH 32
#define CHUNK 20000
#define KEEP 4000 /* numbers are used again past this: files are replaced, too */

static uint64_t rng;
static int announce;

static uint32_t rnd(uint32_t below)
{
	rng = rng * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(rng >> 33) % below;
}

static uint32_t parts_of(uint64_t number)
{
	return 1 + (uint32_t)(number % 3);
}

/* The key's own number stands in front of it. */
struct numbered {
	uint64_t number;
	struct ty_tier_io *io;
};

static struct numbered batch[BATCH];

static void home(struct ty_tier_io *io)
{
	for (int i = 0; i < BATCH; i++)
		if (batch[i].io == io && io->outcome == TY_TIER_DONE)
			(void)!write(announce, &batch[i].number, sizeof batch[i].number);
}

/* Writes until it is killed. */
static void write_for_ever(const char *spec, uint64_t next)
{
	struct ty_tier_io *ios[BATCH];
	struct house h;

	assert(house_open(&h, spec) == TY_OK);
	house_home = home;
	for (;;) {
		for (uint32_t i = 0; i < BATCH; i++) {
			uint64_t number = next++ % KEEP;

			ios[i] = house_io(&h, TY_TIER_PUT, number, 3 * i, parts_of(number), CHUNK);
			batch[i] = (struct numbered){number, ios[i]};
		}
		house_run(&h, ios, BATCH);
		for (uint32_t i = 0; i < BATCH; i++)
			house_free(ios[i]);
	}
}

/* Everything that was ever announced is there and right; everything that is there is right. */
static uint32_t check(const char *spec, const bool *announced)
{
	struct house h;
	uint32_t found = 0;

	assert(house_open(&h, spec) == TY_OK);
	house_scanned(&h);
	for (uint64_t number = 0; number < KEEP; number++) {
		enum ty_tier_outcome outcome = house_do(&h, TY_TIER_GET, number, parts_of(number), CHUNK);

		if (outcome != TY_TIER_DONE && (announced[number] || outcome != TY_TIER_MISSING)) {
			fprintf(stderr, "chunk %llu: %s (%s), announced: %d\n", (unsigned long long)number,
				outcome < TY_TIER_OUTCOMES ? ty_tier_outcome_name(outcome) : "WRONG BYTES", h.error, announced[number]);
			exit(1);
		}
		found += outcome == TY_TIER_DONE;
	}
	if (atomic_load(&h.tier->stats.foreign)) {
		fprintf(stderr, "%llu partial files are visible\n", (unsigned long long)atomic_load(&h.tier->stats.foreign));
		exit(1);
	}
	house_close(&h);
	return found;
}

/* In a process of its own: one that had threads may not fork under ThreadSanitizer. */
static uint32_t check_apart(const char *spec, const bool *announced)
{
	uint32_t found = 0;
	int pipe_fd[2], status;
	pid_t child;

	assert(pipe(pipe_fd) == 0);
	child = fork();
	assert(child >= 0);
	if (child == 0) {
		found = check(spec, announced);
		exit(write(pipe_fd[1], &found, sizeof found) != sizeof found);
	}
	close(pipe_fd[1]);
	if (read(pipe_fd[0], &found, sizeof found) != sizeof found)
		exit(1); /* it has said why */
	close(pipe_fd[0]);
	assert(waitpid(child, &status, 0) == child && status == 0);
	return found;
}

static uint32_t round_trip(const char *spec, bool *announced)
{
	struct timespec pause = {.tv_nsec = 1000000 + rnd(60000000)};
	int pipe_fd[2], status;
	uint64_t number;
	pid_t child;

	assert(pipe(pipe_fd) == 0);
	child = fork();
	assert(child >= 0);
	if (child == 0) {
		close(pipe_fd[0]);
		announce = pipe_fd[1];
		write_for_ever(spec, rnd(KEEP));
	}
	close(pipe_fd[1]);
	/* Not before it has begun. */
	assert(read(pipe_fd[0], &number, sizeof number) == sizeof number);
	announced[number] = true;
	nanosleep(&pause, NULL);
	kill(child, SIGKILL);
	while (read(pipe_fd[0], &number, sizeof number) == sizeof number)
		announced[number] = true;
	close(pipe_fd[0]);
	assert(waitpid(child, &status, 0) == child && WIFSIGNALED(status));
	return check_apart(spec, announced);
}

int main(int argc, char **argv)
{
	int rounds = argc > 1 ? atoi(argv[1]) : 10;
	char dir[] = "/var/tmp/tyer-kill.XXXXXX", spec[256], command[256];
	const char *folder = argc > 3 ? argv[3] : mkdtemp(dir);
	static bool announced[KEEP];
	uint32_t found = 0;

	rng = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
	assert(folder);
	ty_log_setup(TY_LOG_ERROR, false);
	snprintf(spec, sizeof spec, "disk:%.200s", folder);
	for (int i = 0; i < rounds; i++)
		found = round_trip(spec, announced);
	snprintf(command, sizeof command, "rm -rf '%.200s'", folder);
	if (system(command) != 0)
		return 1;
	printf("disk_kill: killed %d times, %u chunks there at the end, all right\n", rounds, found);
	return 0;
}
