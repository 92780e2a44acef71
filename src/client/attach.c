/* SPDX-License-Identifier: Apache-2.0
 *
 * The attach connection from the client's side: greeting, descriptors on their way, and the end.
 */
#include "client/internal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG_RETRY_NS 2000000 /* a full backlog gives no event to wait for */

/* ---- connecting ------------------------------------------------------------------------------------------------------ */

static enum ty_code connect_error(const char *path, int error, struct ty_error *err)
{
	switch (error) {
	case ENOENT:
	case ECONNREFUSED:
		return ty_fail(err, TY_CLOSED, "nobody listens on the attach socket %s", path);
	case EPROTOTYPE:
		return ty_fail(err, TY_PROTOCOL, "%s is a socket of another kind, not Tyer's attach socket", path);
	case EACCES:
	case EPERM:
		return ty_fail(err, TY_DENIED, "connecting to the attach socket %s: %s", path, strerror(error));
	default:
		return ty_fail(err, TY_IO, "connecting to the attach socket %s: %s", path, strerror(error));
	}
}

static enum ty_code connect_to(struct ty_client *c, const char *path, int64_t deadline, struct ty_error *err)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	if (strlen(path) >= sizeof address.sun_path)
		return ty_fail(err, TY_INVALID, "options.attach_path is %zu bytes long, expected at most %zu", strlen(path),
			sizeof address.sun_path - 1);
	memcpy(address.sun_path, path, strlen(path));
	c->attach_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (c->attach_fd < 0)
		return ty_fail(err, TY_IO, "attach: socket: %s", strerror(errno));
	while (connect(c->attach_fd, (const struct sockaddr *)&address, sizeof address) != 0) {
		int64_t now = ty_client_now();

		if (errno == EINTR)
			continue;
		if (errno != EAGAIN)
			return connect_error(path, errno, err);
		if (now >= deadline)
			return ty_fail(err, TY_TIMEOUT, "the attach socket %s accepts nobody in connect_timeout_us", path);
		ty_client_wait(-1, 0, now + BACKLOG_RETRY_NS < deadline ? now + BACKLOG_RETRY_NS : deadline);
	}
	return TY_OK;
}

/* The first frame. */
static enum ty_code greeting(struct ty_client *c, const char *path, int64_t deadline, struct ty_error *err)
{
	struct ty_attach_frame frame;
	enum ty_code code;
	int fd;

	while ((code = ty_attach_recv(c->attach_fd, &frame, &fd, err)) == TY_BUSY)
		if (!ty_client_wait(c->attach_fd, POLLIN, deadline))
			return ty_fail(err, TY_TIMEOUT, "no greeting from the attach socket %s in connect_timeout_us", path);
	if (code != TY_OK)
		return code;
	if (frame.type == TY_ATTACH_REFUSED)
		return ty_fail(err, frame.refused.code, "the service refused the attach connection: %s", frame.refused.text);
	if (frame.type != TY_ATTACH_WELCOME) {
		if (fd >= 0)
			close(fd);
		return ty_fail(err, TY_PROTOCOL, "attach: the first frame has type %d, expected WELCOME", (int)frame.type);
	}
	c->info.boot = frame.welcome.boot;
	memcpy(c->token, frame.welcome.token, sizeof c->token);
	code = ty_attach_timeline_map(fd, &c->timeline, err);
	close(fd);
	return code;
}

enum ty_code ty_client_attach(struct ty_client *c, const char *path, int64_t deadline, struct ty_error *err)
{
	struct epoll_event event = {.events = EPOLLIN};
	enum ty_code code = connect_to(c, path, deadline, err);

	if (code == TY_OK)
		code = greeting(c, path, deadline, err);
	if (code != TY_OK)
		return code;
	event.data.fd = c->attach_fd;
	if (epoll_ctl(c->epoll_fd, EPOLL_CTL_ADD, c->attach_fd, &event) != 0)
		return ty_fail(err, TY_IO, "attach: epoll_ctl: %s", strerror(errno));
	c->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	event.data.fd = c->timer_fd;
	if (c->timer_fd < 0 || epoll_ctl(c->epoll_fd, EPOLL_CTL_ADD, c->timer_fd, &event) != 0)
		return ty_fail(err, TY_IO, "attach: timerfd: %s", strerror(errno));
	return TY_OK;
}

