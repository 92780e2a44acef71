/* SPDX-License-Identifier: Apache-2.0
 *
 * A chunk of more than part-size: begun (the store gives it an id), its pieces sent, a few at once, and finished with the list of them.
 * Until then there is no object; what fails is aborted, so that no pieces are left behind.
 *
 *   BEGIN --> PIECE, PIECE, ... --> FINISH --> done
 *     any of them fails --> ABORT, as an errand; the io has its answer before that
 */
#include "s3.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINE_MAX_BYTES (TY_S3_ETAG_MAX + 64)

bool s3_upload_begin(struct s3_op *op)
{
	uint64_t part = op->a->s3->part_size;
	uint32_t pieces = (uint32_t)((op->total + part - 1) / part);

	op->upload = calloc(1, sizeof *op->upload + pieces * sizeof op->upload->etag[0]);
	if (!op->upload)
		return false;
	op->upload->pieces = pieces;
	return s3_request_new(op, S3_BEGIN, 0) != NULL;
}

static bool send_pieces(struct s3_op *op)
{
	struct s3_upload *u = op->upload;

	for (; u->begun < u->pieces && u->begun - u->done < S3_PARTS_OUT; u->begun++)
		if (!s3_request_new(op, S3_PIECE, u->begun))
			return false;
	return true;
}

static bool send_finish(struct s3_op *op)
{
	struct s3_upload *u = op->upload;
	size_t room = 64 + (size_t)u->pieces * LINE_MAX_BYTES;
	int n;

	u->body = malloc(room);
	if (!u->body)
		return false;
	n = snprintf(u->body, room, "<CompleteMultipartUpload>");
	for (uint32_t i = 0; i < u->pieces; i++)
		n += snprintf(u->body + n, room - (size_t)n, "<Part><PartNumber>%u</PartNumber><ETag>%s</ETag></Part>", i + 1, u->etag[i]);
	n += snprintf(u->body + n, room - (size_t)n, "</CompleteMultipartUpload>");
	u->body_length = (size_t)n;
	return s3_request_new(op, S3_FINISH, 0) != NULL;
}

/* The pieces that are there are taken away by the store; so is the op by us. */
static void give_up(struct s3_op *op, enum ty_tier_outcome outcome, const char *why)
{
	struct s3_op *errand = op->upload->id[0] ? s3_errand(op->a, &op->key) : NULL;

	if (errand) {
		errand->upload = op->upload;
		op->upload = NULL;
		if (!s3_request_new(errand, S3_ABORT, 0))
			s3_op_end(errand, TY_TIER_FAILED, NULL);
	}
	s3_op_end(op, outcome, why);
}

void s3_upload_abandon(struct s3_op *op, enum ty_tier_outcome outcome)
{
	give_up(op, outcome, NULL);
}

static bool take_id(struct s3_upload *u, const struct s3_request *r)
{
	char id[TY_S3_UPLOAD_MAX];

	return ty_s3_element(r->text, r->text_length, "UploadId", id, sizeof id) && id[0] && ty_s3_quote(id, u->id, sizeof u->id);
}

void s3_upload_step(struct s3_op *op, struct s3_request *r, enum s3_end end)
{
	enum s3_kind kind = r->kind;
	bool good = true;
	char why[sizeof r->why];

	if (end != S3_ANSWERED) {
		memcpy(why, r->why, sizeof why);
		give_up(op, r->status == 507 ? TY_TIER_FULL : TY_TIER_FAILED, why);
		return;
	}
	if (kind == S3_BEGIN && !take_id(op->upload, r)) {
		op->upload->id[0] = 0;
		give_up(op, TY_TIER_FAILED, "its answer has no UploadId that can be read");
		return;
	}
	if (kind == S3_PIECE) {
		memcpy(op->upload->etag[r->number], r->etag, sizeof r->etag);
		op->upload->done++;
	}
	s3_request_free(r);
	if (kind == S3_FINISH)
		s3_op_end(op, TY_TIER_DONE, NULL);
	else if (op->upload->done < op->upload->pieces)
		good = send_pieces(op);
	else
		good = send_finish(op);
	if (!good)
		give_up(op, TY_TIER_FAILED, "no memory");
}
