/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "trip.h"

#define SLOT_BYTES ((size_t)64 << 20)

static struct test_pool tp;
static uint8_t *slots;

static int sealed(uint64_t bytes, int seals)
{
	int fd = memfd_create("pool", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
	return fd;
}

static struct ty_device *open_host(const char *fault)
{
	const struct ty_device_options options = {.name = "host", .fault = fault};
	struct ty_device *dev;
	struct ty_error err;

	assert_int_equal(ty_device_open(&options, &dev, &err), TY_OK);
	return dev;
}

/* A pool in sealed memfds, its layout, mapped. */
static void set_up(struct test_trip *t, unsigned index, const char *fault)
{
	struct ty_layout *layout;
	struct ty_error err = {0};

	memset(t, 0, sizeof *t);
	test_pool_build(index, &tp);
	test_pool_steps(&tp);
	for (uint32_t i = 0; i < tp.pool.region_count; i++) {
		struct ty_region *r = &tp.regions[i];

		r->fd = sealed(r->allocation_bytes, F_SEAL_SHRINK);
		t->view[i] = mmap(NULL, r->allocation_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, 0);
		assert_true(t->view[i] != MAP_FAILED);
		t->view[i] += r->offset;
	}
	assert_int_equal(ty_layout_create(&tp.pool, tp.chunk_tokens, 64 << 20, &layout, &err), TY_OK);
	t->dev = open_host(fault);
	if (ty_device_map(t->dev, layout, tp.regions, &t->mapping, &err) != TY_OK)
		fail_msg("%s", err.text);
	t->pool = &tp;
	t->layout = layout;
	t->slots = slots;
	t->slot_bytes = SLOT_BYTES;
	t->random = index + 1;
	for (uint32_t i = 0; i < tp.pool.region_count; i++)
		close(tp.regions[i].fd); /* the mapping needs it no more */
}

static void tear_down(struct test_trip *t)
{
	ty_device_unmap(t->dev, t->mapping);
	ty_device_close(t->dev);
	for (uint32_t i = 0; i < tp.pool.region_count; i++)
		munmap(t->view[i] - tp.regions[i].offset, tp.regions[i].allocation_bytes);
	free((void *)(uintptr_t)t->layout);
}

static void round_trips(void **state)
{
	(void)state;
	for (unsigned i = 0; i < test_pool_count; i++) {
		struct test_trip t;

		set_up(&t, i, NULL);
		test_round_trip(&t);
		tear_down(&t);
	}
}

static void names(void **state)
{
	static const char *const bad[] = {"", "hos", "host:", "Host", "cuda", "cuda:", "cuda:-1", "cuda:+1", "cuda:01", "cuda:1 ",
		"cuda: 1", "cuda:256", "cuda:99999999999999999999", "rocm:0"};
	struct ty_device *dev;
	struct ty_error err;

	(void)state;
	for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		const struct ty_device_options options = {.name = bad[i]};

		assert_int_equal(ty_device_open(&options, &dev, &err), TY_INVALID);
		assert_null(dev);
	}
	dev = open_host(NULL);
	assert_string_equal(ty_device_info(dev)->name, "host");
	assert_string_equal(ty_device_info(dev)->model, "host memory");
	for (int i = 0; i < TY_UUID_BYTES; i++)
		assert_int_equal(ty_device_info(dev)->uuid[i], 0);
	assert_string_equal(ty_device_note(dev), "");
	assert_int_equal(ty_device_health(dev, &err), TY_OK);
	assert_int_equal(ty_device_register_host(dev, slots, 4096, &err), TY_OK);
	ty_device_unregister_host(dev, slots);
	assert_int_equal(ty_device_register_host(dev, NULL, 4096, &err), TY_INVALID);
	assert_int_equal(ty_device_register_host(dev, slots, 0, &err), TY_INVALID);
	assert_int_equal(ty_device_register_host(dev, slots, SIZE_MAX, &err), TY_INVALID);
	ty_device_close(dev);
}

static void fault_options(void **state)
{
	static const char *const bad[] = {"delay", "delay-us", "delay-us=", "delay-us=x", "delay-us=1x", "delay-us=-1",
		"delay-us=600000001", "fail-every=0", "fail-every=99999999999999999999", "hang-after=1,", ",", "hang-after=1,,",
		"hang-after=1,hang-after=2", "delay-us=1;fail-every=2", "slow=1", "hold-fd=-1", "hold-fd=999999"};
	struct ty_device *dev;
	struct ty_error err;

	(void)state;
	for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		const struct ty_device_options options = {.name = "host", .fault = bad[i]};

		assert_int_equal(ty_device_open(&options, &dev, &err), TY_INVALID);
		assert_non_null(strstr(err.text, "fault"));
	}
	ty_device_close(open_host(""));
	ty_device_close(open_host("delay-us=0,fail-every=2,hang-after=0"));
}

