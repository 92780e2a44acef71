/* SPDX-License-Identifier: Apache-2.0
 *
 * How much of the arena a tenant may have: never more than `hard`, and what it has beyond `soft` goes first when others
 * need space. Written as TENANT=HARD or TENANT=HARD,SOFT (bytes with suffix); SOFT alone is TENANT=,SOFT.
 */
#ifndef TY_BASE_QUOTA_H
#define TY_BASE_QUOTA_H

#include <stdint.h>

#include <tyer/result.h>

#define TY_TENANT_QUOTAS_MAX 64
#define TY_TENANT_SIZE 256 /* with its zero; the empty tenant is one too */
#define TY_QUOTA_TEXT (TY_TENANT_SIZE + 68)

struct ty_tenant_quota {
	char tenant[TY_TENANT_SIZE];
	uint64_t hard; /* 0: none */
	uint64_t soft;
};

/* TY_INVALID says what was found and what was expected. A quota without SOFT has HARD as its soft one. */
TY_MUST_USE enum ty_code ty_quota_parse(const char *text, struct ty_tenant_quota *out, struct ty_error *err);
void ty_quota_format(char out[TY_QUOTA_TEXT], const struct ty_tenant_quota *quota);
/* Each tenant once, none above `size`, the soft ones together not above it either. */
TY_MUST_USE enum ty_code ty_quotas_check(const struct ty_tenant_quota *quotas, uint32_t count, uint64_t size,
	struct ty_error *err);

#endif
