/* SPDX-License-Identifier: Apache-2.0
 *
 * stream.h: part of libtyer-client, not of any owner. Immutable after open, so any thread may use it, as the driver allows.
 */
#include <tyer/stream.h>

#include <stdlib.h>

#include "cuda_driver.h"

struct ty_stream_words {
	struct ty_cuda api;
	struct ty_cuda_words words;
	void *page;
	cu_address address; /* of the page, for the device */
	bool ours;          /* we registered it */
};

enum ty_code ty_stream_words_open(struct ty_client *client, const char *driver, struct ty_stream_words **out,
	struct ty_error *err)
{
	void *page = ty_client_timeline(client);
	struct ty_stream_words *w;
	cu_context context = NULL;
	cu_result result;
	enum ty_code code;

	*out = NULL;
	if (!page)
		return ty_fail(err, TY_INVALID, "the client has no timeline: it was opened without an attach_path");
	w = calloc(1, sizeof *w);
	if (!w)
		return ty_fail(err, TY_NO_MEMORY, "no memory for a timeline's view");
	w->page = page;
	code = ty_cuda_load(driver, &w->api, err);
	if (code == TY_OK)
		code = ty_cuda_load_words(driver, &w->api, &w->words, err);
	if (code != TY_OK) {
		free(w);
		return code;
	}
	result = w->words.cuCtxGetCurrent(&context);
	if (result == CU_SUCCESS && !context) {
		free(w);
		return ty_fail(err, TY_INVALID, "no CUDA context is current on this thread");
	}
	if (result == CU_SUCCESS) {
		result = w->api.cuMemHostRegister(page, TY_TIMELINE_WORDS * sizeof(uint64_t), CU_HOST_PORTABLE | CU_HOST_DEVICEMAP);
		w->ours = result == CU_SUCCESS;
		if (result == CU_ALREADY_REGISTERED) /* by another context's words: it is portable */
			result = CU_SUCCESS;
	}
	if (result == CU_SUCCESS)
		result = w->words.cuMemHostGetDevicePointer(&w->address, page, 0);
	if (result != CU_SUCCESS) {
		code = ty_cuda_fail(&w->api, err, "making the timeline page known to the context", result);
		ty_stream_words_close(w);
		return code;
	}
	*out = w;
	return TY_OK;
}

void ty_stream_words_close(struct ty_stream_words *w)
{
	if (!w)
		return;
	if (w->ours)
		(void)w->api.cuMemHostUnregister(w->page);
	free(w);
}

static enum ty_code check(const struct ty_mark *mark, struct ty_error *err)
{
	if (mark->word >= TY_TIMELINE_WORDS)
		return ty_fail(err, TY_INVALID, "mark.word is %u, expected 0..%d", mark->word, TY_TIMELINE_WORDS - 1);
	return TY_OK;
}

enum ty_code ty_stream_raise(struct ty_stream_words *w, void *stream, struct ty_mark mark, struct ty_error *err)
{
	enum ty_code code = check(&mark, err);
	cu_result result;

	if (code != TY_OK || !mark.word)
		return code;
	/* flag 0: what the stream wrote before can be seen by whoever sees the word (a system-wide barrier) */
	result = w->words.cuStreamWriteValue64(stream, w->address + mark.word * sizeof(uint64_t), mark.value, 0);
	return result == CU_SUCCESS ? TY_OK : ty_cuda_fail(&w->api, err, "cuStreamWriteValue64", result);
}

enum ty_code ty_stream_wait(struct ty_stream_words *w, void *stream, struct ty_mark mark, struct ty_error *err)
{
	enum ty_code code = check(&mark, err);
	cu_result result;

	if (code != TY_OK || !mark.word)
		return code;
	result = w->words.cuStreamWaitValue64(stream, w->address + mark.word * sizeof(uint64_t), mark.value, CU_WAIT_GEQ);
	return result == CU_SUCCESS ? TY_OK : ty_cuda_fail(&w->api, err, "cuStreamWaitValue64", result);
}
