/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "wire/s3.h"

static void test_where(void **state)
{
	static const struct { const char *text; enum ty_s3_style style; const char *url, *host; unsigned port; bool tls, numeric; } good[] = {
		{"https://s3.eu-central-1.amazonaws.com/kv", TY_S3_PATH, "https://s3.eu-central-1.amazonaws.com/kv",
			"s3.eu-central-1.amazonaws.com", 443, true, false},
		{"https://s3.eu-central-1.amazonaws.com/kv", TY_S3_HOST, "https://kv.s3.eu-central-1.amazonaws.com",
			"kv.s3.eu-central-1.amazonaws.com", 443, true, false},
		{"http://store:9000/my.bucket-1", TY_S3_PATH, "http://store:9000/my.bucket-1", "store", 9000, false, false},
		{"http://store:9000/b", TY_S3_HOST, "http://b.store:9000", "b.store", 9000, false, false},
		{"http://127.0.0.1:80/b", TY_S3_PATH, "http://127.0.0.1/b", "127.0.0.1", 80, false, true},
		{"https://[::1]:9000/b", TY_S3_PATH, "https://[::1]:9000/b", "::1", 9000, true, true},
		{"https://[fe80::1]/b", TY_S3_PATH, "https://[fe80::1]/b", "fe80::1", 443, true, true},
	};
	static const struct { const char *text; enum ty_s3_style style; const char *words; } bad[] = {
		{"", TY_S3_PATH, "expected http"}, {"ftp://x/b", TY_S3_PATH, "expected http"}, {"https://x", TY_S3_PATH, "without a bucket"},
		{"https://x/", TY_S3_PATH, "bucket"}, {"https://x/b/c", TY_S3_PATH, "bucket"}, {"https://x/b?c", TY_S3_PATH, "bucket"},
		{"https://x/.b", TY_S3_PATH, "bucket"}, {"https:///b", TY_S3_PATH, "host"}, {"https://u:p@x/b", TY_S3_PATH, "host"},
		{"https://x:0/b", TY_S3_PATH, "host"}, {"https://x:65536/b", TY_S3_PATH, "host"}, {"https://x:/b", TY_S3_PATH, "host"},
		{"https://[::1/b", TY_S3_PATH, "host"}, {"https://[x]/b", TY_S3_PATH, "host"}, {"https://[::1]x/b", TY_S3_PATH, "host"},
		{"https://a b/b", TY_S3_PATH, "host"}, {"https://1.2.3.4/b", TY_S3_HOST, "expected a name"},
		{"https://[::1]/b", TY_S3_HOST, "expected a name"},
	};
	struct ty_s3_where w;
	struct ty_error err;
	char longest[600];

	(void)state;
	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
		assert_int_equal(ty_s3_where(good[i].text, good[i].style, &w, &err), TY_OK);
		assert_string_equal(w.url, good[i].url);
		assert_string_equal(w.host, good[i].host);
		assert_int_equal(w.port, good[i].port);
		assert_int_equal(w.tls, good[i].tls);
		assert_int_equal(w.numeric, good[i].numeric);
	}
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		assert_int_equal(ty_s3_where(bad[i].text, bad[i].style, &w, &err), TY_INVALID);
		assert_non_null(strstr(err.text, bad[i].words));
	}
	for (int host = 250; host < 256; host++) {
		int n = snprintf(longest, sizeof longest, "https://");

		memset(longest + n, 'h', (size_t)host);
		strcpy(longest + n + host, "/b");
		assert_int_equal(ty_s3_where(longest, TY_S3_PATH, &w, &err), host < TY_S3_HOST_MAX ? TY_OK : TY_INVALID);
		assert_int_equal(ty_s3_where(longest, TY_S3_HOST, &w, &err), host + 2 < TY_S3_HOST_MAX ? TY_OK : TY_INVALID);
	}
}

static void test_credentials(void **state)
{
	static const struct { const char *text, *id, *secret, *token; } good[] = {
		{"aws_access_key_id=A\naws_secret_access_key=B", "A", "B", ""},
		{"[default]\r\naws_access_key_id = A\r\naws_secret_access_key = b/+=\r\naws_session_token=T==\r\n", "A", "b/+=", "T=="},
		{"# x\n[p]\naws_access_key_id=P\n\n[default]\nregion = x\nAWS_Access_Key_Id=A\naws_secret_access_key=B\n[q]\nbroken\n", "A", "B", ""},
	};
	static const struct { const char *text, *words; } bad[] = {
		{"", "found no aws_access_key_id"}, {"aws_access_key_id=A\n", "found no aws_secret"}, {"geheim\n", "line 1"},
		{"\n\naws_secret_access_key = gehe im\n", "line 3"}, {"aws_access_key_id=\n", "line 1"},
		{"[p]\naws_access_key_id=A\naws_secret_access_key=B\n", "in [default]"}, {"aws_access_key_id=A\001\n", "line 1"},
	};
	static char longest[TY_S3_TOKEN_MAX + 100];
	struct ty_s3_credentials c;
	struct ty_error err;

	(void)state;
	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
		assert_int_equal(ty_s3_credentials(good[i].text, strlen(good[i].text), &c, &err), TY_OK);
		assert_string_equal(c.id, good[i].id);
		assert_string_equal(c.secret, good[i].secret);
		assert_string_equal(c.token, good[i].token);
	}
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		assert_int_equal(ty_s3_credentials(bad[i].text, strlen(bad[i].text), &c, &err), TY_INVALID);
		assert_non_null(strstr(err.text, bad[i].words));
		assert_null(strstr(err.text, "gehe")); /* of a secret nothing is said */
		assert_string_equal(c.secret, "");
	}
	for (size_t n = TY_S3_TOKEN_MAX - 2; n < TY_S3_TOKEN_MAX + 2; n++) {
		int at = snprintf(longest, sizeof longest, "aws_access_key_id=A\naws_secret_access_key=B\naws_session_token=");

		if (at + (int)n > (int)sizeof longest)
			break;
		memset(longest + at, 'x', n);
		assert_int_equal(ty_s3_credentials(longest, (size_t)at + n, &c, &err), n < TY_S3_TOKEN_MAX ? TY_OK : TY_INVALID);
	}
}

