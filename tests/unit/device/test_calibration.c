/* SPDX-License-Identifier: Apache-2.0
 *
 * What was measured on a GPU, as a file; and the measuring, over the stand-in driver.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "device/calibration.h"
#include "device/cuda_api.h"
#include "engine.h"

#define PATIENCE_US 600000000u /* however slow the machine */

static const unsigned char image[64] = {0x50, 0xed, 0x55, 0xba};
static struct standin driver;
static char directory[64];

static struct ty_calibration sample(void)
{
	struct ty_calibration c = {.model = "A GPU", .uuid = {1, 2, 0xfe}, .driver = 13000};

	ty_calibration_default(&c);
	c.launch_ns = 7000;
	c.rates.alone[TY_PATH_STRIDED][TY_TO_DEVICE][3] = 12345;
	ty_calibration_scale(&c);
	return c;
}

static void there_and_back(void **state)
{
	struct ty_calibration c = sample(), again = {.uuid = {1, 2, 0xfe}, .driver = 13000}, other = again;
	struct ty_error err = {0};
	char path[256];
	bool there;

	(void)state;
	ty_calibration_name(path, sizeof path, directory, c.uuid, c.driver);
	assert_int_equal(ty_calibration_read(path, &again, &there, &err), TY_OK);
	assert_false(there);
	assert_int_equal(ty_calibration_write(directory, &c, &err), TY_OK);
	assert_int_equal(ty_calibration_read(path, &again, &there, &err), TY_OK);
	assert_true(there);
	assert_int_equal(again.launch_ns, 7000);
	assert_memory_equal(&again.rates.alone[1], &c.rates.alone[1], sizeof c.rates.alone - sizeof c.rates.alone[0]);
	assert_memory_equal(&again.rates.beside[1], &c.rates.beside[1], sizeof c.rates.beside - sizeof c.rates.beside[0]);
	/* of another driver, or another GPU */
	other.driver = 13010;
	assert_int_equal(ty_calibration_read(path, &other, &there, &err), TY_INVALID);
	assert_false(there);
	other.driver = 13000;
	other.uuid[0] = 9;
	assert_int_equal(ty_calibration_read(path, &other, &there, &err), TY_INVALID);
	assert_int_equal(unlink(path), 0);
	/* what is no file, or none that anybody wrote here */
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(ty_calibration_read(path, &again, &there, &err), TY_INVALID);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(ty_calibration_write(directory, &c, &err), TY_OK);
	assert_int_equal(truncate(path, 1 << 20), 0);
	assert_int_equal(ty_calibration_read(path, &again, &there, &err), TY_INVALID);
	assert_non_null(strstr(err.text, "no ordinary file"));
	assert_int_equal(unlink(path), 0);
	/* however slow it was, and however fast: what is written can be read */
	for (unsigned i = 0; i < 2; i++) {
		for (unsigned p = 1; p < TY_PATHS; p++)
			for (unsigned d = 0; d < 2; d++)
				for (unsigned r = 0; r < TY_PLAN_RUNS; r++)
					c.rates.alone[p][d][r] = i ? 10000000 : 1;
		ty_calibration_scale(&c);
		assert_int_equal(ty_calibration_write(directory, &c, &err), TY_OK);
		assert_int_equal(ty_calibration_read(path, &again, &there, &err), TY_OK);
		assert_int_equal(unlink(path), 0);
	}
	/* a directory that cannot be made */
	assert_int_equal(ty_calibration_write("/proc/none/there", &c, &err), TY_IO);
}

/* Beside an engine this GPU is as much faster as it is alone. */
static void scaled(void **state)
{
	struct ty_calibration c;
	uint32_t was = ty_plan_defaults.beside[TY_PATH_BATCH][0][2];

	(void)state;
	ty_calibration_default(&c);
	for (unsigned i = 0; i < TY_PLAN_RUNS; i++)
		c.rates.alone[TY_PATH_BATCH][0][i] *= 2;
	ty_calibration_scale(&c);
	assert_int_equal(c.rates.beside[TY_PATH_BATCH][0][2], 2 * was);
	assert_int_equal(c.rates.beside[TY_PATH_STAGED][0][2], ty_plan_defaults.beside[TY_PATH_STAGED][0][2]);
}

