/* SPDX-License-Identifier: Apache-2.0
 *
 * The kinds of tiers that this build has.
 */
#include "tier.h"

const struct ty_tier_class *const ty_tier_kinds[] = {
	&ty_disk_tier,
	&ty_redis_tier,
	&ty_rediss_tier,
	&ty_s3_tier,
	NULL,
};
