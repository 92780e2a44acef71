/* SPDX-License-Identifier: Apache-2.0
 *
 * Attach frames: there and back, every truncation, every wrong byte of a header, descriptors that should not be there.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "wire/attach.h"

static struct ty_attach_frame samples[4];

static int make_samples(void **state)
{
	(void)state;
	samples[0] = (struct ty_attach_frame){.type = TY_ATTACH_WELCOME, .welcome = {.boot = 0x0102030405060708u}};
	memset(samples[0].welcome.token, 0xa5, TY_ATTACH_TOKEN_BYTES);
	samples[1] = (struct ty_attach_frame){.type = TY_ATTACH_REFUSED, .refused = {.code = TY_LIMIT}};
	memset(samples[1].refused.text, 'x', TY_ATTACH_TEXT_MAX);
	samples[2] = (struct ty_attach_frame){.type = TY_ATTACH_DESCRIPTOR, .descriptor.number = 63};
	samples[3] = (struct ty_attach_frame){
		.type = TY_ATTACH_DESCRIPTOR_OK, .descriptor_ok = {.number = 63, .code = TY_INTERNAL}};
	return 0;
}

static void assert_same(const struct ty_attach_frame *a, const struct ty_attach_frame *b)
{
	uint8_t one[TY_ATTACH_FRAME_MAX], two[TY_ATTACH_FRAME_MAX];

	assert_int_equal(a->type, b->type);
	assert_int_equal(ty_attach_encode(a, one), ty_attach_encode(b, two));
	assert_memory_equal(one, two, TY_ATTACH_FRAME_MAX);
}

static void test_there_and_back(void **state)
{
	static const size_t lengths[4] = {40, 12 + 8 + TY_ATTACH_TEXT_MAX, 16, 20};
	uint8_t bytes[TY_ATTACH_FRAME_MAX];
	struct ty_attach_frame frame;

	(void)state;
	for (int i = 0; i < 4; i++) {
		size_t length = ty_attach_encode(&samples[i], bytes);

		assert_int_equal(length, lengths[i]);
		assert_int_equal(ty_attach_decode(bytes, length, &frame, NULL), TY_OK);
		assert_same(&frame, &samples[i]);
	}
	/* the bytes themselves: this is the protocol */
	ty_attach_encode(&samples[2], bytes);
	assert_memory_equal(bytes, "TTYA\x01\x00\x03\x00\x10\x00\x00\x00\x3f\x00\x00\x00", 16);
}

/* Cut short, made longer, any byte of the header or a length or code changed: refused, and never read past its end (the bytes
 * lie at the end of an allocation, for the sanitizers). */
static void test_wrong_bytes(void **state)
{
	uint8_t bytes[TY_ATTACH_FRAME_MAX];
	struct ty_attach_frame frame;
	struct ty_error err;

	(void)state;
	for (int i = 0; i < 4; i++) {
		size_t length = ty_attach_encode(&samples[i], bytes), n;

		for (n = 0; n < length; n++) {
			uint8_t *cut = malloc(n != 0 ? n : 1);

			memcpy(cut, bytes, n);
			assert_int_equal(ty_attach_decode(cut, n, &frame, &err), TY_PROTOCOL);
			free(cut);
		}
		if (length < TY_ATTACH_FRAME_MAX)
			assert_int_equal(ty_attach_decode(bytes, length + 1, &frame, &err), TY_PROTOCOL);
		for (n = 0; n < TY_ATTACH_HEADER_BYTES; n++) {
			for (int bit = 0; bit < 8; bit++) {
				enum ty_code code;

				bytes[n] ^= (uint8_t)(1u << bit);
				code = ty_attach_decode(bytes, length, &frame, &err);
				assert_int_equal(code, n == 4 || n == 5 ? TY_UNSUPPORTED : TY_PROTOCOL);
				assert_int_equal(err.code, code);
				bytes[n] ^= (uint8_t)(1u << bit);
			}
		}
	}
	assert_int_equal(ty_attach_decode(bytes, 0, &frame, &err), TY_PROTOCOL);
	assert_int_equal(ty_attach_decode(bytes, SIZE_MAX, &frame, &err), TY_PROTOCOL);
}

static void expect(const uint8_t *bytes, size_t length, const char *words)
{
	struct ty_attach_frame frame;
	struct ty_error err;

	assert_int_equal(ty_attach_decode(bytes, length, &frame, &err), TY_PROTOCOL);
	if (strstr(err.text, words) == NULL)
		fail_msg("\"%s\" does not say \"%s\"", err.text, words);
}

static void test_wrong_bodies(void **state)
{
	uint8_t bytes[TY_ATTACH_FRAME_MAX];
	size_t length;

	(void)state;
	length = ty_attach_encode(&samples[0], bytes);
	bytes[12] = 1;
	expect(bytes, length, "reserved");
	length = ty_attach_encode(&samples[1], bytes);
	bytes[12] = TY_OK;
	expect(bytes, length, "code is 0");
	bytes[12] = TY_CODE_COUNT;
	expect(bytes, length, "code is 23");
	bytes[12] = TY_LIMIT;
	bytes[16]--;
	expect(bytes, length, "text is 223 bytes");
	bytes[16]++;
	bytes[19] = 0x80;
	expect(bytes, length, "text is");
	bytes[19] = 0;
	bytes[30] = 0;
	expect(bytes, length, "zero byte");
	length = ty_attach_encode(&samples[2], bytes);
	bytes[13] = 4;
	expect(bytes, length, "number is 1");
	length = ty_attach_encode(&samples[3], bytes);
	bytes[13] = 0xff;
	expect(bytes, length, "number is 65");
	bytes[13] = 0;
	bytes[12] = 1;
	bytes[18] = 1;
	expect(bytes, length, "code is");
}