static void smoothed(void **state)
{
	static const struct {
		uint32_t measured[TY_PLAN_RUNS], want[TY_PLAN_RUNS];
	} cases[] = {
		/* dips: in the middle, at the end; a difference that is none; a burst upwards */
		{{10, 200, 400, 300, 500, 500, 500, 500, 500, 450}, {10, 200, 400, 400, 500, 500, 500, 500, 500, 500}},
		{{1000, 990, 1000, 1000, 1200, 1000, 1000, 1000, 1000, 1000}, {1000, 990, 1000, 1000, 1200, 1000, 1000, 1000, 1000, 1000}},
		/* none at some lengths, none at all */
		{{100, 0, 0, 300, 300, 300, 300, 300, 300, 0}, {100, 100, 100, 300, 300, 300, 300, 300, 300, 300}},
		{{0}, {7, 7, 7, 7, 7, 7, 7, 7, 7, 7}},
	};
	const uint32_t compiled[TY_PLAN_RUNS] = {7, 8, 9};

	(void)state;
	for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		uint32_t rates[TY_PLAN_RUNS];

		memcpy(rates, cases[i].measured, sizeof rates);
		ty_calibration_smooth(rates, compiled);
		assert_memory_equal(rates, cases[i].want, sizeof rates);
	}
}

static void print_to(char *text, size_t room, const struct ty_calibration *c)
{
	FILE *out = fmemopen(text, room, "w");

	assert_non_null(out);
	ty_calibration_print(out, c);
	fclose(out);
}

static enum ty_code parse(char *text, struct ty_error *err)
{
	struct ty_calibration c = {.uuid = {1, 2, 0xfe}, .driver = 13000};
	FILE *in = fmemopen(text, strlen(text), "r");
	enum ty_code code = ty_calibration_parse(in, "it", &c, err);

	fclose(in);
	return code;
}

/* Each line left out, doubled, or with something in it that does not belong there. */
static void refusals(void **state)
{
	static const struct {
		const char *find, *put;
	} changes[] = {{"tyer-calibration 1", "tyer-calibration 2"}, {"driver 13000", "driver -13000"}, {"driver 13000", "driver 13000 1"},
		{"launch-ns 7000", "launch-ns 0"}, {"launch-ns 7000", "launch-ns 99999999999"}, {"uuid 01", "uuid 0"}, {"uuid 01", "uuid +1"},
		{"beside-measured 0", "beside-measured 2"}, {"alone batch store ", "alone batch store 0 "}, {"alone batch store ", "alone bunch store "},
		{" 12345", " 12345x"}, {" 12345", ""}, {" 12345", " 1 2"}, {"12345", "10000001"}, {"beside strided", "between strided"}};
	const struct ty_calibration c = sample();
	struct ty_error err = {0};
	static char text[8192], changed[16384];
	char *at;

	(void)state;
	print_to(text, sizeof text, &c);
	assert_int_equal(parse(text, &err), TY_OK);
	for (unsigned i = 0; i < sizeof changes / sizeof changes[0]; i++) {
		at = strstr(text, changes[i].find);
		assert_non_null(at);
		sprintf(changed, "%.*s%s%s", (int)(at - text), text, changes[i].put, at + strlen(changes[i].find));
		if (parse(changed, &err) != TY_INVALID)
			fail_msg("\"%s\" for \"%s\" was taken", changes[i].put, changes[i].find);
	}
	for (char *line = text; *line; line = strchr(line, '\n') + 1) {
		int length = (int)(strchr(line, '\n') + 1 - line);

		if (*line == '#')
			continue;
		sprintf(changed, "%.*s%s", (int)(line - text), text, line + length);
		assert_int_equal(parse(changed, &err), TY_INVALID);
		sprintf(changed, "%.*s%.*s%s", (int)(line - text), text, length, line, line);
		assert_int_equal(parse(changed, &err), TY_INVALID);
		sprintf(changed, "%.*s", (int)(line - text) + length - 1, text); /* cut off */
		assert_int_equal(parse(changed, &err), TY_INVALID);
	}
}

static unsigned files(void)
{
	DIR *d = opendir(directory);
	unsigned count = 0;

	assert_non_null(d);
	for (struct dirent *e; (e = readdir(d));)
		count += e->d_name[0] != '.';
	closedir(d);
	return count;
}

/* A device that is measured when it is opened. */
static struct ty_device_options measuring(uint64_t calibrate_us)
{
	return (struct ty_device_options){.name = "cuda:0", .driver = driver.path, .kernels = image, .kernels_bytes = sizeof image,
		.calibration = directory, .calibrate_us = calibrate_us};
}

