/* SPDX-License-Identifier: Apache-2.0
 *
 * The listener and who comes in by it: ty_rpc_edge_accepted() takes what nng accepted, admit() looks who it is and whether there is
 * room, and rpc_connection.c goes on with it.
 */
#include "rpc_connection.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <nng/supplemental/tls/tls.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/descriptors.h"
#include "service.h"

#define RETRY_NS 100000000 /* after an error of accept, before it is tried again */

static void count(_Atomic uint64_t *counter, uint64_t more)
{
	atomic_fetch_add_explicit(counter, more, memory_order_relaxed);
}

/* Who is to be roused for what was received: the owner that it is probably about, which needs as long to wake up as all the others
 * on the way. Null: nobody. */
static struct ty_actor *announced(const struct ty_rpc_io *io)
{
	const struct ty_rpc_connection *c = io->connection;
	uint32_t device;

	if (!c || io != &c->receive || nng_aio_count(io->aio) < TY_RPC_TRANSFER_BYTES)
		return NULL;
	device = atomic_load_explicit(&c->device, memory_order_relaxed);
	return device ? c->edge->service->gpu[device - 1] : NULL;
}

/* On a thread of nng's: only tells the actor. Nothing of the io is touched after the send. An actor that is closed has no use
 * for it. */
static void io_done(void *arg)
{
	struct ty_rpc_io *io = arg;
	struct ty_actor *owner = announced(io);

	if (ty_send(io->rpc, &io->msg, io->type) == TY_OK && owner)
		ty_actor_rouse(owner);
}

/* ---- accepting ------------------------------------------------------------------------------------------------------ */

static struct ty_rpc_connection *make(struct ty_rpc_edge *edge)
{
	struct ty_rpc_connection *c = calloc(1, sizeof *c);

	if (!c)
		return NULL;
	c->edge = edge;
	c->receive = (struct ty_rpc_io){.rpc = edge->accept.rpc, .connection = c, .type = edge->protocol->received};
	c->send = (struct ty_rpc_io){.rpc = edge->accept.rpc, .connection = c, .type = edge->protocol->sent};
	if (nng_aio_alloc(&c->receive.aio, io_done, &c->receive) != 0 || nng_aio_alloc(&c->send.aio, io_done, &c->send) != 0) {
		nng_aio_free(c->receive.aio);
		free(c);
		return NULL;
	}
	/* nng's thread for timeouts calls into the stream after it has let go of the aio, which may be back by then: where the
	 * connection's end was in what had just come, it was freed already. So nng is given none; see ty_rpc_edge_late. */
	nng_aio_set_timeout(c->receive.aio, NNG_DURATION_INFINITE);
	nng_aio_set_timeout(c->send.aio, NNG_DURATION_INFINITE);
	c->late_at = TY_NEVER;
	c->next_of_all = edge->all;
	edge->all = c;
	return c;
}

static struct ty_rpc_connection *take_free(struct ty_rpc_edge *edge)
{
	struct ty_rpc_connection *c = edge->free;

	if (!c)
		return make(edge);
	edge->free = c->next_free;
	return c;
}

/* The socket's mode keeps others out already; its folder may have been changed under it. */
static bool may_connect(const struct ty_rpc_edge *edge, nng_stream *stream, uint64_t *uid)
{
	if (edge->transport != TY_RPC_IPC)
		return true;
	if (nng_stream_get_uint64(stream, NNG_OPT_IPC_PEER_UID, uid) != 0 || *uid > UINT32_MAX)
		return false;
	return edge->private ? *uid == 0 || *uid == geteuid() : ty_config_allows_uid(edge->service->config, (uint32_t)*uid);
}

/* Another user may have as many connections as are free, and no more. Nobody knows whose those over tcp are. */
static bool has_its_share(const struct ty_rpc_edge *edge, uint64_t uid)
{
	uint32_t its = 0;

	if (edge->transport != TY_RPC_IPC || uid == 0 || uid == geteuid())
		return false;
	for (const struct ty_rpc_connection *c = edge->all; c; c = c->next_of_all)
		its += c->stream && !c->closing && c->uid == uid;
	return its > 0 && its >= edge->limits.connections - edge->open;
}

static void admit(struct ty_rpc_edge *edge, nng_stream *stream)
{
	struct ty_rpc_stats *stats = &edge->service->rpc_stats;
	struct ty_rpc_reply *greeting = NULL;
	struct ty_rpc_connection *c = NULL;
	uint64_t uid = UINT64_MAX;

	count(&stats->connections_accepted, 1);
	if (!may_connect(edge, stream, &uid)) {
		count(&stats->connections_refused, 1);
		ty_rpc_edge_note(edge, TY_LOG_WARN, "refusing a connection of user %llu", (unsigned long long)uid);
		nng_stream_free(stream);
		return;
	}
	if (edge->open >= edge->limits.connections || has_its_share(edge, uid)) {
		count(&stats->connections_refused, 1);
		ty_rpc_edge_note(edge, TY_LOG_WARN, "refusing a connection: %u are open, and at most %u", edge->open, edge->limits.connections);
		nng_stream_free(stream);
		return;
	}
	greeting = malloc(sizeof *greeting + TY_RPC_GREETING_BYTES);
	if (greeting)
		c = take_free(edge);
	if (!c) {
		count(&stats->connections_refused, 1);
		ty_rpc_edge_note(edge, TY_LOG_WARN, "refusing a connection: no memory for it");
		free(greeting);
		nng_stream_free(stream);
		return;
	}
	edge->open++;
	atomic_fetch_add_explicit(&stats->connections, 1, memory_order_relaxed);
	ty_rpc_connection_begin(c, stream, uid, greeting);
}

