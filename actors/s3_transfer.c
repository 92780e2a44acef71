/* SPDX-License-Identifier: Apache-2.0
 *
 * One request on one of libcurl's handles. What is sent comes straight from the arena and what is received goes straight into it, within
 * the bounds of what the object may have; a longer answer is cut off where it gets too long.
 *
 * Signatures are libcurl's (CURLOPT_AWS_SIGV4). That of Debian 12 (7.88) signs path and query as they stand, so both are given in the
 * form that the signature wants: unreserved characters alone in the path; in the query names in order, values quoted, an "=" after
 * each name. The contents' hash is given by us, as a header line: what comes from the arena is not read once more for it. And it signs
 * every header line that it is told, those too that are only named to be left out: so "Expect: 100-continue" stays, and spares us
 * sending contents to a store that refuses them.
 */
#include "s3.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"

#define EXPECT_MS 100L            /* a store that does not say "continue" by then is sent the contents */
#define BUFFER_BYTES (256L << 10) /* of libcurl's, for each transfer and direction */

const char s3_no_content[] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/* ---- bytes -------------------------------------------------------------------------------------------------- */

/* Where a part's bytes, as they lie in the object, are or are read to; null: nobody wants them. */
static uint8_t *place_of(const struct s3_op *op, uint32_t part)
{
	if (op->io->verb == TY_TIER_PUT)
		return ty_tier_bytes(op->io, part);
	if (op->envelope.packed[part].stored)
		return op->unpack ? op->unpack->stored.data[part] : NULL;
	return op->io->part[part].data;
}

/* The stretch of the object at r->at, up to r->end: where it lies, and how long it is. Null: zeros, or nobody wants it. */
static uint64_t stretch(struct s3_request *r, uint8_t **data)
{
	const struct s3_op *op = r->op;
	uint64_t left = r->end - r->at, n = left;

	*data = NULL;
	if (r->kind == S3_FINISH) {
		*data = (uint8_t *)op->upload->body + r->at;
		return left;
	}
	if (r->at < TY_ENVELOPE_BYTES) {
		*data = r->header + r->at;
		n = TY_ENVELOPE_BYTES - r->at;
		return n < left ? n : left;
	}
	for (uint32_t i = 0; i < op->envelope.parts; i++) {
		uint64_t begin = ty_envelope_offset(&op->envelope, i), length = ty_envelope_stored(&op->envelope, i);

		if (r->at < begin + length) {
			*data = place_of(op, i);
			if (*data)
				*data += r->at - begin;
			n = begin + length - r->at;
			break;
		}
		if (r->at < begin + ty_envelope_padded(length)) {
			n = begin + ty_envelope_padded(length) - r->at;
			break;
		}
	}
	return n < left ? n : left;
}

static size_t on_send(char *out, size_t size, size_t count, void *user)
{
	struct s3_request *r = user;
	size_t room = size * count, done = 0;

	r->moved_at = ty_now();
	while (done < room && r->at < r->end) {
		uint8_t *data;
		uint64_t n = stretch(r, &data);

		if (n > room - done)
			n = room - done;
		if (data)
			memcpy(out + done, data, n);
		else
			memset(out + done, 0, n);
		done += n;
		r->at += n;
	}
	return done;
}

/* libcurl sends once more, on another connection: the one that it kept was not alive any more. */
static int on_seek(void *user, curl_off_t offset, int origin)
{
	struct s3_request *r = user;

	if (origin != SEEK_SET || offset < 0 || (uint64_t)offset > r->end - r->begin)
		return CURL_SEEKFUNC_FAIL;
	r->at = r->begin + (uint64_t)offset;
	return CURL_SEEKFUNC_OK;
}

/* The object's own bytes. More of them than there may be end the transfer; of a LOOK the rest is not wanted. */
static size_t take_object(struct s3_request *r, const char *in, size_t length)
{
	size_t left = length;

	while (left && r->at < r->end) {
		uint8_t *data;
		uint64_t n = stretch(r, &data);

		if (n > left)
			n = left;
		if (data)
			memcpy(data, in, n);
		in += n;
		left -= n;
		r->at += n;
		if (r->kind == S3_GET && r->at == TY_ENVELOPE_BYTES)
			s3_take_shape(r); /* r->end is another one then */
	}
	r->too_long = left > 0;
	return length - left;
}

/* Of an answer for us: the beginning, without white space before it (a server that takes its time sends some). */
static size_t take_text(struct s3_request *r, const char *in, size_t length)
{
	size_t all = length, room;

	r->body_bytes += length;
	r->too_long = r->body_bytes > S3_BODY_MAX;
	while (!r->text_length && length && strchr(" \t\r\n", *in)) {
		in++;
		length--;
	}
	room = sizeof r->text - r->text_length;
	if (length > room)
		length = room;
	memcpy(r->text + r->text_length, in, length);
	r->text_length += length;
	return r->too_long ? 0 : all;
}

static bool is_object(const struct s3_request *r)
{
	return (r->kind == S3_GET && r->status == 200) || (r->kind == S3_LOOK && (r->status == 200 || r->status == 206));
}