/* Measured at the first open and kept; found at the second; a broken one is measured again. */
static void at_open(void **state)
{
	const struct ty_device_options o = measuring(PATIENCE_US);
	struct ty_device *dev;
	struct ty_error err = {0};
	uint64_t launches = driver.count("cuLaunchKernel"), first;
	uint8_t uuid[TY_UUID_BYTES];
	char path[256];

	(void)state;
	driver.set("ops=64");
	assert_int_equal(ty_device_open(&o, &dev, &err), TY_OK);
	memcpy(uuid, ty_device_info(dev)->uuid, sizeof uuid);
	assert_string_equal(ty_device_note(dev), "");
	assert_int_equal(files(), 1);
	assert_int_equal(atomic_load(&ty_device_stats(dev)->longest_call_ns), 0); /* none of it was steady state */
	ty_device_close(dev);
	assert_int_equal(driver.live(), 0);
	first = driver.count("cuLaunchKernel") - launches;
	assert_true(first > 20);
	assert_int_equal(ty_device_open(&o, &dev, &err), TY_OK);
	assert_string_equal(ty_device_note(dev), "");
	ty_device_close(dev);
	assert_int_equal(driver.count("cuLaunchKernel") - launches - first, 4); /* the warm-up's */
	ty_calibration_name(path, sizeof path, directory, uuid, 13000);
	assert_int_equal(truncate(path, 100), 0);
	assert_int_equal(ty_device_open(&o, &dev, &err), TY_OK);
	assert_non_null(strstr(ty_device_note(dev), path));
	ty_device_close(dev);
	assert_true(driver.count("cuLaunchKernel") - launches - first > 20);
	assert_int_equal(driver.threads_seen(NULL), 1);
	assert_int_equal(unlink(path), 0);
}

/* One that is quiet has nothing to stage in, and measures that way all the same: what is kept is read by others, too. */
static void quiet(void **state)
{
	struct ty_device_options o = measuring(PATIENCE_US);
	struct ty_calibration c;
	struct ty_device *dev;
	struct ty_error err = {0};
	bool there;
	char path[256];

	(void)state;
	o.sharing = TY_SHARING_QUIET;
	driver.set("ops=64");
	assert_int_equal(ty_device_open(&o, &dev, &err), TY_OK);
	assert_string_equal(ty_device_note(dev), "");
	assert_int_equal(atomic_load(&ty_device_stats(dev)->device_bytes), 0);
	assert_true(atomic_load(&ty_device_stats(dev)->units[TY_PATH_STAGED]) > 0);
	ty_calibration_default(&c);
	memcpy(c.uuid, ty_device_info(dev)->uuid, sizeof c.uuid);
	c.driver = 13000;
	ty_device_close(dev);
	assert_int_equal(driver.live(), 0);
	ty_calibration_name(path, sizeof path, directory, c.uuid, c.driver);
	assert_int_equal(ty_calibration_read(path, &c, &there, &err), TY_OK);
	assert_true(there);
	assert_int_equal(unlink(path), 0);

	driver.set("memory=4000000"); /* not even for a little: the device opens */
	assert_int_equal(ty_device_open(&o, &dev, &err), TY_OK);
	assert_non_null(strstr(ty_device_note(dev), "compiled rates: staging"));
	ty_device_close(dev);
	assert_int_equal(driver.live(), 0);
	assert_int_equal(files(), 0);
	driver.set("memory=4294967296");
}

/* A driver without calls of many copies: what is kept says something of that way all the same, else it could not be read. */
static void a_way_missing(void **state)
{
	const struct ty_device_options o = measuring(PATIENCE_US);
	struct ty_calibration c;
	struct ty_device *dev;
	struct ty_error err = {0};
	bool there;
	char path[256];

	(void)state;
	driver.set("ops=64,version=12060");
	ty_calibration_default(&c);
	assert_int_equal(ty_device_open(&o, &dev, &err), TY_OK);
	assert_string_equal(ty_device_note(dev), "");
	memcpy(c.uuid, ty_device_info(dev)->uuid, sizeof c.uuid);
	c.driver = 12060;
	ty_device_close(dev);
	driver.set("version=13000");
	ty_calibration_name(path, sizeof path, directory, c.uuid, c.driver);
	if (ty_calibration_read(path, &c, &there, &err) != TY_OK)
		fail_msg("%s", err.text);
	assert_true(there);
	for (unsigned i = 0; i < TY_PLAN_RUNS; i++)
		assert_int_equal(c.rates.alone[TY_PATH_BATCH][TY_TO_HOST][i], ty_plan_defaults.alone[TY_PATH_BATCH][TY_TO_HOST][0]);
	assert_int_equal(unlink(path), 0);
}

/* Not done in time: the compiled rates. */
static void too_slow(void **state)
{
	const struct ty_device_options o = measuring(1);
	struct ty_device *dev;
	struct ty_error err = {0};

	(void)state;
	assert_int_equal(ty_device_open(&o, &dev, &err), TY_OK);
	assert_non_null(strstr(ty_device_note(dev), "compiled rates: calibration: not done in time"));
	ty_device_close(dev);
	assert_int_equal(driver.live(), 0);
	assert_int_equal(files(), 0);
}

