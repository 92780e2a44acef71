/* SPDX-License-Identifier: Apache-2.0
 *
 * An exchange's end: answering it, and packing what was answered.
 */
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "rpc_socket.h"
#include "wire/request.h"

void ty_exchange_answer(struct ty_exchange *exchange)
{
	/* Once it is sent the exchange may carry another request already: nothing of it is read after that. */
	struct ty_actor *rpc = exchange->rpc;
	enum ty_code code = ty_send(rpc, &exchange->msg, TY_RPC_ANSWER);

	/* TY_CLOSED: rpc has stopped, and its sockets with it. The exchange is the socket's then, which outlives all actors. */
	(void)code;
	ty_actor_unref(rpc);
}

void ty_exchange_refuse(struct ty_exchange *exchange, enum ty_code code, const char *fmt, ...)
{
	va_list args;

	assert(code != TY_OK);
	exchange->code = code;
	exchange->error.code = code;
	va_start(args, fmt);
	vsnprintf(exchange->error.text, sizeof exchange->error.text, fmt, args);
	va_end(args);
	ty_exchange_answer(exchange);
}

/* The verb's own reply, in one of the structs that lie beside it on the caller's stack. */
union verb_reply {
	Tyer__V1__RegisterReply registered;
	Tyer__V1__LookupReply lookup;
	Tyer__V1__RetrieveReply retrieve;
	Tyer__V1__StoreReply store;
	Tyer__V1__EndSessionReply end_session;
};

static void fill_verb(const struct ty_exchange *exchange, Tyer__V1__Reply *reply, union verb_reply *verb)
{
	switch (exchange->request->verb_case) {
	case TYER__V1__REQUEST__VERB_STATUS:
		assert(exchange->reply.status != NULL);
		reply->verb_case = TYER__V1__REPLY__VERB_STATUS;
		reply->status = exchange->reply.status;
		break;
	case TYER__V1__REQUEST__VERB_HELLO:
		assert(exchange->reply.hello != NULL);
		reply->verb_case = TYER__V1__REPLY__VERB_HELLO;
		reply->hello = exchange->reply.hello;
		break;
	case TYER__V1__REQUEST__VERB_CANCEL:
		reply->verb_case = TYER__V1__REPLY__VERB_CANCEL;
		reply->cancel = exchange->reply.operations;
		break;
	case TYER__V1__REQUEST__VERB_OPERATIONS:
		reply->verb_case = TYER__V1__REPLY__VERB_OPERATIONS;
		reply->operations = exchange->reply.operations;
		break;
	case TYER__V1__REQUEST__VERB_REGISTER:
		tyer__v1__register_reply__init(&verb->registered);
		verb->registered.registration = exchange->reply.registered.registration;
		verb->registered.chunk_bytes = exchange->reply.registered.chunk_bytes;
		verb->registered.fingerprint.len = sizeof exchange->reply.registered.fingerprint;
		verb->registered.fingerprint.data = (uint8_t *)(uintptr_t)exchange->reply.registered.fingerprint;
		reply->verb_case = TYER__V1__REPLY__VERB_REGISTER;
		reply->register_ = &verb->registered;
		break;
	case TYER__V1__REQUEST__VERB_LOOKUP:
		tyer__v1__lookup_reply__init(&verb->lookup);
		verb->lookup.chunks = exchange->reply.lookup.chunks;
		verb->lookup.hits = exchange->reply.lookup.hits;
		reply->verb_case = TYER__V1__REPLY__VERB_LOOKUP;
		reply->lookup = &verb->lookup;
		break;
	case TYER__V1__REQUEST__VERB_RETRIEVE:
		tyer__v1__retrieve_reply__init(&verb->retrieve);
		verb->retrieve.chunks = exchange->reply.retrieve.chunks;
		reply->verb_case = TYER__V1__REPLY__VERB_RETRIEVE;
		reply->retrieve = &verb->retrieve;
		break;
	case TYER__V1__REQUEST__VERB_STORE:
		tyer__v1__store_reply__init(&verb->store);
		verb->store.stored = exchange->reply.store.stored;
		verb->store.present = exchange->reply.store.present;
		verb->store.dropped = exchange->reply.store.dropped;
		reply->verb_case = TYER__V1__REPLY__VERB_STORE;
		reply->store = &verb->store;
		break;
	case TYER__V1__REQUEST__VERB_END_SESSION:
		tyer__v1__end_session_reply__init(&verb->end_session);
		verb->end_session.released = exchange->reply.end_session.released;
		reply->verb_case = TYER__V1__REPLY__VERB_END_SESSION;
		reply->end_session = &verb->end_session;
		break;
	default: /* PING, UNREGISTER, FLUSH: the code is the answer */
		if (ty_verb_is_admin((uint32_t)exchange->request->verb_case)) {
			assert(exchange->reply.message != NULL);
			reply->verb_case = (Tyer__V1__Reply__VerbCase)exchange->request->verb_case; /* the same number */
			reply->list = (Tyer__V1__ListReply *)exchange->reply.message; /* one of the union's pointers */
		}
		break;
	}
}

