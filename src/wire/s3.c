/* SPDX-License-Identifier: Apache-2.0 */
#include "s3.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/config.h"

static bool is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* What a URL may hold as it is (RFC 3986's unreserved). */
static bool is_plain(char c)
{
	return is_letter(c) || is_digit(c) || c == '-' || c == '.' || c == '_' || c == '~';
}

bool ty_s3_plain(const char *text)
{
	for (; *text; text++)
		if (!is_plain(*text) && *text != '/')
			return false;
	return true;
}

bool ty_s3_quote(const char *text, char *out, size_t size)
{
	size_t n = 0;

	for (; *text; text++) {
		bool plain = is_plain(*text);

		if (n + (plain ? 1 : 3) >= size)
			return false;
		if (plain)
			out[n++] = *text;
		else
			n += (size_t)snprintf(out + n, 4, "%%%02X", (unsigned char)*text);
	}
	if (n >= size)
		return false;
	out[n] = 0;
	return true;
}

/* ---- where it is ---------------------------------------------------------------------------------------------- */

#define EXPECTED "expected http[s]://HOST[:PORT]/BUCKET"

/* HOST or [ADDRESS], and :PORT. */
static bool take_host(struct ty_s3_where *w, char *text)
{
	struct in6_addr address;
	struct ty_error why;
	char *port = NULL;
	uint64_t number;

	w->port = w->tls ? 443 : 80;
	if (text[0] == '[') {
		char *end = strchr(text, ']');

		if (!end || (end[1] && end[1] != ':'))
			return false;
		port = end[1] ? end + 2 : NULL;
		*end = 0;
		text++;
		w->numeric = inet_pton(AF_INET6, text, &address) == 1;
		if (!w->numeric)
			return false;
	} else {
		port = strchr(text, ':');
		if (port)
			*port++ = 0;
		for (const char *c = text; *c; c++)
			if (!is_letter(*c) && !is_digit(*c) && *c != '-' && *c != '.')
				return false;
		w->numeric = inet_pton(AF_INET, text, &address) == 1;
	}
	if (port) {
		if (ty_parse_count(port, 65535, &number, &why) != TY_OK || !number)
			return false;
		w->port = (uint16_t)number;
	}
	if (!text[0] || strlen(text) >= sizeof w->host)
		return false;
	strcpy(w->host, text);
	return true;
}

static bool is_bucket(const char *text)
{
	size_t length = strlen(text);

	if (length < 1 || length > 63 || text[0] == '.' || text[0] == '-')
		return false;
	for (; *text; text++)
		if (!is_plain(*text) || *text == '~')
			return false;
	return true;
}

enum ty_code ty_s3_where(const char *text, enum ty_s3_style style, struct ty_s3_where *out, struct ty_error *err)
{
	char copy[TY_CONFIG_TIER_MAX], port[8] = "";
	bool six;
	char *slash, *host;
	int n;

	memset(out, 0, sizeof *out);
	out->tls = !strncmp(text, "https://", 8);
	if (strlen(text) >= sizeof copy || (!out->tls && strncmp(text, "http://", 7) != 0))
		return ty_fail(err, TY_INVALID, "found \"%.80s\", " EXPECTED, text);
	strcpy(copy, text + (out->tls ? 8 : 7));
	slash = strchr(copy, '/');
	if (!slash)
		return ty_fail(err, TY_INVALID, "found \"%.80s\" without a bucket, " EXPECTED, text);
	*slash++ = 0;
	if (!is_bucket(slash))
		return ty_fail(err, TY_INVALID, "bucket: found \"%.80s\", " EXPECTED, slash);
	if (!take_host(out, copy))
		return ty_fail(err, TY_INVALID, "host: found \"%.80s\", " EXPECTED, text);
	host = out->host;
	six = strchr(host, ':') != NULL;
	if (style == TY_S3_HOST && out->numeric)
		return ty_fail(err, TY_INVALID, "found style=host with the address %.80s, expected a name", host);
	if (out->port != (out->tls ? 443 : 80))
		snprintf(port, sizeof port, ":%u", out->port);
	if (style == TY_S3_HOST)
		n = snprintf(out->url, sizeof out->url, "%s://%s.%s%s", out->tls ? "https" : "http", slash, host, port);
	else
		n = snprintf(out->url, sizeof out->url, "%s://%s%s%s%s/%s", out->tls ? "https" : "http", six ? "[" : "", host,
			six ? "]" : "", port, slash);
	if (n < 0 || (size_t)n >= sizeof out->url)
		return ty_fail(err, TY_INVALID, "found a URL of %d bytes, expected at most %zu", n, sizeof out->url - 1);
	if (style == TY_S3_HOST) { /* what is connected to has the bucket in its name */
		char whole[TY_S3_HOST_MAX + 64];

		n = snprintf(whole, sizeof whole, "%s.%s", slash, host);
		if (n < 0 || (size_t)n >= sizeof out->host)
			return ty_fail(err, TY_INVALID, "found a host of %d bytes, expected at most %zu", n, sizeof out->host - 1);
		memcpy(out->host, whole, (size_t)n + 1);
	}
	return TY_OK;
}

/* ---- who asks ------------------------------------------------------------------------------------------------- */

static void trim(const char **text, size_t *length)
{
	while (*length && (**text == ' ' || **text == '\t')) {
		(*text)++;
		(*length)--;
	}
	while (*length && strchr(" \t\r", (*text)[*length - 1]))
		(*length)--;
}

/* A value goes into a header: printable, no spaces. */
static bool take_value(const char *text, size_t length, char *out, size_t size)
{
	if (!length || length >= size)
		return false;
	for (size_t i = 0; i < length; i++)
		if (text[i] <= ' ' || text[i] > '~')
			return false;
	memcpy(out, text, length);
	out[length] = 0;
	return true;
}

static bool is_name(const char *text, size_t length, const char *name)
{
	return length == strlen(name) && !strncasecmp(text, name, length);
}

static enum ty_code take_line(struct ty_s3_credentials *c, const char *text, size_t length, unsigned number, struct ty_error *err)
{
	const char *equals = memchr(text, '=', length), *value;
	size_t name_length, value_length;
	bool good = true;

	if (!equals)
		return ty_fail(err, TY_INVALID, "line %u: expected name = value", number);
	name_length = (size_t)(equals - text);
	value = equals + 1;
	value_length = length - name_length - 1;
	trim(&text, &name_length);
	trim(&value, &value_length);
	if (is_name(text, name_length, "aws_access_key_id"))
		good = take_value(value, value_length, c->id, sizeof c->id);
	else if (is_name(text, name_length, "aws_secret_access_key"))
		good = take_value(value, value_length, c->secret, sizeof c->secret);
	else if (is_name(text, name_length, "aws_session_token"))
		good = take_value(value, value_length, c->token, sizeof c->token);
	return good ? TY_OK : ty_fail(err, TY_INVALID, "line %u: the value is empty, too long, or not printable", number);
}

enum ty_code ty_s3_credentials(const char *text, size_t length, struct ty_s3_credentials *out, struct ty_error *err)
{
	const char *end = text + length;
	enum ty_code code = TY_OK;
	bool ours = true;

	memset(out, 0, sizeof *out);
	for (unsigned number = 1; text < end && code == TY_OK; number++) {
		const char *newline = memchr(text, '\n', (size_t)(end - text)), *line = text;
		size_t n = (size_t)((newline ? newline : end) - text);

		text = newline ? newline + 1 : end;
		trim(&line, &n);
		if (!n || line[0] == '#' || line[0] == ';')
			continue;
		if (line[0] == '[')
			ours = is_name(line, n, "[default]");
		else if (ours)
			code = take_line(out, line, n, number, err);
	}
	if (code == TY_OK && (!out->id[0] || !out->secret[0]))
		code = ty_fail(err, TY_INVALID, "found no %s in [default]", out->id[0] ? "aws_secret_access_key" : "aws_access_key_id");
	if (code != TY_OK)
		memset(out, 0, sizeof *out);
	return code;
}

/* ---- answers ------------------------------------------------------------------------------------------------------ */

/* &name; or &#number; at text[0..length): its bytes; 0: none that is known. */
static size_t entity(const char *text, size_t length, char *out)
{
	static const struct { const char *text; char c; } known[] = {
		{"&amp;", '&'}, {"&lt;", '<'}, {"&gt;", '>'}, {"&quot;", '"'}, {"&apos;", '\''}, {"&#34;", '"'}, {"&#39;", '\''},
		{"&#38;", '&'}, {"&#x22;", '"'},
	};

	for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
		size_t n = strlen(known[i].text);

		if (length >= n && !memcmp(text, known[i].text, n)) {
			*out = known[i].c;
			return n;
		}
	}
	return 0;
}

