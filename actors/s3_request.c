/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests: queued in their lane until a handle is free, tried again after a pause when the store failed or was silent, and over
 * once. What somebody waits for (GET, EXISTS) and what goes down have handles of their own, so that neither stands before the other.
 *
 *   QUEUED --> OUT --> over
 *     ^         |  a try failed, and there may be another one
 *     +-- RESTING
 */
#include "s3.h"

#include <assert.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

#define PAUSE_NS INT64_C(50000000)       /* before the second try, at most; doubled with each, ... */
#define PAUSE_MAX_NS INT64_C(2000000000) /* ... up to this */
#define CREDENTIALS_NS INT64_C(10000000000) /* the file is not read more often than this */

static const struct { const char *method; enum s3_lane lane; } kinds[] = {
	[S3_PUT] = {"PUT", S3_DOWN},     [S3_GET] = {"GET", S3_UP},     [S3_LOOK] = {"GET", S3_UP},
	[S3_DELETE] = {"DELETE", S3_DOWN}, [S3_BEGIN] = {"POST", S3_DOWN}, [S3_PIECE] = {"PUT", S3_DOWN},
	[S3_FINISH] = {"POST", S3_DOWN}, [S3_ABORT] = {"DELETE", S3_DOWN}, [S3_PROBE] = {"HEAD", S3_UP},
	[S3_LIST] = {"GET", S3_DOWN}, /* nobody waits for it */
};

