/* SPDX-License-Identifier: Apache-2.0
 *
 * The resolver waits, and libcurl's own threads for it are waited for when a transfer is taken away. So it is asked here, by an actor
 * whose thread may wait, and libcurl is told addresses.
 */
#include "s3.h"

#include <netdb.h>
#include <resolv.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"

int s3_look_up(const struct ty_s3_where *where, char out[S3_ADDRESSES_MAX])
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
	int failed, n = snprintf(out, S3_ADDRESSES_MAX, "%s:%u:", where->host, where->port);
	uint32_t count = 0;

	/* This thread's own: a name server that is silent is waited for so many seconds, once. */
	if (!(_res.options & RES_INIT))
		(void)res_init();
	_res.retrans = 2;
	_res.retry = 1;
	failed = getaddrinfo(where->host, NULL, &hints, &found);
	if (failed)
		return failed;
	for (const struct addrinfo *a = found; a && count < S3_ADDRESSES; a = a->ai_next) {
		char host[NI_MAXHOST];
		bool six = a->ai_family == AF_INET6;

		if (getnameinfo(a->ai_addr, a->ai_addrlen, host, sizeof host, NULL, 0, NI_NUMERICHOST) != 0 ||
			strchr(host, '%') || (size_t)n + strlen(host) + 4 > S3_ADDRESSES_MAX)
			continue;
		n += snprintf(out + n, S3_ADDRESSES_MAX - (size_t)n, "%s%s%s%s", count ? "," : "", six ? "[" : "", host, six ? "]" : "");
		count++;
	}
	freeaddrinfo(found);
	return count ? 0 : EAI_NONAME;
}

static void on_look_up(void *self, struct ty_msg *msg)
{
	struct s3_lookup *l = ty_container_of(msg, struct s3_lookup, msg);
	int failed = s3_look_up(l->where, l->text);

	(void)self;
	l->found = !failed;
	if (failed)
		ty_log(TY_LOG_WARN, "tier", "s3: %s: %s", l->where->host, gai_strerror(failed));
	if (ty_send(l->home, &l->msg, S3_NAMES) != TY_OK)
		return; /* the tier is over; the message is part of its state */
}

static const struct ty_handler handlers[] = {{"look-up", on_look_up}};

static const struct ty_class names_class = {
	.name = "s3-names",
	.first_type = S3_LOOK_UP,
	.type_count = 1,
	.handlers = handlers,
};

enum ty_code s3_spawn_names(struct ty_tier *tier, struct ty_error *err)
{
	struct ty_spawn_options options = {.size = sizeof options, .executor = TY_DEDICATED, .thread_name = "s3-names", .cpu = -1};
	struct s3 *s3 = tier->state;
	enum ty_code code;

	if (s3->where.numeric)
		return TY_OK;
	code = ty_spawn(tier->service->rt, &names_class, NULL, &options, &s3->names);
	return code == TY_OK ? TY_OK : ty_fail(err, code, "cannot start the actor s3-names");
}

void s3_release_names(struct ty_tier *tier)
{
	struct s3 *s3 = tier->state;

	if (s3->names)
		ty_actor_unref(s3->names);
	s3->names = NULL;
}
