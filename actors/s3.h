/* SPDX-License-Identifier: Apache-2.0
 *
 * The S3 tier: --tier s3:https://HOST[:PORT]/BUCKET. An object a chunk, through libcurl's multi interface on the actor's own epoll.
 * docs/s3.md. Shared by its files and nobody else:
 *
 *   s3_open.c      what the configuration names, before anything runs
 *   s3_request.c   requests: their lanes, tries and ends; whether the store is down
 *   s3_transfer.c  one request on one of libcurl's handles: its header lines, its bytes, and libcurl's sockets
 *   s3_upload.c    chunks that go up in pieces
 *   s3_list.c      LIST
 *   s3_names.c     the actor beside it that looks up the host's addresses
 *   s3.c           operations as requests, and what came of them
 */
#ifndef TY_ACTORS_S3_H
#define TY_ACTORS_S3_H

#include <curl/curl.h>

#include "base/breaker.h"
#include "base/waiter.h"
#include "service.h"
#include "tier_turns.h"
#include "wire/s3.h"

#define S3_CONNECTIONS 32        /* connections=, and at most ... */
#define S3_CONNECTIONS_MAX 256
#define S3_RETRIES 3             /* retries= */
#define S3_RETRIES_MAX 10
#define S3_STALL_US 10000000     /* stall=: a request that has moved no byte for so long is over */
#define S3_PART ((uint64_t)64 << 20) /* part-size=: a chunk of more goes up in pieces of it. The API's own limits: */
#define S3_PART_MIN ((uint64_t)5 << 20)
#define S3_PART_MAX ((uint64_t)1 << 30)
#define S3_PARTS_MAX 10000
#define S3_PARTS_OUT 4           /* of one chunk, at once */
#define S3_KEYS_OUT 16           /* of one EXISTS, at once */
#define S3_LIST_MAX 256          /* objects of one page */
#define S3_LIST_BYTES ((size_t)512 << 10) /* that the answer for it may have */
#define S3_LIST_LOOKS 4          /* of these, at once */
#define S3_PREFIX_MAX 128
#define S3_URL_ROOM (TY_S3_URL_MAX + S3_PREFIX_MAX + 64 + TY_S3_UPLOAD_MAX + 48)
#define S3_TEXT_MAX 4096         /* that is kept of an answer that is no object */
#define S3_BODY_MAX 65536        /* that such an answer may have */
#define S3_HEADERS_MAX 16384     /* bytes of an answer's header lines, trailers included */
#define S3_ERRANDS_MAX 64        /* requests of the tier's own (wrong objects, broken uploads) at once */
#define S3_ADDRESSES 8           /* of the host, that are used */
#define S3_ADDRESSES_MAX 640     /* bytes of them as text, for CURLOPT_RESOLVE */
#define S3_CONNECT_MS 3000L
#define S3_BREAKER_LIMIT 5       /* requests in a row that failed: the store is down, and asked again after ... */
#define S3_BREAKER_MIN_NS INT64_C(500000000)
#define S3_BREAKER_MAX_NS INT64_C(30000000000)

struct s3_actor;
struct s3_op;

enum {
	S3_NAMES = TY_TIER_OWN, /* struct s3_lookup, home again from ... */
	S3_LOOK_UP,             /* ... the names actor */
};

/* The host's addresses: to the names actor, which waits for the resolver, and back. */
struct s3_lookup {
	struct ty_msg msg;
	struct ty_actor *home;
	const struct ty_s3_where *where;
	bool found;
	char text[S3_ADDRESSES_MAX];   /* "HOST:PORT:ADDRESS,ADDRESS..." */
};

/* What open() found; constant while actors run, but for credentials, addresses and lookup, which are the actor's. */
struct s3 {
	struct ty_tier *tier;
	struct ty_s3_where where;
	struct ty_s3_credentials credentials;
	char credentials_file[128];    /* "": they came by the environment, or there are none */
	char ca_file[128], prefix[S3_PREFIX_MAX], region[33], provider[64];
	uint64_t part_size;
	uint32_t connections, retries;
	int64_t stall;                 /* ns */
	uint64_t random;               /* a seed for pauses, other than that of other machines */
	struct ty_waiter waiter;       /* the actor's, but for its making and its wakes */
	char addresses[S3_ADDRESSES_MAX]; /* as in struct s3_lookup; "": libcurl is given an address in the URL */
	struct s3_lookup lookup;
	struct ty_actor *names;        /* null: there is no name to look up */
};

