/* SPDX-License-Identifier: Apache-2.0
 *
 * What the S3 tier says that a bucket holds, and what a store may say to it.
 */
#include "s3_lab.h"

static struct ty_tier_io *list_io(struct ty_tier_page *page)
{
	struct ty_tier_io *io = calloc(1, sizeof *io);

	io->verb = TY_TIER_LIST;
	io->page = page;
	return io;
}

static void put_raw(const char *name)
{
	struct s3_object *o = &server.object[server.object_count++];

	snprintf(o->name, sizeof o->name, "/kv/%s", name);
	o->data = calloc(1, 10);
	o->length = 10;
}

/* How often each of the chunks [1, count] is told, page by page. */
static void list_all(struct ty_tier_page *page, uint8_t *seen, uint64_t count, bool shapes)
{
	memset(seen, 0, count + 1);
	do {
		struct ty_tier_io *io = list_io(page);

		lab_run(&io, 1);
		if (io->outcome != TY_TIER_DONE)
			fail_msg("%s", io->error);
		assert_true(page->count <= page->wanted);
		for (uint32_t i = 0; i < page->count; i++)
			for (uint64_t n = 1; n <= count; n++) {
				struct ty_key key = lab_key(n);

				if (memcmp(&key, &page->item[i].key, sizeof key) != 0)
					continue;
				seen[n]++;
				assert_int_equal(page->item[i].bytes, TY_ENVELOPE_BYTES + ty_envelope_padded(CHUNK));
				assert_int_equal(page->item[i].parts, shapes ? 1 : 0);
				if (shapes)
					assert_string_equal(page->item[i].identity->tenant, n % 2 ? "a" : "b");
				else
					assert_null(page->item[i].identity);
			}
		ty_tier_page_clear(page);
		free(io);
	} while (page->cursor.length);
}

/* Who may not list a bucket is told of what is not there that it is forbidden: nothing would be a miss, so the service does not start. Nor
 * with what is no bucket. */
static void test_rights(void **state)
{
	static const struct { const char *code, *words; } cases[] = {
		{"AccessDenied", "expected the right s3:ListBucket, for the prefix tyer/"},
		{"InvalidAccessKeyId", "answers 403 InvalidAccessKeyId (credentials"},
		{"", "answers 403 "},
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		s3_server_misbehave(&server, S3_FAULT_STATUS, 1, "GET", 403);
		server.code = cases[i].code;
		assert_int_equal(lab_open_tier(""), TY_DENIED);
		assert_non_null(strstr(lab.error, cases[i].words));
	}
	server.list = "<html>It works!</html>";
	assert_int_equal(lab_open_tier(""), TY_INVALID);
	assert_non_null(strstr(lab.error, "its answer is no list"));
	server.list = NULL;
	assert_int_equal(lab_open_tier(""), TY_OK);
	s3_server_misbehave(&server, S3_FAULT_STATUS, 1, "GET", 403); /* taken away since */
	server.code = "AccessDenied";
	assert_int_equal(lab_do(TY_TIER_EXISTS, 1, 1, 0), TY_TIER_FAILED);
	assert_int_equal(lab_do(TY_TIER_EXISTS, 1, 1, 0), TY_TIER_MISSING);
	lab_close_tier();
}

/* Page by page, all that is ours and nothing else, whatever lies among it. */
static void test_list(void **state)
{
	static const char *const others[] = {"tyer/", "tyer/!", "tyer/README", "tyer/a", "tyer/a/b", "tyer/abc<d", "tyer/f&f", "tyer/zz", "tyer/~~",
		"tyer/\xc3\xa4", "tyes", "other", "tyer/00", "tyer/1:", "tyer/1A"};
	static const struct ty_identity identities[2] = {{.tenant = "a", .model = "m"}, {.tenant = "b", .model = "m"}};
	static const uint32_t sizes[] = {1, 7, 256};
	uint8_t seen[51];
	char name[160];

	(void)state;
	assert_int_equal(lab_open_tier(""), TY_OK);
	for (uint64_t n = 1; n <= 50; n++) {
		struct ty_tier_io *io = lab_io(TY_TIER_PUT, n, 0, 1, CHUNK);

		io->identity = &identities[(n + 1) % 2];
		lab_run(&io, 1);
		assert_int_equal(io->outcome, TY_TIER_DONE);
		lab_free(io);
		if (n % 5 == 0) { /* longer, shorter, and with something else in it */
			lab_name(n, name);
			strcat(name, n % 2 ? ".old" : "0");
			put_raw(name + 4);
			name[20] = "/?@g"[n % 4];
			put_raw(name + 4);
		}
	}
	for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
		put_raw(others[i]);
	for (int shapes = 0; shapes < 2; shapes++)
		for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
			struct ty_tier_page page = {.wanted = sizes[i], .shapes = shapes};

			list_all(&page, seen, 50, shapes);
			for (uint64_t n = 1; n <= 50; n++)
				assert_int_equal(seen[n], 1);
		}
	for (uint64_t n = 1; n <= 50; n++) {
		struct ty_tier_page page = {.wanted = 256, .prefix = lab_key(n), .prefix_length = 1 + (uint32_t)n % 32};
		unsigned requests;

		list_all(&page, seen, 50, false);
		assert_int_equal(seen[n], 1);
		if (n % 5 == 0)
			continue;
		page = (struct ty_tier_page){.wanted = 1, .prefix = lab_key(n), .prefix_length = TY_KEY_BYTES};
		requests = server.requests;
		list_all(&page, seen, 50, false);
		assert_int_equal(seen[n], 1);
		assert_int_equal(server.requests, requests + 1); /* the server looks for it, not we among all */
	}
	assert_int_equal(lab_do(TY_TIER_EXISTS, 1, 1, 0), TY_TIER_DONE);
	assert_int_equal(server.refused_signatures, 0);
	lab_close_tier();
}

