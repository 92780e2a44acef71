/* SPDX-License-Identifier: Apache-2.0
 *
 * The attach connection from the client's side: greeting, descriptors on their way, and the end.
 */
#include "client/internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/folder.h"
#include "wire/pool.h"

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

enum ty_code ty_attach_connect(struct ty_client *c, struct ty_error *err)
{
	struct epoll_event event = {.events = EPOLLIN};
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	const char *path = c->options.attach_path;
	enum ty_code code = ty_folder_check(path, err);
	int rv, error;

	if (code != TY_OK)
		return code;
	memcpy(address.sun_path, path, strlen(path)); /* it fits: open looked */
	c->attach_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (c->attach_fd < 0)
		return ty_fail(err, TY_IO, "attach: socket: %s", strerror(errno));
	do
		rv = connect(c->attach_fd, (const struct sockaddr *)&address, sizeof address);
	while (rv != 0 && errno == EINTR);
	error = errno;
	event.data.fd = c->attach_fd;
	if (rv == 0 && epoll_ctl(c->epoll_fd, EPOLL_CTL_ADD, c->attach_fd, &event) != 0)
		rv = -1, error = errno;
	if (rv == 0)
		return TY_OK;
	ty_attach_close(c);
	return error == EAGAIN ? TY_BUSY : connect_error(path, error, err);
}

void ty_attach_close(struct ty_client *c)
{
	ty_client_close_watched(c->epoll_fd, &c->attach_fd);
	c->attach_waits = false;
}

/* The first frame. A client that comes back keeps the page it has: the user's stream may wait on it, or have it registered. */
static enum ty_code welcome(struct ty_client *c, const struct ty_attach_frame *frame, int fd, struct ty_error *err)
{
	static const struct ty_attach_frame ours = {.type = TY_ATTACH_TIMELINE};
	enum ty_code code;

	if (frame->type != TY_ATTACH_WELCOME) {
		if (fd >= 0)
			close(fd);
		return ty_fail(err, TY_PROTOCOL, "attach: the first frame has type %d, expected WELCOME", (int)frame->type);
	}
	if (frame->welcome.boot == 0) {
		close(fd);
		return ty_fail(err, TY_PROTOCOL, "attach: WELCOME's boot is 0, expected the service's");
	}
	if (c->timeline != NULL) {
		close(fd);
		code = ty_attach_send(c->attach_fd, &ours, c->timeline_fd, err);
	} else {
		code = ty_timeline_open(fd, &c->timeline, err);
		if (code == TY_OK)
			c->timeline_fd = fd;
		else
			close(fd);
	}
	if (code != TY_OK)
		return code;
	c->info.boot = frame->welcome.boot;
	memcpy(c->token, frame->welcome.token, sizeof c->token);
	ty_link_welcome(c);
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
			c->left -= c->numbers[n].left; /* what is sent now replaces it */
			c->numbers[n].left = false;
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
	int *descriptors[TY_ATTACH_DESCRIPTORS];
	uint32_t count = ty_pool_descriptors(pool, descriptors), i;
	struct ty_attaching *a;
	enum ty_code code = TY_OK;

	*out = NULL;
	if (count == 0)
		return TY_OK;
	a = calloc(1, sizeof *a + count * sizeof a->of[0]);
	if (a == NULL)
		return ty_fail(err, TY_NO_MEMORY, "REGISTER: no memory");
	for (i = 0; code == TY_OK && i < count; i++) {
		code = take_number(c, &numbers[i], err);
		if (code != TY_OK)
			break;
		a->of[a->count].fd = *descriptors[i];
		a->of[a->count++].number = numbers[i];
	}
	if (code != TY_OK) {
		ty_attaching_free(c, a, true);
		return code;
	}
	*out = a;
	return TY_OK;
}

void ty_attaching_free(struct ty_client *c, struct ty_attaching *a, bool taken)
{
	uint32_t i;

	if (a == NULL)
		return;
	for (i = 0; i < a->count; i++) {
		enum ty_number_state *state = &c->numbers[a->of[i].number].state;

		*state = *state == TY_NUMBER_HELD && i < a->sent ? TY_NUMBER_ORPHAN : TY_NUMBER_FREE;
		c->numbers[a->of[i].number].slot = NULL;
		if (i < a->sent && !taken) {
			c->numbers[a->of[i].number].left = true; /* a number that is held is not left */
			c->left++;
		}
	}
	free(a);
}

