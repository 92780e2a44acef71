/* SPDX-License-Identifier: Apache-2.0 */
#include "redis.h"

#include <assert.h>
#include <string.h>

#include "base/log.h"

#define CONNECT_NS INT64_C(3000000000)
#define BACKOFF_MIN_NS INT64_C(50000000)
#define BACKOFF_MAX_NS INT64_C(5000000000)

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

/* Those of a cluster are replaced by others in time: one that is not connected is forgotten for one that is named now, the one that was
 * lost longest ago. Those that the configuration names stay. Null: all are connected. */
static struct redis_node *free_node(struct redis_actor *a)
{
	struct redis_node *oldest = NULL;

	if (a->node_count < REDIS_NODES)
		return &a->nodes[a->node_count++];
	for (uint32_t i = a->redis->seed_count; i < REDIS_NODES; i++)
		if (!a->nodes[i].c && (!oldest || a->nodes[i].retry_at < oldest->retry_at))
			oldest = &a->nodes[i];
	for (uint32_t slot = 0; oldest && slot < REDIS_SLOTS; slot++)
		if (a->slots[slot] == oldest->index)
			a->slots[slot] = REDIS_NO_NODE;
	return oldest;
}

struct redis_node *redis_node_at(struct redis_actor *a, const char *host, int port)
{
	struct redis_node *node;

	for (uint32_t i = 0; i < a->node_count; i++)
		if (a->nodes[i].port == port && !strcmp(a->nodes[i].host, host))
			return &a->nodes[i];
	node = strlen(host) < sizeof node->host ? free_node(a) : NULL;
	if (!node)
		return NULL;
	*node = (struct redis_node){.a = a, .index = (uint32_t)(node - a->nodes), .port = port};
	strcpy(node->host, host);
	node->name = a->redis->tls_name[0] ? a->redis->tls_name : node->host;
	for (uint32_t i = 0; i < a->redis->seed_count && node->name == node->host; i++)
		if (a->redis->seed[i].port == port && !strcmp(a->redis->seed[i].host, host))
			node->name = a->redis->seed[i].name;
	return node;
}

struct redis_node *redis_node_of(struct redis_actor *a, const char *name)
{
	uint8_t known = a->slots[redis_slot_of(name)];

	if (known != REDIS_NO_NODE && redis_node_connect(&a->nodes[known]))
		return &a->nodes[known];
	/* whoever answers says where it is */
	for (uint32_t i = 0; i < a->node_count; i++)
		if (a->nodes[i].c && redis_is_open(a->nodes[i].c))
			return &a->nodes[i];
	for (uint32_t i = 0; i < a->node_count; i++)
		if (redis_node_connect(&a->nodes[i]))
			return &a->nodes[i];
	return NULL;
}

/* ---- connections ------------------------------------------------------------------------------------------ */

static void lost(struct redis_node *node, const struct ty_error *why)
{
	struct redis_connection *c = node->c;

	/* one that was good for some time; a server that takes connections and ends them at once is no better than one that takes none */
	if (node->open_since && ty_now() - node->open_since >= BACKOFF_MAX_NS)
		node->backoff = 0;
	node->open_since = 0;
	if (!node->backoff)
		ty_log(TY_LOG_WARN, "tier", "redis: %s:%d: %s", node->host, node->port, why->text);
	node->c = NULL;
	node->backoff = node->backoff ? node->backoff * 2 : BACKOFF_MIN_NS;
	if (node->backoff > BACKOFF_MAX_NS)
		node->backoff = BACKOFF_MAX_NS;
	node->retry_at = ty_now() + node->backoff;
	if (c)
		redis_hang_up(c); /* its commands fail; epoll forgets it with its descriptor */
}

static void on_auth(void *user, const redisReply *r)
{
	struct redis_node *node = user;

	if (r && r->type == REDIS_REPLY_ERROR)
		ty_log(TY_LOG_ERROR, "tier", "redis: %s:%d: AUTH: %.100s", node->host, node->port, r->str);
}