/* What comes from outside as a descriptor. */
static void bad_memory(void **state)
{
	struct ty_device *dev = open_host(NULL);
	struct ty_mapping *mapping;
	struct ty_layout *layout;
	struct ty_error err;
	int plain, huge, fds[2];
	char path[] = "/tmp/tyer-test-XXXXXX";

	(void)state;
	test_pool_build(5, &tp);
	assert_int_equal(ty_layout_create(&tp.pool, tp.chunk_tokens, 64 << 20, &layout, &err), TY_OK);

#define REFUSED(descriptor, code, words)                                                                               \
	do {                                                                                                           \
		tp.regions[0].fd = (descriptor);                                                                       \
		assert_int_equal(ty_device_map(dev, layout, tp.regions, &mapping, &err), code);                        \
		assert_non_null(strstr(err.text, words));                                                              \
		assert_null(mapping);                                                                                  \
		close(tp.regions[0].fd);                                                                               \
	} while (0)
	REFUSED(-1, TY_INVALID, "no seals");
	assert_int_equal(pipe(fds), 0);
	close(fds[1]);
	REFUSED(fds[0], TY_INVALID, "no seals");
	plain = mkstemp(path);
	unlink(path);
	assert_true(plain >= 0);
	REFUSED(plain, TY_INVALID, "seal");
	REFUSED(sealed(tp.regions[0].allocation_bytes, 0), TY_INVALID, "F_SEAL_SHRINK");
	REFUSED(sealed(tp.regions[0].allocation_bytes - 1, F_SEAL_SHRINK), TY_INVALID, "allocation_bytes");
	REFUSED(sealed(tp.regions[0].allocation_bytes, F_SEAL_SHRINK | F_SEAL_WRITE), TY_INVALID, "mmap");
	huge = memfd_create("pool", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB);
	if (huge >= 0) { /* not every kernel has them */
		assert_int_equal(ftruncate(huge, 64 << 20), 0);
		assert_int_equal(fcntl(huge, F_ADD_SEALS, F_SEAL_SHRINK), 0);
		REFUSED(huge, TY_UNSUPPORTED, "huge pages");
	}
	tp.regions[0].length -= 16; /* not the one that the layout was checked with */
	REFUSED(sealed(tp.regions[0].allocation_bytes, F_SEAL_SHRINK), TY_INVALID, "layout");
	tp.regions[0].length += 16;
	tp.regions[0].offset += 4096;
	REFUSED(sealed(tp.regions[0].allocation_bytes, F_SEAL_SHRINK), TY_INVALID, "offset");
	tp.regions[0].offset -= 4096;
	tp.regions[0].is_fd = false;
	REFUSED(sealed(tp.regions[0].allocation_bytes, F_SEAL_SHRINK), TY_INVALID, "GPU memory");
#undef REFUSED
	free(layout);
	ty_device_close(dev);
}

static void submit_n(struct test_trip *t, struct ty_batch *batches, struct ty_copy *copies, uint32_t *ids, unsigned n,
	enum ty_code want)
{
	for (unsigned i = 0; i < n; i++) {
		for (uint32_t b = 0; b < t->layout->blocks_per_chunk; b++)
			ids[b] = b;
		copies[i] = (struct ty_copy){slots + i * t->layout->chunk_bytes, ids};
		batches[i] = (struct ty_batch){.mapping = t->mapping, .direction = TY_TO_HOST, .copies = &copies[i], .count = 1};
		assert_int_equal(ty_device_submit(t->dev, &batches[i]), want);
	}
}

