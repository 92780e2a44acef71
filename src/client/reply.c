/* SPDX-License-Identifier: Apache-2.0 */
#include "client/reply.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wire/request.h"

#define DEVICES_MAX 64 /* of one service */

static enum ty_code absent(uint32_t verb, struct ty_error *err)
{
	return ty_fail(err, TY_PROTOCOL, "the reply to %s has code OK and no message for it", ty_verb_name(verb));
}

static enum ty_code decode_registered(const Tyer__V1__RegisterReply *in, struct ty_result *out, struct ty_error *err)
{
	if (in->fingerprint.len != sizeof out->registered.fingerprint)
		return ty_fail(err, TY_PROTOCOL, "RegisterReply.fingerprint has %zu bytes, expected %zu", in->fingerprint.len,
			sizeof out->registered.fingerprint);
	if (in->registration == 0)
		return ty_fail(err, TY_PROTOCOL, "RegisterReply.registration is 0");
	out->registered.registration = in->registration;
	out->registered.chunk_bytes = in->chunk_bytes;
	memcpy(out->registered.fingerprint, in->fingerprint.data, sizeof out->registered.fingerprint);
	return TY_OK;
}

/* The client hands the message on as bytes (client.h knows no protobuf). */
static enum ty_code decode_status(const Tyer__V1__StatusReply *in, struct ty_decoded *out)
{
	size_t length = tyer__v1__status_reply__get_packed_size(in);
	Tyer__V1__StatusReply *again;

	out->owned = malloc(length != 0 ? length : 1);
	if (out->owned == NULL)
		return ty_fail(&out->error, TY_NO_MEMORY, "STATUS: no memory for %zu bytes", length);
	out->result.status.length = tyer__v1__status_reply__pack(in, out->owned);
	out->result.status.bytes = out->owned;
	/* A field of number 0 is read as one that is not known, and written so that it cannot be read again. */
	again = tyer__v1__status_reply__unpack(NULL, out->result.status.length, out->owned);
	if (again == NULL)
		return ty_fail(&out->error, TY_PROTOCOL, "StatusReply has fields that cannot be handed on");
	tyer__v1__status_reply__free_unpacked(again, NULL);
	return TY_OK;
}

/* A number that is no code of ours is none that this library could name. */
static enum ty_code code_of(Tyer__V1__Code code)
{
	return (int)code >= 0 && (int)code < TY_CODE_COUNT ? (enum ty_code)code : TY_INTERNAL;
}

static enum ty_code decode_operations(const Tyer__V1__OperationsReply *in, struct ty_decoded *out)
{
	struct ty_operation *list = calloc(in->n_operations + 1, sizeof *list);

	if (list == NULL)
		return ty_fail(&out->error, TY_NO_MEMORY, "OPERATIONS: no memory for %zu operations", in->n_operations);
	out->owned = list;
	for (size_t i = 0; i < in->n_operations; i++) {
		const Tyer__V1__Operation *o = in->operations[i];

		if ((int)o->state < 0 || o->state > TYER__V1__OPERATION_STATE__OVER)
			return ty_fail(&out->error, TY_PROTOCOL, "OperationsReply.operations[%zu].state is %d", i, (int)o->state);
		list[i] = (struct ty_operation){
			.id = o->id, .client = o->client, .session = o->session, .store = o->verb == TYER__V1__REQUEST__VERB_STORE,
			.state = (enum ty_operation_state)o->state, .age_us = o->age_us, .chunks = o->chunks,
			.answered = o->answered, .blocks_in_use = o->blocks_in_use, .answer = code_of(o->answer),
			.code = code_of(o->code), .stored = o->stored, .present = o->present, .dropped = o->dropped,
		};
	}
	out->result.operations.list = list;
	out->result.operations.count = (uint32_t)in->n_operations;
	return TY_OK;
}

/* Likewise the whole reply, to a verb of the administration; it must be possible to read it again (see above). */
static enum ty_code decode_admin(struct ty_decoded *out)
{
	size_t length = tyer__v1__reply__get_packed_size(out->reply);
	Tyer__V1__Reply *again;

	out->owned = malloc(length != 0 ? length : 1);
	if (out->owned == NULL)
		return ty_fail(&out->error, TY_NO_MEMORY, "no memory for a reply of %zu bytes", length);
	out->result.admin.length = tyer__v1__reply__pack(out->reply, out->owned);
	out->result.admin.bytes = out->owned;
	again = tyer__v1__reply__unpack(NULL, out->result.admin.length, out->owned);
	if (again == NULL)
		return ty_fail(&out->error, TY_PROTOCOL, "the reply has fields that cannot be handed on");
	tyer__v1__reply__free_unpacked(again, NULL);
	return TY_OK;
}

