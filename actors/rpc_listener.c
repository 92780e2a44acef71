/* SPDX-License-Identifier: Apache-2.0
 *
 * The addresses that the edge listens on: ipc, tcp, TLS over tcp.
 */
#include "rpc_connection.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/descriptors.h"
#include "service.h"
#include "wire/request.h"

#define BACKLOG 128

/* Which of the options an address is from, for errors. */
static const char *option_of(const struct ty_config *config, const char *url)
{
	return url == config->admin ? "admin" : url == config->events ? "events" : "listen";
}

/* ---- tcp -------------------------------------------------------------------------------------------------------------- */

struct address {
	struct sockaddr_storage socket;
	socklen_t length;
};

static bool decimal(const char *text, unsigned long max, unsigned long *out)
{
	unsigned long value = 0;

	if (*text == '\0' || strlen(text) > 5 || (text[0] == '0' && text[1] != '\0'))
		return false;
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return false;
		value = value * 10 + (unsigned long)(*text - '0');
	}
	*out = value;
	return value <= max;
}

/* `rest` is ADDRESS:PORT. */
static enum ty_code parse_tcp(const char *url, const char *rest, struct address *out, struct ty_error *err)
{
	struct sockaddr_in *in = (struct sockaddr_in *)&out->socket;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&out->socket;
	const char *colon = strrchr(rest, ':');
	unsigned long port;
	char host[64];

	memset(out, 0, sizeof *out);
	if (colon == NULL || (size_t)(colon - rest) >= sizeof host || !decimal(colon + 1, 65535, &port) || port == 0)
		return ty_fail(err, TY_INVALID, "listen is \"%s\", expected ADDRESS:PORT with a port of 1..65535", url);
	memcpy(host, rest, (size_t)(colon - rest));
	host[colon - rest] = '\0';
	if (host[0] == '[' && host[strlen(host) - 1] == ']') {
		host[strlen(host) - 1] = '\0';
		if (inet_pton(AF_INET6, host + 1, &in6->sin6_addr) != 1)
			return ty_fail(err, TY_INVALID, "listen is \"%s\": no IPv6 address in its brackets", url);
		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons((in_port_t)port);
		out->length = sizeof *in6;
	} else {
		if (inet_pton(AF_INET, host, &in->sin_addr) != 1)
			return ty_fail(err, TY_INVALID, "listen is \"%s\", expected a numeric address: 127.0.0.1 or [::1]", url);
		in->sin_family = AF_INET;
		in->sin_port = htons((in_port_t)port);
		out->length = sizeof *in;
	}
	return TY_OK;
}

static enum ty_code failed(const char *url, const char *what, struct ty_error *err)
{
	return ty_fail(err, errno == EADDRINUSE ? TY_EXISTS : errno == ENOMEM ? TY_NO_MEMORY : TY_IO, "listen on \"%s\": %s: %s", url,
		what, strerror(errno));
}

/* Those that it accepts inherit its options. */
static enum ty_code listen_tcp(struct ty_rpc_edge *edge, const char *url, const struct address *address, struct ty_error *err)
{
	static const struct { int level, name, value; } options[] = {
		{SOL_SOCKET, SO_REUSEADDR, 1}, {IPPROTO_TCP, TCP_NODELAY, 1}, {SOL_SOCKET, SO_KEEPALIVE, 1},
		{IPPROTO_TCP, TCP_KEEPIDLE, TY_RPC_KEEP_IDLE_S}, {IPPROTO_TCP, TCP_KEEPINTVL, TY_RPC_KEEP_INTERVAL_S},
		{IPPROTO_TCP, TCP_KEEPCNT, TY_RPC_KEEP_PROBES}, {IPPROTO_TCP, TCP_USER_TIMEOUT, TY_RPC_UNACKNOWLEDGED_MS},
	};
	const int one = 1;
	int fd = socket(address->socket.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return failed(url, "socket", err);
	edge->listener.fd = fd;
	for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
		if (setsockopt(fd, options[i].level, options[i].name, &options[i].value, sizeof options[i].value) != 0)
			return failed(url, "setsockopt", err);
	if (address->socket.ss_family == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one) != 0)
		return failed(url, "IPV6_V6ONLY", err);
	if (bind(fd, (const struct sockaddr *)&address->socket, address->length) != 0)
		return failed(url, "bind", err);
	return listen(fd, BACKLOG) == 0 ? TY_OK : failed(url, "listen", err);
}

static enum ty_code open_tls(struct ty_rpc_edge *edge, const char *url, struct ty_error *err)
{
	const struct ty_config *config = edge->service->config;
	struct address address;
	enum ty_code code;