/* ---- sockets ----------------------------------------------------------------------------------------------------------- */

static uint32_t open_descriptors(void)
{
	uint32_t n = 0;

	for (int fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) != -1;
	return n;
}

static void send_with(int socket, const void *bytes, size_t length, int fd, unsigned count)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(16 * sizeof(int))];
	} control;
	struct iovec iov = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = length};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	memset(&control, 0, sizeof control);
	if (count > 0) {
		struct cmsghdr *c;

		msg.msg_control = control.bytes;
		msg.msg_controllen = CMSG_SPACE(count * sizeof(int));
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(count * sizeof(int));
		for (unsigned i = 0; i < count; i++)
			memcpy(CMSG_DATA(c) + i * sizeof fd, &fd, sizeof fd);
	}
	assert_int_equal(sendmsg(socket, &msg, 0), length);
}

static void test_sockets(void **state)
{
	struct ty_attach_frame frame;
	struct ty_error err;
	int s[2], fd, page;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, s), 0);
	assert_int_equal(ty_attach_recv(s[1], &frame, &fd, &err), TY_BUSY);
	assert_int_equal(ty_attach_timeline_create(&page, &err), TY_OK);
	for (int i = 0; i < 4; i++) {
		bool carries = ty_attach_carries_fd(samples[i].type);

		assert_int_equal(ty_attach_send(s[0], &samples[i], carries ? page : -1, &err), TY_OK);
		assert_int_equal(ty_attach_recv(s[1], &frame, &fd, &err), TY_OK);
		assert_same(&frame, &samples[i]);
		assert_int_equal(fd >= 0, carries);
		if (carries) {
			assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
			close(fd);
		}
	}
	/* a full socket is BUSY, and no frame is cut */
	while (ty_attach_send(s[0], &samples[1], -1, &err) == TY_OK)
		;
	assert_int_equal(err.code, TY_BUSY);
	while (ty_attach_recv(s[1], &frame, &fd, &err) == TY_OK)
		assert_same(&frame, &samples[1]);
	assert_int_equal(err.code, TY_BUSY);
	close(s[0]);
	assert_int_equal(ty_attach_recv(s[1], &frame, &fd, &err), TY_CLOSED);
	assert_int_equal(ty_attach_send(s[1], &samples[1], -1, &err), TY_CLOSED);
	close(s[1]);
	close(page);
}

/* Whatever is wrong, what came with it is closed. */
static void test_wrong_descriptors(void **state)
{
	static const struct {
		int sample;
		unsigned count;
	} cases[] = {{0, 0}, {0, 2}, {0, 4}, {0, 9}, {1, 1}, {2, 0}, {2, 3}, {3, 1}};
	uint8_t bytes[TY_ATTACH_FRAME_MAX + 64] = {0};
	struct ty_attach_frame frame;
	struct ty_error err;
	uint32_t before;
	int s[2], fd;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, s), 0);
	before = open_descriptors();
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		size_t length = ty_attach_encode(&samples[cases[i].sample], bytes);

		send_with(s[0], bytes, length, s[0], cases[i].count);
		assert_int_equal(ty_attach_recv(s[1], &frame, &fd, &err), TY_PROTOCOL);
		assert_int_equal(fd, -1);
		assert_int_equal(open_descriptors(), before);
	}
	send_with(s[0], bytes, sizeof bytes, s[0], 2); /* longer than any frame */
	assert_int_equal(ty_attach_recv(s[1], &frame, &fd, &err), TY_PROTOCOL);
	send_with(s[0], "junk", 4, s[0], 1);
	assert_int_equal(ty_attach_recv(s[1], &frame, &fd, &err), TY_PROTOCOL);
	send_with(s[0], "", 0, -1, 0);
	assert_int_equal(ty_attach_recv(s[1], &frame, &fd, &err), TY_CLOSED);
	assert_int_equal(open_descriptors(), before);
	close(s[0]);
	close(s[1]);
}

static void test_timeline(void **state)
{
	struct ty_error err;
	void *page;
	int fd;

	(void)state;
	assert_int_equal(ty_attach_timeline_create(&fd, &err), TY_OK);
	assert_int_equal(ty_attach_timeline_map(fd, &page, &err), TY_OK);
	memset(page, 1, TY_ATTACH_TIMELINE_BYTES);
	ty_attach_timeline_unmap(page);
	close(fd);

	fd = memfd_create("short", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_int_equal(ftruncate(fd, 4095), 0);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
	assert_int_equal(ty_attach_timeline_map(fd, &page, &err), TY_PROTOCOL);
	assert_null(page);
	close(fd);
	fd = memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_int_equal(ftruncate(fd, 4096), 0);
	assert_int_equal(ty_attach_timeline_map(fd, &page, &err), TY_PROTOCOL);
	close(fd);
	fd = open("/dev/zero", O_RDWR | O_CLOEXEC);
	assert_int_equal(ty_attach_timeline_map(fd, &page, &err), TY_PROTOCOL);
	close(fd);
	ty_attach_timeline_unmap(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_there_and_back),
		cmocka_unit_test(test_wrong_bytes),
		cmocka_unit_test(test_wrong_bodies),
		cmocka_unit_test(test_sockets),
		cmocka_unit_test(test_wrong_descriptors),
		cmocka_unit_test(test_timeline),
	};

	return cmocka_run_group_tests(tests, make_samples, NULL);
}