bool ty_s3_element(const char *xml, size_t length, const char *name, char *out, size_t size)
{
	size_t name_length = strlen(name), n = 0;
	const char *at = xml, *end = xml + length;

	for (;; at++) { /* <name> */
		at = at < end ? memchr(at, '<', (size_t)(end - at)) : NULL;
		if (!at)
			return false;
		if ((size_t)(end - at) >= name_length + 2 && !memcmp(at + 1, name, name_length) && at[name_length + 1] == '>')
			break;
	}
	for (at += name_length + 2; at < end && *at != '<';) {
		char c = *at;
		size_t took = c == '&' ? entity(at, (size_t)(end - at), &c) : 1;

		if (!took || c < ' ' || c > '~' || n + 1 >= size)
			return false;
		out[n++] = c;
		at += took;
	}
	if ((size_t)(end - at) < name_length + 3 || memcmp(at, "</", 2) != 0 || memcmp(at + 2, name, name_length) != 0 ||
		at[name_length + 2] != '>')
		return false;
	out[n] = 0;
	return true;
}

bool ty_s3_etag(const char *line, size_t length, char out[TY_S3_ETAG_MAX])
{
	const char *value;

	if (length < 5 || strncasecmp(line, "etag:", 5) != 0)
		return false;
	while (length && strchr("\r\n", line[length - 1]))
		length--;
	value = line + 5;
	length = length > 5 ? length - 5 : 0;
	trim(&value, &length);
	if (!take_value(value, length, out, TY_S3_ETAG_MAX) || strpbrk(out, "<>&")) {
		out[0] = 0;
		return false;
	}
	return true;
}
