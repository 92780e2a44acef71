/* SPDX-License-Identifier: Apache-2.0 */
#include "samples.h"

#include <stdbool.h>
#include <string.h>

static uint8_t bytes32[32], handle[64];
static uint32_t numbers[5] = {0, 1, 300, 70000, UINT32_MAX};

static void sample_register(Tyer__V1__Request *request)
{
	static Tyer__V1__Plane plane, *planes[3] = {&plane, &plane, &plane};
	static Tyer__V1__Group group, *groups[2] = {&group, &group};
	static Tyer__V1__Region gpu, host, *regions[2] = {&gpu, &host};
	static Tyer__V1__Register reg;

	tyer__v1__plane__init(&plane);
	plane.region = 1;
	plane.offset = 65536;
	tyer__v1__group__init(&group);
	group.block_tokens = 16;
	group.block_count = 1000;
	group.block_stride = 1 << 20;
	group.run_bytes = 32768;
	group.n_planes = 3;
	group.planes = planes;
	tyer__v1__region__init(&gpu);
	tyer__v1__region__init(&host);
	gpu.memory_case = TYER__V1__REGION__MEMORY_IPC_HANDLE;
	gpu.ipc_handle = (ProtobufCBinaryData){.len = sizeof handle, .data = handle};
	host.memory_case = TYER__V1__REGION__MEMORY_ATTACHED_FD;
	host.attached_fd = 63;
	host.allocation_bytes = host.length = 1ull << 34;
	tyer__v1__register__init(&reg);
	reg.device = (ProtobufCBinaryData){.len = 16, .data = bytes32};
	reg.n_regions = reg.n_groups = 2;
	reg.regions = regions;
	reg.groups = groups;
	reg.part = 1;
	reg.parts = 2;
	reg.format = (char *)"NHD";
	request->verb_case = TYER__V1__REQUEST__VERB_REGISTER;
	request->register_ = &reg;
}

static void sample_hello(Tyer__V1__Request *request)
{
	static Tyer__V1__Namespace space;
	static Tyer__V1__Hello hello;

	tyer__v1__namespace__init(&space);
	space.tenant = (char *)"tenant";
	space.model = (char *)"model";
	space.revision = (char *)"1";
	space.dtype = (char *)"bf16";
	tyer__v1__hello__init(&hello);
	hello.token = hello.engine = (ProtobufCBinaryData){.len = 16, .data = bytes32};
	hello.namespace_ = &space;
	hello.name = (char *)"rank 0";
	request->verb_case = TYER__V1__REQUEST__VERB_HELLO;
	request->hello = &hello;
}

static void sample_transfer(Tyer__V1__Request *request, bool store)
{
	static Tyer__V1__BlockIds ids, *blocks[2] = {&ids, &ids};
	static Tyer__V1__Retrieve retrieve;
	static Tyer__V1__Store put;
	static Tyer__V1__Chain chain;
	static Tyer__V1__Mark mark;

	tyer__v1__block_ids__init(&ids);
	ids.n_ids = 5;
	ids.ids = numbers;
	tyer__v1__mark__init(&mark);
	mark.word = 511;
	mark.value = UINT64_MAX;
	tyer__v1__chain__init(&chain);
	chain.n_tokens = 5;
	chain.tokens = numbers;
	if (store) {
		tyer__v1__store__init(&put);
		put.session = put.registration = put.count = 1;
		put.n_blocks = 2;
		put.blocks = blocks;
		put.append = &chain;
		put.ready = put.done = &mark;
		request->verb_case = TYER__V1__REQUEST__VERB_STORE;
		request->store = &put;
	} else {
		tyer__v1__retrieve__init(&retrieve);
		retrieve.session = retrieve.registration = retrieve.count = 1;
		retrieve.n_blocks = 2;
		retrieve.blocks = blocks;
		retrieve.ready = retrieve.done = &mark;
		request->verb_case = TYER__V1__REQUEST__VERB_RETRIEVE;
		request->retrieve = &retrieve;
	}
}

