/* SPDX-License-Identifier: Apache-2.0 */
#include "s3_server.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#define HEAD_MAX 16384

struct s3_server_connection {
	int fd;
	char head[HEAD_MAX + 1];
	size_t head_length;
	uint8_t *body;
	size_t body_length, body_wanted;
	bool have_head, hung, continued;
	enum s3_fault flood;      /* this connection's answer does not end */
	uint8_t *out;
	size_t out_length, out_sent;
	size_t drip_from;         /* and from there on a byte at a time; 0: all at once */
	bool close_after;
};

void s3_server_open(struct s3_server *s)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(s->port)};
	socklen_t length = sizeof a;
	int one = 1;

	s->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	assert(s->listener >= 0);
	(void)setsockopt(s->listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(s->listener, (struct sockaddr *)&a, sizeof a) != 0 || listen(s->listener, 128) != 0)
		abort();
	(void)getsockname(s->listener, (struct sockaddr *)&a, &length);
	s->port = ntohs(a.sin_port);
	if (!s->region)
		s->region = "us-east-1";
}

static void end_connection(struct s3_server *s, unsigned i)
{
	struct s3_server_connection *c = s->connection[i];

	close(c->fd);
	free(c->body);
	free(c->out);
	free(c);
	s->connection[i] = NULL;
	s->open--;
}

void s3_server_close(struct s3_server *s)
{
	for (unsigned i = 0; i < S3_SERVER_CONNECTIONS; i++)
		if (s->connection[i])
			end_connection(s, i);
	close(s->listener);
	for (unsigned i = 0; i < s->object_count; i++)
		free(s->object[i].data);
	for (unsigned i = 0; i < sizeof s->piece / sizeof s->piece[0]; i++)
		free(s->piece[i].data);
	s->object_count = 0;
	memset(s->piece, 0, sizeof s->piece);
}

void s3_server_misbehave(struct s3_server *s, enum s3_fault fault, int count, const char *method, int status)
{
	s->fault = fault;
	s->fault_count = count;
	s->method = method;
	s->status = status;
	s->code = "Wrong";
}

struct s3_object *s3_server_find(struct s3_server *s, const char *name)
{
	for (unsigned i = 0; i < s->object_count; i++)
		if (s->object[i].data && !strcmp(s->object[i].name, name))
			return &s->object[i];
	return NULL;
}

/* ---- answers ------------------------------------------------------------------------------------------------------- */

static void put_out(struct s3_server_connection *c, const void *data, size_t length)
{
	c->out = realloc(c->out, c->out_length + length + 1);
	memcpy(c->out + c->out_length, data, length);
	c->out_length += length;
}

static void answer(struct s3_server_connection *c, int status, const char *lines, const void *body, size_t length)
{
	char head[512];
	int n = snprintf(head, sizeof head, "HTTP/1.1 %d X\r\n%sContent-Length: %zu\r\n\r\n", status, lines, length);

	put_out(c, head, (size_t)n);
	if (body)
		put_out(c, body, length);
}

static void answer_error(struct s3_server_connection *c, int status, const char *code)
{
	char body[256];
	int n = snprintf(body, sizeof body, "<?xml version=\"1.0\"?>\n<Error><Code>%s</Code><Message>no</Message></Error>", code);

	answer(c, status, "Content-Type: application/xml\r\n", body, (size_t)n);
}

static void store(struct s3_server *s, const char *name, const uint8_t *data, size_t length)
{
	struct s3_object *o = s3_server_find(s, name);

	if (!o) {
		assert(s->object_count < S3_SERVER_OBJECTS);
		o = &s->object[s->object_count++];
		snprintf(o->name, sizeof o->name, "%s", name);
	}
	free(o->data);
	o->data = malloc(length + 1);
	memcpy(o->data, data, length);
	o->length = length;
}

/* ---- multipart -------------------------------------------------------------------------------------------------------- */

#define UPLOAD_ID "id/with+signs=" /* to be quoted */

static bool quoted_id(const char *query, unsigned *number)
{
	const char *at = strstr(query, "uploadId=id%2Fwith%2Bsigns%3D");

	return at && sscanf(at + strlen("uploadId=id%2Fwith%2Bsigns%3D"), "%u", number) == 1;
}