static void test_element(void **state)
{
	static const struct { const char *xml, *name, *text; } cases[] = {
		{"<a><UploadId>x.y_z</UploadId></a>", "UploadId", "x.y_z"}, {"<UploadId></UploadId>", "UploadId", ""},
		{"<?xml version=\"1.0\"?>\n<Error><Code>SlowDown</Code><Message>m</Message></Error>", "Code", "SlowDown"},
		{"<E>&quot;a&#34;&amp;&lt;&gt;</E>", "E", "\"a\"&<>"}, {"<EE>1</EE><E>2</E>", "E", "2"}, {"<<E>2</E>", "E", "2"},
		{"<E><E>2</E></E>", "E", NULL}, {"<E>x</F>", "E", NULL}, {"<E>x</E", "E", NULL}, {"<E>x", "E", NULL}, {"<E", "E", NULL},
		{"", "E", NULL}, {"E>x</E>", "E", NULL}, {"<E>&bad;</E>", "E", NULL}, {"<E>&#1;</E>", "E", NULL}, {"<E>&</E>", "E", NULL},
		{"<E>a\nb</E>", "E", NULL}, {"<E>\xc3\xa4</E>", "E", NULL}, {"<E>0123456789abcde</E>", "E", "0123456789abcde"},
		{"<E>0123456789abcdef</E>", "E", NULL}, {"<E a=\"1\">x</E>", "E", NULL},
	};
	char out[16];

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		bool found = ty_s3_element(cases[i].xml, strlen(cases[i].xml), cases[i].name, out, sizeof out);

		assert_int_equal(found, cases[i].text != NULL);
		if (found)
			assert_string_equal(out, cases[i].text);
	}
}

static void test_etag_and_quote(void **state)
{
	static const struct { const char *line, *etag; } lines[] = {
		{"ETag: \"d41d8\"\r\n", "\"d41d8\""}, {"etag:x\r\n", "x"}, {"ETAG:  x  \r\n", "x"}, {"ETag: \r\n", NULL}, {"ETag:", NULL},
		{"ETagg: x\r\n", NULL}, {"X-ETag: x\r\n", NULL}, {"ETag: <x>\r\n", NULL}, {"ETag: a&b\r\n", NULL}, {"ETag: a b\r\n", NULL},
		{"ETag: \x01\r\n", NULL}, {"", NULL},
	};
	char etag[TY_S3_ETAG_MAX], out[10], line[200];

	(void)state;
	for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
		assert_int_equal(ty_s3_etag(lines[i].line, strlen(lines[i].line), etag), lines[i].etag != NULL);
		if (lines[i].etag)
			assert_string_equal(etag, lines[i].etag);
	}
	for (int n = TY_S3_ETAG_MAX - 2; n < TY_S3_ETAG_MAX + 2; n++) {
		snprintf(line, sizeof line, "ETag: %0*d\r\n", n, 7);
		assert_int_equal(ty_s3_etag(line, strlen(line), etag), n < TY_S3_ETAG_MAX);
	}
	assert_true(ty_s3_quote("aZ09-._~", out, sizeof out));
	assert_string_equal(out, "aZ09-._~");
	assert_true(ty_s3_quote("a/+", out, sizeof out));
	assert_string_equal(out, "a%2F%2B");
	assert_true(ty_s3_quote("///", out, sizeof out));
	assert_string_equal(out, "%2F%2F%2F");
	assert_false(ty_s3_quote("///a", out, sizeof out));
	assert_false(ty_s3_quote("////", out, sizeof out));
	assert_true(ty_s3_plain("a/B-._~9") && !ty_s3_plain("a b") && !ty_s3_plain("%41") && ty_s3_plain(""));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_where),
		cmocka_unit_test(test_credentials),
		cmocka_unit_test(test_element),
		cmocka_unit_test(test_etag_and_quote),
	};

	return cmocka_run_group_tests_name("wire-s3", tests, NULL, NULL);
}