	edge->transport = TY_RPC_TLS;
	if (config->tls_cert[0] == '\0')
		return ty_fail(err, TY_INVALID, "listen is \"%s\", and --tls-cert names no file with a certificate and its key", url);
	code = parse_tcp(url, url + strlen("tls+tcp://"), &address, err);
	if (code == TY_OK)
		code = ty_tls_open_service(config->tls_cert, config->tls_ca[0] ? config->tls_ca : NULL, &edge->tls, err);
	return code == TY_OK ? listen_tcp(edge, url, &address, err) : code;
}

static enum ty_code open_tcp(struct ty_rpc_edge *edge, const char *url, struct ty_error *err)
{
	struct address address;
	enum ty_code code = parse_tcp(url, url + strlen("tcp://"), &address, err);

	edge->transport = TY_RPC_TCP;
	if (code == TY_OK && !edge->service->config->tcp_insecure)
		code = ty_fail(err, TY_DENIED, "listen is \"%s\": tcp tells of nobody who he is; use ipc:// or tls+tcp://, or say "
			"--tcp-insecure on", url);
	return code == TY_OK ? listen_tcp(edge, url, &address, err) : code;
}

/* ---- ipc -------------------------------------------------------------------------------------------------------------- */

static enum ty_code open_ipc(struct ty_rpc_edge *edge, const char *url, struct ty_error *err)
{
	const struct ty_config *config = edge->service->config;
	const char *option = option_of(config, url), *path = url + strlen("ipc://");
	enum ty_code code;

	edge->transport = TY_RPC_IPC;
	if (path[0] != '/')
		return ty_fail(err, TY_INVALID, "%s is \"%s\", expected ipc:// and an absolute path", option, url);
	/* whoever may not come in is refused by his credentials (rpc_edge.c); with nobody but our own user the path says so too */
	code = ty_unix_listen(&edge->listener, config, option, path, SOCK_STREAM, config->allow_uid.count && !edge->private, err);
	return code == TY_OK && !edge->listener.bare ? ty_closer_open(&edge->closer, err) : code;
}

/* ---- all of them ------------------------------------------------------------------------------------------------------ */

static enum ty_code open_url(struct ty_rpc_edge *edge, const char *url, struct ty_error *err)
{
	const char *option = option_of(edge->service->config, url);

	if (strncmp(url, "ipc://", 6) == 0)
		return open_ipc(edge, url, err);
	if (strncmp(url, "tls+tcp://", 10) != 0 && strncmp(url, "tcp://", 6) != 0)
		return ty_fail(err, TY_INVALID, "%s is \"%s\", expected ipc://PATH, tls+tcp://ADDRESS:PORT or tcp://ADDRESS:PORT",
			option, url);
	if (edge->private)
		return ty_fail(err, TY_INVALID, "%s is \"%s\", expected ipc://PATH: others have no credentials", option, url);
	return url[1] == 'l' ? open_tls(edge, url, err) : open_tcp(edge, url, err);
}

enum ty_code ty_rpc_listen(struct ty_service *service, const char *url, struct ty_rpc_edge *edge, struct ty_error *err)
{
	uint64_t two = 2 * (uint64_t)service->config->max_request_bytes;
	enum ty_code code;

	edge->service = service;
	edge->listener.fd = edge->closer = -1;
	/* With its header's room a request of exactly max_request_bytes passes, and one a little longer is answered with
	 * LIMIT; the connection of a longer one is closed without an answer. */
	edge->limits = (struct ty_rpc_limits){
		.connections = TY_RPC_CONNECTIONS_MAX,
		.requests = TY_RPC_CONNECTION_REQUESTS,
		.replies = TY_RPC_CONNECTION_REPLIES,
		.reply_bytes = TY_RPC_CONNECTION_REPLY_BYTES,
		.all_reply_bytes = TY_RPC_REPLY_BYTES,
		.all_frame_bytes = TY_RPC_FRAME_BYTES,
		.request_bytes = two > TY_RPC_REQUEST_BYTES ? two : TY_RPC_REQUEST_BYTES,
		.frame_bytes = (size_t)service->config->max_request_bytes + TY_RPC_HEADER_ROOM,
		.frame_ms = TY_RPC_SEND_TIMEOUT_MS,
	};
	code = ty_waiter_open(&edge->waiter, err);
	if (code == TY_OK)
		code = open_url(edge, url, err);
	if (code == TY_OK)
		ty_log(TY_LOG_INFO, "rpc", "listening on %s", url);
	return code;
}
