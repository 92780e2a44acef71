/* SPDX-License-Identifier: Apache-2.0
 *
 * A page of ListObjectsV2: names in order, of which ours are a prefix and 64 hexadecimal digits. Others may lie among them.
 */
#include <stdio.h>
#include <string.h>

#include "s3.h"

#define DIGITS (2 * TY_S3_KEY_BYTES)
#define LAST "\xf4\x8f\xbf\xbf" /* U+10FFFF: what comes after all that begins alike */

/* The text between <name> and </name>, as it stands there; it has no elements inside. */
static bool raw_element(const char *xml, size_t length, const char *name, const char **out, size_t *out_length)
{
	char begin[32], end[32];
	int n = snprintf(begin, sizeof begin, "<%s>", name), m = snprintf(end, sizeof end, "</%s>", name);
	const char *at = memmem(xml, length, begin, (size_t)n), *close;

	if (!at)
		return false;
	at += n;
	length -= (size_t)(at - xml);
	close = memchr(at, '<', length);
	if (!close || length - (size_t)(close - at) < (size_t)m || memcmp(close, end, (size_t)m) != 0)
		return false;
	*out = at;
	*out_length = (size_t)(close - at);
	return true;
}

static int digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* A name of somebody else's with `run` digits at its beginning: no name of ours lies between it and this place. */
static void place_behind(const char *rest, size_t length, size_t run, char place[TY_S3_PLACE_MAX])
{
	const char *next = "/" LAST; /* '0' is next */
	unsigned char c = run < length ? (unsigned char)rest[run] : 0;

	memcpy(place, rest, run);
	if (run == DIGITS || c > 'f')
		next = LAST;
	else if (c > '9' || (length - run >= 4 && (!memcmp(rest + run, "&lt;", 4) || !memcmp(rest + run, "&gt;", 4))))
		next = "`" LAST; /* 'a' is next */
	strcpy(place + run, next);
}

/* False: it does not begin so. */
static bool take_name(const char *name, size_t length, const char *prefix, struct ty_s3_listed *out)
{
	size_t n = strlen(prefix), run = 0;

	if (length < n || memcmp(name, prefix, n) != 0)
		return false;
	name += n;
	length -= n;
	while (run < length && run < DIGITS && digit(name[run]) >= 0)
		run++;
	out->ours = length == DIGITS && run == DIGITS;
	for (size_t i = 0; out->ours && i < TY_S3_KEY_BYTES; i++)
		out->key[i] = (uint8_t)(digit(name[2 * i]) << 4 | digit(name[2 * i + 1]));
	if (out->ours)
		memcpy(out->place, name, DIGITS);
	if (out->ours)
		out->place[DIGITS] = 0;
	else
		place_behind(name, length, run, out->place);
	return true;
}

static bool take_size(const char *text, size_t length, uint64_t *out)
{
	*out = 0;
	if (!length || length > 18)
		return false;
	for (size_t i = 0; i < length; i++) {
		if (text[i] < '0' || text[i] > '9')
			return false;
		*out = *out * 10 + (uint64_t)(text[i] - '0');
	}
	return true;
}

bool ty_s3_next_listed(const char **xml, size_t *left, const char *prefix, struct ty_s3_listed *out, const char **bad)
{
	static const char begin[] = "<Contents>", end[] = "</Contents>";
	const char *at = memmem(*xml, *left, begin, sizeof begin - 1), *close, *name, *size;
	size_t length, name_length, size_length;

	*bad = NULL;
	if (!at)
		return false;
	at += sizeof begin - 1;
	length = *left - (size_t)(at - *xml);
	close = memmem(at, length, end, sizeof end - 1);
	*bad = "its list is cut off";
	if (!close)
		return false;
	length = (size_t)(close - at);
	*bad = "its list has an object without a name or a size";
	if (!raw_element(at, length, "Key", &name, &name_length) || !raw_element(at, length, "Size", &size, &size_length) ||
		!take_size(size, size_length, &out->bytes))
		return false;
	*bad = "its list has another prefix";
	if (!take_name(name, name_length, prefix, out))
		return false;
	*left -= (size_t)(close + sizeof end - 1 - *xml);
	*xml = close + sizeof end - 1;
	*bad = NULL;
	return true;
}

bool ty_s3_is_list(const char *xml, size_t length, bool *more)
{
	static const char begin[] = "<ListBucketResult";
	const char *text;
	size_t n;

	if (!memmem(xml, length, begin, sizeof begin - 1) || !raw_element(xml, length, "IsTruncated", &text, &n))
		return false;
	*more = n == 4 && !memcmp(text, "true", 4);
	return *more || (n == 5 && !memcmp(text, "false", 5));
}
