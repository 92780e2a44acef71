/* SPDX-License-Identifier: Apache-2.0 */
#include "busy.h"

#include "kernels.h"

enum ty_code ty_busy_hang(struct ty_cuda_client *c, uint64_t address, struct ty_error *err)
{
	const struct ty_spin_job job = {address};

	if (!ty_busy_image_bytes)
		return ty_fail(err, TY_UNSUPPORTED, "no kernels in this build");
	return ty_cuda_client_launch(c, ty_busy_image, TY_BUSY_SPIN, &job, err);
}
