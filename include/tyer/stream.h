/* SPDX-License-Identifier: Apache-2.0
 *
 * Timeline words from an engine's own CUDA streams: a stream raises a ready word when the kernels before it are through, and waits
 * for a done word before those behind it. Nothing waits on the CPU, and a stream that waits blocks nobody else, not even when the
 * service dies (tyer.proto, Mark; docs/wire.md).
 *
 * The driver's library is found at run time: libtyer-client needs no CUDA to be linked or to run. The streams and the context are
 * the engine's; nothing here makes either.
 */
#ifndef TYER_STREAM_H
#define TYER_STREAM_H

#include <tyer/client.h>

#ifdef __cplusplus
extern "C" {
#endif

struct ty_stream_words; /* a client's timeline page as one CUDA context sees it */

/* Make the client's page known to the calling thread's current context; `driver`: null = "libcuda.so.1". TY_INVALID: no context is
 * current, or the client has no timeline. TY_UNSUPPORTED: no driver, or one older than CUDA 11.7. May wait in the driver, once. With
 * several contexts of one process the first that was opened is closed last. */
TY_API TY_MUST_USE enum ty_code ty_stream_words_open(struct ty_client *client, const char *driver,
	struct ty_stream_words **out, struct ty_error *err);
/* Before ty_client_close, with the same context current and nothing in its streams that uses a word. Null is allowed. */
TY_API void ty_stream_words_close(struct ty_stream_words *words);

/* `stream` is a CUstream or cudaStream_t of the context that was current at open; any thread. Word 0 does nothing. */

/* The word gets the value when the stream has done all that is before it in it, and what that wrote can be seen by then. */
TY_API TY_MUST_USE enum ty_code ty_stream_raise(struct ty_stream_words *words, void *stream, struct ty_mark mark,
	struct ty_error *err);
/* What is behind it in the stream runs when the word is >= value. If the request that is to raise the word fails, raise it by
 * ty_client_raise when its reply has come (and its blocks are not in use), or the stream stays there. */
TY_API TY_MUST_USE enum ty_code ty_stream_wait(struct ty_stream_words *words, void *stream, struct ty_mark mark,
	struct ty_error *err);

#ifdef __cplusplus
}
#endif
#endif
