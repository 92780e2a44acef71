/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "fuzz.h"
#include "base/log.h"
#include "tests/unit/cache/world.h"
#include "tests/unit/tiers/fault.h"

/* The administration's verbs, as somebody who may connect can send them, to the real eviction actor over an arena and a tier with some
 * chunks in each: every request is answered once and in time, nothing of it is left behind, and what must hold of the arena does. */

enum { FAMILIES = 3, CHUNKS = 6, SMALL = 4096 };
#define SECOND INT64_C(1000000000)

/* Nobody listens to them. */
static void tell(void *self, struct ty_msg *msg)
{
	(void)self;
	free(ty_container_of(msg, struct ty_event_list, msg));
}

static void open_world(void)
{
	static const struct ty_handler handlers[] = {{"tell", tell}};
	static const struct ty_class events = {.name = "events", .first_type = TY_EVENTS_TELL, .type_count = 1, .handlers = handlers,
		.refuse = tell};
	struct ty_spawn_options options = {.size = sizeof options, .executor = TY_POOL, .cpu = -1};

	setenv("CMOCKA_TEST_ABORT", "1", 1);
	ty_log_setup(TY_LOG_ERROR, false);
	world_open(&(struct world_options){.pieces = 2, .sums = true, .keep_percent = 50, .tier = {"fault:0"}});
	strcpy(world.config.events, "ipc:///nowhere");
	world.config.chunk_tokens = 16;
	FUZZ_CHECK(ty_spawn(world.rt, &events, NULL, &options, &world.service->events) == TY_OK);
}

/* Some in the arena, some only below. */
static void fill(void)
{
	for (uint32_t family = 0; family < FAMILIES; family++)
		(void)world_store_now(family, 0, CHUNKS, SMALL); /* by a small l1-size there may be no room */
}

static void ask(Tyer__V1__Request *q, int64_t time)
{
	struct world_request *r = calloc(1, sizeof *r);

	r->x.request = q;
	r->x.received = ty_runtime_now(world.rt);
	r->x.deadline = r->x.received + time;
	r->x.rpc = ty_actor_ref(world.rpc);
	FUZZ_CHECK(ty_send(world.service->eviction, &r->x.msg, TY_EVICTION_CONTROL) == TY_OK);
	world_pass(time + SECOND / 100);
	world_idle();
	FUZZ_CHECK(r->back);
	FUZZ_CHECK(r->x.code == TY_OK || r->x.error.text[0]);
	world_forget(r);
	free(r);
}

static bool is_control(Tyer__V1__Request__VerbCase verb)
{
	return verb >= TYER__V1__REQUEST__VERB_WARM && verb <= TYER__V1__REQUEST__VERB_EVENTS;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static bool open;
	Tyer__V1__Request *q = tyer__v1__request__unpack(NULL, size, data);

	if (!q)
		return 0;
	if (is_control(q->verb_case) && q->warm) {
		if (!open)
			open_world();
		open = true;
		fill();
		fault[0].delay_ns = size % 3 ? 0 : SECOND / 10;
		fault[0].fail_every = size % 5 ? 0 : 3;
		ask(q, size % 7 ? SECOND : SECOND / 1000);
		world_check(FAMILIES, CHUNKS);
	}
	tyer__v1__request__free_unpacked(q, NULL);
	return 0;
}

size_t fuzz_seed(unsigned index, uint8_t *bytes)
{
	static char tenant[] = "first", other[] = "nobody", name[] = "policy", value[] = "s3-fifo", write[] = "tier.0.write", never[] = "never",
		size[] = "l1-size", less[] = "64MiB";
	static char *tenants[] = {tenant, other};
	static uint8_t hashes[64], below[5] = {0, 1};
	Tyer__V1__Namespace space = TYER__V1__NAMESPACE__INIT;
	Tyer__V1__Chain chain = TYER__V1__CHAIN__INIT;
	Tyer__V1__Prompt prompt = TYER__V1__PROMPT__INIT;
	Tyer__V1__Select select = TYER__V1__SELECT__INIT;
	Tyer__V1__Setting set[3] = {TYER__V1__SETTING__INIT, TYER__V1__SETTING__INIT, TYER__V1__SETTING__INIT}, *sets[3] = {&set[0], &set[1], &set[2]};
	Tyer__V1__Request q = TYER__V1__REQUEST__INIT;
	Tyer__V1__Warm warm = TYER__V1__WARM__INIT;
	Tyer__V1__Pin pin = TYER__V1__PIN__INIT;
	Tyer__V1__Unpin unpin = TYER__V1__UNPIN__INIT;
	Tyer__V1__Delete delete = TYER__V1__DELETE__INIT;
	Tyer__V1__Clear clear = TYER__V1__CLEAR__INIT;
	Tyer__V1__List list = TYER__V1__LIST__INIT;
	Tyer__V1__Move move = TYER__V1__MOVE__INIT;
	Tyer__V1__Configure configure = TYER__V1__CONFIGURE__INIT;
	Tyer__V1__Events events = TYER__V1__EVENTS__INIT;
	struct ty_key keys[2] = {world_key(0, 1), world_key(1, 2)};
	ProtobufCBinaryData at[2];
	unsigned verb = index % 9, shape = index / 9;

	if (shape > 4)
		return SIZE_MAX;
	for (int i = 0; i < 2; i++)
		at[i] = (ProtobufCBinaryData){.len = TY_KEY_BYTES, .data = keys[i].bytes};
	space.tenant = tenant;
	space.model = space.dtype = value;
	chain.hashes = (ProtobufCBinaryData){.len = sizeof hashes, .data = hashes};
	prompt.namespace_ = &space;
	prompt.fingerprint = (ProtobufCBinaryData){.len = 32, .data = hashes};
	prompt.chain = &chain;
	if (shape == 1 || shape == 4) {
		select.n_keys = 2;
		select.keys = at;
	}
	if (shape == 2 || shape == 4) {
		select.n_tenants = 2;
		select.tenants = tenants;
		select.place = verb % 2 ? TYER__V1__PLACE__TIERS : TYER__V1__PLACE__ANYWHERE;
	}
	if (shape == 3) {
		select.prompt = verb % 2 ? &prompt : NULL;
		select.key_prefix = (ProtobufCBinaryData){.len = 2, .data = keys[0].bytes};
	}
	warm.select = pin.select = unpin.select = delete.select = clear.select = list.select = move.select = &select;
	list.max = events.max = 2 * shape;
	list.below = (ProtobufCBinaryData){.len = shape == 2 ? 5 : 0, .data = below};
	set[0].name = name;
	set[0].value = value;
	set[1].name = write;
	set[1].value = never;
	set[2].name = size;
	set[2].value = less;
	configure.n_settings = shape % 4;
	configure.settings = sets;
	q.id = 7;
	q.version = 1;
#define VERB(number, upper, member) \
	case number: \
		q.verb_case = TYER__V1__REQUEST__VERB_##upper; \
		q.member = &member; \
		break
	switch (verb) {
	VERB(0, WARM, warm);
	VERB(1, PIN, pin);
	VERB(2, UNPIN, unpin);
	VERB(4, CLEAR, clear);
	VERB(5, LIST, list);
	VERB(6, MOVE, move);
	VERB(7, CONFIGURE, configure);
	VERB(8, EVENTS, events);
	default:
		q.verb_case = TYER__V1__REQUEST__VERB_DELETE;
		q.delete_ = &delete;
		break;
	}
#undef VERB
	return tyer__v1__request__pack(&q, bytes);
}