/* The oldest REGISTER that has descriptors to send. */
static struct ty_request_slot *oldest_attaching(struct ty_client *c)
{
	struct ty_request_slot *oldest = NULL;
	uint32_t i;

	for (i = 0; i < c->slot_count; i++) {
		struct ty_request_slot *slot = &c->slots[i];

		if (slot->phase != TY_SLOT_ATTACHING || slot->attaching->sent == slot->attaching->count)
			continue;
		if (oldest == NULL || slot->id < oldest->id)
			oldest = slot;
	}
	return oldest;
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

static void pump(struct ty_client *c)
{
	struct ty_request_slot *slot;

	while (c->attach_fd >= 0 && (slot = oldest_attaching(c)) != NULL) {
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
			a->sent++;
		} else if (code == TY_LIMIT) {
			ty_slot_fail(slot, code, err.text);
		} else if (code == TY_CLOSED) {
			/* its end is read from it, behind what the service said before */
			break;
		} else {
			ty_link_lost(c, code, err.text);
		}
	}
	if (c->attach_fd >= 0)
		wait_for_room(c, false);
}

/* With the page that the service has anyway. */
void ty_attach_replace_left(struct ty_client *c)
{
	for (uint32_t n = 0; n < TY_ATTACH_DESCRIPTORS && c->left != 0 && c->attach_fd >= 0; n++) {
		struct ty_attach_frame frame = {.type = TY_ATTACH_DESCRIPTOR, .descriptor.number = n};
		struct ty_error err;
		enum ty_code code;

		if (!c->numbers[n].left || c->numbers[n].state != TY_NUMBER_FREE)
			continue;
		code = ty_attach_send(c->attach_fd, &frame, c->timeline_fd, &err);
		if (code == TY_BUSY)
			wait_for_room(c, true);
		else if (code != TY_OK && code != TY_LIMIT && code != TY_CLOSED) /* as in pump */
			ty_link_lost(c, code, err.text);
		if (code != TY_OK)
			return;
		c->numbers[n].state = TY_NUMBER_ORPHAN;
		c->numbers[n].left = false;
		c->left--;
	}
}

void ty_attaching_begin(struct ty_request_slot *slot)
{
	struct ty_client *c = slot->client;
	uint32_t i;

	for (i = 0; i < slot->attaching->count; i++)
		c->numbers[slot->attaching->of[i].number].slot = slot;
	pump(c);
}

/* ---- what the service says --------------------------------------------------------------------------------------------- */

/* False: nothing like that was asked. */
static bool on_descriptor_ok(struct ty_client *c, const struct ty_attach_frame *frame)
{
	uint32_t number = frame->descriptor_ok.number;
	struct ty_request_slot *slot = c->numbers[number].slot;
	struct ty_frame *request;

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
		request = slot->request;
		slot->request = NULL;
		ty_slot_send(slot, request); /* `attaching` stays: the numbers are in use until REGISTER is answered */
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
		if (code == TY_CLOSED)
			code = ty_fail(&err, TY_CLOSED, "the attach connection ended: the service is gone");
		else if (code == TY_OK && frame.type == TY_ATTACH_REFUSED)
			code = ty_fail(&err, frame.refused.code, "%s%s", c->link == TY_LINK_WELCOME ?
				"the service refused the attach connection: " : "", frame.refused.text);
		else if (code == TY_OK && c->link == TY_LINK_WELCOME)
			code = welcome(c, &frame, fd, &err);
		else if (code == TY_OK && (frame.type != TY_ATTACH_DESCRIPTOR_OK || !on_descriptor_ok(c, &frame))) {
			if (fd >= 0)
				close(fd);
			code = ty_fail(&err, TY_PROTOCOL, "attach: a frame that was not asked for");
		}
		if (code != TY_OK)
			ty_link_lost(c, code, err.text);
	}
}