/* The verb's message of a reply whose code is OK. */
static enum ty_code decode_verb(uint32_t verb, struct ty_decoded *out)
{
	const Tyer__V1__Reply *in = out->reply;
	struct ty_result *r = &out->result;

	if (verb == TYER__V1__REQUEST__VERB_PING || verb == TYER__V1__REQUEST__VERB_UNREGISTER ||
		verb == TYER__V1__REQUEST__VERB_FLUSH)
		return TY_OK; /* they have none */
	if ((uint32_t)in->verb_case != verb)
		return absent(verb, &out->error);
	if (ty_verb_is_admin(verb))
		return decode_admin(out);
	switch (in->verb_case) {
	case TYER__V1__REPLY__VERB_STATUS:
		return decode_status(in->status, out);
	case TYER__V1__REPLY__VERB_CANCEL:
		return decode_operations(in->cancel, out);
	case TYER__V1__REPLY__VERB_OPERATIONS:
		return decode_operations(in->operations, out);
	case TYER__V1__REPLY__VERB_HELLO:
		return TY_OK; /* ty_hello_decode reads it */
	case TYER__V1__REPLY__VERB_REGISTER:
		return decode_registered(in->register_, r, &out->error);
	case TYER__V1__REPLY__VERB_LOOKUP:
		if (in->lookup->hits > in->lookup->chunks)
			return ty_fail(&out->error, TY_PROTOCOL, "LookupReply.hits is %u of %u chunks", in->lookup->hits,
				in->lookup->chunks);
		r->lookup.chunks = in->lookup->chunks;
		r->lookup.hits = in->lookup->hits;
		return TY_OK;
	case TYER__V1__REPLY__VERB_RETRIEVE:
		r->retrieve.chunks = in->retrieve->chunks;
		return TY_OK;
	case TYER__V1__REPLY__VERB_STORE:
		r->store.stored = in->store->stored;
		r->store.present = in->store->present;
		r->store.dropped = in->store->dropped;
		return TY_OK;
	case TYER__V1__REPLY__VERB_END_SESSION:
		r->end_session.released = in->end_session->released;
		return TY_OK;
	default:
		return absent(verb, &out->error);
	}
}

/* Could a copy of this request still touch its blocks, if nobody said that none does? */
static bool has_blocks(uint32_t verb)
{
	return verb == TYER__V1__REQUEST__VERB_RETRIEVE || verb == TYER__V1__REQUEST__VERB_STORE;
}

void ty_reply_decode(uint32_t verb, uint64_t id, const void *bytes, size_t length, struct ty_decoded *out)
{
	struct ty_result *r = &out->result;

	memset(out, 0, sizeof *out);
	r->error = "";
	r->code = ty_reply_unpack(bytes, length, &out->reply, &out->error);
	if (r->code == TY_LIMIT) /* for the caller the same: the peer broke the contract */
		r->code = TY_PROTOCOL;
	if (r->code == TY_OK && out->reply->id != id)
		r->code = ty_fail(&out->error, TY_PROTOCOL, "a reply to request %llu, expected %llu",
			(unsigned long long)out->reply->id, (unsigned long long)id);
	if (r->code == TY_OK && out->reply->boot == 0) /* a restart could not be told from none */
		r->code = ty_fail(&out->error, TY_PROTOCOL, "Reply.boot is 0, expected the service's");
	if (r->code != TY_OK) {
		ty_reply_free(out->reply);
		out->reply = NULL;
		r->error = out->error.text;
		r->blocks_in_use = has_blocks(verb);
		return;
	}
	r->boot = out->reply->boot;
	r->code = (enum ty_code)out->reply->code;
	if (r->code != TY_OK) {
		r->error = out->reply->error != NULL ? out->reply->error : "";
		r->blocks_in_use = out->reply->blocks_in_use;
		return;
	}
	r->code = decode_verb(verb, out);
	if (r->code != TY_OK) {
		r->error = out->error.text;
		r->blocks_in_use = has_blocks(verb);
	}
}

