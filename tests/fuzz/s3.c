/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "fuzz.h"
#include "wire/s3.h"

static void check_where(const char *text)
{
	struct ty_error err = {.text = ""};
	struct ty_s3_where w;

	for (int style = TY_S3_PATH; style <= TY_S3_HOST; style++) {
		if (ty_s3_where(text, (enum ty_s3_style)style, &w, &err) != TY_OK) {
			FUZZ_CHECK(err.text[0] != '\0');
			continue;
		}
		FUZZ_CHECK(w.port > 0 && w.host[0] && strlen(w.url) > 8 && !strpbrk(w.url, " ?#@\r\n"));
	}
}

static void check_credentials(const char *text, size_t length)
{
	struct ty_error err = {.text = ""};
	static struct ty_s3_credentials c;

	if (ty_s3_credentials(text, length, &c, &err) != TY_OK) {
		FUZZ_CHECK(err.text[0] != '\0' && !c.id[0] && !c.secret[0] && !c.token[0]);
		return;
	}
	FUZZ_CHECK(c.id[0] && c.secret[0]);
	for (const char *b = c.token; *b; b++)
		FUZZ_CHECK(*b > ' ' && *b <= '~');
}

/* Whatever a server answers: a text that is bounded and can be sent back, or none. */
static void check_answer(const char *text, size_t length)
{
	char out[48], quoted[3 * sizeof out], etag[TY_S3_ETAG_MAX];

	if (ty_s3_element(text, length, "UploadId", out, sizeof out)) {
		FUZZ_CHECK(memchr(out, 0, sizeof out) != NULL);
		FUZZ_CHECK(ty_s3_quote(out, quoted, sizeof quoted) && strspn(quoted, "%-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") == strlen(quoted));
	}
	if (ty_s3_etag(text, length, etag))
		FUZZ_CHECK(etag[0] && !strpbrk(etag, "<>& \r\n") && strlen(etag) < sizeof etag);
}

/* A list: bounded, in places that can be asked for, and every step of it goes on. */
static void check_list(const char *text, size_t length)
{
	const char *at = text, *bad = NULL;
	struct ty_s3_listed o;
	size_t left = length;
	bool more;

	if (ty_s3_is_list(text, length, &more))
		FUZZ_CHECK(more == true || more == false);
	for (size_t before = left; ty_s3_next_listed(&at, &left, "tyer/", &o, &bad); before = left) {
		char name[8 + TY_S3_PLACE_MAX], quoted[3 * sizeof name];

		FUZZ_CHECK(left < before && at + left == text + length);
		FUZZ_CHECK(memchr(o.place, 0, sizeof o.place) && o.place[0]);
		FUZZ_CHECK(!o.ours || (strlen(o.place) == 2 * TY_S3_KEY_BYTES && strspn(o.place, "0123456789abcdef") == 2 * TY_S3_KEY_BYTES));
		snprintf(name, sizeof name, "tyer/%s", o.place);
		FUZZ_CHECK(ty_s3_quote(name, quoted, sizeof quoted));
	}
	FUZZ_CHECK(left <= length && (!bad || bad[0]));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);

	FUZZ_CHECK(text != NULL);
	if (size)
		memcpy(text, data, size);
	text[size] = 0;
	check_where(text);
	free(text);
	/* these know a length, and read not a byte behind it */
	check_credentials((const char *)data, size);
	check_answer((const char *)data, size);
	check_list((const char *)data, size);
	return 0;
}

size_t fuzz_seed(unsigned index, uint8_t *bytes)
{
	static const char *const seeds[] = {
		"https://s3.eu-central-1.amazonaws.com/bucket",
		"http://[::1]:9000/a.b-c_d",
		"[default]\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = abc/def+g\naws_session_token = x==\n",
		"# keys\n[other]\naws_access_key_id=x\n[default]\nregion=y\naws_access_key_id=A\naws_secret_access_key=B\n",
		"<InitiateMultipartUploadResult><Bucket>b</Bucket><UploadId>a/b+c=&quot;&amp;</UploadId></InitiateMultipartUploadResult>",
		"<Error><Code>SlowDown</Code><UploadId>01234567890123456789012345678901234567890123456</UploadId></Error>",
		"ETag: \"0123456789abcdef0123456789abcdef-12\"\r\n",
		"<ListBucketResult><Contents><Key>tyer/00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff</Key><Size>8192</Size>"
		"</Contents><Contents><Key>tyer/README</Key><Size>1</Size></Contents><IsTruncated>true</IsTruncated></ListBucketResult>",
		"<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Size>18446744073709551615</Size><Key>tyer/a&lt;b&amp;</Key></Contents>"
		"<Contents><Key>elsewhere</Key><Size>0</Size></Contents></ListBucketResult>",
		"<Contents><Key>tyer/</Key><Size>0</Size></Contents><Contents><Key>tyer/0:</Key><Size>0</Size></Contents><Contents><Key>tyer/",
	};

	if (index >= sizeof seeds / sizeof seeds[0])
		return SIZE_MAX;
	memcpy(bytes, seeds[index], strlen(seeds[index]));
	return strlen(seeds[index]);
}
