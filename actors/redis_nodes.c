/* SPDX-License-Identifier: Apache-2.0 */
#include "redis.h"

#include <assert.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/log.h"

#define CONNECT_NS INT64_C(3000000000)
#define BACKOFF_MIN_NS INT64_C(50000000)
#define BACKOFF_MAX_NS INT64_C(5000000000)
#define EVENTS_MAX 16
#define READS_MAX 64 /* of one connection before the others have their turn: 1 MiB */

/* ---- slots ----------------------------------------------------------------------------------------------- */

/* CRC-16 of XMODEM, as clusters have it. Our keys have no {tag}. */
uint32_t redis_slot_of(const char *name)
{
	uint16_t crc = 0;

	for (; *name; name++) {
		crc ^= (uint16_t)((uint8_t)*name << 8);
		for (int bit = 0; bit < 8; bit++)
			crc = (uint16_t)(crc & 0x8000 ? crc << 1 ^ 0x1021 : crc << 1);
	}
	return crc % REDIS_SLOTS;
}

void redis_learn_slot(struct redis_actor *a, uint32_t slot, const struct redis_node *node)
{
	if (slot < REDIS_SLOTS)
		a->slots[slot] = (uint8_t)node->index;
}

struct redis_node *redis_node_at(struct redis_actor *a, const char *host, int port)
{
	struct redis_node *node;

	for (uint32_t i = 0; i < a->node_count; i++)
		if (a->nodes[i].port == port && !strcmp(a->nodes[i].host, host))
			return &a->nodes[i];
	if (a->node_count == REDIS_NODES || strlen(host) >= sizeof node->host)
		return NULL;
	node = &a->nodes[a->node_count];
	*node = (struct redis_node){.a = a, .index = a->node_count++, .port = port};
	strcpy(node->host, host);
	return node;
}

struct redis_node *redis_node_of(struct redis_actor *a, const char *name)
{
	uint8_t known = a->slots[redis_slot_of(name)];

	if (known != REDIS_NO_NODE && redis_node_connect(&a->nodes[known]))
		return &a->nodes[known];
	/* whoever answers says where it is */
	for (uint32_t i = 0; i < a->node_count; i++)
		if (a->nodes[i].connected)
			return &a->nodes[i];
	for (uint32_t i = 0; i < a->node_count; i++)
		if (redis_node_connect(&a->nodes[i]))
			return &a->nodes[i];
	return NULL;
}

/* ---- what hiredis asks of the loop ----------------------------------------------------------------------- */

static void watch(struct redis_node *node, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.u32 = node->index};
	int epoll_fd = node->a->redis->epoll_fd, fd;

	if (!node->ac || events == node->events) /* lost: it is not watched any more */
		return;
	fd = node->ac->c.fd;
	if (!events)
		(void)epoll_ctl(epoll_fd, EPOLL_CTL_DEL, fd, NULL);
	else if (epoll_ctl(epoll_fd, node->in_epoll ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event) != 0)
		ty_log(TY_LOG_ERROR, "tier", "redis: epoll_ctl: %m");
	node->in_epoll = events != 0;
	node->events = events;
}

static void add_read(void *data)
{
	struct redis_node *node = data;

	watch(node, node->events | EPOLLIN);
}

static void del_read(void *data)
{
	struct redis_node *node = data;

	watch(node, node->events & ~(uint32_t)EPOLLIN);
}

static void add_write(void *data)
{
	struct redis_node *node = data;

	watch(node, node->events | EPOLLOUT);
}

static void del_write(void *data)
{
	struct redis_node *node = data;

	watch(node, node->events & ~(uint32_t)EPOLLOUT);
}

static void cleanup(void *data)
{
	watch(data, 0);
}

/* ---- connections ------------------------------------------------------------------------------------------ */

/* hiredis frees the context after this. */
static void lost(struct redis_node *node, const char *why)
{
	if (node->connected || !node->backoff)
		ty_log(TY_LOG_WARN, "tier", "redis: %s:%d: %s", node->host, node->port, why && *why ? why : "the connection is over");
	watch(node, 0);
	node->ac = NULL;
	node->connected = false;
	node->backoff = node->backoff ? node->backoff * 2 : BACKOFF_MIN_NS;
	if (node->backoff > BACKOFF_MAX_NS)
		node->backoff = BACKOFF_MAX_NS;
	node->retry_at = ty_now() + node->backoff;
}