static void sample_lookup(Tyer__V1__Request *request)
{
	static Tyer__V1__Lookup lookup;
	static Tyer__V1__Chain chain;

	tyer__v1__chain__init(&chain);
	chain.hashes = (ProtobufCBinaryData){.len = 32, .data = bytes32};
	tyer__v1__lookup__init(&lookup);
	lookup.session = 1;
	lookup.chain = &chain;
	lookup.adapter = (ProtobufCBinaryData){.len = 4, .data = bytes32};
	request->verb_case = TYER__V1__REQUEST__VERB_LOOKUP;
	request->lookup = &lookup;
}

bool sample_request(unsigned index, void (*use)(const Tyer__V1__Request *, void *), void *user)
{
	Tyer__V1__Request request = TYER__V1__REQUEST__INIT;
	Tyer__V1__EndSession end = TYER__V1__END_SESSION__INIT;
	Tyer__V1__Unregister unregister = TYER__V1__UNREGISTER__INIT;
	Tyer__V1__Status status = TYER__V1__STATUS__INIT;
	static uint64_t ids_of_requests[2] = {SAMPLE_ID, UINT64_MAX};
	Tyer__V1__Operations operations = TYER__V1__OPERATIONS__INIT;
	Tyer__V1__Cancel cancel = TYER__V1__CANCEL__INIT;
	Tyer__V1__Flush flush = TYER__V1__FLUSH__INIT;
	Tyer__V1__BlockIds ids = TYER__V1__BLOCK_IDS__INIT, *ids_at = &ids;
	Tyer__V1__Ping ping = TYER__V1__PING__INIT;

	request.version = 1;
	request.client = 0x10001;
	request.id = SAMPLE_ID;
	request.timeout_us = 1000000;
	ids.ids = numbers;
	ids.n_ids = 5;
	switch (index) {
	case 0:
		sample_register(&request);
		break;
	case 1:
		sample_hello(&request);
		break;
	case 2:
	case 3:
		sample_transfer(&request, index == 3);
		break;
	case 4:
		sample_lookup(&request);
		break;
	case 5:
		end.session = 1;
		request.verb_case = TYER__V1__REQUEST__VERB_END_SESSION;
		request.end_session = &end;
		break;
	case 6:
		unregister.registration = 1;
		request.verb_case = TYER__V1__REQUEST__VERB_UNREGISTER;
		request.unregister = &unregister;
		break;
	case 7:
		flush.registration = 1;
		flush.n_blocks = 1;
		flush.blocks = &ids_at;
		request.verb_case = TYER__V1__REQUEST__VERB_FLUSH;
		request.flush = &flush;
		break;
	case 8:
		request.verb_case = TYER__V1__REQUEST__VERB_PING;
		request.ping = &ping;
		break;
	case 9:
		request.verb_case = TYER__V1__REQUEST__VERB_STATUS;
		request.status = &status;
		break;
	case 10:
		cancel.id = SAMPLE_ID;
		request.verb_case = TYER__V1__REQUEST__VERB_CANCEL;
		request.cancel = &cancel;
		break;
	case 11:
		operations.n_ids = 2;
		operations.ids = ids_of_requests;
		request.verb_case = TYER__V1__REQUEST__VERB_OPERATIONS;
		request.operations = &operations;
		break;
	default:
		return false;
	}
	use(&request, user);
	return true;
}

static void reply_hello(Tyer__V1__Reply *reply)
{
	static Tyer__V1__Device device, *devices[2] = {&device, &device};
	static Tyer__V1__HelloReply hello;
	static Tyer__V1__Limits limits;

	tyer__v1__device__init(&device);
	device.name = (char *)"cuda:0";
	device.model = (char *)"NVIDIA H200";
	device.uuid = (ProtobufCBinaryData){.len = 16, .data = bytes32};
	tyer__v1__limits__init(&limits);
	limits.max_chunk_bytes = 1 << 26;
	tyer__v1__hello_reply__init(&hello);
	hello.client = 0x10001;
	hello.chunk_tokens = 256;
	hello.limits = &limits;
	hello.n_devices = 2;
	hello.devices = devices;
	reply->verb_case = TYER__V1__REPLY__VERB_HELLO;
	reply->hello = &hello;
}