/* ---- descriptors of a REGISTER ---------------------------------------------------------------------------------------- */

static enum ty_code take_number(struct ty_client *c, uint32_t *number, struct ty_error *err)
{
	uint32_t i;

	/* round about: a number that the service may still hold from a REGISTER that failed is used again last */
	for (i = 0; i < TY_ATTACH_DESCRIPTORS; i++) {
		uint32_t n = (c->next_number + i) % TY_ATTACH_DESCRIPTORS;

		if (c->numbers[n].state == TY_NUMBER_FREE) {
			c->numbers[n].state = TY_NUMBER_HELD;
			c->next_number = n + 1;
			*number = n;
			return TY_OK;
		}
	}
	return ty_fail(err, TY_BUSY, "%d descriptors of other REGISTERs are on their way", TY_ATTACH_DESCRIPTORS);
}

enum ty_code ty_attaching_create(struct ty_client *c, const struct ty_pool *pool, uint32_t *numbers,
	struct ty_attaching **out, struct ty_error *err)
{
	struct ty_attaching *a = NULL;
	enum ty_code code = TY_OK;
	uint32_t i;

	*out = NULL;
	for (i = 0; i < pool->region_count; i++) {
		int fd;

		if (!pool->regions[i].is_fd)
			continue;
		if (a == NULL)
			a = calloc(1, sizeof *a);
		if (a == NULL)
			return ty_fail(err, TY_NO_MEMORY, "REGISTER: no memory");
		fd = fcntl(pool->regions[i].fd, F_DUPFD_CLOEXEC, 0);
		if (fd < 0) {
			code = ty_fail(err, errno == EBADF ? TY_INVALID : TY_IO, "pool.regions[%u].fd %d: %s", i,
				pool->regions[i].fd, strerror(errno));
			break;
		}
		code = take_number(c, &numbers[i], err);
		if (code != TY_OK) {
			close(fd);
			break;
		}
		a->of[a->count].fd = fd;
		a->of[a->count++].number = numbers[i];
	}
	if (code != TY_OK) {
		ty_attaching_free(c, a);
		return code;
	}
	*out = a;
	return TY_OK;
}

void ty_attaching_free(struct ty_client *c, struct ty_attaching *a)
{
	uint32_t i;

	if (a == NULL)
		return;
	for (i = 0; i < a->count; i++) {
		enum ty_number_state *state = &c->numbers[a->of[i].number].state;

		*state = *state == TY_NUMBER_HELD && a->of[i].fd < 0 ? TY_NUMBER_ORPHAN : TY_NUMBER_FREE;
		c->numbers[a->of[i].number].slot = NULL;
		if (a->of[i].fd >= 0)
			close(a->of[i].fd);
	}
	free(a);
}

/* The oldest REGISTER that has descriptors to send, or (any = true) that waits for answers. */
static struct ty_request_slot *oldest_attaching(struct ty_client *c, bool any)
{
	struct ty_request_slot *oldest = NULL;
	uint32_t i;

	for (i = 0; i < c->slot_count; i++) {
		struct ty_request_slot *slot = &c->slots[i];

		if (slot->phase != TY_SLOT_ATTACHING || (!any && slot->attaching->sent == slot->attaching->count))
			continue;
		if (oldest == NULL || slot->id < oldest->id)
			oldest = slot;
	}
	return oldest;
}

