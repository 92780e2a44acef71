/* SPDX-License-Identifier: Apache-2.0 */
#include "base/waiter.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define WAKE_DATA UINT64_MAX

static int64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

enum ty_code ty_waiter_open(struct ty_waiter *w, struct ty_error *err)
{
	enum ty_code code = TY_OK;

	memset(w, 0, sizeof *w);
	w->wake_fd = -1;
	w->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (w->epoll_fd >= 0)
		w->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	/* edge-triggered: each wake is an event, and nobody needs to read it away */
	if (w->wake_fd < 0 || !ty_waiter_add(w, w->wake_fd, EPOLLIN | EPOLLET, WAKE_DATA))
		code = ty_fail(err, TY_IO, "epoll and eventfd: %s", strerror(errno));
	if (code != TY_OK)
		ty_waiter_close(w);
	return code;
}

void ty_waiter_close(struct ty_waiter *w)
{
	if (w->epoll_fd >= 0)
		close(w->epoll_fd);
	if (w->wake_fd >= 0)
		close(w->wake_fd);
	w->epoll_fd = w->wake_fd = -1;
}

bool ty_waiter_add(struct ty_waiter *w, int fd, uint32_t events, uint64_t data)
{
	struct epoll_event event = {.events = events, .data.u64 = data};

	return epoll_ctl(w->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0;
}

bool ty_waiter_change(struct ty_waiter *w, int fd, uint32_t events, uint64_t data)
{
	struct epoll_event event = {.events = events, .data.u64 = data};

	return epoll_ctl(w->epoll_fd, EPOLL_CTL_MOD, fd, &event) == 0;
}

void ty_waiter_remove(struct ty_waiter *w, int fd)
{
	(void)epoll_ctl(w->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}

static int look(struct ty_waiter *w)
{
	int n = epoll_wait(w->epoll_fd, w->events, TY_WAITER_EVENTS, 0);

	return n > 0 ? n : 0;
}

/* What sleeps needs tens of microseconds to wake up: who was busy just now will often be again before that. */
static int spin(struct ty_waiter *w, int64_t ns)
{
	int64_t until = now() + (ns >= 0 && ns < w->spin_ns ? ns : w->spin_ns);
	int n;

	do
		n = look(w);
	while (n == 0 && now() < until);
	return n;
}

/* epoll_wait knows only milliseconds, and epoll_pwait2 is not in every kernel that we run on. */
static int sleep_for(struct ty_waiter *w, int64_t ns)
{
	struct timespec ts = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
	struct pollfd p = {.fd = w->epoll_fd, .events = POLLIN};

	return ppoll(&p, 1, ns < 0 ? NULL : &ts, NULL) > 0 ? look(w) : 0;
}

void ty_waiter_wait(struct ty_waiter *w, int64_t ns)
{
	w->count = w->spin_ns > 0 ? spin(w, ns) : 0;
	if (w->count == 0)
		w->count = sleep_for(w, ns);
	w->put_off = false;
}

void ty_waiter_wake(struct ty_waiter *w)
{
	const uint64_t one = 1;

	(void)!write(w->wake_fd, &one, sizeof one); /* cannot fail: it would take 2^64 of them */
}

int ty_waiter_take(struct ty_waiter *w, const struct epoll_event **events)
{
	int n = w->count, kept = 0;

	w->count = 0;
	*events = w->events;
	if (n == 0) {
		if (!w->put_off) {
			w->put_off = true; /* no wait followed if it is still so the next time */
			return 0;
		}
		n = look(w);
	}
	for (int i = 0; i < n; i++)
		if (w->events[i].data.u64 != WAKE_DATA)
			w->events[kept++] = w->events[i];
	return kept;
}
