/* SPDX-License-Identifier: Apache-2.0 */
#include "redis.h"

#include <netdb.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/secret.h"

#define CONNECT_MS 2000 /* the first look at a server */

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
	const char *ca = NULL, *cert = NULL;
	bool tls = strcmp(c->kind, "rediss") == 0;

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
		else if (tls && strcmp(name, "ca") == 0)
			ca = value;
		else if (tls && strcmp(name, "cert") == 0)
			cert = value;
		else if (tls && strcmp(name, "tls-name") == 0 && strlen(value) < sizeof r->tls_name)
			strcpy(r->tls_name, value);
		else
			code = ty_fail(err, TY_INVALID, "--tier: %s: found \"%s=%.60s\", expected user=NAME, password-file=PATH%s prefix=TEXT"
				TY_TIER_EVERY, c->kind, name, value, tls ? ", ca=PATH, cert=PATH, tls-name=NAME or" : " or");
	}
	if (code == TY_OK && tls)
		code = redis_tls_load(ca, cert, &r->tls, err);
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
	if (strlen(host) >= sizeof r->seed[0].name)
		return ty_fail(err, TY_INVALID, "--tier: redis: found a name of %zu bytes, expected at most %zu", strlen(host),
			sizeof r->seed[0].name - 1);
	strcpy(r->seed[r->seed_count].name, host);
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
	for (char *text = strtok_r(copy + (strncmp(copy, "//", 2) ? 0 : 2), "+", &save); text && code == TY_OK; text = strtok_r(NULL, "+", &save))
		code = take_seed(r, text, err);
	if (code == TY_OK && !r->seed_count)
		code = ty_fail(err, TY_INVALID, "--tier: redis: found no server");
	return code;
}

/* What a server says to whoever may ask it. */
struct look {
	const char *where;
	bool tls;
	struct ty_error *err;
	enum ty_code code;
	bool done;
};

static void on_auth(void *user, const redisReply *r)
{
	struct look *l = user;

	if (r && r->type == REDIS_REPLY_ERROR)
		l->code = ty_fail(l->err, TY_DENIED, "--tier: redis: %s: %.100s", l->where, r->str);
}

static void on_type(void *user, const redisReply *r)
{
	struct look *l = user;

	if (r && r->type == REDIS_REPLY_ERROR && l->code == TY_OK &&
		(!strncmp(r->str, "NOAUTH", 6) || !strncmp(r->str, "NOPERM", 6)))
		l->code = ty_fail(l->err, TY_DENIED, "--tier: redis: %s: %.100s (user=, password-file=)", l->where, r->str);
	l->done = r != NULL;
}

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Until it has answered, in any way, or time is over. No actor runs yet: here it may wait. */
static enum ty_code wait_for_answer(struct redis_connection *c, struct look *l)
{
	int64_t end = now_ms() + CONNECT_MS, left;

	while (!l->done && (left = end - now_ms()) > 0) {
		struct pollfd p = {.fd = redis_fd(c), .events = (short)redis_events(c)}; /* EPOLLIN and EPOLLOUT are POLLIN and POLLOUT */

		if (!redis_step(c))
			return l->code != TY_OK ? l->code
						: ty_fail(l->err, redis_error(c)->code, "--tier: redis: %s: %.150s", l->where,
							  redis_error(c)->text);
		p.events = (short)redis_events(c);
		if (!l->done)
			(void)poll(&p, 1, (int)left);
	}
	if (l->done)
		return l->code;
	return ty_fail(l->err, TY_IO, "--tier: redis: %s: it does not answer%s", l->where,
		l->tls && !redis_is_open(c) ? " (does it speak TLS?)" : "");
}

/* TY_IO: it does not answer. */
static enum ty_code ask(const struct redis *r, uint32_t seed, struct ty_error *err)
{
	/* TYPE of a key, not PING: that may be allowed to whoever may do nothing else */
	const char *words[2] = {"TYPE", r->prefix};
	const size_t lengths[2] = {4, strlen(r->prefix)};
	struct ty_error why = {.text = ""};
	struct redis_connection *c = redis_connect(r->seed[seed].host, r->seed[seed].port, r->tls,
		r->tls_name[0] ? r->tls_name : r->seed[seed].name, &why);
	char where[96];
	struct look l = {.where = where, .tls = r->tls, .err = err};
	enum ty_code code;

	snprintf(where, sizeof where, "%s:%d", r->seed[seed].host, r->seed[seed].port);
	if (!c)
		return ty_fail(err, why.code, "--tier: redis: %s: %.150s", where, why.text);
	if (redis_send_auth(r, c, on_auth, &l) && redis_send(c, on_type, &l, NULL, 2, words, lengths))
		code = wait_for_answer(c, &l);
	else
		code = ty_fail(err, TY_NO_MEMORY, "--tier: redis: no memory");
	redis_hang_up(c);
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
	r->tier->stats.note_warns = silent > 0;
	snprintf(r->tier->stats.note, sizeof r->tier->stats.note, "%u of %u servers answer%s%.120s", r->seed_count - silent,
		r->seed_count, silent ? ": " : "", silent ? err->text + strlen("--tier: redis: ") : "");
	return TY_OK;
}

enum ty_code redis_open(struct ty_tier *tier, struct ty_error *err)
{
	struct redis *r = calloc(1, sizeof *r);
	struct ty_error why;
	enum ty_code code;

	if (!r)
		return ty_fail(err, TY_NO_MEMORY, "no memory for a redis tier");
	r->tier = tier;
	tier->state = r;
	code = ty_waiter_open(&r->waiter, &why);
	if (code != TY_OK)
		code = ty_fail(err, code, "--tier: redis: %s", why.text);
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
	tier->capabilities = TY_TIER_SHARED | TY_TIER_LASTING | TY_TIER_LISTS;
	return TY_OK;
}

void redis_close(struct ty_tier *tier)
{
	struct redis *r = tier->state;

	ty_waiter_close(&r->waiter);
	redis_tls_free(r->tls);
	explicit_bzero(r->secret, sizeof r->secret);
	free(r);
	tier->state = NULL;
}
