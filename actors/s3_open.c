/* SPDX-License-Identifier: Apache-2.0 */
#include "s3.h"

#include <errno.h>
#include <netdb.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/secret.h"

#define LOOK_MS 3000L /* the first look at the store */

/* ---- who asks -------------------------------------------------------------------------------------------------- */

enum ty_code s3_read_credentials(const struct s3 *s3, struct ty_s3_credentials *out, struct ty_error *err)
{
	char text[TY_S3_CREDENTIALS_MAX];
	struct ty_error why = {.text = ""};
	enum ty_code code;

	code = ty_secret_read("--tier: s3: credentials-file", s3->credentials_file, text, sizeof text, err);
	if (code != TY_OK)
		return code;
	if (ty_s3_credentials(text, strlen(text), out, &why) != TY_OK)
		code = ty_fail(err, TY_INVALID, "--tier: s3: credentials-file %.100s: %.80s", s3->credentials_file, why.text);
	explicit_bzero(text, sizeof text);
	return code;
}

/* A variable of the environment into `out`; unset or empty: "". Printable, no spaces, as in a file. */
static enum ty_code take_variable(const char *name, char *out, size_t size, struct ty_error *err)
{
	const char *value = getenv(name);

	if (!value)
		return TY_OK;
	if (strlen(value) >= size)
		return ty_fail(err, TY_INVALID, "--tier: s3: %s: %zu bytes, expected at most %zu", name, strlen(value), size - 1);
	for (const char *c = value; *c; c++)
		if (*c <= ' ' || *c > '~')
			return ty_fail(err, TY_INVALID, "--tier: s3: %s: byte %zu is not printable", name, (size_t)(c - value));
	strcpy(out, value);
	return TY_OK;
}

static enum ty_code take_credentials(struct s3 *s3, struct ty_error *err)
{
	struct ty_s3_credentials *c = &s3->credentials;
	enum ty_code code;

	if (s3->credentials_file[0])
		return s3_read_credentials(s3, c, err);
	code = take_variable("AWS_ACCESS_KEY_ID", c->id, sizeof c->id, err);
	if (code == TY_OK)
		code = take_variable("AWS_SECRET_ACCESS_KEY", c->secret, sizeof c->secret, err);
	if (code == TY_OK)
		code = take_variable("AWS_SESSION_TOKEN", c->token, sizeof c->token, err);
	if (code == TY_OK && !c->id[0] != !c->secret[0])
		code = ty_fail(err, TY_INVALID, "--tier: s3: found AWS_%s alone, expected both or none of AWS_ACCESS_KEY_ID and "
			"AWS_SECRET_ACCESS_KEY", c->id[0] ? "ACCESS_KEY_ID" : "SECRET_ACCESS_KEY");
	return code;
}

/* ---- what was said --------------------------------------------------------------------------------------------------- */

static bool take_text(const char *value, char *out, size_t size)
{
	if (strlen(value) >= size)
		return false;
	strcpy(out, value);
	return true;
}

static bool take_region(struct s3 *s3, const char *value)
{
	return ty_s3_plain(value) && !strchr(value, '/') && take_text(value, s3->region, sizeof s3->region);
}

static bool take_prefix(struct s3 *s3, const char *value)
{
	return ty_s3_plain(value) && value[0] != '/' && !strstr(value, "//") && take_text(value, s3->prefix, sizeof s3->prefix);
}

static bool take_bytes(const char *value, uint64_t min, uint64_t max, uint64_t *out)
{
	struct ty_error why;

	return ty_parse_bytes(value, out, &why) == TY_OK && *out >= min && *out <= max;
}

static bool take_count(const char *value, uint64_t min, uint64_t max, uint32_t *out)
{
	struct ty_error why;
	uint64_t number;

	if (ty_parse_count(value, max, &number, &why) != TY_OK || number < min)
		return false;
	*out = (uint32_t)number;
	return true;
}

static bool take_stall(struct s3 *s3, const char *value)
{
	struct ty_error why;
	uint64_t us;

	if (ty_parse_time_us(value, &us, &why) != TY_OK || us < 1000 || us > 3600000000)
		return false;
	s3->stall = (int64_t)us * 1000;
	return true;
}

