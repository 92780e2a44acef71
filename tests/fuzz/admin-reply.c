/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "fuzz.h"
#include "samples.h"
#include "tools/cli/admin.h"

/* What something in the service's place may answer to `tyer`: lists, counts, settings, the events' snapshot. It is shown or refused,
 * nothing of it reaches a terminal as it is, and the next page's request can be made. */

static const enum cli_command commands[] = {CLI_LIST, CLI_PIN, CLI_DELETE, CLI_WARM, CLI_CONFIGURE, CLI_EVENTS};

static void show(const Tyer__V1__Reply *reply, enum cli_command command, bool again)
{
	struct cli_options o = {.command = command};
	struct cli_page page = {.cursor = again};
	uint64_t left = again ? 3 : UINT64_MAX;
	char *text = NULL;
	bool whole = true, shown;
	size_t length = 0;
	FILE *out = open_memstream(&text, &length);
	uint8_t *request;

	FUZZ_CHECK(out);
	shown = cli_admin_show(out, out, &o, reply, &page, &left, &whole);
	FUZZ_CHECK(fclose(out) == 0);
	for (size_t i = 0; i < length; i++)
		FUZZ_CHECK((unsigned char)text[i] >= ' ' || text[i] == '\n');
	free(text);
	FUZZ_CHECK(!shown || page.below_length <= sizeof page.below);
	if (!shown)
		return;
	request = cli_admin_request(&o, &page, &length);
	FUZZ_CHECK(request);
	free(request);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	Tyer__V1__Reply *reply = tyer__v1__reply__unpack(NULL, size, data);

	if (!reply)
		return 0;
	for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
		show(reply, commands[i], false);
		show(reply, commands[i], true);
	}
	tyer__v1__reply__free_unpacked(reply, NULL);
	return 0;
}

static size_t packed;
static void pack(const Tyer__V1__Reply *reply, void *user)
{
	packed = tyer__v1__reply__pack(reply, user);
}

size_t fuzz_seed(unsigned index, uint8_t *bytes)
{
	static char name[] = "tier.0.size", tenant[] = "acme", words[] = "it \x1b[2J fails";
	static uint8_t keys[64], tiers[2] = {1, 0x80}, place[] = {0, 1, 2, 3};
	Tyer__V1__Namespace space = TYER__V1__NAMESPACE__INIT;
	Tyer__V1__ChunkInfo info = TYER__V1__CHUNK_INFO__INIT, *infos[2] = {&info, &info};
	Tyer__V1__Unsearched un = TYER__V1__UNSEARCHED__INIT, *uns = &un;
	Tyer__V1__ListReply list = TYER__V1__LIST_REPLY__INIT;
	Tyer__V1__ControlReply counts = TYER__V1__CONTROL_REPLY__INIT;
	Tyer__V1__EventsReply events = TYER__V1__EVENTS_REPLY__INIT;
	Tyer__V1__Setting setting = TYER__V1__SETTING__INIT, *settings = &setting;
	Tyer__V1__ConfigureReply configure = TYER__V1__CONFIGURE_REPLY__INIT;
	Tyer__V1__Reply reply = TYER__V1__REPLY__INIT;

	if (index > 3)
		return sample_reply(index - 4, pack, bytes) ? packed : SIZE_MAX;
	space.tenant = space.model = tenant;
	info.key = (ProtobufCBinaryData){.len = 32, .data = keys};
	info.namespace_ = &space;
	info.parts = 2;
	info.missing = 1;
	un.error = words;
	list.n_chunks = 2;
	list.chunks = infos;
	list.below = (ProtobufCBinaryData){.len = sizeof place, .data = place};
	list.n_unsearched = counts.n_unsearched = 1;
	list.unsearched = counts.unsearched = &uns;
	counts.below = counts.chunks = 7;
	events.url = tenant;
	events.keys = (ProtobufCBinaryData){.len = sizeof keys, .data = keys};
	events.tiers = (ProtobufCBinaryData){.len = sizeof tiers, .data = tiers};
	setting.name = setting.value = name;
	configure.n_settings = 1;
	configure.settings = &settings;
	reply.verb_case = index == 0   ? TYER__V1__REPLY__VERB_LIST
			  : index == 1 ? TYER__V1__REPLY__VERB_CLEAR
			  : index == 2 ? TYER__V1__REPLY__VERB_EVENTS
				       : TYER__V1__REPLY__VERB_CONFIGURE;
	if (index == 0)
		reply.list = &list;
	else if (index == 1)
		reply.clear = &counts;
	else if (index == 2)
		reply.events = &events;
	else
		reply.configure = &configure;
	return tyer__v1__reply__pack(&reply, bytes);
}