static void accept_next(struct ty_rpc_edge *edge)
{
	nng_stream_listener_accept(edge->listener, edge->accept.aio);
}

void ty_rpc_edge_accepted(void *actor, struct ty_msg *msg)
{
	struct ty_rpc_edge *edge = ty_container_of(ty_container_of(msg, struct ty_rpc_io, msg), struct ty_rpc_edge, accept);
	int error = nng_aio_result(edge->accept.aio);
	nng_stream *stream;

	(void)actor;
	if (error != 0) {
		/* Whatever it is: it says nothing of the next one. */
		count(&edge->service->rpc_stats.receive_errors, 1);
		ty_rpc_edge_note(edge, TY_LOG_WARN, "accept: %s; trying again", nng_strerror(error));
		ty_timer_start(&edge->retry, edge->protocol->retry, ty_now() + RETRY_NS);
		return;
	}
	stream = nng_aio_get_output(edge->accept.aio, 0);
	accept_next(edge);
	admit(edge, stream);
}

void ty_rpc_edge_retry(void *actor, struct ty_msg *msg)
{
	(void)actor;
	accept_next(ty_container_of(ty_container_of(msg, struct ty_timer, msg), struct ty_rpc_edge, retry));
}

/* ---- the listener --------------------------------------------------------------------------------------------------- */

/* nng keeps its listener's descriptor to itself, and has no options for what is set below; what is set on a listener, each connection
 * that it accepts inherits. So it is looked for among ours: the one that listens there. -1: none does. */
static int find_listener(bool (*there)(const struct sockaddr *address, const char *url), const char *url)
{
	DIR *all = opendir("/proc/self/fd");
	int found = -1;

	for (struct dirent *entry; all && found < 0 && (entry = readdir(all));) {
		union { struct sockaddr any; struct sockaddr_storage room; } address;
		int fd = atoi(entry->d_name), listens = 0;
		socklen_t length = sizeof listens, size = sizeof address;

		memset(&address, 0, sizeof address);
		if (entry->d_name[0] != '.' && getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &length) == 0 && listens &&
			getsockname(fd, &address.any, &size) == 0 && there(&address.any, url))
			found = fd;
	}
	if (all)
		closedir(all);
	return found;
}

static bool at_port(const struct sockaddr *address, const char *url)
{
	in_port_t port = address->sa_family == AF_INET ? ((const struct sockaddr_in *)(const void *)address)->sin_port
			 : address->sa_family == AF_INET6 ? ((const struct sockaddr_in6 *)(const void *)address)->sin6_port : 0;

	return port && ntohs(port) == atoi(strrchr(url, ':') + 1);
}

static bool at_path(const struct sockaddr *address, const char *url)
{
	return address->sa_family == AF_UNIX &&
	       strcmp(((const struct sockaddr_un *)(const void *)address)->sun_path, url + strlen("ipc://")) == 0;
}

static void set_keep_alive(const char *url)
{
	static const struct { int level, name, value; } options[] = {
		{SOL_SOCKET, SO_KEEPALIVE, 1}, {IPPROTO_TCP, TCP_KEEPIDLE, TY_RPC_KEEP_IDLE_S},
		{IPPROTO_TCP, TCP_KEEPINTVL, TY_RPC_KEEP_INTERVAL_S}, {IPPROTO_TCP, TCP_KEEPCNT, TY_RPC_KEEP_PROBES},
		{IPPROTO_TCP, TCP_USER_TIMEOUT, TY_RPC_UNACKNOWLEDGED_MS},
	};
	int fd = find_listener(at_port, url);
	bool set = fd >= 0;

	for (size_t i = 0; set && i < sizeof options / sizeof options[0]; i++)
		set = setsockopt(fd, options[i].level, options[i].name, &options[i].value, sizeof options[i].value) == 0;
	if (!set)
		ty_log(TY_LOG_WARN, "rpc", "no times for keep-alive could be set: the system's are in force");
}

/* nng drops what descriptors come with the bytes, on the thread that serves all connections. Whoever may connect to the attach socket
 * says so there if this kernel cannot forbid them. */
static void keep_descriptors_out(const char *url)
{
	int fd = find_listener(at_path, url);

	if (fd < 0 || !ty_descriptors_allow(fd, false))
		ty_log(TY_LOG_DEBUG, "rpc", "descriptors may be sent to %s", url);
}