/* Memory that cannot be had, at every step: the compiled rates, and nothing is left behind. */
static void without_memory(void **state)
{
	const struct ty_device_options o = measuring(PATIENCE_US);
	struct ty_device *dev;
	struct ty_error err = {0};

	(void)state;
	driver.inject("cuMemAlloc", 3, CU_OUT_OF_MEMORY); /* the first is staging, then comes the pool, then a table */
	assert_int_equal(ty_device_open(&o, &dev, &err), TY_OK);
	assert_non_null(strstr(ty_device_note(dev), "compiled rates"));
	ty_device_close(dev);
	assert_int_equal(driver.live(), 0);
	assert_int_equal(files(), 0);
	driver.set("memory=209715200"); /* 200 MiB: of these 160 are staging, and the least pool is 64 */
	assert_int_equal(ty_device_open(&o, &dev, &err), TY_OK);
	assert_non_null(strstr(ty_device_note(dev), "compiled rates"));
	ty_device_close(dev);
	assert_int_equal(driver.live(), 0);
	assert_int_equal(files(), 0);
	driver.set("memory=4294967296");
	driver.inject("cuMemHostAlloc", 2, CU_OUT_OF_MEMORY);
	assert_int_equal(ty_device_open(&o, &dev, &err), TY_OK);
	assert_non_null(strstr(ty_device_note(dev), "compiled rates"));
	ty_device_close(dev);
	assert_int_equal(driver.live(), 0);
}

/* An engine has left little: in a smaller pool. */
static void with_little_memory(void **state)
{
	const struct ty_device_options o = measuring(PATIENCE_US);
	uint64_t before = driver.count("cuMemAlloc");
	struct ty_device *dev;
	struct ty_error err = {0};
	char path[256];

	(void)state;
	driver.set("memory=251658240"); /* 240 MiB */
	assert_int_equal(ty_device_open(&o, &dev, &err), TY_OK);
	assert_string_equal(ty_device_note(dev), "");
	assert_true(driver.count("cuMemAlloc") >= before + 5); /* staging, and pools of 512, 256, 128, 64 MiB */
	ty_calibration_name(path, sizeof path, directory, ty_device_info(dev)->uuid, 13000);
	ty_device_close(dev);
	assert_int_equal(driver.live(), 0);
	assert_int_equal(unlink(path), 0);
	driver.set("memory=4294967296");
}

/* An error that stays is one of the device. In a process of its own: nothing of a device in that state can be given back; and
 * before any test that calls the driver in this one: a child of a process that did cannot. */
static void poisoned(void **state)
{
	const struct ty_device_options o = measuring(PATIENCE_US);
	pid_t pid = fork();
	int status;

	(void)state;
	assert_true(pid >= 0);
	if (pid == 0) {
		struct ty_device *dev;
		struct ty_error err = {0};

		driver.inject("cuMemcpyDtoHAsync", 1, CU_ILLEGAL_ADDRESS);
		_exit(ty_device_open(&o, &dev, &err) != TY_DEVICE_FAILED || !strstr(err.text, "cuMemcpyDtoHAsync"));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

/* Nor does one whose copies are never done keep its owner, or hand anything back to a driver that would wait. */
static void hung(void **state)
{
	const struct ty_device_options o = {.name = "cuda:0", .driver = driver.path, .kernels = image, .kernels_bytes = sizeof image,
		.calibration = directory, .calibrate_us = 1000, .patience_us = 1000};
	pid_t pid = fork();
	int status;

	(void)state;
	assert_true(pid >= 0);
	if (pid == 0) {
		struct ty_device *dev;
		struct ty_error err = {0};

		alarm(60);
		driver.inject("cuMemcpyDtoHAsync", 1, STANDIN_HANG);
		if (ty_device_open(&o, &dev, &err) != TY_DEVICE_FAILED || !strstr(err.text, "calibration"))
			_exit(1);
		_exit(driver.live() == 0); /* it is left as it is */
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(files(), 0);
}

static int prepare(void **state)
{
	(void)state;
	strcpy(directory, "/tmp/tyer-calibration.XXXXXX");
	standin_open(&driver);
	return mkdtemp(directory) == NULL;
}

static int finish(void **state)
{
	(void)state;
	return rmdir(directory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(there_and_back),
		cmocka_unit_test(scaled),
		cmocka_unit_test(smoothed),
		cmocka_unit_test(refusals),
		cmocka_unit_test(poisoned),
		cmocka_unit_test(hung),
		cmocka_unit_test(at_open),
		cmocka_unit_test(quiet),
		cmocka_unit_test(a_way_missing),
		cmocka_unit_test(too_slow),
		cmocka_unit_test(without_memory),
		cmocka_unit_test(with_little_memory),
	};

	return cmocka_run_group_tests(tests, prepare, finish);
}