static void reply_status(Tyer__V1__Reply *reply)
{
	static Tyer__V1__ClientStatus client, *clients[1] = {&client};
	static Tyer__V1__Counter counter, *counters[2] = {&counter, &counter};
	static Tyer__V1__StatusReply status;
	static Tyer__V1__ArenaStatus arena;

	tyer__v1__client_status__init(&client);
	client.name = (char *)"rank 0";
	tyer__v1__counter__init(&counter);
	counter.name = (char *)"tyer_requests_total";
	counter.value = 1.5;
	tyer__v1__arena_status__init(&arena);
	arena.size_bytes = 1ull << 40;
	tyer__v1__status_reply__init(&status);
	status.version = (char *)"0.1.0";
	status.arena = &arena;
	status.n_clients = 1;
	status.clients = clients;
	status.n_counters = 2;
	status.counters = counters;
	reply->verb_case = TYER__V1__REPLY__VERB_STATUS;
	reply->status = &status;
}

static void reply_operations(Tyer__V1__Reply *reply)
{
	static Tyer__V1__Operation operation, *operations[2] = {&operation, &operation};
	static Tyer__V1__OperationsReply told;

	tyer__v1__operation__init(&operation);
	operation.id = SAMPLE_ID;
	operation.state = TYER__V1__OPERATION_STATE__OVER;
	operation.verb = TYER__V1__REQUEST__VERB_STORE;
	operation.device = (char *)"cuda:0";
	operation.answer = TYER__V1__CODE__TIMEOUT;
	operation.stored = 5;
	tyer__v1__operations_reply__init(&told);
	told.n_operations = 2;
	told.operations = operations;
	reply->verb_case = TYER__V1__REPLY__VERB_OPERATIONS;
	reply->operations = &told;
}

bool sample_reply(unsigned index, void (*use)(const Tyer__V1__Reply *, void *), void *user)
{
	Tyer__V1__EndSessionReply ended = TYER__V1__END_SESSION_REPLY__INIT;
	Tyer__V1__RegisterReply registered = TYER__V1__REGISTER_REPLY__INIT;
	Tyer__V1__RetrieveReply retrieved = TYER__V1__RETRIEVE_REPLY__INIT;
	Tyer__V1__LookupReply lookup = TYER__V1__LOOKUP_REPLY__INIT;
	Tyer__V1__StoreReply stored = TYER__V1__STORE_REPLY__INIT;
	Tyer__V1__Reply reply = TYER__V1__REPLY__INIT;

	reply.boot = UINT64_MAX;
	reply.id = SAMPLE_ID;
	switch (index) {
	case 0:
		reply.code = TYER__V1__CODE__NO_SPACE;
		reply.error = (char *)"the arena is full";
		break;
	case 1:
		reply_hello(&reply);
		break;
	case 2:
		reply_status(&reply);
		break;
	case 3:
		registered.registration = 1;
		registered.fingerprint = (ProtobufCBinaryData){.len = 32, .data = bytes32};
		reply.verb_case = TYER__V1__REPLY__VERB_REGISTER;
		reply.register_ = &registered;
		break;
	case 4:
		lookup.chunks = lookup.hits = 5;
		reply.verb_case = TYER__V1__REPLY__VERB_LOOKUP;
		reply.lookup = &lookup;
		break;
	case 5:
		retrieved.chunks = 5;
		reply.verb_case = TYER__V1__REPLY__VERB_RETRIEVE;
		reply.retrieve = &retrieved;
		break;
	case 6:
		stored.stored = stored.dropped = 5;
		reply.verb_case = TYER__V1__REPLY__VERB_STORE;
		reply.store = &stored;
		break;
	case 7:
		ended.released = 5;
		reply.verb_case = TYER__V1__REPLY__VERB_END_SESSION;
		reply.end_session = &ended;
		break;
	case 8:
		break;
	case 9:
		reply_operations(&reply);
		break;
	default:
		return false;
	}
	use(&reply, user);
	return true;
}