void ty_reply_hold_against(uint32_t verb, uint32_t chunks, struct ty_decoded *out)
{
	struct ty_result *r = &out->result;

	if (r->code != TY_OK)
		return;
	if (verb == TYER__V1__REQUEST__VERB_LOOKUP && r->lookup.chunks > chunks)
		r->code = ty_fail(&out->error, TY_PROTOCOL, "LookupReply.chunks is %u, of a chain of %u", r->lookup.chunks, chunks);
	else if (verb == TYER__V1__REQUEST__VERB_RETRIEVE && r->retrieve.chunks != chunks)
		r->code = ty_fail(&out->error, TY_PROTOCOL, "RetrieveReply.chunks is %u, of %u that were asked for", r->retrieve.chunks, chunks);
	if (r->code != TY_OK) {
		r->error = out->error.text;
		r->blocks_in_use = has_blocks(verb);
	}
}

void ty_reply_failed(uint32_t verb, enum ty_code code, const char *text, struct ty_decoded *out)
{
	memset(out, 0, sizeof *out);
	assert(code != TY_OK);
	out->result.code = ty_fail(&out->error, code, "%s", text);
	out->result.error = out->error.text;
	out->result.blocks_in_use = has_blocks(verb);
}

void ty_decoded_free(struct ty_decoded *decoded)
{
	ty_reply_free(decoded->reply);
	free(decoded->owned);
	decoded->reply = NULL;
	decoded->owned = NULL;
}

/* ---- HELLO ----------------------------------------------------------------------------------------------------------- */

static enum ty_code decode_device(const Tyer__V1__Device *in, size_t index, struct ty_device_info *out, struct ty_error *err)
{
	char field[48];
	enum ty_code code;

	if (in->uuid.len != TY_UUID_BYTES)
		return ty_fail(err, TY_PROTOCOL, "HelloReply.devices[%zu].uuid has %zu bytes, expected %d", index, in->uuid.len,
			TY_UUID_BYTES);
	memcpy(out->uuid, in->uuid.data, TY_UUID_BYTES);
	snprintf(field, sizeof field, "HelloReply.devices[%zu].name", index);
	code = ty_wire_check_text(field, in->name, 1, sizeof out->name - 1, err);
	if (code == TY_OK) {
		snprintf(field, sizeof field, "HelloReply.devices[%zu].model", index);
		code = ty_wire_check_text(field, in->model, 0, sizeof out->model - 1, err);
	}
	if (code != TY_OK) {
		if (err != NULL)
			err->code = TY_PROTOCOL;
		return TY_PROTOCOL;
	}
	snprintf(out->name, sizeof out->name, "%s", in->name);
	snprintf(out->model, sizeof out->model, "%s", in->model != NULL ? in->model : "");
	return TY_OK;
}

enum ty_code ty_hello_decode(const Tyer__V1__Reply *reply, struct ty_client_info *info, struct ty_device_info **devices,
	struct ty_error *err)
{
	const Tyer__V1__HelloReply *h;
	enum ty_code code = TY_OK;
	size_t i;

	*devices = NULL;
	if (reply->verb_case != TYER__V1__REPLY__VERB_HELLO || reply->hello == NULL)
		return absent(TYER__V1__REQUEST__VERB_HELLO, err);
	h = reply->hello;
	if (h->client == 0)
		return ty_fail(err, TY_PROTOCOL, "HelloReply.client is 0");
	if (h->chunk_tokens == 0)
		return ty_fail(err, TY_PROTOCOL, "HelloReply.chunk_tokens is 0");
	if (h->limits == NULL)
		return ty_fail(err, TY_PROTOCOL, "HelloReply.limits is absent");
	if (h->n_devices > DEVICES_MAX)
		return ty_fail(err, TY_PROTOCOL, "HelloReply.devices has %zu entries, expected at most %d", h->n_devices,
			DEVICES_MAX);
	*devices = calloc(h->n_devices + 1, sizeof **devices);
	if (*devices == NULL)
		return ty_fail(err, TY_NO_MEMORY, "HELLO: no memory for %zu devices", h->n_devices);
	for (i = 0; code == TY_OK && i < h->n_devices; i++)
		code = decode_device(h->devices[i], i, &(*devices)[i], err);
	if (code != TY_OK) {
		free(*devices);
		*devices = NULL;
		return code;
	}
	*info = (struct ty_client_info){
		.boot = reply->boot,
		.client = h->client,
		.chunk_tokens = h->chunk_tokens,
		.max_operation_chunks = h->limits->max_operation_chunks,
		.max_operations = h->limits->max_operations,
		.max_chunk_bytes = h->limits->max_chunk_bytes,
		.device_count = (uint32_t)h->n_devices,
		.devices = *devices,
	};
	return TY_OK;
}