enum s3_kind { S3_PUT, S3_GET, S3_LOOK, S3_DELETE, S3_BEGIN, S3_PIECE, S3_FINISH, S3_ABORT, S3_PROBE, S3_LIST };
enum s3_lane { S3_UP, S3_DOWN, S3_LANES }; /* what somebody waits for: GET, EXISTS; and the rest */

/* What came of a request, tries and all. */
enum s3_end {
	S3_ANSWERED,  /* with what its kind expects, whole */
	S3_ABSENT,    /* 404 */
	S3_TOO_LONG,  /* GET: the object has more bytes than it may: cut off */
	S3_REFUSED,   /* another answer */
	S3_BROKEN,    /* no answer, after all tries */
};

enum s3_state { S3_QUEUED, S3_OUT, S3_RESTING };

/* One HTTP request. Begun by an op, which it belongs to. */
struct s3_request {
	struct s3_request *next, **link; /* of its op's */
	struct s3_request *after;        /* QUEUED: the next in its lane */
	struct s3_op *op;
	enum s3_kind kind;
	enum s3_state state;
	uint32_t number;                 /* LOOK: of the key; PIECE: from 0 */
	uint32_t tries;
	int64_t rest_until;              /* RESTING */

	/* OUT: what libcurl moves. */
	CURL *easy;
	struct curl_slist *headers, *resolve;
	int64_t moved_at;                /* the last byte, in either direction */
	uint64_t begin, at, end;         /* bytes of the object (FINISH: of the op's text) */
	size_t header_bytes, body_bytes, text_length;
	bool too_long;                   /* ended by us: more header lines or more body than there may be */
	long status;
	char etag[TY_S3_ETAG_MAX];
	char text[S3_TEXT_MAX];          /* an answer that is no object: its beginning */
	char url[S3_URL_ROOM];
	char why[CURL_ERROR_SIZE];       /* libcurl's words; at the end: what a person should know */
	uint8_t header[TY_ENVELOPE_BYTES]; /* PUT, PIECE 0: sent; GET, LOOK: received */
};

/* EXISTS. */
struct s3_query {
	uint32_t begun, out;
	uint32_t end;                    /* the first key that is known not to be there, or of another shape */
	bool failed;
	struct ty_envelope first;
	struct { bool here; uint64_t shape; } key[];
};

/* LIST. */
struct s3_listing {
	char place[TY_S3_PLACE_MAX];     /* behind the prefix: the page begins after it; "": at the beginning */
	bool wrong_cursor;
	char *text;                      /* the answer */
	size_t length, room;
	uint32_t begun, out;             /* objects that are looked at */
};

/* A chunk that goes up in pieces. */
struct s3_upload {
	char id[TY_S3_UPLOAD_MAX];       /* quoted; "": not begun yet */
	uint32_t pieces, begun, done;
	char *body;                      /* FINISH's */
	size_t body_length;
	char etag[][TY_S3_ETAG_MAX];
};

/* An io, or an errand of the tier's own. */
struct s3_op {
	struct s3_op *next, **link;
	struct s3_actor *a;
	struct ty_tier_io *io;           /* null: an errand */
	struct ty_key key;
	int64_t deadline;
	struct s3_request *requests;
	struct ty_envelope envelope;     /* PUT, GET: lengths and checksums */
	uint64_t total;                  /* bytes of the object; GET: if nothing is packed */
	struct s3_query *query;
	struct s3_upload *upload;
	struct s3_listing *list;
	struct ty_tier_unpack *unpack;   /* GET: where packed parts are read to; null: none is, or there is no memory */
	bool unpacking;                  /* it is with an unpacker: the io stays */
	struct ty_turn turn;             /* PUT, DELETE: among those of its chunk */
};

struct s3_actor {
	struct ty_tier *tier;
	struct s3 *s3;
	CURLM *multi;
	int64_t curl_at, look_at;        /* when libcurl wants to be called; when deadlines are looked at */
	struct s3_op *ops;
	struct ty_turns turns;
	uint32_t op_count, errands;
	struct s3_request *queue[S3_LANES], **queue_end[S3_LANES];
	uint32_t out[S3_LANES], limit[S3_LANES];
	uint32_t resting;
	CURL *spare[S3_CONNECTIONS_MAX]; /* handles that wait to be used again */
	uint32_t spare_count;
	struct ty_breaker breaker;
	char down_because[120];
	uint64_t random;
	int64_t names_at, credentials_at; /* when they were last looked up or read */
	uint64_t refusals;               /* answers that we may not, so far */
	bool looking_up, stopping;
};

