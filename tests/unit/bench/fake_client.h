/* SPDX-License-Identifier: Apache-2.0
 *
 * A service inside the client library's place: it keeps chunks, obeys the timeline, and misbehaves as told. Set before the
 * load generator runs (its processes inherit it).
 */
#ifndef TY_TEST_FAKE_CLIENT_H
#define TY_TEST_FAKE_CLIENT_H

#include <stdbool.h>
#include <stdint.h>
#include <tyer/client.h>

enum fake_fault {
	FAKE_HONEST,
	FAKE_FLIP_BIT,      /* one bit of a retrieved chunk */
	FAKE_SWAP_BLOCKS,   /* of a retrieved chunk, the first two */
	FAKE_SWAP_CHUNKS,   /* of a retrieved pair, the contents */
	FAKE_NOT_WRITTEN,   /* a retrieved chunk's last block stays as it was */
	FAKE_DOUBLE_REPLY,  /* to a LOOKUP */
	FAKE_LOSE_REPLY,    /* to a LOOKUP */
	FAKE_NO_DONE_MARK,  /* of a RETRIEVE */
	FAKE_IGNORE_READY,  /* of every STORE */
	FAKE_WRONG_COUNT,   /* in a STORE's reply */
	FAKE_DEVICE_FAILED, /* a RETRIEVE's answer */
	FAKE_FORGET,        /* what a LOOKUP was to find, but for the first `remembered` */
	FAKE_STALLED,       /* RETRIEVE answers DEVICE_STALLED */
};

struct fake {
	enum fake_fault fault;
	uint32_t fault_after; /* the first so many candidates are served well; then one is not (FAKE_IGNORE_READY: all) */
	bool fault_always;    /* from then on */
	uint32_t chunk_tokens, max_operation_chunks;
	uint32_t capacity;    /* chunks; 0 = no end */
	bool in_use;          /* a RETRIEVE that failed may still touch its blocks: nobody may use them before a FLUSH was OK */
	uint32_t flushes;     /* so many FLUSHes answer TIMEOUT first; UINT32_MAX: all */
	uint32_t remembered;  /* chunks that FAKE_FORGET leaves */
	uint32_t busy_every;  /* every so many requests answer BUSY; 0 = none */
	bool refuse;          /* no connection */
	uint32_t interrupt_at; /* the PING with this number, from 1, brings SIGINT; 0 = none */
	const struct fake_said { /* what each session must say, in order; null: nothing */
		uint64_t conversation;
		enum ty_hint_kind hint;
	} *said;
};
extern struct fake fake;

#endif
