/* SPDX-License-Identifier: Apache-2.0
 *
 * A server of the S3 API as small as can be, which checks every signature and misbehaves as it is told. One thread at a time moves it
 * with s3_server_pump; it never waits.
 */
#ifndef TY_TESTS_TIERS_S3_SERVER_H
#define TY_TESTS_TIERS_S3_SERVER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum s3_fault {
	S3_FAULT_NONE,
	S3_FAULT_STATUS,     /* answers `status`, with <Code> of `code` */
	S3_FAULT_HANG,       /* reads, and answers nothing */
	S3_FAULT_CLOSE,      /* ends the connection instead of an answer */
	S3_FAULT_GARBAGE,    /* answers what is no HTTP */
	S3_FAULT_HEADERS,    /* header lines without end */
	S3_FAULT_CONTINUES,  /* 100 Continue without end */
	S3_FAULT_ENDLESS,    /* a body without end, in chunks */
	S3_FAULT_LONGER,     /* one byte more than the object has */
	S3_FAULT_SHORTER,    /* one byte less, and says so */
	S3_FAULT_TRUNCATED,  /* half of what it announced, then the connection's end */
	S3_FAULT_WRONG,      /* one byte is another */
	S3_FAULT_DRIP,       /* a byte now and then */
	S3_FAULT_NO_ID,      /* multipart: an id that is none */
	S3_FAULT_LATE_ERROR, /* multipart: 200, and an error behind it */
};

struct s3_object {
	char name[1400];
	uint8_t *data;
	size_t length;
};

#define S3_SERVER_OBJECTS 2048
#define S3_SERVER_CONNECTIONS 128

struct s3_server_connection;

struct s3_server {
	uint16_t port;
	int listener;
	const char *id, *secret, *token; /* who may ask; null: anybody */
	const char *region;

	/* Told by the test: requests of `method` ("": of any) get the fault, the next `fault_count` of them. */
	enum s3_fault fault;
	int fault_count, status;
	const char *method, *code;
	const char *list;                /* the answer to each list, instead of one that is right; null: that */

	/* What was seen. */
	unsigned requests, connections, open, most_open, refused_signatures, aborted;
	unsigned by_kind[10];            /* PUT, GET, GET of a range, DELETE, begin, piece, finish, abort, HEAD, list */
	char last_error[1024];
	uint8_t body_sent;

	struct s3_object object[S3_SERVER_OBJECTS];
	unsigned object_count;
	unsigned uploads;                /* ids given */
	struct s3_object piece[256];     /* of uploads that are not finished: name is "ID/NUMBER" */
	struct s3_server_connection *connection[S3_SERVER_CONNECTIONS];
};

void s3_server_open(struct s3_server *s);
void s3_server_close(struct s3_server *s);
/* What can be done without waiting. True: something was. */
bool s3_server_pump(struct s3_server *s);
/* Until there is something to do. False: `fd` is at its end. */
bool s3_server_wait(struct s3_server *s, int fd);
void s3_server_misbehave(struct s3_server *s, enum s3_fault fault, int count, const char *method, int status);
struct s3_object *s3_server_find(struct s3_server *s, const char *name); /* "/BUCKET/KEY" */

/* SigV4 as AWS describes it: what the request's signature is to be. `head` is the request's first line and header lines, each ended by
 * \r\n, and its empty line. False, with a reason: it is not signed, or not so that it could be checked. */
bool s3_signature(const char *head, const char *secret, char out[65], char found[65], char reason[200]);

#endif
