/* SPDX-License-Identifier: Apache-2.0
 *
 * libtyer-embed: the owner of a GPU inside the engine's own process. Beside all of client.h, which this library brings too.
 *
 * The blocks are moved by a thread of this process, in the engine's own CUDA context (the device's primary one), to and from
 * the service's arena, which is mapped here: no memory is exported or imported, and no other process takes time slices of the GPU.
 * Index, space, leases and deadlines stay the service's, and so do the verbs: a pool that was offered is registered, stored
 * from and retrieved into by a client (client.h) of this process as any other.
 *
 *     ty_embed_open(&options, &embed, &err);           once for a GPU
 *     ty_client_open(&..., &client, &err);
 *     pool.regions[i] = {.address, .allocation_bytes, .length};
 *     ty_embed_offer(embed, client, &pool, &err);      fills pool.owner and pool.memory
 *     ty_client_register(client, &pool, ...);          and from here on as ever
 *
 * The service must allow it for this process's user (--embed-uid), because this process can then read and change everything
 * in the cache. docs/embed.md.
 *
 * When the service goes away the owner ends what it has (RETRIEVEs that are not over then fail), gives its memory back, and
 * connects again by itself; the client registers the pool again.
 */
#ifndef TYER_EMBED_H
#define TYER_EMBED_H

#include <tyer/client.h>

#ifdef __cplusplus
extern "C" {
#endif

struct ty_embed; /* opaque */

enum ty_embed_sharing {
	TY_EMBED_AUTO,  /* as fast as can be, until the engine's kernels are seen to make ours wait; then copy engines alone */
	TY_EMBED_QUIET, /* copy engines alone, never a kernel */
	TY_EMBED_FAST,
};

struct ty_embed_options {
	size_t size;                 /* sizeof(struct ty_embed_options); what is not set is zero: see result.h */
	const char *attach_path;     /* the service's attach socket */
	const char *device;          /* "cuda:N", by this process's count; or "host": the blocks are ordinary memory */
	const char *name;            /* for people, at most 32 characters; null: the device */
	const char *driver;          /* of CUDA; null = "libcuda.so.1" */
	uint64_t staging_bytes;      /* GPU memory for staging; 0 = 16 MiB, at least 4 MiB; TY_EMBED_QUIET takes none */
	enum ty_embed_sharing sharing;
	const char *calibration;     /* a directory of calibrations (`tyer calibrate`, docs/device.md); null: the compiled rates */
	uint32_t connect_timeout_us; /* of open: attach, arena and device together; 0 = 30 s */
	const char *fault;           /* for tests, with "host": as --device host:FAULTS */
};

/* Start the owner's threads, connect, map the arena, open the device; waits for at most connect_timeout_us. The device's context is
 * the primary one; it need not be current. TY_DENIED: the service does not allow it. TY_BUSY: the attach socket's backlog was full all the
 * time. Any thread. */
TY_API TY_MUST_USE enum ty_code ty_embed_open(const struct ty_embed_options *options, struct ty_embed **out, struct ty_error *err);
/* End what is out (RETRIEVEs and STOREs of this owner end with CANCELLED), unregister the arena, close the device, join the threads.
 * Waits for copies that have begun, and for the service to read what became of them, for at most timeout_us: TY_DEVICE_STALLED says that
 * the device has not finished, TY_TIMEOUT that the service does not read (one that has died is not waited for). Then nothing is freed, no new
 * operation begins, what is out goes on to its end, and this is called again. Null is allowed. Any thread, once at a time. */
TY_API TY_MUST_USE enum ty_code ty_embed_close(struct ty_embed *embed, uint32_t timeout_us, struct ty_error *err);

/* TY_OK: connected, with its device open. TY_DEVICE_FAILED: an error came from which no call on the device recovers; all operations end
 * with that, until another owner is opened (if the context is dead by then, in another process). Else why it is not connected, as of
 * the last attempt. Any thread. */
TY_API TY_MUST_USE enum ty_code ty_embed_state(const struct ty_embed *embed);

/* Let the owner move this pool's blocks, for RETRIEVEs and STOREs of `client`, which lives in this process: fills pool->owner and
 * pool->memory, for ty_client_register. Each region has address, allocation_bytes, offset and length, and no two
 * of them hold the same memory, which stays where it is until the pool's UNREGISTER is answered, or ty_embed_close has returned. All else
 * is copied. The thread of the client. */
TY_API TY_MUST_USE enum ty_code ty_embed_offer(struct ty_embed *embed, const struct ty_client *client, struct ty_pool *pool,
	struct ty_error *err);
/* It is not registered, and will not be again. Any thread. */
TY_API void ty_embed_withdraw(struct ty_embed *embed, const struct ty_pool *pool);

/* What was moved by it so far. Any thread. */
struct ty_embed_stats {
	uint64_t stored_bytes, retrieved_bytes;
	uint64_t failed;        /* operations that ended otherwise than well */
	uint64_t pieces;        /* of 64 MiB of the arena, registered with the device */
	uint64_t longest_call_ns; /* of the driver, in steady state, until the last operation that is over */
};
TY_API void ty_embed_stats(const struct ty_embed *embed, struct ty_embed_stats *out);

#ifdef __cplusplus
}
#endif
#endif