/* ---- s3_open.c ---- */
TY_MUST_USE enum ty_code s3_open(struct ty_tier *tier, struct ty_error *err);
void s3_close(struct ty_tier *tier);
/* The file's credentials into `out`. TY_UNSUPPORTED: there is no file. Waits for the disk. */
TY_MUST_USE enum ty_code s3_read_credentials(const struct s3 *s3, struct ty_s3_credentials *out, struct ty_error *err);

/* ---- s3_names.c ---- */
TY_MUST_USE enum ty_code s3_spawn_names(struct ty_tier *tier, struct ty_error *err);
void s3_release_names(struct ty_tier *tier);
/* The addresses of a host as text. 0, or getaddrinfo's code. Waits for the resolver. */
int s3_look_up(const struct ty_s3_where *where, char out[S3_ADDRESSES_MAX]);

/* ---- s3_transfer.c ---- */
/* What all requests have in common, also that of s3_open: header lines, signature, limits. `content`: the SHA-256 of what is sent,
 * as hexadecimal digits, or UNSIGNED-PAYLOAD. False: no memory. */
bool s3_set_up(const struct s3 *s3, CURL *easy, const char *content, struct curl_slist **headers, struct curl_slist **resolve);
extern const char s3_no_content[]; /* the SHA-256 of nothing */
/* Give the request to libcurl, and take it away: from then on nothing of it or of its io is touched. */
TY_MUST_USE bool s3_transfer_begin(struct s3_request *r, const char *method, const char *content);
void s3_transfer_end(struct s3_request *r);
TY_MUST_USE bool s3_transfers_open(struct s3_actor *a);
void s3_transfers_close(struct s3_actor *a);
/* Let libcurl work; each request that ended goes to s3_request_over. True: there is more to do at once. */
bool s3_transfers_run(struct s3_actor *a, int64_t now);

/* ---- s3_request.c ---- */
/* Null: no memory. It goes out when its lane has room; its end comes to s3_request_end, and never from in here. */
struct s3_request *s3_request_new(struct s3_op *op, enum s3_kind kind, uint32_t number);
void s3_request_free(struct s3_request *r); /* wherever it is */
void s3_request_over(struct s3_request *r, CURLcode result); /* one try of it, from s3_transfer.c */
/* What is to be sent is sent. The time at which that is to be looked at again. */
int64_t s3_requests_run(struct s3_actor *a, int64_t now);
void s3_requests_check(struct s3_actor *a, int64_t now); /* those that moved nothing for too long */
bool s3_is_down(const struct s3_actor *a);

/* ---- s3_upload.c ---- */
TY_MUST_USE bool s3_upload_begin(struct s3_op *op); /* false: no memory */
/* A request of it ended. Ends the op when nothing is left to do. */
void s3_upload_step(struct s3_op *op, struct s3_request *r, enum s3_end end);
/* Before it is done: the io goes home, an errand sees to the pieces. */
void s3_upload_abandon(struct s3_op *op, enum ty_tier_outcome outcome);

/* ---- s3_list.c ---- */
TY_MUST_USE bool s3_list_begin(struct s3_op *op); /* false: no memory */
/* What follows the bucket's URL: at most so many names that begin so. False: no room for it. */
TY_MUST_USE bool s3_list_query(uint32_t most, const char *prefix, char *out, size_t size);
void s3_list_url(const struct s3_op *op, char *out, size_t size); /* likewise, of that page */
size_t s3_list_take(struct s3_request *r, const char *in, size_t length); /* bytes of the answer; fewer than all end it */
/* A request of it ended. Ends the op when nothing is left to do. */
void s3_list_step(struct s3_op *op, struct s3_request *r, enum s3_end end);
void s3_list_free(struct s3_listing *list); /* null is allowed */

/* ---- s3.c ---- */
/* From s3_request.c: the request is over. Frees it. */
void s3_request_end(struct s3_request *r, enum s3_end end);
/* From s3_transfer.c: the envelope of a GET is here, and how long what follows is. Before each try: forget_shape. */
void s3_take_shape(struct s3_request *r);
void s3_forget_shape(struct s3_request *r);
/* Its requests are taken back, its io goes home. */
void s3_op_end(struct s3_op *op, enum ty_tier_outcome outcome, const char *why);
/* An errand: it has no io, and whatever comes of it is right. Null: there are too many, or no memory. */
struct s3_op *s3_errand(struct s3_actor *a, const struct ty_key *key);
void s3_addresses_wanted(struct s3_actor *a); /* those that we have do not answer */

#endif
