/* SPDX-License-Identifier: Apache-2.0 */
#include "redis.h"

#include <errno.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/secret.h"

#define CONNECT_S 2 /* the first look at a server */

/* A file with one line, which others may not read. */
static enum ty_code read_secret(struct redis *r, const char *path, struct ty_error *err)
{
	enum ty_code code = ty_secret_read("--tier: redis: password-file", path, r->secret, sizeof r->secret, err);

	if (code != TY_OK)
		return code;
	r->secret[strcspn(r->secret, "\r\n")] = 0;
	return r->secret[0] ? TY_OK : ty_fail(err, TY_INVALID, "--tier: redis: password-file %s: is empty", path);
}

static enum ty_code take_arguments(struct redis *r, struct ty_error *err)
{
	const struct ty_tier_config *c = &r->tier->config;
	enum ty_code code = TY_OK;

	strcpy(r->prefix, "tyer:");
	if (c->size != UINT64_MAX)
		return ty_fail(err, TY_INVALID, "--tier: redis: found size=, expected the server's own maxmemory to say it");
	for (uint32_t i = 0; i < c->arg_count && code == TY_OK; i++) {
		const char *name = c->args[i].name, *value = c->args[i].value;

		if (strcmp(name, "user") == 0 && strlen(value) < sizeof r->user)
			strcpy(r->user, value);
		else if (strcmp(name, "prefix") == 0 && strlen(value) < sizeof r->prefix && !strpbrk(value, "{}"))
			strcpy(r->prefix, value);
		else if (strcmp(name, "password-file") == 0)
			code = read_secret(r, value, err);
		else
			code = ty_fail(err, TY_INVALID,
				"--tier: redis: found \"%s=%.60s\", expected user=NAME, password-file=PATH or prefix=TEXT", name, value);
	}
	if (code == TY_OK && r->user[0] && !r->secret[0])
		code = ty_fail(err, TY_INVALID, "--tier: redis: found user=%s without a password-file=", r->user);
	return code;
}

/* Names are looked up here, where it may wait. */
static enum ty_code take_seed(struct redis *r, char *text, struct ty_error *err)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
	char *colon = strrchr(text, ':'), *host = text;
	struct ty_error why;
	uint64_t port = 0;
	int failed;

	if (r->seed_count == REDIS_SEEDS)
		return ty_fail(err, TY_INVALID, "--tier: redis: found more than %d servers", REDIS_SEEDS);
	if (!colon || colon == text || ty_parse_count(colon + 1, 65535, &port, &why) != TY_OK || !port)
		return ty_fail(err, TY_INVALID, "--tier: redis: found \"%.60s\", expected HOST:PORT[+HOST:PORT...]", text);
	*colon = 0;
	if (host[0] == '[' && colon[-1] == ']') {
		colon[-1] = 0;
		host++;
	}
	failed = getaddrinfo(host, NULL, &hints, &found);
	if (failed)
		return ty_fail(err, TY_INVALID, "--tier: redis: %.60s: %s", host, gai_strerror(failed));
	failed = getnameinfo(found->ai_addr, found->ai_addrlen, r->seed[r->seed_count].host, sizeof r->seed[0].host, NULL, 0,
		NI_NUMERICHOST);
	freeaddrinfo(found);
	if (failed)
		return ty_fail(err, TY_INVALID, "--tier: redis: %.60s: %s", host, gai_strerror(failed));
	r->seed[r->seed_count++].port = (int)port;
	return TY_OK;
}

static enum ty_code take_seeds(struct redis *r, struct ty_error *err)
{
	char copy[TY_CONFIG_TIER_MAX], *save = NULL;
	enum ty_code code = TY_OK;

	strcpy(copy, r->tier->config.where);
	for (char *text = strtok_r(copy, "+", &save); text && code == TY_OK; text = strtok_r(NULL, "+", &save))
		code = take_seed(r, text, err);
	if (code == TY_OK && !r->seed_count)
		code = ty_fail(err, TY_INVALID, "--tier: redis: found no server");
	return code;
}

