/* SPDX-License-Identifier: Apache-2.0 */
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <tyer/actor.h>

enum { JOBS = 10000, WORKERS = 100 };
enum { SQUARE = 1, ADD, SUM };

struct job { /* a message: the header first, then what is yours */
	struct ty_msg msg;
	uint64_t number;
};
TY_MESSAGE(square, SQUARE, struct job)
TY_MESSAGE(add, ADD, struct job)
TY_MESSAGE(sum, SUM, struct job)

/* The owner: the only one who touches the sum. It waits in its own way. */
struct owner {
	struct ty_actor *main; /* who wants to know */
	int wake_fd;
	uint64_t count;
	struct job sum;
};

static enum ty_code owner_start(void *self, void *arg)
{
	struct owner *owner = self;

	owner->main = arg;
	owner->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return owner->wake_fd < 0 ? TY_IO : TY_OK;
}

static void owner_stop(void *self)
{
	close(((struct owner *)self)->wake_fd);
}

static void owner_add(struct owner *owner, struct job *job)
{
	owner->sum.number += job->number;
	if (++owner->count == JOBS && sum_send(owner->main, &owner->sum) != TY_OK)
		abort(); /* the port is closed after this */
}
TY_HANDLER(add, owner_add, struct owner)

static void owner_wait(void *self, int64_t deadline)
{
	struct owner *owner = self;
	struct pollfd fd = {.fd = owner->wake_fd, .events = POLLIN}; /* and whatever else it looks after */
	int64_t left = deadline == TY_NEVER ? -1 : (deadline - ty_now()) / 1000000;
	uint64_t wakes;

	if (deadline != TY_NEVER && left < 0)
		left = 0;
	if (poll(&fd, 1, left > 1000000 ? 1000000 : (int)left) > 0 && read(owner->wake_fd, &wakes, sizeof wakes) < 0)
		perror("read");
}

static void owner_wake(void *self)
{
	uint64_t one = 1;

	if (write(((struct owner *)self)->wake_fd, &one, sizeof one) < 0)
		perror("write");
}

static const struct ty_handler owner_handlers[] = {{"add", owner_add_run}};
static const struct ty_class owner_class = {
	.name = "owner",
	.state_size = sizeof(struct owner),
	.first_type = ADD,
	.type_count = 1,
	.handlers = owner_handlers,
	.start = owner_start,
	.stop = owner_stop,
	.wait = {owner_wait, owner_wake},
};

/* The workers: many, on the pool. Each squares, and hands the same message on. */
struct worker {
	struct ty_actor *owner;
};

static enum ty_code worker_start(void *self, void *arg)
{
	((struct worker *)self)->owner = arg;
	return TY_OK;
}

static void worker_square(struct worker *worker, struct job *job)
{
	job->number *= job->number;
	if (add_send(worker->owner, job) != TY_OK)
		abort(); /* the owner stops after the workers */
}
TY_HANDLER(square, worker_square, struct worker)

static const struct ty_handler worker_handlers[] = {{"square", worker_square_run}};
static const struct ty_class worker_class = {
	.name = "worker",
	.state_size = sizeof(struct worker),
	.first_type = SQUARE,
	.type_count = 1,
	.handlers = worker_handlers,
	.start = worker_start,
};

/* A thread of the program's own: it may send like anyone else. */
static struct job jobs[JOBS];
static struct ty_actor *workers[WORKERS];

static void *produce(void *unused)
{
	(void)unused;
	for (int i = 0; i < JOBS; i++) {
		jobs[i].number = (uint64_t)i;
		if (square_send(workers[i % WORKERS], &jobs[i]) != TY_OK)
			abort();
	}
	return NULL;
}

int main(void)
{
	struct ty_runtime_options options = {.size = sizeof options, .name = "squares", .workers = 2};
	struct ty_spawn_options alone = {.size = sizeof alone, .executor = TY_DEDICATED, .cpu = -1};
	struct ty_runtime *rt;
	struct ty_actor *owner;
	struct ty_actor_stats stats;
	struct ty_port *port; /* where this thread receives */
	struct ty_error err;
	pthread_t producer;
	uint64_t sum;

	if (ty_runtime_create(&options, &rt, &err) != TY_OK || ty_port_open(rt, NULL, &port) != TY_OK)
		return 1;
	if (ty_spawn(rt, &owner_class, ty_port_address(port), &alone, &owner) != TY_OK)
		return 1;
	for (int i = 0; i < WORKERS; i++)
		if (ty_spawn(rt, &worker_class, owner, NULL, &workers[i]) != TY_OK)
			return 1;
	if (pthread_create(&producer, NULL, produce, NULL))
		return 1;
	sum = sum_of(ty_port_wait(port, TY_NEVER))->number; /* or: poll ty_port_fd(port) beside other descriptors */
	pthread_join(producer, NULL);
	ty_actor_stats(workers[0], &stats);
	ty_port_close(port);
	ty_runtime_destroy(rt); /* the youngest first: the owner is the last to stop */
	for (int i = 0; i < WORKERS; i++)
		ty_actor_unref(workers[i]);
	ty_actor_unref(owner);
	printf("sum of squares: %llu; worker 0 had %llu of them\n", (unsigned long long)sum,
		(unsigned long long)stats.messages);
	return sum != (uint64_t)(JOBS - 1) * JOBS * (2 * JOBS - 1) / 6;
}
