/* SPDX-License-Identifier: Apache-2.0
 *
 * The S3 API's texts: where a bucket is, who asks, and the few fields of an answer that are needed. Everything here comes from
 * outside; each reader is bounded and says what it found. Pure functions: any thread.
 */
#ifndef TY_WIRE_S3_H
#define TY_WIRE_S3_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <tyer/result.h>

#define TY_S3_HOST_MAX 254
#define TY_S3_URL_MAX 512
#define TY_S3_ID_MAX 256        /* of a key's id, and of its secret */
#define TY_S3_TOKEN_MAX 4096    /* of a session token */
#define TY_S3_CREDENTIALS_MAX 16384 /* of a credentials file */
#define TY_S3_ETAG_MAX 72
#define TY_S3_UPLOAD_MAX 1024   /* of an upload's id, percent-encoded */

enum ty_s3_style {
	TY_S3_PATH, /* https://HOST/BUCKET/KEY */
	TY_S3_HOST, /* https://BUCKET.HOST/KEY */
};

struct ty_s3_where {
	char url[TY_S3_URL_MAX];   /* of the bucket, without a slash at its end */
	char host[TY_S3_HOST_MAX]; /* that is connected to; of an IPv6 address without its brackets */
	uint16_t port;
	bool tls;
	bool numeric;              /* the host is an address: there is no name to look up */
};

/* "http[s]://HOST[:PORT]/BUCKET". TY_INVALID: the text says what is wrong with it. */
TY_MUST_USE enum ty_code ty_s3_where(const char *text, enum ty_s3_style style, struct ty_s3_where *out, struct ty_error *err);

/* Who asks. An empty id: nobody in particular, requests are not signed. */
struct ty_s3_credentials {
	char id[TY_S3_ID_MAX], secret[TY_S3_ID_MAX], token[TY_S3_TOKEN_MAX]; /* token: "" if there is none */
};

/* A credentials file as the tools of AWS have it: lines "name = value" of the section [default], or before any section.
 * TY_INVALID: names the line or the setting, and never a value. */
TY_MUST_USE enum ty_code ty_s3_credentials(const char *text, size_t length, struct ty_s3_credentials *out, struct ty_error *err);

/* The text of the first element of that name in an answer of `length` bytes, its entities decoded: at most size - 1 bytes of printable
 * ASCII and a zero. False: there is none, it has elements inside, is longer, or holds something else. */
TY_MUST_USE bool ty_s3_element(const char *xml, size_t length, const char *name, char *out, size_t size);

/* The value of a header line if it is an ETag's, and one that can be sent back within XML: printable ASCII without <, > and &. */
TY_MUST_USE bool ty_s3_etag(const char *line, size_t length, char out[TY_S3_ETAG_MAX]);

/* ---- s3_list.c ---- */

#define TY_S3_KEY_BYTES 32
#define TY_S3_PLACE_MAX 72

struct ty_s3_listed {
	bool ours;                    /* its name is the prefix and 64 hexadecimal digits, in lower case: */
	uint8_t key[TY_S3_KEY_BYTES];
	uint64_t bytes;
	char place[TY_S3_PLACE_MAX];  /* what follows the prefix in the name, or a place behind it with no name of ours between */
};

/* Is it an answer to ListObjectsV2? *more: it is not the last page. */
TY_MUST_USE bool ty_s3_is_list(const char *xml, size_t length, bool *more);
/* Its next object (*xml, *left: what is still to be read). False: there is none any more, or (*bad is not null then) one that cannot be
 * read, or that does not begin with `prefix`. */
TY_MUST_USE bool ty_s3_next_listed(const char **xml, size_t *left, const char *prefix, struct ty_s3_listed *out, const char **bad);

/* ---- s3.c ---- */

/* As it may stand in a query: letters, digits, - . _ ~ as they are, the rest as %XX. False: no room. */
TY_MUST_USE bool ty_s3_quote(const char *text, char *out, size_t size);

/* A name in a URL that needs no quoting, so that it is signed as it stands: letters, digits, - . _ ~ and /. */
TY_MUST_USE bool ty_s3_plain(const char *text);

#endif