/* Certificate and key; who must show one. */
static int set_tls(struct ty_rpc_edge *edge, const char **what)
{
	const struct ty_config *config = edge->service->config;
	nng_tls_config *tls = NULL;
	int error = nng_tls_config_alloc(&tls, NNG_TLS_MODE_SERVER);

	*what = "TLS";
	if (error == 0) {
		*what = config->tls_cert;
		error = nng_tls_config_cert_key_file(tls, config->tls_cert, NULL);
	}
	if (error == 0 && config->tls_ca[0]) {
		*what = config->tls_ca;
		error = nng_tls_config_ca_file(tls, config->tls_ca);
		if (error == 0)
			error = nng_tls_config_auth_mode(tls, NNG_TLS_AUTH_MODE_REQUIRED);
	}
	if (error == 0) {
		*what = NNG_OPT_TLS_CONFIG;
		error = nng_stream_listener_set_ptr(edge->listener, NNG_OPT_TLS_CONFIG, tls); /* it holds it from here on */
	}
	if (tls)
		nng_tls_config_free(tls);
	return error;
}

int ty_rpc_edge_listen(struct ty_rpc_edge *edge, const char *url, const char **what)
{
	int error = nng_aio_alloc(&edge->accept.aio, io_done, &edge->accept);

	*what = "nng_aio_alloc";
	if (error == 0) {
		*what = "nng_stream_listener_alloc";
		error = nng_stream_listener_alloc(&edge->listener, url);
	}
	if (error == 0 && edge->transport == TY_RPC_IPC) {
		*what = NNG_OPT_IPC_PERMISSIONS;
		error = nng_stream_listener_set_int(edge->listener, NNG_OPT_IPC_PERMISSIONS, 0600);
	}
	if (error == 0 && edge->transport != TY_RPC_IPC) {
		*what = NNG_OPT_TCP_NODELAY;
		error = nng_stream_listener_set_bool(edge->listener, NNG_OPT_TCP_NODELAY, true);
	}
	if (error == 0 && edge->transport != TY_RPC_IPC) {
		*what = NNG_OPT_TCP_KEEPALIVE;
		error = nng_stream_listener_set_bool(edge->listener, NNG_OPT_TCP_KEEPALIVE, true);
	}
	if (error == 0 && edge->transport == TY_RPC_TLS)
		error = set_tls(edge, what);
	if (error == 0) {
		*what = "nng_stream_listener_listen";
		error = nng_stream_listener_listen(edge->listener);
	}
	if (error == 0 && edge->transport != TY_RPC_IPC)
		set_keep_alive(url);
	if (error == 0 && edge->transport == TY_RPC_IPC)
		keep_descriptors_out(url);
	/* whoever may not come in is refused by his credentials (admit); with nobody but our own user the path says so too */
	if (error == 0 && edge->transport == TY_RPC_IPC && edge->service->config->allow_uid.count && !edge->private) {
		*what = "chmod";
		if (chmod(url + strlen("ipc://"), 0666) != 0)
			error = NNG_ESYSERR + errno;
	}
	return error;
}

void ty_rpc_edge_start(struct ty_rpc_edge *edge, struct ty_actor *rpc, const struct ty_rpc_calls *calls, void *owner)
{
	edge->accept.rpc = rpc;
	edge->accept.type = edge->protocol->accepted;
	edge->calls = calls;
	edge->owner = owner;
	accept_next(edge);
}

void ty_rpc_edge_stop(struct ty_rpc_edge *edge)
{
	nng_stream *stream;

	nng_stream_listener_close(edge->listener);
	/* Each stop waits for a callback that runs right now: that sends one message and returns. */
	nng_aio_stop(edge->accept.aio);
	stream = nng_aio_get_output(edge->accept.aio, 0);
	if (nng_aio_result(edge->accept.aio) == 0 && stream) {
		nng_stream_free(stream); /* accepted, and nobody took it any more */
		nng_aio_set_output(edge->accept.aio, 0, NULL);
	}
	for (struct ty_rpc_connection *c = edge->all; c; c = c->next_of_all) {
		if (c->stream)
			nng_stream_close(c->stream);
		nng_aio_stop(c->receive.aio);
		nng_aio_stop(c->send.aio);
	}
}

void ty_rpc_edge_free(struct ty_rpc_edge *edge)
{
	if (edge->listener)
		nng_stream_listener_free(edge->listener);
	if (edge->accept.aio)
		nng_aio_free(edge->accept.aio);
	while (edge->all) {
		struct ty_rpc_connection *c = edge->all;

		edge->all = c->next_of_all;
		while (c->first) {
			struct ty_rpc_reply *reply = c->first;

			c->first = reply->next;
			free(reply);
		}
		nng_aio_free(c->receive.aio);
		nng_aio_free(c->send.aio);
		nng_stream_free(c->stream); /* null is allowed */
		free(c->body);
		free(c);
	}
}