/* One of the kind's own settings. Null: it is taken; else what was expected. */
static const char *take_setting(struct s3 *s3, const char *name, const char *value, enum ty_s3_style *style)
{
	if (!strcmp(name, "region"))
		return take_region(s3, value) ? NULL : "letters, digits, - . _ ~, at most 32";
	if (!strcmp(name, "prefix"))
		return take_prefix(s3, value) ? NULL : "letters, digits, - . _ ~ and single /, at most 127, no / at its begin";
	if (!strcmp(name, "credentials-file"))
		return take_text(value, s3->credentials_file, sizeof s3->credentials_file) ? NULL : "a path";
	if (!strcmp(name, "ca-file"))
		return take_text(value, s3->ca_file, sizeof s3->ca_file) ? NULL : "a path";
	if (!strcmp(name, "part-size"))
		return take_bytes(value, S3_PART_MIN, S3_PART_MAX, &s3->part_size) ? NULL : "5MiB to 1GiB";
	if (!strcmp(name, "connections"))
		return take_count(value, 2, S3_CONNECTIONS_MAX, &s3->connections) ? NULL : "2 to 256";
	if (!strcmp(name, "retries"))
		return take_count(value, 0, S3_RETRIES_MAX, &s3->retries) ? NULL : "0 to 10";
	if (!strcmp(name, "stall"))
		return take_stall(s3, value) ? NULL : "1ms to 1h";
	if (!strcmp(name, "style")) {
		*style = !strcmp(value, "host") ? TY_S3_HOST : TY_S3_PATH;
		return !strcmp(value, "host") || !strcmp(value, "path") ? NULL : "path or host";
	}
	return "region=, prefix=, style=, credentials-file=, ca-file=, part-size=, connections=, retries= or stall=" TY_TIER_EVERY;
}

static enum ty_code take_arguments(struct s3 *s3, struct ty_error *err)
{
	const struct ty_tier_config *c = &s3->tier->config;
	enum ty_s3_style style = TY_S3_PATH;
	struct ty_error why = {.text = ""};

	strcpy(s3->region, "us-east-1");
	strcpy(s3->prefix, "tyer/");
	s3->part_size = S3_PART;
	s3->connections = S3_CONNECTIONS;
	s3->retries = S3_RETRIES;
	s3->stall = S3_STALL_US * INT64_C(1000);
	if (c->size != UINT64_MAX)
		return ty_fail(err, TY_INVALID, "--tier: s3: found size=, expected the bucket's own lifecycle rules to say it");
	for (uint32_t i = 0; i < c->arg_count; i++) {
		const char *expected = take_setting(s3, c->args[i].name, c->args[i].value, &style);

		if (expected)
			return ty_fail(err, TY_INVALID, "--tier: s3: found \"%s=%.60s\", expected %s", c->args[i].name, c->args[i].value,
				expected);
	}
	if (s3->stall > c->timeout / 2) /* so that a silent store is noticed before the operation is late */
		s3->stall = c->timeout / 2;
	snprintf(s3->provider, sizeof s3->provider, "aws:amz:%s:s3", s3->region);
	if (s3->ca_file[0] && access(s3->ca_file, R_OK) != 0)
		return ty_fail(err, TY_IO, "--tier: s3: ca-file %s: %s", s3->ca_file, strerror(errno));
	if (ty_s3_where(c->where, style, &s3->where, &why) != TY_OK)
		return ty_fail(err, TY_INVALID, "--tier: s3: %.200s", why.text);
	return take_credentials(s3, err);
}

/* ---- the first look ---------------------------------------------------------------------------------------------------- */

struct first {
	size_t header_bytes, body_bytes, length;
	long status;
	char text[S3_TEXT_MAX];      /* the answer's beginning */
	char error[CURL_ERROR_SIZE];
};

static size_t on_header(char *in, size_t size, size_t count, void *user)
{
	struct first *f = user;

	(void)in;
	f->header_bytes += size * count;
	return f->header_bytes > S3_HEADERS_MAX ? 0 : size * count;
}

static size_t on_text(char *in, size_t size, size_t count, void *user)
{
	struct first *f = user;
	size_t n = size * count, room = sizeof f->text - f->length;

	f->body_bytes += n;
	memcpy(f->text + f->length, in, n < room ? n : room);
	f->length += n < room ? n : room;
	return f->body_bytes > S3_BODY_MAX ? 0 : n;
}

/* That we may not. A store tells who may not list it of what it does not have that it is forbidden, and not that it is missing: without that
 * right nothing would ever be a miss. */
static enum ty_code refused(const struct s3 *s3, const struct first *f, struct ty_error *err)
{
	char code[48];

	if (!ty_s3_element(f->text, f->length, "Code", code, sizeof code))
		code[0] = 0;
	if (!strcmp(code, "AccessDenied"))
		return ty_fail(err, TY_DENIED, "--tier: s3: %.80s: a list of it answers %ld AccessDenied: expected the right s3:ListBucket, for the"
			" prefix %.40s at least", s3->where.url, f->status, s3->prefix);
	return ty_fail(err, TY_DENIED, "--tier: s3: %.100s: answers %ld %s (credentials, region=, this machine's clock)", s3->where.url,
		f->status, code);
}

/* What came of a list of the bucket. A store that is silent today may answer later; one that refuses us, or is none, is a wrong
 * configuration. */
static enum ty_code judge(struct s3 *s3, CURLcode result, const struct first *f, struct ty_error *err)
{
	long status = f->status;
	const char *error = f->error;
	bool more;

	char *note = s3->tier->stats.note;
	size_t size = sizeof s3->tier->stats.note;
	const char *url = s3->where.url;