/* What a server says to whoever may ask it; TY_IO: it does not answer. */
static enum ty_code ask(const struct redis *r, uint32_t seed, struct ty_error *err)
{
	struct timeval patience = {.tv_sec = CONNECT_S};
	redisContext *c = redisConnectWithTimeout(r->seed[seed].host, r->seed[seed].port, patience);
	enum ty_code code = TY_OK;
	redisReply *reply = NULL;

	if (!c)
		return ty_fail(err, TY_NO_MEMORY, "--tier: redis: no memory");
	(void)redisSetTimeout(c, patience);
	if (!c->err && r->secret[0])
		reply = r->user[0] ? redisCommand(c, "AUTH %s %s", r->user, r->secret) : redisCommand(c, "AUTH %s", r->secret);
	if (reply && reply->type == REDIS_REPLY_ERROR)
		code = ty_fail(err, TY_DENIED, "--tier: redis: %s:%d: %.100s", r->seed[seed].host, r->seed[seed].port, reply->str);
	if (reply)
		freeReplyObject(reply);
	/* TYPE of a key, not PING: that may be allowed to whoever may do nothing else */
	reply = code == TY_OK && !c->err ? redisCommand(c, "TYPE %s", r->prefix) : NULL;
	if (reply && reply->type == REDIS_REPLY_ERROR &&
		(!strncmp(reply->str, "NOAUTH", 6) || !strncmp(reply->str, "NOPERM", 6)))
		code = ty_fail(err, TY_DENIED, "--tier: redis: %s:%d: %.100s (user=, password-file=)", r->seed[seed].host,
			r->seed[seed].port, reply->str);
	if (reply)
		freeReplyObject(reply);
	if (code == TY_OK && c->err)
		code = ty_fail(err, c->err == REDIS_ERR_PROTOCOL ? TY_PROTOCOL : TY_IO, "--tier: redis: %s:%d: %.100s", r->seed[seed].host,
			r->seed[seed].port, c->errstr);
	redisFree(c);
	return code;
}

/* One that answers is enough, and one that does not answer today may do so later; but a server that refuses us, or is none,
 * is a wrong configuration. */
static enum ty_code look(struct redis *r, struct ty_error *err)
{
	uint32_t silent = 0;

	for (uint32_t i = 0; i < r->seed_count; i++) {
		enum ty_code code = ask(r, i, err);

		if (code != TY_OK && code != TY_IO)
			return code;
		silent += code == TY_IO;
	}
	snprintf(r->tier->stats.note, sizeof r->tier->stats.note, "%u of %u servers answer%s%.80s", r->seed_count - silent,
		r->seed_count, silent ? ": " : "", silent ? err->text : "");
	return TY_OK;
}

enum ty_code redis_open(struct ty_tier *tier, struct ty_error *err)
{
	struct redis *r = calloc(1, sizeof *r);
	enum ty_code code;

	if (!r)
		return ty_fail(err, TY_NO_MEMORY, "no memory for a redis tier");
	r->tier = tier;
	tier->state = r;
	r->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	code = r->wake_fd < 0 || r->epoll_fd < 0 ? ty_fail(err, TY_IO, "--tier: redis: %s", strerror(errno)) : TY_OK;
	if (code == TY_OK)
		code = take_arguments(r, err);
	if (code == TY_OK)
		code = take_seeds(r, err);
	if (code == TY_OK)
		code = look(r, err);
	if (code != TY_OK) {
		redis_close(tier);
		return code;
	}
	tier->capabilities = TY_TIER_SHARED | TY_TIER_LASTING;
	return TY_OK;
}

void redis_close(struct ty_tier *tier)
{
	struct redis *r = tier->state;

	if (r->wake_fd >= 0)
		close(r->wake_fd);
	if (r->epoll_fd >= 0)
		close(r->epoll_fd);
	explicit_bzero(r->secret, sizeof r->secret);
	free(r);
	tier->state = NULL;
}