static size_t on_receive(char *in, size_t size, size_t count, void *user)
{
	struct s3_request *r = user;

	r->moved_at = ty_now();
	if (r->kind == S3_LIST && r->status == 200)
		return s3_list_take(r, in, size * count);
	return is_object(r) ? take_object(r, in, size * count) : take_text(r, in, size * count);
}

/* A status line begins another answer; those before the last one (1xx) are none. */
static size_t on_header(char *in, size_t size, size_t count, void *user)
{
	struct s3_request *r = user;
	size_t length = size * count;

	r->moved_at = ty_now();
	r->header_bytes += length;
	r->too_long = r->header_bytes > S3_HEADERS_MAX;
	if (length >= 5 && !memcmp(in, "HTTP/", 5)) {
		(void)curl_easy_getinfo(r->easy, CURLINFO_RESPONSE_CODE, &r->status);
		r->etag[0] = 0;
	} else if (r->kind == S3_PIECE && !r->etag[0]) {
		if (!ty_s3_etag(in, length, r->etag))
			r->etag[0] = 0; /* another line */
	}
	return r->too_long ? 0 : length;
}

/* ---- setting up ------------------------------------------------------------------------------------------------ */

static bool add_line(struct curl_slist **list, const char *format, const char *value)
{
	char line[TY_S3_TOKEN_MAX + 64];
	struct curl_slist *longer;

	snprintf(line, sizeof line, format, value);
	longer = curl_slist_append(*list, line);
	if (longer)
		*list = longer;
	return longer != NULL;
}

bool s3_set_up(const struct s3 *s3, CURL *e, const char *content, struct curl_slist **headers, struct curl_slist **resolve)
{
	const struct ty_s3_credentials *c = &s3->credentials;
	bool good = true;

	if (c->id[0]) {
		good = add_line(headers, "x-amz-content-sha256: %s", content) &&
		       (!c->token[0] || add_line(headers, "x-amz-security-token: %s", c->token)) &&
		       !curl_easy_setopt(e, CURLOPT_AWS_SIGV4, s3->provider) && !curl_easy_setopt(e, CURLOPT_USERNAME, c->id) &&
		       !curl_easy_setopt(e, CURLOPT_PASSWORD, c->secret);
	}
	if (s3->addresses[0])
		good = good && add_line(resolve, "%s", s3->addresses) && !curl_easy_setopt(e, CURLOPT_RESOLVE, *resolve);
	if (s3->ca_file[0])
		good = good && !curl_easy_setopt(e, CURLOPT_CAINFO, s3->ca_file) && !curl_easy_setopt(e, CURLOPT_CAPATH, NULL);
	return good && !curl_easy_setopt(e, CURLOPT_HTTPHEADER, *headers) &&
	       !curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L) && !curl_easy_setopt(e, CURLOPT_PROXY, "") &&
	       !curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, s3->where.tls ? "https" : "http") &&
	       !curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 0L) && !curl_easy_setopt(e, CURLOPT_PATH_AS_IS, 1L) &&
	       !curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1) &&
	       !curl_easy_setopt(e, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2) &&
	       !curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, S3_CONNECT_MS) &&
	       !curl_easy_setopt(e, CURLOPT_TCP_KEEPALIVE, 1L) && !curl_easy_setopt(e, CURLOPT_BUFFERSIZE, BUFFER_BYTES) &&
	       !curl_easy_setopt(e, CURLOPT_UPLOAD_BUFFERSIZE, BUFFER_BYTES);
}

static bool sends_body(const struct s3_request *r)
{
	return r->kind == S3_PUT || r->kind == S3_BEGIN || r->kind == S3_PIECE || r->kind == S3_FINISH;
}

static bool set_request(struct s3_request *r, const char *method)
{
	CURL *e = r->easy;
	bool good = !curl_easy_setopt(e, CURLOPT_URL, r->url) && !curl_easy_setopt(e, CURLOPT_PRIVATE, r) &&
		    !curl_easy_setopt(e, CURLOPT_ERRORBUFFER, r->why) && !curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header) &&
		    !curl_easy_setopt(e, CURLOPT_HEADERDATA, r) && !curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_receive) &&
		    !curl_easy_setopt(e, CURLOPT_WRITEDATA, r);

	if (sends_body(r)) {
		good = good && !curl_easy_setopt(e, CURLOPT_UPLOAD, 1L) && !curl_easy_setopt(e, CURLOPT_READFUNCTION, on_send) &&
		       !curl_easy_setopt(e, CURLOPT_EXPECT_100_TIMEOUT_MS, EXPECT_MS) &&
		       !curl_easy_setopt(e, CURLOPT_READDATA, r) && !curl_easy_setopt(e, CURLOPT_SEEKFUNCTION, on_seek) &&
		       !curl_easy_setopt(e, CURLOPT_SEEKDATA, r) &&
		       !curl_easy_setopt(e, CURLOPT_INFILESIZE_LARGE, (curl_off_t)(r->end - r->begin));
	} else if (r->kind == S3_PROBE) {
		return good && !curl_easy_setopt(e, CURLOPT_NOBODY, 1L); /* HEAD */
	} else if (r->kind == S3_LOOK) {
		good = good && !curl_easy_setopt(e, CURLOPT_RANGE, "0-4095");
	}
	return good && !curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, method);
}