bool redis_send_auth(const struct redis *r, struct redis_connection *c, redis_replied *replied, void *user)
{
	const char *words[3] = {"AUTH", r->user, r->secret};
	size_t lengths[3] = {4, strlen(r->user), strlen(r->secret)};

	if (!r->secret[0])
		return true;
	if (r->user[0])
		return redis_send(c, replied, user, NULL, 3, words, lengths);
	words[1] = words[2];
	lengths[1] = lengths[2];
	return redis_send(c, replied, user, NULL, 2, words, lengths);
}

bool redis_node_connect(struct redis_node *node)
{
	struct redis *r = node->a->redis;
	struct ty_error err = {.text = ""};

	if (node->c)
		return true;
	if (ty_now() < node->retry_at)
		return false;
	node->c = redis_connect(node->host, node->port, r->tls, node->name, &err);
	if (node->c) {
		node->events = redis_events(node->c);
		if (!ty_waiter_add(&r->waiter, redis_fd(node->c), node->events, node->index))
			(void)ty_fail(&err, TY_IO, "epoll_ctl: %m");
		else if (!redis_send_auth(r, node->c, on_auth, node))
			(void)ty_fail(&err, TY_NO_MEMORY, "no memory");
	}
	if (err.text[0]) {
		lost(node, &err);
		return false;
	}
	node->since = ty_now();
	return true;
}

/* Let the connection go on, and have epoll wait for what it waits for. */
static void step(struct redis_node *node)
{
	uint32_t events;

	if (!redis_step(node->c)) {
		lost(node, redis_error(node->c));
		return;
	}
	if (!node->open_since && redis_is_open(node->c))
		node->open_since = ty_now();
	events = redis_events(node->c);
	if (events == node->events)
		return;
	if (!ty_waiter_change(&node->a->redis->waiter, redis_fd(node->c), events, node->index))
		ty_log(TY_LOG_ERROR, "tier", "redis: epoll_ctl: %m");
	node->events = events;
}

bool redis_poll(struct redis_actor *a)
{
	const struct epoll_event *events;
	bool more;
	int n = ty_waiter_take(&a->redis->waiter, &events);

	for (int i = 0; i < n; i++)
		if (a->nodes[events[i].data.u64].c) /* else: lost by an event before */
			step(&a->nodes[events[i].data.u64]);
	/* What messages and replies have made to be sent goes out before anybody waits. */
	redis_commands_go_on(a);
	for (uint32_t i = 0; i < a->node_count; i++)
		if (a->nodes[i].c && redis_wants_out(a->nodes[i].c))
			step(&a->nodes[i]);
	more = a->due != NULL;
	for (uint32_t i = 0; i < a->node_count; i++)
		more |= a->nodes[i].c && redis_wants_out(a->nodes[i].c);
	return more;
}

/* One whose replies do not come. Its commands were answered at their deadlines and others may follow them, but what they sent is still
 * kept for it; so it is kept for twice as long as an operation may take, and not for ever. */
static struct redis_node *find_overdue(const struct redis_actor *a, int64_t now)
{
	for (const struct redis_command *c = a->commands; c; c = c->next)
		if (now >= c->overdue_at && !c->unpack && c->node && c->node->c)
			return c->node;
	return NULL;
}

void redis_nodes_check(struct redis_actor *a, int64_t now)
{
	struct ty_error err;

	(void)ty_fail(&err, TY_TIMEOUT, "it does not answer");
	for (uint32_t i = 0; i < a->node_count; i++)
		if (a->nodes[i].c && !redis_is_open(a->nodes[i].c) && now - a->nodes[i].since >= CONNECT_NS)
			lost(&a->nodes[i], &err);
	for (struct redis_node *node; (node = find_overdue(a, now));)
		lost(node, &err);
}

void redis_nodes_close(struct redis_actor *a)
{
	for (uint32_t i = 0; i < a->node_count; i++) {
		struct redis_connection *c = a->nodes[i].c;

		a->nodes[i].c = NULL;
		if (c)
			redis_hang_up(c);
	}
}