static void count(_Atomic uint64_t *counter)
{
	atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

bool s3_is_down(const struct s3_actor *a)
{
	return a->breaker.open;
}

/* ---- made, queued, freed ----------------------------------------------------------------------------------------- */

/* The object's address, and what of it is meant. Everything in it is signed as it stands (s3_transfer.c). */
static void write_url(struct s3_request *r)
{
	const struct s3 *s3 = r->op->a->s3;
	const struct ty_key *key = r->kind != S3_LOOK ? &r->op->key
				   : r->op->list      ? &r->op->io->page->item[r->number].key
						      : &r->op->io->keys[r->number];
	size_t n = (size_t)snprintf(r->url, sizeof r->url, "%s/", s3->where.url);

	if (r->kind == S3_PROBE) {
		r->url[n - 1] = 0; /* the bucket itself */
		return;
	}
	if (r->kind == S3_LIST) {
		s3_list_url(r->op, r->url + n - 1, sizeof r->url - n + 1);
		return;
	}
	n += (size_t)snprintf(r->url + n, sizeof r->url - n, "%s", s3->prefix);
	for (size_t i = 0; i < sizeof key->bytes; i++)
		n += (size_t)snprintf(r->url + n, sizeof r->url - n, "%02x", key->bytes[i]);
	if (r->kind == S3_BEGIN)
		snprintf(r->url + n, sizeof r->url - n, "?uploads=");
	else if (r->kind == S3_PIECE)
		snprintf(r->url + n, sizeof r->url - n, "?partNumber=%u&uploadId=%s", r->number + 1, r->op->upload->id);
	else if (r->kind == S3_FINISH || r->kind == S3_ABORT)
		snprintf(r->url + n, sizeof r->url - n, "?uploadId=%s", r->op->upload->id);
}

static void write_header(struct s3_request *r)
{
	struct s3_op *op = r->op;

	if ((r->kind == S3_PUT || r->kind == S3_PIECE) && r->begin == 0)
		ty_envelope_write(&op->envelope, r->header);
}

static void enqueue(struct s3_request *r)
{
	struct s3_actor *a = r->op->a;
	enum s3_lane lane = kinds[r->kind].lane;

	r->state = S3_QUEUED;
	r->after = NULL;
	*a->queue_end[lane] = r;
	a->queue_end[lane] = &r->after;
}

static void dequeue(struct s3_request *r)
{
	struct s3_actor *a = r->op->a;
	enum s3_lane lane = kinds[r->kind].lane;
	struct s3_request **link = &a->queue[lane];

	while (*link != r)
		link = &(*link)->after;
	*link = r->after;
	if (!r->after)
		a->queue_end[lane] = link;
}

struct s3_request *s3_request_new(struct s3_op *op, enum s3_kind kind, uint32_t number)
{
	struct s3_request *r = calloc(1, sizeof *r);
	uint64_t part = op->a->s3->part_size;

	if (!r)
		return NULL;
	r->op = op;
	r->kind = kind;
	r->number = number;
	r->next = op->requests;
	r->link = &op->requests;
	if (r->next)
		r->next->link = &r->next;
	op->requests = r;
	if (kind == S3_PUT || kind == S3_GET) {
		r->end = op->total;
	} else if (kind == S3_LOOK) {
		r->end = TY_ENVELOPE_BYTES;
	} else if (kind == S3_FINISH) {
		r->end = op->upload->body_length;
	} else if (kind == S3_PIECE) {
		r->begin = number * part;
		r->end = op->total - r->begin < part ? op->total : r->begin + part;
	}
	write_url(r);
	write_header(r);
	enqueue(r);
	return r;
}

static void take_back(struct s3_request *r)
{
	struct s3_actor *a = r->op->a;

	if (r->state == S3_OUT) {
		s3_transfer_end(r);
		a->out[kinds[r->kind].lane]--;
	} else if (r->state == S3_QUEUED) {
		dequeue(r);
	} else {
		a->resting--;
	}
}

void s3_request_free(struct s3_request *r)
{
	take_back(r);
	*r->link = r->next;
	if (r->next)
		r->next->link = r->link;
	free(r);
}

/* ---- a try is over -------------------------------------------------------------------------------------------------- */

/* The store's own word for what is wrong: <Code>, and in brackets. "" if it has none. */
static void code_of(const struct s3_request *r, char out[48])
{
	if (!ty_s3_element(r->text, r->text_length, "Code", out, 48))
		out[0] = 0;
}

/* Another try may bring what this one did not. */
static bool is_passing(const struct s3_request *r, CURLcode result, const char *code)
{
	static const char *const passing[] = {"InternalError", "ServiceUnavailable", "SlowDown", "RequestTimeout"};

	if (r->too_long)
		return false;
	if (result != CURLE_OK)
		return result != CURLE_PEER_FAILED_VERIFICATION && result != CURLE_SSL_CACERT_BADFILE;
	if (r->status == 429 || (r->status >= 500 && r->status != 501 && r->status != 507))
		return true;
	for (size_t i = 0; i < sizeof passing / sizeof passing[0]; i++)
		if (!strcmp(code, passing[i]))
			return true;
	return false;
}

/* Does a new look at the credentials' file help? Temporary ones are replaced there before they expire. */
static bool read_credentials(struct s3_request *r)
{
	struct s3_actor *a = r->op->a;
	struct ty_s3_credentials found;
	struct ty_error err;
	int64_t now = ty_now();
	bool other = false;

	if (!a->s3->credentials_file[0] || (a->credentials_at && now - a->credentials_at < CREDENTIALS_NS))
		return false;
	a->credentials_at = now;
	if (s3_read_credentials(a->s3, &found, &err) == TY_OK) {
		other = memcmp(&found, &a->s3->credentials, sizeof found) != 0;
		a->s3->credentials = found;
	}
	explicit_bzero(&found, sizeof found);
	return other;
}

static void down(struct s3_request *r)
{
	struct s3_actor *a = r->op->a;

	snprintf(a->down_because, sizeof a->down_because, "%.119s", r->why);
	ty_log(TY_LOG_WARN, "tier", "s3: %s is down: %s", a->s3->where.host, r->why);
	atomic_store_explicit(&a->tier->stats.down, 1, memory_order_relaxed);
}

static void learn(struct s3_request *r, bool passing)
{
	struct s3_actor *a = r->op->a;

	if (passing || !r->status) {
		if (ty_breaker_bad(&a->breaker, r->kind == S3_PROBE, ty_now()))
			down(r);
	} else if (ty_breaker_good(&a->breaker)) {
		ty_log(TY_LOG_INFO, "tier", "s3: %s is there again", a->s3->where.host);
		atomic_store_explicit(&a->tier->stats.down, 0, memory_order_relaxed);
	}
}

static bool may_try_again(struct s3_request *r)
{
	struct s3_actor *a = r->op->a;
	int64_t now = ty_now(), pause;

	if (r->kind == S3_PROBE || r->tries > a->s3->retries || (s3_is_down(a) && kinds[r->kind].lane == S3_UP))
		return false;
	a->random = a->random * 6364136223846793005u + 1442695040888963407u;
	pause = ty_backoff(r->tries, PAUSE_NS, PAUSE_MAX_NS, a->random >> 16);
	if (now + pause >= r->op->deadline)
		return false;
	r->state = S3_RESTING;
	r->rest_until = now + pause;
	a->resting++;
	count(&a->tier->stats.retries);
	return true;
}

/* What a person should know of a try that brought nothing. */
static void explain(struct s3_request *r, CURLcode result, const char *code)
{
	size_t body = r->kind == S3_LIST && r->status == 200 ? S3_LIST_BYTES : S3_BODY_MAX;
	size_t most = r->header_bytes > S3_HEADERS_MAX ? S3_HEADERS_MAX : r->body_bytes ? body : (size_t)r->end;
	char libcurl[sizeof r->why];

	memcpy(libcurl, r->why, sizeof libcurl);
	if (r->too_long)
		snprintf(r->why, sizeof r->why, "its answer has more than %zu bytes: cut off", most);
	else if (result != CURLE_OK)
		snprintf(r->why, sizeof r->why, "%.100s", libcurl[0] ? libcurl : curl_easy_strerror(result));
	else
		snprintf(r->why, sizeof r->why, "it answers %ld%s%s%s", r->status, code[0] ? " " : "", code,
			r->kind != S3_LOOK || strcmp(code, "AccessDenied") != 0 ? "" : ": s3:GetObject or s3:ListBucket is missing");
}

/* Rights and credentials may change while it serves. Ever more seldom, so that it is seen and does not fill the log. */
static void tell_refused(struct s3_request *r)
{
	struct s3_actor *a = r->op->a;

	a->refusals++;
	if (a->refusals & (a->refusals - 1))
		return;
	ty_log(TY_LOG_WARN, "tier", "s3: %s refuses %s (%llu refusals so far): %s", a->s3->where.host, kinds[r->kind].method,
		(unsigned long long)a->refusals, r->why);
}

static bool is_answer(const struct s3_request *r, const char *code)
{
	static const char finished[] = "<CompleteMultipartUploadResult";

	switch (r->kind) {
	case S3_GET:
		return r->status == 200;
	case S3_LOOK:
		return r->status == 200 || r->status == 206;
	case S3_FINISH: /* the status goes out before it is done, so the answer may still be an error */
		return r->status == 200 && !code[0] && memmem(r->text, r->text_length, finished, sizeof finished - 1);
	case S3_PIECE:
		return r->status == 200 && r->etag[0];
	default:
		return r->status / 100 == 2;
	}
}

static enum s3_end end_of(const struct s3_request *r, CURLcode result, bool passing, bool answer)
{
	if (r->too_long)
		return r->kind == S3_GET && r->at == r->end ? S3_TOO_LONG : S3_REFUSED;
	if (result != CURLE_OK || passing)
		return S3_BROKEN;
	return answer ? S3_ANSWERED : r->status == 404 ? S3_ABSENT : S3_REFUSED;
}

void s3_request_over(struct s3_request *r, CURLcode result)
{
	bool refused, passing, answer;
	char code[48];

	code_of(r, code);
	answer = is_answer(r, code);
	if (r->kind == S3_LOOK && answer && r->at == r->end) { /* the envelope is here; the rest, if any, was not wanted */
		r->too_long = false;
		result = CURLE_OK;
	}
	passing = is_passing(r, result, code);
	answer = answer && result == CURLE_OK && !r->too_long;
	take_back(r);
	r->tries++;
	if (!answer)
		explain(r, result, code);
	learn(r, passing);
	if (!r->status)
		s3_addresses_wanted(r->op->a);
	refused = result == CURLE_OK && (r->status == 400 || r->status == 401 || r->status == 403);
	if ((passing || (refused && read_credentials(r))) && may_try_again(r))
		return;
	if (refused)
		tell_refused(r);
	enqueue(r); /* so that it can be taken back like any other */
	s3_request_end(r, end_of(r, result, passing, answer));
}

/* ---- what is to be sent --------------------------------------------------------------------------------------------- */

/* What is signed as the contents: all of it where it is small. */
static const char *content_of(const struct s3_request *r, char out[65])
{
	uint8_t hash[crypto_hash_sha256_BYTES];

	if (r->kind == S3_PUT || r->kind == S3_PIECE)
		return "UNSIGNED-PAYLOAD";
	if (r->kind != S3_FINISH)
		return s3_no_content;
	crypto_hash_sha256(hash, (const uint8_t *)r->op->upload->body, r->op->upload->body_length);
	return sodium_bin2hex(out, 65, hash, sizeof hash);
}

static void send_out(struct s3_request *r)
{
	struct s3_actor *a = r->op->a;
	char content[65];

	if (s3_is_down(a) && r->kind != S3_PROBE) { /* somebody waits for it */
		snprintf(r->why, sizeof r->why, "the store is down: %s", a->down_because);
		s3_request_end(r, S3_BROKEN);
		return;
	}
	if (a->s3->names && !a->s3->addresses[0]) { /* libcurl would look it up itself, and wait */
		s3_addresses_wanted(a);
		snprintf(r->why, sizeof r->why, "the name %.100s has no address", a->s3->where.host);
		s3_request_end(r, S3_BROKEN);
		return;
	}
	if (!s3_transfer_begin(r, kinds[r->kind].method, content_of(r, content))) {
		snprintf(r->why, sizeof r->why, "libcurl: no memory");
		s3_request_end(r, S3_BROKEN);
		return;
	}
	dequeue(r);
	r->state = S3_OUT;
	a->out[kinds[r->kind].lane]++;
	count(&a->tier->stats.requests);
}

/* Those whose pause is over are queued again; when the next one's is. */
static int64_t wake_resting(struct s3_actor *a, int64_t now)
{
	int64_t next = TY_NEVER;

	if (!a->resting)
		return next;
	for (struct s3_op *op = a->ops; op; op = op->next)
		for (struct s3_request *r = op->requests; r; r = r->next) {
			if (r->state != S3_RESTING)
				continue;
			if (r->rest_until > now) {
				next = r->rest_until < next ? r->rest_until : next;
				continue;
			}
			a->resting--;
			enqueue(r);
		}
	return next;
}

int64_t s3_requests_run(struct s3_actor *a, int64_t now)
{
	int64_t next = wake_resting(a, now);

	while (a->queue[S3_UP] && (a->out[S3_UP] < a->limit[S3_UP] || s3_is_down(a)))
		send_out(a->queue[S3_UP]);
	/* what goes down waits, within its deadline, for a store that is down: it may be back before writeback drops chunks */
	while (a->queue[S3_DOWN] && a->out[S3_DOWN] < a->limit[S3_DOWN] && !s3_is_down(a))
		send_out(a->queue[S3_DOWN]);
	return next;
}

static struct s3_request *find_stalled(const struct s3_actor *a, int64_t now)
{
	for (struct s3_op *op = a->ops; op; op = op->next)
		for (struct s3_request *r = op->requests; r; r = r->next)
			if (r->state == S3_OUT && now - r->moved_at >= a->s3->stall)
				return r;
	return NULL;
}

/* One that stalls is over like one that broke: there may be another try. From the beginning after each: its op may be gone, with its
 * others. */
void s3_requests_check(struct s3_actor *a, int64_t now)
{
	for (struct s3_request *r; (r = find_stalled(a, now));) {
		snprintf(r->why, sizeof r->why, "nothing moved for %lld ms", (long long)(a->s3->stall / 1000000));
		s3_request_over(r, CURLE_OPERATION_TIMEDOUT);
	}
}