static struct s3_object *find_piece(struct s3_server *s, unsigned upload, unsigned number, bool make)
{
	char name[64];
	struct s3_object *spare = NULL;

	snprintf(name, sizeof name, "%u/%u", upload, number);
	for (unsigned i = 0; i < sizeof s->piece / sizeof s->piece[0]; i++) {
		if (s->piece[i].data && !strcmp(s->piece[i].name, name))
			return &s->piece[i];
		if (!s->piece[i].data && !spare)
			spare = &s->piece[i];
	}
	if (make)
		strcpy(spare->name, name);
	return make ? spare : NULL;
}

static void forget_pieces(struct s3_server *s, unsigned upload)
{
	struct s3_object *o;

	for (unsigned n = 1; (o = find_piece(s, upload, n, false)); n++) {
		free(o->data);
		o->data = NULL;
	}
}

static void finish(struct s3_server *s, struct s3_server_connection *c, const char *name, unsigned upload)
{
	static const char result[] = "  \n<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>";
	uint8_t *all = NULL;
	size_t length = 0;
	struct s3_object *o;

	for (unsigned n = 1; (o = find_piece(s, upload, n, false)); n++) {
		char wanted[128];
		int w = snprintf(wanted, sizeof wanted, "<Part><PartNumber>%u</PartNumber><ETag>\"tag-%u\"</ETag></Part>", n, n);

		if (!memmem(c->body, c->body_length, wanted, (size_t)w)) {
			answer_error(c, 400, "InvalidPart");
			free(all);
			return;
		}
		all = realloc(all, length + o->length);
		memcpy(all + length, o->data, o->length);
		length += o->length;
	}
	store(s, name, all, length);
	free(all);
	forget_pieces(s, upload);
	answer(c, 200, "", result, sizeof result - 1);
}

/* ---- requests ------------------------------------------------------------------------------------------------------------- */

static void serve_object(struct s3_server *s, struct s3_server_connection *c, const struct s3_object *o, enum s3_fault fault)
{
	const char *range = strcasestr(c->head, "\r\nRange: bytes=0-");
	size_t length = o->length, announced;
	char head[256];
	uint8_t *copy;
	int n;

	if (range && (size_t)atoi(range + 17) + 1 < length)
		length = (size_t)atoi(range + 17) + 1;
	announced = fault == S3_FAULT_LONGER ? length + 1 : fault == S3_FAULT_SHORTER ? length - 1 : length;
	if (fault == S3_FAULT_ENDLESS)
		n = snprintf(head, sizeof head, "HTTP/1.1 %d X\r\nTransfer-Encoding: chunked\r\n\r\n", range ? 206 : 200);
	else
		n = snprintf(head, sizeof head, "HTTP/1.1 %d X\r\nContent-Length: %zu\r\n\r\n", range ? 206 : 200, announced);
	put_out(c, head, (size_t)n);
	if (fault == S3_FAULT_ENDLESS) {
		c->flood = fault;
		return;
	}
	copy = malloc(length + 1);
	memcpy(copy, o->data, length);
	copy[length] = 'x';
	if (fault == S3_FAULT_WRONG)
		copy[length / 2] ^= 1;
	put_out(c, copy, fault == S3_FAULT_TRUNCATED ? announced / 2 : announced);
	free(copy);
	c->close_after |= fault == S3_FAULT_TRUNCATED;
	c->drip_from = fault == S3_FAULT_DRIP ? (size_t)n : 0;
	s->body_sent = 1;
}

static void unquote(const char *query, const char *name, char *out, size_t size)
{
	const char *at = strstr(query, name);
	size_t n = 0;

	for (at = at ? at + strlen(name) : ""; *at && *at != '&' && n + 1 < size; n++) {
		unsigned byte = (unsigned char)*at;

		if (*at == '%' && sscanf(at + 1, "%2x", &byte) == 1)
			at += 2;
		at++;
		out[n] = (char)byte;
	}
	out[n] = 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp((*(const struct s3_object *const *)a)->name, (*(const struct s3_object *const *)b)->name);
}

