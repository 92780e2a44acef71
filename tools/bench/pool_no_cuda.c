/* SPDX-License-Identifier: Apache-2.0
 *
 * A build without the engine's side of a GPU: cuda:N is refused.
 */
#include "pool.h"

enum ty_code bench_pool_cuda_open(const struct bench_pool *plan, const char *driver, int ordinal,
	struct bench_pool **out, struct ty_error *err)
{
	(void)plan;
	(void)driver;
	(void)out;
	return ty_fail(err, TY_UNSUPPORTED, "--device cuda:%d: this build has no CUDA client", ordinal);
}
