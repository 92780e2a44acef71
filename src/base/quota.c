/* SPDX-License-Identifier: Apache-2.0 */
#include "base/quota.h"

#include <stdio.h>
#include <string.h>

#include "base/config.h"
#include "base/text.h"

#define SHOWN_MAX 64

static const char *shown(char out[SHOWN_MAX], const char *text)
{
	bool cut;
	size_t n = ty_escape(out, SHOWN_MAX - 4, text, strlen(text), TY_ESCAPE_TEXT, &cut);

	if (cut)
		memcpy(out + n, "...", 4);
	return out;
}

static enum ty_code expected(const char *text, struct ty_error *err)
{
	char found[SHOWN_MAX];

	return ty_fail(err, TY_INVALID, "found \"%s\", expected TENANT=HARD, TENANT=HARD,SOFT or TENANT=,SOFT", shown(found, text));
}

/* A printable name, as an identity's tenant is one. */
static bool is_tenant(const char *name, size_t length)
{
	for (size_t at = 0; at < length;) {
		uint32_t code;

		at += ty_utf8_next(name + at, length - at, &code);
		if (code < 0x20 || (code >= 0x7f && code < 0xa0) || code == 0xfffd)
			return false;
	}
	return length < TY_TENANT_SIZE;
}

enum ty_code ty_quota_parse(const char *text, struct ty_tenant_quota *out, struct ty_error *err)
{
	const char *equals = strrchr(text, '='), *comma = equals ? strchr(equals, ',') : NULL;
	char hard[32], found[SHOWN_MAX];
	size_t length;
	enum ty_code code = TY_OK;

	memset(out, 0, sizeof *out);
	if (!equals || !is_tenant(text, (size_t)(equals - text)))
		return expected(text, err);
	memcpy(out->tenant, text, (size_t)(equals - text));
	length = comma ? (size_t)(comma - equals) - 1 : strlen(equals + 1);
	if (length >= sizeof hard || (!length && !comma))
		return expected(text, err);
	memcpy(hard, equals + 1, length);
	hard[length] = 0;
	if (length)
		code = ty_parse_bytes(hard, &out->hard, err);
	if (code == TY_OK && length && !out->hard)
		return ty_fail(err, TY_INVALID, "found a hard quota of 0, expected at least 1 byte");
	out->soft = out->hard;
	if (code == TY_OK && comma)
		code = ty_parse_bytes(comma + 1, &out->soft, err);
	if (code == TY_OK && out->hard && out->soft > out->hard)
		return ty_fail(err, TY_INVALID, "found a soft quota above the hard one in \"%s\", expected it below", shown(found, text));
	return code;
}

void ty_quota_format(char out[TY_QUOTA_TEXT], const struct ty_tenant_quota *quota)
{
	char hard[32] = "", soft[32];

	if (quota->hard)
		ty_format_bytes(hard, sizeof hard, quota->hard);
	ty_format_bytes(soft, sizeof soft, quota->soft);
	snprintf(out, TY_QUOTA_TEXT, "%s=%s,%s", quota->tenant, hard, soft);
}

enum ty_code ty_quotas_check(const struct ty_tenant_quota *quotas, uint32_t count, uint64_t size, struct ty_error *err)
{
	uint64_t together = 0;
	char name[SHOWN_MAX];

	for (uint32_t i = 0; i < count; i++) {
		const struct ty_tenant_quota *q = &quotas[i];

		for (uint32_t k = 0; k < i; k++)
			if (!strcmp(quotas[k].tenant, q->tenant))
				return ty_fail(err, TY_INVALID, "tenant \"%s\": has two quotas, expected one", shown(name, q->tenant));
		if (q->hard > size || q->soft > size)
			return ty_fail(err, TY_INVALID, "tenant \"%s\": quota of %llu bytes, expected at most the arena's %llu",
				shown(name, q->tenant), (unsigned long long)(q->hard > size ? q->hard : q->soft),
				(unsigned long long)size);
		if (q->soft > size - together)
			return ty_fail(err, TY_INVALID,
				"tenant \"%s\": with it the soft quotas are more than the arena's %llu bytes (a quota without a "
				"soft one has its hard one as that)",
				shown(name, q->tenant), (unsigned long long)size);
		together += q->soft;
	}
	return TY_OK;
}