/* ListObjectsV2, of the bucket `target`. */
static void serve_list(struct s3_server *s, struct s3_server_connection *c, const char *target, const char *query)
{
	static const struct s3_object *found[S3_SERVER_OBJECTS];
	static char body[1 << 20];
	char prefix[600], after[800];
	unsigned count = 0, most = 0, n;
	size_t bucket = strlen(target) + 1;

	s->by_kind[9]++;
	if (s->list) {
		answer(c, 200, "", s->list, strlen(s->list));
		return;
	}
	unquote(query, "&prefix=", prefix, sizeof prefix);
	unquote(query, "&start-after=", after, sizeof after);
	if (sscanf(strstr(query, "max-keys="), "max-keys=%u", &most) != 1)
		abort();
	for (unsigned i = 0; i < s->object_count; i++) {
		const char *name = s->object[i].name + bucket;

		if (s->object[i].data && !strncmp(name, prefix, strlen(prefix)) && strcmp(name, after) > 0)
			found[count++] = &s->object[i];
	}
	qsort(found, count, sizeof found[0], by_name);
	n = (unsigned)snprintf(body, sizeof body, "<?xml version=\"1.0\"?>\n<ListBucketResult xmlns=\"x\"><Name>kv</Name><KeyCount>%u</KeyCount>",
		count < most ? count : most);
	for (unsigned i = 0; i < count && i < most; i++) {
		n += (unsigned)snprintf(body + n, sizeof body - n, "<Contents><Key>");
		for (const char *at = found[i]->name + bucket; *at; at++)
			n += (unsigned)snprintf(body + n, sizeof body - n, *at == '<' ? "&lt;" : *at == '&' ? "&amp;" : "%c", *at);
		n += (unsigned)snprintf(body + n, sizeof body - n, "</Key><ETag>&quot;x&quot;</ETag><Size>%zu</Size></Contents>",
			found[i]->length);
	}
	n += (unsigned)snprintf(body + n, sizeof body - n, "<IsTruncated>%s</IsTruncated></ListBucketResult>", count > most ? "true" : "false");
	answer(c, 200, "", body, n);
}

static void serve(struct s3_server *s, struct s3_server_connection *c, enum s3_fault fault)
{
	char method[16], target[1400], *query, text[256];
	unsigned upload = 0, number = 0;
	struct s3_object *o;

	if (sscanf(c->head, "%15s %1399s", method, target) != 2)
		abort();
	query = strchr(target, '?');
	if (query)
		*query++ = 0;
	if (query && !strcmp(query, "uploads=")) {
		s->by_kind[4]++;
		snprintf(text, sizeof text, fault == S3_FAULT_NO_ID ? "<UploadId><b>x</b></UploadId>"
			: "<InitiateMultipartUploadResult><UploadId>" UPLOAD_ID "%u</UploadId></InitiateMultipartUploadResult>", ++s->uploads);
		answer(c, 200, "", text, strlen(text));
	} else if (query && quoted_id(query, &upload) && !strcmp(method, "PUT") && sscanf(query, "partNumber=%u", &number) == 1) {
		s->by_kind[5]++;
		o = find_piece(s, upload, number, true);
		free(o->data);
		o->data = c->body;
		o->length = c->body_length;
		c->body = NULL;
		snprintf(text, sizeof text, "ETag: \"tag-%u\"\r\n", number);
		answer(c, 200, text, NULL, 0);
	} else if (query && quoted_id(query, &upload) && !strcmp(method, "POST")) {
		s->by_kind[6]++;
		if (fault == S3_FAULT_LATE_ERROR)
			answer_error(c, 200, s->code);
		else
			finish(s, c, target, upload);
	} else if (query && quoted_id(query, &upload) && !strcmp(method, "DELETE")) {
		s->by_kind[7]++;
		s->aborted++;
		forget_pieces(s, upload);
		answer(c, 204, "", NULL, 0);
	} else if (query && !strncmp(query, "list-type=2&", 12)) {
		serve_list(s, c, target, query);
	} else if (!strcmp(method, "HEAD")) {
		s->by_kind[8]++;
		put_out(c, "HTTP/1.1 200 X\r\n\r\n", 18);
	} else if (!strcmp(method, "PUT")) {
		s->by_kind[0]++;
		store(s, target, c->body, c->body_length);
		answer(c, 200, "ETag: \"x\"\r\n", NULL, 0);
	} else if (!strcmp(method, "GET")) {
		s->by_kind[strcasestr(c->head, "\r\nRange:") ? 2 : 1]++;
		o = s3_server_find(s, target);
		if (o)
			serve_object(s, c, o, fault);
		else
			answer_error(c, 404, "NoSuchKey");
	} else {
		s->by_kind[3]++;
		o = s3_server_find(s, target);
		if (o) {
			free(o->data);
			o->data = NULL;
			o->name[0] = 0;
		}
		answer(c, 204, "", NULL, 0);
	}
}