bool s3_transfer_begin(struct s3_request *r, const char *method, const char *content)
{
	struct s3_actor *a = r->op->a;

	r->at = r->begin;
	if (r->kind == S3_GET)
		s3_forget_shape(r);
	if (r->op->list)
		r->op->list->length = 0;
	r->header_bytes = r->body_bytes = r->text_length = 0;
	r->too_long = false;
	r->status = 0;
	r->etag[0] = r->why[0] = 0;
	r->moved_at = ty_now();
	r->easy = a->spare_count ? a->spare[--a->spare_count] : curl_easy_init();
	if (r->easy && s3_set_up(a->s3, r->easy, content, &r->headers, &r->resolve) && set_request(r, method) &&
		curl_multi_add_handle(a->multi, r->easy) == CURLM_OK)
		return true;
	s3_transfer_end(r);
	return false;
}

void s3_transfer_end(struct s3_request *r)
{
	struct s3_actor *a = r->op->a;

	if (r->easy) {
		if (r->op->io && (r->kind == S3_GET || r->kind == S3_LOOK))
			r->op->io->read += r->at - r->begin;
		(void)curl_multi_remove_handle(a->multi, r->easy);
		curl_easy_reset(r->easy); /* the connection stays, with the multi handle */
		if (a->spare_count < S3_CONNECTIONS_MAX)
			a->spare[a->spare_count++] = r->easy;
		else
			curl_easy_cleanup(r->easy);
	}
	r->easy = NULL;
	curl_slist_free_all(r->headers);
	curl_slist_free_all(r->resolve);
	r->headers = r->resolve = NULL;
}

/* ---- libcurl's loop ---------------------------------------------------------------------------------------------- */

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *user, void *known)
{
	struct s3_actor *a = user;
	uint32_t events = (what & CURL_POLL_IN ? (uint32_t)EPOLLIN : 0u) | (what & CURL_POLL_OUT ? (uint32_t)EPOLLOUT : 0u);

	(void)easy;
	if (what == CURL_POLL_REMOVE) {
		ty_waiter_remove(&a->s3->waiter, fd);
		return 0;
	}
	if (!(known ? ty_waiter_change : ty_waiter_add)(&a->s3->waiter, fd, events, (uint64_t)fd)) {
		ty_log(TY_LOG_ERROR, "tier", "s3: epoll_ctl: %m");
		return -1;
	}
	(void)curl_multi_assign(a->multi, fd, a); /* known from now on */
	return 0;
}

static int on_timer(CURLM *multi, long ms, void *user)
{
	struct s3_actor *a = user;

	(void)multi;
	a->curl_at = ms < 0 ? TY_NEVER : ty_now() + ms * INT64_C(1000000);
	return 0;
}

bool s3_transfers_open(struct s3_actor *a)
{
	a->curl_at = TY_NEVER;
	a->multi = curl_multi_init();
	return a->multi && !curl_multi_setopt(a->multi, CURLMOPT_SOCKETFUNCTION, on_socket) &&
	       !curl_multi_setopt(a->multi, CURLMOPT_SOCKETDATA, a) && !curl_multi_setopt(a->multi, CURLMOPT_TIMERFUNCTION, on_timer) &&
	       !curl_multi_setopt(a->multi, CURLMOPT_TIMERDATA, a) &&
	       !curl_multi_setopt(a->multi, CURLMOPT_MAXCONNECTS, (long)a->s3->connections);
}

void s3_transfers_close(struct s3_actor *a)
{
	while (a->spare_count)
		curl_easy_cleanup(a->spare[--a->spare_count]);
	if (a->multi)
		(void)curl_multi_cleanup(a->multi);
	a->multi = NULL;
}

static void take_results(struct s3_actor *a)
{
	CURLMsg *msg;
	int left;

	while ((msg = curl_multi_info_read(a->multi, &left))) {
		struct s3_request *r = NULL;
		CURLcode result = msg->data.result;

		if (msg->msg != CURLMSG_DONE)
			continue;
		(void)curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, (char **)&r);
		s3_request_over(r, result);
	}
}

bool s3_transfers_run(struct s3_actor *a, int64_t now)
{
	const struct epoll_event *events;
	int n = ty_waiter_take(&a->s3->waiter, &events), running;

	for (int i = 0; i < n; i++) {
		uint32_t what = events[i].events;

		(void)curl_multi_socket_action(a->multi, (curl_socket_t)events[i].data.u64,
			(what & EPOLLIN ? CURL_CSELECT_IN : 0) | (what & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
				(what & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0),
			&running);
	}
	if (now >= a->curl_at) {
		a->curl_at = TY_NEVER;
		(void)curl_multi_socket_action(a->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	}
	take_results(a);
	return n == TY_WAITER_EVENTS;
}