static uint8_t *put64(uint8_t *out, uint64_t value)
{
	for (int shift = 56; shift >= 0; shift -= 8)
		*out++ = (uint8_t)(value >> shift);
	return out;
}

/* An error's text may become twice as long by what it quotes. */
_Static_assert(9 + 4 * TY_RPC_HOPS_MAX + 2 * sizeof(((struct ty_error *)0)->text) + 64 <= TY_RPC_RESERVE_BYTES, "any error fits into the reserve");

static struct ty_rpc_reply *frame_of(size_t bytes, struct ty_rpc_reply **reserve)
{
	struct ty_rpc_reply *frame = malloc(sizeof *frame + bytes);

	if (frame) {
		frame->reserved = false;
	} else if (*reserve && bytes <= TY_RPC_RESERVE_BYTES) {
		frame = *reserve; /* `reserved` stays */
		*reserve = NULL;
	}
	return frame;
}

struct ty_rpc_reply *ty_rpc_reply_pack(const struct ty_rpc_slot *slot, uint64_t boot, bool ipc, struct ty_rpc_reply **reserve)
{
	const struct ty_exchange *exchange = &slot->exchange;
	Tyer__V1__Reply reply = TYER__V1__REPLY__INIT;
	char text[sizeof exchange->error.text * 2];
	struct ty_rpc_reply *frame;
	union verb_reply verb;
	uint8_t *out;
	size_t bytes;

	reply.boot = boot;
	reply.id = exchange->request ? exchange->request->id : 0;
	if ((unsigned)exchange->code < TY_CODE_COUNT) {
		reply.code = (Tyer__V1__Code)exchange->code;
	} else {
		reply.code = TYER__V1__CODE__INTERNAL;
	}
	if (reply.code == TYER__V1__CODE__OK) {
		fill_verb(exchange, &reply, &verb);
	} else {
		/* It may quote the client, or end in half a character: a string on the wire is well-formed UTF-8. */
		ty_escape(text, sizeof text, exchange->error.text, strnlen(exchange->error.text, sizeof exchange->error.text),
			TY_ESCAPE_TEXT, NULL);
		reply.error = text;
		reply.blocks_in_use = exchange->blocks_in_use;
	}
	bytes = tyer__v1__reply__get_packed_size(&reply);
	frame = frame_of(9 + slot->trace_bytes + bytes, reserve);
	if (!frame)
		return NULL;
	out = frame->bytes;
	if (ipc)
		*out++ = 1; /* a message */
	out = put64(out, slot->trace_bytes + bytes);
	memcpy(out, slot->trace, slot->trace_bytes);
	out += slot->trace_bytes;
	tyer__v1__reply__pack(&reply, out);
	frame->size = (size_t)(out - frame->bytes) + bytes;
	frame->request = true;
	frame->held = slot->held;
	return frame;
}