static bool may(struct s3_server *s, const char *head)
{
	char should[65], is[65], reason[200];
	char token[4200];

	if (!s->id)
		return true;
	snprintf(token, sizeof token, "x-amz-security-token: %s\r\n", s->token ? s->token : "");
	if (!s3_signature(head, s->secret, should, is, reason))
		snprintf(s->last_error, sizeof s->last_error, "%s", reason);
	else if (strcmp(should, is) != 0)
		snprintf(s->last_error, sizeof s->last_error, "signature is %s, should be %s, of %.700s", is, should, head);
	else if (s->token && !strcasestr(head, token))
		snprintf(s->last_error, sizeof s->last_error, "no token");
	else if (!strstr(head, s->id))
		snprintf(s->last_error, sizeof s->last_error, "another id");
	else
		return true;
	s->refused_signatures++;
	return false;
}

static void respond(struct s3_server *s, struct s3_server_connection *c)
{
	enum s3_fault fault = S3_FAULT_NONE;

	s->requests++;
	if (s->fault_count > 0 && !strncmp(c->head, s->method, strlen(s->method))) {
		s->fault_count--;
		fault = s->fault;
	}
	switch (fault) {
	case S3_FAULT_HANG:
		c->hung = true;
		return;
	case S3_FAULT_CLOSE:
		c->close_after = true;
		return;
	case S3_FAULT_GARBAGE:
		put_out(c, "SSH-2.0-no\r\n\r\n\0\1\2", 17);
		c->close_after = true;
		return;
	case S3_FAULT_HEADERS:
		put_out(c, "HTTP/1.1 200 X\r\n", 16);
		c->flood = fault;
		return;
	case S3_FAULT_CONTINUES:
		c->flood = fault;
		return;
	case S3_FAULT_STATUS:
		answer_error(c, s->status, s->code);
		return;
	default:
		break;
	}
	if (may(s, c->head))
		serve(s, c, fault);
	else
		answer_error(c, 403, "SignatureDoesNotMatch");
}

/* ---- connections -------------------------------------------------------------------------------------------------------------- */

static void take_head(struct s3_server_connection *c)
{
	char *end = memmem(c->head, c->head_length, "\r\n\r\n", 4), *length;
	size_t rest;

	if (!end)
		return;
	c->have_head = true;
	rest = c->head_length - (size_t)(end + 4 - c->head);
	end[4] = 0; /* of a pipelined request nothing is expected */
	length = strcasestr(c->head, "\r\nContent-Length:");
	c->body_wanted = length ? strtoull(length + 17, NULL, 10) : 0;
	c->body = malloc(c->body_wanted + 1);
	c->continued = rest || !strcasestr(c->head, "\r\nExpect: 100-continue");
	assert(rest <= c->body_wanted);
	c->body_length = rest;
}

static bool read_some(struct s3_server_connection *c, bool *over)
{
	char rest[HEAD_MAX];
	ssize_t n;

	if (!c->have_head) {
		size_t before = c->head_length;

		n = recv(c->fd, c->head + c->head_length, HEAD_MAX - c->head_length, 0);
		if (n > 0) {
			c->head_length += (size_t)n;
			memcpy(rest, c->head, sizeof rest);
			take_head(c);
			if (c->have_head && c->body_length) /* the body's beginning came with it */
				memcpy(c->body, rest + c->head_length - c->body_length, c->body_length);
		}
		assert(n <= 0 || c->head_length > before);
	} else if (c->body_length < c->body_wanted) {
		n = recv(c->fd, c->body + c->body_length, c->body_wanted - c->body_length, 0);
		if (n > 0)
			c->body_length += (size_t)n;
	} else {
		char byte;

		n = recv(c->fd, &byte, 1, MSG_PEEK);
		if (n > 0)
			return false;
	}
	*over = n == 0 || (n < 0 && errno != EAGAIN);
	return n > 0;
}

