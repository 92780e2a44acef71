/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc_socket.h"

#include <stdlib.h>
#include <string.h>

#include "service.h"
#include "wire/request.h"

void ty_rpc_slot_clear(struct ty_rpc_slot *slot)
{
	struct ty_exchange *exchange = &slot->exchange;

	if (exchange->request == NULL)
		return;
	if (exchange->request->verb_case == TYER__V1__REQUEST__VERB_STATUS && exchange->reply.status != NULL)
		tyer__v1__status_reply__free_unpacked(exchange->reply.status, NULL);
	if (exchange->request->verb_case == TYER__V1__REQUEST__VERB_HELLO && exchange->reply.hello != NULL)
		tyer__v1__hello_reply__free_unpacked(exchange->reply.hello, NULL);
	if ((exchange->request->verb_case == TYER__V1__REQUEST__VERB_CANCEL ||
		exchange->request->verb_case == TYER__V1__REQUEST__VERB_OPERATIONS) && exchange->reply.operations != NULL)
		tyer__v1__operations_reply__free_unpacked(exchange->reply.operations, NULL);
	if (ty_verb_is_admin((uint32_t)exchange->request->verb_case) && exchange->reply.message != NULL)
		protobuf_c_message_free_unpacked(exchange->reply.message, NULL);
	ty_request_free(exchange->request);
	exchange->request = NULL;
	memset(&exchange->reply, 0, sizeof exchange->reply);
}

static enum ty_code make_socket(struct ty_service *service, uint32_t max_requests, struct ty_rpc_socket **out,
	struct ty_error *err)
{
	struct ty_rpc_socket *socket;
	size_t count = (size_t)max_requests + TY_RPC_SPARE, bytes, buckets = 16;

	if (count >= UINT32_MAX || __builtin_mul_overflow(count + 1, sizeof socket->slots[0], &bytes) ||
		__builtin_add_overflow(bytes, sizeof *socket, &bytes))
		return ty_fail(err, TY_INVALID, "max_requests is %u: too large", max_requests);
	while (buckets < count && buckets < (size_t)1 << 20)
		buckets *= 2;
	socket = calloc(1, bytes);
	if (socket != NULL)
		socket->buckets = calloc(buckets, sizeof socket->buckets[0]);
	if (socket == NULL || socket->buckets == NULL) {
		free(socket);
		return ty_fail(err, TY_NO_MEMORY, "no memory for max_requests = %u", max_requests);
	}
	socket->bucket_mask = (uint32_t)buckets - 1;
	socket->service = service;
	socket->count = (uint32_t)count;
	for (uint32_t i = socket->count; i-- > 0;) {
		socket->slots[i].chain = socket->free;
		socket->free = &socket->slots[i];
	}
	*out = socket;
	return TY_OK;
}

enum ty_code ty_rpc_open(struct ty_service *service, const char *url, bool admin, struct ty_rpc_socket **out,
	struct ty_error *err)
{
	struct ty_rpc_socket *socket = NULL;
	enum ty_code code;

	*out = NULL;
	code = make_socket(service, admin ? TY_RPC_ADMIN_REQUESTS : service->config->max_requests, &socket, err);
	if (code != TY_OK)
		return code;
	socket->admin = socket->edge.private = admin;
	socket->edge.protocol = &ty_rpc_replies;
	code = ty_rpc_listen(service, url, &socket->edge, err);
	if (code != TY_OK) {
		ty_rpc_close(socket);
		return code;
	}
	*out = socket;
	return TY_OK;
}

void ty_rpc_close(struct ty_rpc_socket *socket)
{
	if (socket == NULL)
		return;
	ty_rpc_edge_free(&socket->edge);
	for (uint32_t i = 0; i <= socket->count; i++)
		ty_rpc_slot_clear(&socket->slots[i]);
	free(socket->buckets);
	free(socket);
}
