/* SPDX-License-Identifier: Apache-2.0
 *
 * SigV4, from the other side and by the published description alone: the canonical request out of what came over the wire.
 */
#include <ctype.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "s3_server.h"

#define LINES 64

struct line { char name[64]; char value[6144]; };

static void hex(const uint8_t hash[32], char out[65])
{
	sodium_bin2hex(out, 65, hash, 32);
}

static void hmac(const void *key, size_t key_length, const char *text, uint8_t out[32])
{
	crypto_auth_hmacsha256_state state;

	crypto_auth_hmacsha256_init(&state, key, key_length);
	crypto_auth_hmacsha256_update(&state, (const uint8_t *)text, strlen(text));
	crypto_auth_hmacsha256_final(&state, out);
}

/* Lower-case names, values without spaces around them; in their order. */
static size_t read_lines(const char *head, struct line *lines)
{
	size_t count = 0;

	for (const char *at = strstr(head, "\r\n") + 2; count < LINES && strncmp(at, "\r\n", 2) != 0 && *at; count++) {
		const char *colon = strchr(at, ':'), *end = strstr(at, "\r\n"), *value = colon + 1;
		struct line *l = &lines[count];
		size_t n = (size_t)(colon - at);

		for (size_t i = 0; i < n && i < sizeof l->name - 1; i++)
			l->name[i] = (char)tolower((unsigned char)at[i]);
		l->name[n < sizeof l->name - 1 ? n : sizeof l->name - 1] = 0;
		while (*value == ' ')
			value++;
		snprintf(l->value, sizeof l->value, "%.*s", (int)(end - value), value);
		while (l->value[0] && l->value[strlen(l->value) - 1] == ' ')
			l->value[strlen(l->value) - 1] = 0;
		at = end + 2;
	}
	return count;
}

static const char *value_of(const struct line *lines, size_t count, const char *name)
{
	for (size_t i = 0; i < count; i++)
		if (!strcmp(lines[i].name, name))
			return lines[i].value;
	return NULL;
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Names in order, each with its "=". */
static void canonical_query(const char *query, char *out)
{
	char copy[2048], *save = NULL, *parts[16];
	size_t count = 0, n = 0;

	out[0] = 0;
	snprintf(copy, sizeof copy, "%s", query);
	for (char *p = strtok_r(copy, "&", &save); p && count < 16; p = strtok_r(NULL, "&", &save))
		parts[count++] = p;
	qsort(parts, count, sizeof parts[0], by_text);
	for (size_t i = 0; i < count; i++)
		n += (size_t)sprintf(out + n, "%s%s%s", i ? "&" : "", parts[i], strchr(parts[i], '=') ? "" : "=");
}

/* "name=VALUE" within the Authorization line, up to a comma. */
static bool field(const char *authorization, const char *name, char *out, size_t size)
{
	const char *at = strstr(authorization, name);
	size_t n;

	if (!at)
		return false;
	at += strlen(name);
	n = strcspn(at, ", ");
	if (n >= size)
		return false;
	memcpy(out, at, n);
	out[n] = 0;
	return true;
}

bool s3_signature(const char *head, const char *secret, char out[65], char found[65], char reason[200])
{
	static struct line lines[LINES];
	static char canonical[16384], to_sign[512];
	char method[16], target[2048], credential[512], names[512], digest[65], query[2048], key[300], *save = NULL, *question;
	char date[16], region[64], service[16];
	const char *authorization, *when, *content;
	uint8_t hash[32];
	size_t count, n;

	*reason = 0;
	if (sscanf(head, "%15s %2047s", method, target) != 2)
		return snprintf(reason, 200, "no request line"), false;
	count = read_lines(head, lines);
	authorization = value_of(lines, count, "authorization");
	when = value_of(lines, count, "x-amz-date");
	content = value_of(lines, count, "x-amz-content-sha256");
	if (!authorization || !when || !content)
		return snprintf(reason, 200, "not signed"), false;
	if (!field(authorization, "Credential=", credential, sizeof credential) ||
		!field(authorization, "SignedHeaders=", names, sizeof names) || !field(authorization, "Signature=", found, 65) ||
		sscanf(credential, "%*[^/]/%15[^/]/%63[^/]/%15[^/]/aws4_request", date, region, service) != 3)
		return snprintf(reason, 200, "Authorization: %.150s", authorization), false;
	question = strchr(target, '?');
	if (question)
		*question++ = 0;
	canonical_query(question ? question : "", query);
	n = (size_t)sprintf(canonical, "%s\n%s\n%s\n", method, target, query);
	{
		char copy[512];

		strcpy(copy, names);
		for (char *name = strtok_r(copy, ";", &save); name; name = strtok_r(NULL, ";", &save)) {
			const char *value = value_of(lines, count, name);

			if (!value)
				return snprintf(reason, 200, "signed header %.60s was not sent", name), false;
			n += (size_t)sprintf(canonical + n, "%s:%s\n", name, value);
		}
	}
	for (size_t i = 0; i < count; i++) { /* these must be signed; none may be missing */
		char wrapped[80], all[520];

		snprintf(wrapped, sizeof wrapped, ";%.70s;", lines[i].name);
		snprintf(all, sizeof all, ";%s;", names);
		if ((!strcmp(lines[i].name, "host") || !strncmp(lines[i].name, "x-amz-", 6)) && !strstr(all, wrapped))
			return snprintf(reason, 200, "header %.60s is not signed", lines[i].name), false;
	}
	sprintf(canonical + n, "\n%s\n%s", names, content);
	crypto_hash_sha256(hash, (const uint8_t *)canonical, strlen(canonical));
	hex(hash, digest);
	snprintf(to_sign, sizeof to_sign, "AWS4-HMAC-SHA256\n%.20s\n%s/%s/%s/aws4_request\n%s", when, date, region, service, digest);
	n = (size_t)snprintf(key, sizeof key, "AWS4%s", secret);
	hmac(key, n, date, hash);
	hmac(hash, 32, region, hash);
	hmac(hash, 32, service, hash);
	hmac(hash, 32, "aws4_request", hash);
	hmac(hash, 32, to_sign, hash);
	hex(hash, out);
	return true;
}