static void on_connect(const redisAsyncContext *ac, int status)
{
	struct redis_node *node = ac->data;

	if (status != REDIS_OK) {
		lost(node, ac->errstr);
		return;
	}
	node->connected = true;
	node->backoff = 0;
}

static void on_disconnect(const redisAsyncContext *ac, int status)
{
	struct redis_node *node = ac->data;

	if (node->ac == ac)
		lost(node, status == REDIS_OK ? NULL : ac->errstr);
}

static void on_auth(redisAsyncContext *ac, void *reply, void *data)
{
	const redisReply *r = reply;

	(void)data;
	if (r && r->type == REDIS_REPLY_ERROR) {
		ty_log(TY_LOG_ERROR, "tier", "redis: AUTH: %.100s", r->str);
		redisAsyncDisconnect(ac);
	}
}

bool redis_node_connect(struct redis_node *node)
{
	const struct redis *r = node->a->redis;
	redisAsyncContext *ac;

	if (node->ac)
		return true;
	if (ty_now() < node->retry_at)
		return false;
	ac = redisAsyncConnect(node->host, node->port);
	if (!ac || ac->err) {
		lost(node, ac ? ac->errstr : "no memory");
		if (ac)
			redisAsyncFree(ac);
		return false;
	}
	node->ac = ac;
	node->since = ty_now();
	node->events = 0;
	node->in_epoll = false;
	ac->data = node;
	ac->ev.data = node;
	ac->ev.addRead = add_read;
	ac->ev.delRead = del_read;
	ac->ev.addWrite = add_write;
	ac->ev.delWrite = del_write;
	ac->ev.cleanup = cleanup;
	(void)redisAsyncSetConnectCallback(ac, on_connect); /* asks for EPOLLOUT */
	(void)redisAsyncSetDisconnectCallback(ac, on_disconnect);
	if (r->secret[0] && r->user[0])
		(void)redisAsyncCommand(ac, on_auth, NULL, "AUTH %s %s", r->user, r->secret);
	else if (r->secret[0])
		(void)redisAsyncCommand(ac, on_auth, NULL, "AUTH %s", r->secret);
	return true;
}

static void read_some(struct redis_node *node, const redisAsyncContext *ac)
{
	int waiting = 1, fd = ac->c.fd;

	for (int i = 0; i < READS_MAX && node->ac == ac && (i == 0 || waiting > 0); i++) {
		redisAsyncHandleRead(node->ac);
		if (node->ac == ac && ioctl(fd, FIONREAD, &waiting) != 0)
			return;
	}
}

void redis_poll(struct redis_actor *a)
{
	struct epoll_event events[EVENTS_MAX];
	int n = epoll_wait(a->redis->epoll_fd, events, EVENTS_MAX, 0);

	for (int i = 0; i < n; i++) {
		struct redis_node *node;
		redisAsyncContext *ac;
		uint32_t what = events[i].events;

		if (events[i].data.u32 >= REDIS_NODES) { /* somebody sent us a message */
			uint64_t count;

			(void)!read(a->redis->wake_fd, &count, sizeof count);
			continue;
		}
		node = &a->nodes[events[i].data.u32];
		ac = node->ac;
		if (!ac)
			continue; /* lost by an event before */
		if (what & (EPOLLOUT | EPOLLERR | EPOLLHUP) && node->events & EPOLLOUT)
			redisAsyncHandleWrite(ac);
		if (node->ac == ac && what & (EPOLLIN | EPOLLERR | EPOLLHUP) && node->events & EPOLLIN)
			read_some(node, ac);
	}
}

void redis_nodes_check(struct redis_actor *a, int64_t now)
{
	for (uint32_t i = 0; i < a->node_count; i++) {
		struct redis_node *node = &a->nodes[i];
		redisAsyncContext *ac = node->ac;

		if (!ac || node->connected || now - node->since < CONNECT_NS)
			continue;
		lost(node, "it does not answer");
		redisAsyncFree(ac); /* its commands fail */
	}
}

void redis_nodes_close(struct redis_actor *a)
{
	for (uint32_t i = 0; i < a->node_count; i++) {
		redisAsyncContext *ac = a->nodes[i].ac;

		a->nodes[i].ac = NULL;
		if (ac) {
			ac->ev.cleanup = NULL; /* the epoll set goes with the tier */
			redisAsyncFree(ac);
		}
	}
}