static void faults(void **state)
{
	struct ty_batch batches[7], *done[8];
	struct ty_copy copies[7];
	uint32_t ids[64], n = 0;
	struct ty_error err;
	_Atomic uint64_t *hold;
	struct test_trip t;
	char fault[32];
	int fd;

	(void)state;
	set_up(&t, 0, "fail-every=3");
	submit_n(&t, batches, copies, ids, 7, TY_OK);
	test_drive(t.dev, 7, 100000);
	for (unsigned i = 0; i < 7; i++)
		assert_int_equal(batches[i].code, i % 3 == 2 ? TY_DEVICE_FAILED : TY_OK);
	assert_int_equal(ty_device_health(t.dev, &err), TY_OK); /* a batch failed, the device did not */
	tear_down(&t);

	set_up(&t, 0, "hang-after=5");
	submit_n(&t, batches, copies, ids, 7, TY_OK);
	test_drive(t.dev, 5, 100000);
	for (unsigned i = 0; i < 10000; i++)
		assert_int_equal(ty_device_poll(t.dev, done, 8), 0);
	assert_false(batches[5].client_free || batches[6].client_free);
	tear_down(&t);

	set_up(&t, 0, "delay-us=20000");
	submit_n(&t, batches, copies, ids, 1, TY_OK);
	while (n == 0)
		n = ty_device_poll(t.dev, done, 8);
	assert_ptr_equal(done[0], &batches[0]);
	tear_down(&t);

	/* held: not copied; copied, not done, and the client's blocks are free; done */
	fd = memfd_create("hold", MFD_CLOEXEC);
	assert_int_equal(ftruncate(fd, sizeof *hold), 0);
	hold = mmap(NULL, sizeof *hold, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(hold, MAP_FAILED);
	snprintf(fault, sizeof fault, "hold-fd=%d", fd);
	atomic_store(hold, 2);
	set_up(&t, 0, fault);
	close(fd);
	submit_n(&t, batches, copies, ids, 1, TY_OK);
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(ty_device_poll(t.dev, done, 8), 0);
	assert_false(batches[0].client_free);
	atomic_store(hold, 1);
	while (!batches[0].client_free)
		assert_int_equal(ty_device_poll(t.dev, done, 8), 0);
	assert_int_equal(ty_device_poll(t.dev, done, 8), 0);
	atomic_store(hold, 0);
	assert_int_equal(ty_device_poll(t.dev, done, 8), 1);
	tear_down(&t);
	munmap((void *)(uintptr_t)hold, sizeof *hold);
}

static void queue_is_bounded(void **state)
{
	static struct ty_batch batches[64], more, *done[64];
	static struct ty_copy copies[64];
	uint32_t ids[64], n = 0;
	struct test_trip t;

	(void)state;
	set_up(&t, 0, NULL);
	submit_n(&t, batches, copies, ids, 64, TY_OK);
	more = batches[0];
	assert_int_equal(ty_device_submit(t.dev, &more), TY_BUSY);
	more.direction = TY_TO_DEVICE; /* the other direction has room */
	assert_int_equal(ty_device_submit(t.dev, &more), TY_OK);
	while (n < 65)
		n += ty_device_poll(t.dev, done, 1); /* one at a time */
	assert_int_equal(ty_device_poll(t.dev, done, 64), 0);
	tear_down(&t);
}

/* A poll's work is bounded: a batch of many slices is not done by the first. */
static void poll_is_bounded(void **state)
{
	struct ty_batch batch, *done;
	struct ty_copy copy;
	struct test_trip t;
	uint32_t ids[2] = {0, 1}, polls = 0;

	(void)state;
	set_up(&t, 13, NULL); /* wide blocks: 3.75 MiB a chunk */
	copy = (struct ty_copy){slots, ids};
	batch = (struct ty_batch){.mapping = t.mapping, .direction = TY_TO_HOST, .copies = &copy, .count = 1};
	assert_int_equal(ty_device_submit(t.dev, &batch), TY_OK);
	while (ty_device_poll(t.dev, &done, 1) == 0)
		polls++;
	assert_int_equal(polls, 3);
	tear_down(&t);
}

static int dies_of(void (*what)(struct test_trip *t), struct test_trip *t)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		signal(SIGABRT, SIG_DFL);
		if (!freopen("/dev/null", "w", stderr))
			_exit(3);
		what(t);
		_exit(0);
	}
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void submit_id(struct test_trip *t, uint32_t id, enum ty_direction direction)
{
	struct ty_batch batch = {.mapping = t->mapping, .direction = direction, .count = 1};
	struct ty_copy copy = {slots, NULL};
	uint32_t ids[64] = {0};

	ids[1] = id;
	copy.blocks = ids;
	batch.copies = &copy;
	if (ty_device_submit(t->dev, &batch) != TY_OK)
		_exit(4);
}

static void wild_id(struct test_trip *t)
{
	submit_id(t, 64, TY_TO_DEVICE);
}

static void skip_in_store(struct test_trip *t)
{
	submit_id(t, TY_BLOCK_SKIP, TY_TO_HOST);
}

static void close_too_early(struct test_trip *t)
{
	ty_device_close(t->dev);
}

static void contract_violations_abort(void **state)
{
	struct test_trip t;

	(void)state;
	set_up(&t, 0, NULL);
	assert_int_equal(dies_of(wild_id, &t), SIGABRT);
	assert_int_equal(dies_of(skip_in_store, &t), SIGABRT);
	assert_int_equal(dies_of(close_too_early, &t), SIGABRT);
	tear_down(&t);
}

static int make_slots(void **state)
{
	(void)state;
	slots = mmap(NULL, SLOT_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return slots == MAP_FAILED;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trips),
		cmocka_unit_test(names),
		cmocka_unit_test(fault_options),
		cmocka_unit_test(bad_memory),
		cmocka_unit_test(faults),
		cmocka_unit_test(queue_is_bounded),
		cmocka_unit_test(poll_is_bounded),
		cmocka_unit_test(contract_violations_abort),
	};

	return cmocka_run_group_tests_name("host device", tests, make_slots, NULL);
}
