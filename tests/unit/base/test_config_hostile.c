/* SPDX-License-Identifier: Apache-2.0
 *
 * Hostile config files: seeded mutations of a good one and the corners of every bound. Whatever the file says, the parser
 * answers, its error is printable, and what it takes is in range.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/config.h"
#include "base/text.h"

static const char good[] = "# tyerd\nlisten = ipc:///run/tyer/tyer.sock\nl1-size = 1.5GiB\nl1-ahead = 256MiB\n"
			   "device = cuda:0\ndevice = host:delay-us=5\nworkers = 4\nmax-timeout-us = 60s\n"
			   "http = 127.0.0.1:0\nlog-format = json\nlog-level = debug\n";

static uint64_t seed = 20260131;
static int memory;
static char path[64];
static unsigned taken, turned_down;

static uint32_t draw(uint32_t below)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)(seed >> 16) % below;
}

static enum ty_code feed(const void *text, size_t length, struct ty_config *config, struct ty_error *err)
{
	const char *argv[] = { "tyerd", "--config", path, NULL };
	bool help, version;

	assert_int_equal(ftruncate(memory, 0), 0);
	assert_int_equal(pwrite(memory, text, length, 0), (ssize_t)length);
	memset(err, 'x', sizeof *err);
	return ty_config_parse(config, 3, (char **)(uintptr_t)argv, &help, &version, err);
}

static void check(const void *text, size_t length)
{
	struct ty_config c;
	struct ty_error err;
	enum ty_code code = feed(text, length, &c, &err);

	if (code) {
		size_t end = strnlen(err.text, sizeof err.text);

		turned_down++;
		assert_int_equal(code, TY_INVALID);
		assert_true(end > 0 && end < sizeof err.text);
		for (size_t at = 0; at < end;) {
			uint32_t point;

			at += ty_utf8_next(err.text + at, end - at, &point);
			assert_true(point >= 0x20 && (point < 0x7f || point > 0x9f));
		}
		return;
	}
	taken++;
	assert_true(memchr(c.listen, 0, sizeof c.listen) && memchr(c.attach, 0, sizeof c.attach));
	assert_true(c.l1_size >= 64u << 20 && c.l1_size <= 8ull << 40 && c.l1_size % (64u << 20) == 0);
	assert_true(c.l1_ahead <= c.l1_size);
	assert_true(c.device_count >= 1 && c.device_count <= TY_CONFIG_DEVICES);
	assert_true(c.workers <= 64);
	assert_true(c.max_timeout_us >= c.default_timeout_us);
	assert_true(c.log_level >= 0 && c.log_level <= 3);
}

static void mutations(void **state)
{
	static const char *const words[] = { "=", "\n", "#", "\0", "\xff", "999999999999999999999", ".", "-", "TiB", "device",
		"\x1b[2J", " ", "\r", "l1-size = ", "\xe2\x80\xae", "host:", "cuda:" };

	(void)state;
	for (int round = 0; round < 6000; round++) {
		char text[1024];
		size_t length = sizeof good - 1;

		memcpy(text, good, length);
		for (uint32_t edits = 1 + draw(6); edits; edits--) {
			size_t at = draw((uint32_t)length), count;
			const char *word = words[draw(sizeof words / sizeof words[0])];

			switch (draw(4)) {
			case 0: /* a bit */
				text[at] = (char)(text[at] ^ 1 << draw(8));
				break;
			case 1: /* a piece less */
				count = 1 + draw((uint32_t)(length - at));
				if (length - count < 8)
					break;
				memmove(text + at, text + at + count, length - at - count);
				length -= count;
				break;
			case 2: /* a piece twice */
				count = 1 + draw(40);
				if (at + count > length || length + count > sizeof text)
					break;
				memmove(text + at + count, text + at, length - at);
				length += count;
				break;
			default: /* a word more */
				count = *word ? strlen(word) : 1;
				if (length + count > sizeof text)
					break;
				memmove(text + at + count, text + at, length - at);
				memcpy(text + at, word, count);
				length += count;
			}
		}
		check(text, length);
	}
	/* a mutator that only makes rubbish, or none, would test nothing */
	assert_true(taken > 100);
	assert_true(turned_down > 1000);
}

static void bounds(void **state)
{
	size_t room = (256u << 10) + 2;
	char *text = malloc(room);
	struct ty_config c;
	struct ty_error err;

	(void)state;
	assert_non_null(text);
	assert_int_equal(feed("", 0, &c, &err), TY_OK);
	assert_int_equal(feed(good, sizeof good - 1, &c, &err), TY_OK);
	assert_int_equal(feed("\0", 1, &c, &err), TY_INVALID);
	assert_non_null(strstr(err.text, "zero byte"));
	/* a line of 1024 bytes is one, of 1025 is none */
	memset(text, '#', room);
	assert_int_equal(feed(text, 1024, &c, &err), TY_OK);
	assert_int_equal(feed(text, 1025, &c, &err), TY_INVALID);
	assert_non_null(strstr(err.text, "found a line of 1025 bytes, expected at most 1024"));
	/* a file of 256 KiB is one, of a byte more is none */
	memset(text, '\n', room);
	assert_int_equal(feed(text, 256u << 10, &c, &err), TY_OK);
	memcpy(text + (256u << 10) - 9, "workers=x", 9);
	assert_int_equal(feed(text, 256u << 10, &c, &err), TY_INVALID);
	assert_non_null(strstr(err.text, ":262136: workers"));
	assert_int_equal(feed(text, (256u << 10) + 1, &c, &err), TY_INVALID);
	assert_non_null(strstr(err.text, "larger than 262144 bytes"));
	free(text);
}

static int set_up(void **state)
{
	(void)state;
	memory = memfd_create("tyer-config", MFD_CLOEXEC);
	snprintf(path, sizeof path, "/proc/self/fd/%d", memory);
	return memory < 0 ? -1 : 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(mutations),
		cmocka_unit_test(bounds),
	};

	return cmocka_run_group_tests(tests, set_up, NULL);
}