	if (result == CURLE_COULDNT_CONNECT || result == CURLE_OPERATION_TIMEDOUT || result == CURLE_GOT_NOTHING ||
		result == CURLE_RECV_ERROR || result == CURLE_SEND_ERROR || (result == CURLE_OK && status / 100 == 5)) {
		s3->tier->stats.note_warns = true;
		snprintf(note, size, "it does not answer: %.100s", result == CURLE_OK ? "an error of its own" : error);
		return TY_OK;
	}
	if (result != CURLE_OK)
		return ty_fail(err, TY_IO, "--tier: s3: %.100s: %.100s", url, error[0] ? error : curl_easy_strerror(result));
	if (status == 401 || status == 403 || status == 400)
		return refused(s3, f, err);
	if (status / 100 == 3)
		return ty_fail(err, TY_INVALID, "--tier: s3: %.100s: answers %ld: the bucket is elsewhere (region=, the host's name)", url,
			status);
	if (status / 100 != 2)
		return ty_fail(err, TY_INVALID, "--tier: s3: %.100s: answers %ld, expected a bucket", url, status);
	if (f->length == f->body_bytes && !ty_s3_is_list(f->text, f->length, &more))
		return ty_fail(err, TY_INVALID, "--tier: s3: %.100s: its answer is no list, expected a bucket", url);
	snprintf(note, size, "the bucket answers%s%s", s3->credentials.id[0] ? "" : "; requests are not signed",
		s3->where.tls ? "" : "; without TLS");
	return TY_OK;
}

static enum ty_code look(struct s3 *s3, struct ty_error *err)
{
	struct curl_slist *headers = NULL, *resolve = NULL;
	CURL *e = curl_easy_init();
	struct first f = {.status = 0};
	size_t n = strlen(s3->where.url);
	char url[S3_URL_ROOM];
	enum ty_code code;
	CURLcode result;

	memcpy(url, s3->where.url, n + 1);
	if (!s3_list_query(1, s3->prefix, url + n, sizeof url - n) || !e || !s3_set_up(s3, e, s3_no_content, &headers, &resolve) ||
		curl_easy_setopt(e, CURLOPT_URL, url) || curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, LOOK_MS) ||
		curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header) || curl_easy_setopt(e, CURLOPT_HEADERDATA, &f) ||
		curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_text) || curl_easy_setopt(e, CURLOPT_WRITEDATA, &f) ||
		curl_easy_setopt(e, CURLOPT_ERRORBUFFER, f.error)) {
		code = ty_fail(err, TY_NO_MEMORY, "--tier: s3: libcurl: no memory");
	} else {
		result = curl_easy_perform(e);
		(void)curl_easy_getinfo(e, CURLINFO_RESPONSE_CODE, &f.status);
		code = judge(s3, result, &f, err);
	}
	curl_easy_cleanup(e);
	curl_slist_free_all(headers);
	curl_slist_free_all(resolve);
	return code;
}

/* The name is looked up here, where it may wait, and again by the names actor. */
static enum ty_code find(struct s3 *s3, struct ty_error *err)
{
	int failed = s3->where.numeric ? 0 : s3_look_up(&s3->where, s3->lookup.text);

	if (failed == EAI_AGAIN) {
		s3->tier->stats.note_warns = true;
		snprintf(s3->tier->stats.note, sizeof s3->tier->stats.note, "%.100s: %s", s3->where.host, gai_strerror(failed));
		return TY_OK; /* there is no resolver now; the store may be there later */
	}
	if (failed)
		return ty_fail(err, TY_INVALID, "--tier: s3: %.100s: %s", s3->where.host, gai_strerror(failed));
	if (!s3->where.numeric)
		memcpy(s3->addresses, s3->lookup.text, sizeof s3->addresses);
	return look(s3, err);
}

enum ty_code s3_open(struct ty_tier *tier, struct ty_error *err)
{
	struct s3 *s3 = calloc(1, sizeof *s3);
	struct ty_error why;
	enum ty_code code;

	if (!s3)
		return ty_fail(err, TY_NO_MEMORY, "no memory for an S3 tier");
	s3->tier = tier;
	tier->state = s3;
	code = ty_waiter_open(&s3->waiter, &why);
	if (code != TY_OK)
		code = ty_fail(err, code, "--tier: s3: %s", why.text);
	else if (sodium_init() < 0 || curl_global_init(CURL_GLOBAL_DEFAULT))
		code = ty_fail(err, TY_IO, "--tier: s3: libsodium or libcurl cannot be used");
	if (code == TY_OK)
		code = take_arguments(s3, err);
	if (code == TY_OK)
		code = find(s3, err);
	if (code != TY_OK) {
		s3_close(tier);
		return code;
	}
	randombytes_buf(&s3->random, sizeof s3->random);
	tier->capabilities = TY_TIER_SHARED | TY_TIER_LASTING | TY_TIER_LISTS;
	return TY_OK;
}

void s3_close(struct ty_tier *tier)
{
	struct s3 *s3 = tier->state;

	ty_waiter_close(&s3->waiter);
	explicit_bzero(&s3->credentials, sizeof s3->credentials);
	free(s3);
	tier->state = NULL;
}
