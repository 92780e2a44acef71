/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TY_DEVICE_LAYOUT_OVERLAP_H
#define TY_DEVICE_LAYOUT_OVERLAP_H

#include "layout.h"

/* Refuse (TY_INVALID) a layout in which the runs of two (plane, block) overlap, unless two groups lay them over the same
 * page; then join their page_group. Takes O(planes log planes), however many blocks there are. `regions` says which
 * regions are one allocation; apart: each is one. */
TY_MUST_USE enum ty_code ty_layout_check_overlap(struct ty_layout *layout, const struct ty_region *regions, bool apart,
	struct ty_error *err);

#endif