static bool send_some(struct s3_server_connection *c, bool *over)
{
	static const char line[] = "x-more: 0123456789012345678901234567890123456789\r\n";
	size_t length;
	ssize_t n;

	if (c->flood && c->out_length - c->out_sent < 65536)
		for (int i = 0; i < 1000; i++) {
			if (c->flood == S3_FAULT_HEADERS)
				put_out(c, line, sizeof line - 1);
			else if (c->flood == S3_FAULT_CONTINUES)
				put_out(c, "HTTP/1.1 100 Continue\r\n\r\n", 25);
			else
				put_out(c, "10\r\n0123456789abcdef\r\n", 22);
		}
	if (c->out_sent == c->out_length)
		return false;
	length = c->out_length - c->out_sent;
	if (c->drip_from)
		length = c->out_sent < c->drip_from ? c->drip_from - c->out_sent : 1;
	n = send(c->fd, c->out + c->out_sent, length, MSG_NOSIGNAL);
	*over = n < 0 && errno != EAGAIN;
	if (n <= 0)
		return false;
	c->out_sent += (size_t)n;
	if (c->out_sent == c->out_length) {
		free(c->out);
		c->out = NULL;
		c->out_sent = c->out_length = 0;
		c->drip_from = 0;
		if (!c->flood) { /* the next request */
			free(c->body);
			c->body = NULL;
			c->have_head = false;
			c->head_length = c->body_length = c->body_wanted = 0;
		}
	}
	return !c->drip_from;
}

static bool pump_one(struct s3_server *s, unsigned i)
{
	struct s3_server_connection *c = s->connection[i];
	bool over = false, moved = false;

	while (!over && read_some(c, &over))
		moved = true;
	if (!over && c->have_head && !c->continued) { /* nothing of it goes out with the answer: this is one of its own */
		static const char line[] = "HTTP/1.1 100 Continue\r\n\r\n";

		c->continued = send(c->fd, line, sizeof line - 1, MSG_NOSIGNAL) == (ssize_t)sizeof line - 1;
		moved = true;
	}
	if (!over && c->have_head && c->body_length == c->body_wanted && !c->out_length && !c->flood && !c->hung && !c->close_after) {
		c->head[HEAD_MAX] = 0;
		respond(s, c);
		moved = true;
	}
	while (!over && send_some(c, &over)) {
		moved = true;
		if (c->flood)
			break;
	}
	if (over || (c->close_after && c->out_sent == c->out_length)) {
		end_connection(s, i);
		return true;
	}
	return moved;
}

bool s3_server_pump(struct s3_server *s)
{
	bool moved = false, maybe = true;
	int one = 1;

	for (unsigned i = 0; i < S3_SERVER_CONNECTIONS; i++) {
		if (!s->connection[i]) {
			int fd = maybe ? accept4(s->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK) : -1;

			maybe = fd >= 0;
			if (fd < 0)
				continue;
			s->connection[i] = calloc(1, sizeof *s->connection[i]);
			s->connection[i]->fd = fd;
			(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one); /* the test's time does not wait for ours */
			s->connections++;
			s->open++;
			s->most_open = s->open > s->most_open ? s->open : s->most_open;
		}
		moved |= pump_one(s, i);
	}
	return moved;
}

bool s3_server_wait(struct s3_server *s, int fd)
{
	struct pollfd p[S3_SERVER_CONNECTIONS + 2] = {{.fd = s->listener, .events = POLLIN}, {.fd = fd, .events = POLLIN}};
	nfds_t count = 2;

	for (unsigned i = 0; i < S3_SERVER_CONNECTIONS; i++)
		if (s->connection[i])
			p[count++] = (struct pollfd){.fd = s->connection[i]->fd,
				.events = (short)(POLLIN | (s->connection[i]->out_length ? POLLOUT : 0))};
	return poll(p, count, -1) > 0 && !p[1].revents;
}
