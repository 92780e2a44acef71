/* SPDX-License-Identifier: Apache-2.0
 *
 * What a job of the administration's is answered with.
 */
#include "eviction_control.h"

#include <stdlib.h>
#include <string.h>

#include "events.h"

ProtobufCMessage *eviction_new_message(const ProtobufCMessageDescriptor *type)
{
	ProtobufCMessage *message = malloc(type->sizeof_message);

	if (message)
		protobuf_c_message_init(type, message);
	return message;
}

bool eviction_set_bytes(ProtobufCBinaryData *out, const void *bytes, size_t length)
{
	out->data = malloc(length ? length : 1);
	if (!out->data)
		return false;
	if (length)
		memcpy(out->data, bytes, length);
	out->len = length;
	return true;
}

void eviction_job_refuse(struct eviction_job *job, enum ty_code code, const char *text)
{
	ty_exchange_refuse(job->x, code, "%s", text);
	job->x = NULL;
}

static void answer(struct eviction_job *job, ProtobufCMessage *message)
{
	if (!message) {
		eviction_job_refuse(job, TY_NO_MEMORY, "no memory for the reply");
		return;
	}
	job->x->reply.message = message;
	ty_exchange_answer(job->x);
	job->x = NULL;
}

/* What is told of tiers becomes the reply's. */
static void hand_over(struct eviction_job *job, size_t *count, Tyer__V1__Unsearched ***out)
{
	*out = job->unsearched_count ? malloc(job->unsearched_count * sizeof **out) : NULL;
	if (!*out)
		return;
	memcpy(*out, job->unsearched, job->unsearched_count * sizeof **out);
	*count = job->unsearched_count;
	job->unsearched_count = 0;
}

static void answer_counts(struct eviction_job *job)
{
	Tyer__V1__ControlReply *reply = (Tyer__V1__ControlReply *)eviction_new_message(&tyer__v1__control_reply__descriptor);

	if (reply) {
		reply->chunks = job->chunks;
		reply->bytes = job->bytes;
		reply->in_use = job->in_use;
		reply->refused = job->refused;
		reply->failed = job->failed;
		reply->below = job->below;
		hand_over(job, &reply->n_unsearched, &reply->unsearched);
	}
	answer(job, (ProtobufCMessage *)reply);
}

static void answer_events(struct eviction_job *job)
{
	Tyer__V1__EventsReply *reply = (Tyer__V1__EventsReply *)eviction_new_message(&tyer__v1__events_reply__descriptor);

	if (!reply) {
		eviction_job_refuse(job, TY_NO_MEMORY, "no memory for the reply");
		return;
	}
	reply->url = strdup(job->e->service->config->events);
	reply->sequence = job->sequence;
	reply->keys = (ProtobufCBinaryData){.len = job->chunks * TY_KEY_BYTES, .data = job->keys};
	reply->tiers = (ProtobufCBinaryData){.len = job->chunks, .data = job->tiers};
	job->keys = job->tiers = NULL;
	reply->next = job->phase == EVICTION_ARENA ? job->at : 0;
	answer(job, (ProtobufCMessage *)reply);
}

static void answer_list(struct eviction_job *job)
{
	Tyer__V1__ListReply *list = job->list;

	list->next = job->phase == EVICTION_ARENA ? job->at : 0;
	if (job->phase == EVICTION_BELOW)
		eviction_below_cursor(job, &list->below);
	hand_over(job, &list->n_unsearched, &list->unsearched);
	job->list = NULL;
	answer(job, (ProtobufCMessage *)list);
}

void eviction_job_answer(struct eviction_job *job)
{
	if (job->verb == TYER__V1__REQUEST__VERB_LIST)
		answer_list(job);
	else if (job->verb == TYER__V1__REQUEST__VERB_EVENTS)
		answer_events(job);
	else
		answer_counts(job);
}

static Tyer__V1__Namespace *new_namespace(const struct ty_identity *identity)
{
	Tyer__V1__Namespace *n = (Tyer__V1__Namespace *)eviction_new_message(&tyer__v1__namespace__descriptor);

	if (!n)
		return NULL;
	n->tenant = strdup(identity->tenant);
	n->model = strdup(identity->model);
	n->revision = strdup(identity->revision);
	n->dtype = strdup(identity->dtype);
	n->quantization = strdup(identity->quantization);
	return n;
}

Tyer__V1__ChunkInfo *eviction_job_list(struct eviction_job *job, const struct ty_key *key, const struct ty_identity *identity)
{
	Tyer__V1__ListReply *list = job->list;
	Tyer__V1__ChunkInfo *info;

	if (list->n_chunks == job->list_room) {
		size_t room = job->list_room ? 2 * job->list_room : 64;
		Tyer__V1__ChunkInfo **more = realloc(list->chunks, room * sizeof *more);

		if (!more)
			return NULL;
		list->chunks = more;
		job->list_room = room;
	}
	info = (Tyer__V1__ChunkInfo *)eviction_new_message(&tyer__v1__chunk_info__descriptor);
	if (!info || !eviction_set_bytes(&info->key, key->bytes, TY_KEY_BYTES)) {
		free(info);
		return NULL;
	}
	list->chunks[list->n_chunks++] = info;
	info->namespace_ = identity ? new_namespace(identity) : NULL;
	return info;
}