static void arm_timer(struct ty_client *c)
{
	struct ty_request_slot *oldest = oldest_attaching(c, true); /* they all have the same patience */
	struct itimerspec when = {0};
	int rv;

	if (oldest != NULL) {
		when.it_value.tv_sec = oldest->deadline / 1000000000;
		when.it_value.tv_nsec = oldest->deadline % 1000000000;
	}
	rv = timerfd_settime(c->timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
	assert(rv == 0); /* its arguments are fine by construction */
}

static void wait_for_room(struct ty_client *c, bool wait)
{
	struct epoll_event event = {.events = wait ? EPOLLIN | EPOLLOUT : EPOLLIN, .data.fd = c->attach_fd};
	int rv;

	if (c->attach_waits == wait)
		return;
	c->attach_waits = wait;
	rv = epoll_ctl(c->epoll_fd, EPOLL_CTL_MOD, c->attach_fd, &event);
	assert(rv == 0);
}

/* The connection is over: the client too. */
static void over(struct ty_client *c, enum ty_code code, const char *text)
{
	close(c->attach_fd); /* leaves the epoll set with it */
	c->attach_fd = -1;
	ty_client_end(c, code, text);
}

static void pump(struct ty_client *c)
{
	struct ty_request_slot *slot;

	while (c->attach_fd >= 0 && (slot = oldest_attaching(c, false)) != NULL) {
		struct ty_attaching *a = slot->attaching;
		struct ty_attach_frame frame = {
			.type = TY_ATTACH_DESCRIPTOR, .descriptor.number = a->of[a->sent].number};
		struct ty_error err;
		enum ty_code code = ty_attach_send(c->attach_fd, &frame, a->of[a->sent].fd, &err);

		if (code == TY_BUSY) {
			wait_for_room(c, true);
			return;
		}
		if (code == TY_OK) {
			close(a->of[a->sent].fd);
			a->of[a->sent++].fd = -1;
		} else if (code == TY_LIMIT) {
			ty_slot_fail(slot, code, err.text);
		} else if (code == TY_CLOSED) {
			/* its end is read from it, behind what the service said before */
			break;
		} else {
			over(c, code, err.text);
		}
	}
	if (c->attach_fd >= 0)
		wait_for_room(c, false);
}

void ty_attaching_begin(struct ty_request_slot *slot)
{
	struct ty_client *c = slot->client;
	uint32_t i;

	for (i = 0; i < slot->attaching->count; i++)
		c->numbers[slot->attaching->of[i].number].slot = slot;
	pump(c);
	arm_timer(c);
}

/* ---- what the service says --------------------------------------------------------------------------------------------- */

/* False: nothing like that was asked. */
static bool on_descriptor_ok(struct ty_client *c, const struct ty_attach_frame *frame)
{
	uint32_t number = frame->descriptor_ok.number;
	struct ty_request_slot *slot = c->numbers[number].slot;
	nng_msg *msg;

	switch (c->numbers[number].state) {
	case TY_NUMBER_ORPHAN:
		c->numbers[number].state = TY_NUMBER_FREE;
		return true;
	case TY_NUMBER_HELD:
		break;
	default:
		return false;
	}
	c->numbers[number].state = TY_NUMBER_ACCEPTED;
	if (frame->descriptor_ok.code != TY_OK) {
		ty_slot_fail(slot, frame->descriptor_ok.code, "the service refused a descriptor of the pool");
		return true;
	}
	if (++slot->attaching->accepted == slot->attaching->count) {
		msg = slot->request;
		slot->request = NULL;
		ty_slot_send(slot, msg); /* `attaching` stays: the numbers are in use until REGISTER is answered */
	}
	return true;
}

void ty_attach_events(struct ty_client *c, uint32_t events)
{
	struct ty_attach_frame frame;
	struct ty_error err;
	enum ty_code code;
	int fd;

	if (events & EPOLLOUT)
		pump(c);
	while (c->attach_fd >= 0) {
		code = ty_attach_recv(c->attach_fd, &frame, &fd, &err);
		if (code == TY_BUSY)
			break;
		if (code == TY_CLOSED) {
			over(c, TY_CLOSED, "the attach connection ended: the service is gone");
			break;
		}
		if (code != TY_OK) {
			over(c, code, err.text);
			break;
		}
		if (fd >= 0)
			close(fd);
		if (frame.type == TY_ATTACH_REFUSED)
			over(c, frame.refused.code, frame.refused.text);
		else if (frame.type != TY_ATTACH_DESCRIPTOR_OK || !on_descriptor_ok(c, &frame))
			over(c, TY_PROTOCOL, "attach: a frame that was not asked for");
	}
	if (!c->over)
		arm_timer(c);
}

void ty_attach_expire(struct ty_client *c)
{
	struct ty_request_slot *slot;
	int64_t now = ty_client_now();
	uint64_t count;
	ssize_t n;

	n = read(c->timer_fd, &count, sizeof count);
	(void)n; /* EAGAIN: armed anew since */
	while ((slot = oldest_attaching(c, true)) != NULL && slot->deadline <= now)
		ty_slot_fail(slot, TY_TIMEOUT, "the service did not take the pool's descriptors in time");
	if (!c->over)
		arm_timer(c);
}