#define BEGIN "<ListBucketResult>"
#define END "<IsTruncated>false</IsTruncated></ListBucketResult>"
#define MORE "<IsTruncated>true</IsTruncated></ListBucketResult>"
#define OBJECT(name) "<Contents><Key>" name "</Key><Size>5</Size></Contents>"
#define KEY "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd"

/* Whatever the store says, the answer is bounded, and either a page or why not. */
static void test_hostile_lists(void **state)
{
	static const struct { const char *text, *why; } lists[] = {
		{"", "its answer is no list"}, {"<html>", "its answer is no list"}, {BEGIN, "its answer is no list"},
		{BEGIN "<IsTruncated>perhaps</IsTruncated>", "its answer is no list"},
		{BEGIN "<Contents>" END, "its list is cut off"}, {BEGIN "<Contents></Contents>" END, "without a name or a size"},
		{BEGIN "<Contents><Key>tyer/x</Key><Size>-1</Size></Contents>" END, "without a name or a size"},
		{BEGIN "<Contents><Key>tyer/x</Key><Size>9999999999999999999</Size></Contents>" END, "without a name or a size"},
		{BEGIN "<Contents><Key>tyer/<b>x</b></Key><Size>1</Size></Contents>" END, "without a name or a size"},
		{BEGIN OBJECT("elsewhere") END, "another prefix"}, {BEGIN OBJECT("tyer/" KEY "01") OBJECT("tyer/" KEY "00") END, "not in order"},
		{BEGIN OBJECT("tyer/" KEY "01") OBJECT("tyer/" KEY "01") END, "not in order"}, {BEGIN MORE, "does not go on"},
	};
	struct ty_tier_page page = {.wanted = 7};
	struct ty_tier_io *io;

	(void)state;
	assert_int_equal(lab_open_tier(",retries=0"), TY_OK);
	for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
		server.list = lists[i].text;
		page.cursor.length = 0;
		io = list_io(&page);
		lab_run(&io, 1);
		assert_int_equal(io->outcome, TY_TIER_FAILED);
		if (!strstr(io->error, lists[i].why))
			fail_msg("%zu: \"%s\" does not say \"%s\"", i, io->error, lists[i].why);
		ty_tier_page_clear(&page);
		free(io);
	}
	server.list = NULL;
	for (uint32_t length = 72; length <= TY_TIER_CURSOR_MAX; length += 8) { /* a cursor of somebody else's */
		page.cursor.length = length;
		io = list_io(&page);
		lab_run(&io, 1);
		assert_int_equal(io->outcome, TY_TIER_FAILED);
		assert_string_equal(io->error, "the cursor is none of its own");
		free(io);
	}
	page.cursor.length = 0;
	s3_server_misbehave(&server, S3_FAULT_STATUS, 1, "GET", 403);
	io = list_io(&page);
	lab_run(&io, 1);
	assert_int_equal(io->outcome, TY_TIER_FAILED);
	assert_non_null(strstr(io->error, "it answers 403"));
	free(io);
	lab_close_tier();
}

/* A store that tells more than it was asked for, and that this is all: what is not taken of it is another page's. */
static void test_more_than_asked(void **state)
{
	struct ty_tier_page page = {.wanted = 7};
	struct ty_tier_io *io;
	char *text = malloc(65536);

	(void)state;
	assert_int_equal(lab_open_tier(",retries=0"), TY_OK);
	for (unsigned count = S3_LIST_MAX; count <= S3_LIST_MAX + 1; count++) {
		size_t n = (size_t)sprintf(text, "%s", BEGIN);

		for (unsigned i = 0; i < count; i++)
			n += (size_t)sprintf(text + n, "<Contents><Key>tyer/%064x</Key><Size>5</Size></Contents>", i);
		sprintf(text + n, "%s", END);
		server.list = text;
		page.cursor.length = 0;
		io = list_io(&page);
		lab_run(&io, 1);
		assert_int_equal(io->outcome, TY_TIER_DONE);
		assert_int_equal(page.count, S3_LIST_MAX);
		assert_int_equal(page.cursor.length != 0, count > S3_LIST_MAX);
		ty_tier_page_clear(&page);
		free(io);
	}
	lab_close_tier();
	free(text);
}

/* An answer without end is cut off. */
static void test_endless_list(void **state)
{
	struct ty_tier_page page = {.wanted = 7};
	struct ty_tier_io *io = list_io(&page);
	char *text = malloc(S3_LIST_BYTES + 2);

	(void)state;
	memset(text, '<', S3_LIST_BYTES + 1);
	text[S3_LIST_BYTES + 1] = 0;
	assert_int_equal(lab_open_tier(",retries=0"), TY_OK);
	server.list = text;
	lab_run(&io, 1);
	assert_int_equal(io->outcome, TY_TIER_FAILED);
	assert_non_null(strstr(io->error, "more than 524288 bytes: cut off"));
	free(io);
	lab_close_tier();
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		LAB_TEST(test_rights),
		LAB_TEST(test_list),
		LAB_TEST(test_hostile_lists),
		LAB_TEST(test_more_than_asked),
		LAB_TEST(test_endless_list),
	};

	ty_log_setup(TY_LOG_ERROR, false);
	return cmocka_run_group_tests_name("tiers-s3-list", tests, NULL, NULL);
}
