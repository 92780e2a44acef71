/* SPDX-License-Identifier: Apache-2.0 */
#include "device_private.h"

enum ty_code ty_cuda_open(const struct ty_device_options *options, int ordinal, struct ty_device_call *call,
	struct ty_device **out, struct ty_error *err)
{
	(void)options, (void)call, (void)out;
	return ty_fail(err, TY_UNSUPPORTED, "device cuda:%d: this build has no GPU support", ordinal);
}
