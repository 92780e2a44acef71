/* SPDX-License-Identifier: Apache-2.0
 *
 * tyer calibrate: a process measures the GPU alone, then, with an engine at work in another, a second one measures it again. No
 * process that has called the driver may fork, so this one never calls it.
 */
#include "calibrate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/text.h"
#include "busy/busy.h"
#include "device/calibration.h"
#include "device/device.h"

#define MOST_US 600000000u /* however slow the machine */

struct shared {
	bool done;
	struct ty_calibration result;
	struct ty_error error;
};

/* In a process of its own. */
static _Noreturn void measure(const struct cli_options *o, const char *name, bool beside, struct shared *shared)
{
	const struct ty_device_options options = {.name = name, .driver = o->driver[0] ? o->driver : NULL, .sharing = TY_SHARING_FAST};
	struct ty_device *dev;

	if (ty_device_open(&options, &dev, &shared->error) == TY_OK) {
		shared->done = ty_device_calibrate(dev, beside, MOST_US, &shared->result, &shared->error) == TY_OK;
		ty_device_close(dev);
	}
	_exit(0);
}

static enum ty_code run(const struct cli_options *o, const char *name, bool beside, struct shared *shared, struct ty_error *err)
{
	pid_t child = fork();
	int status = 0;

	if (child < 0)
		return ty_fail(err, TY_IO, "fork: %m");
	shared->done = false;
	if (child == 0)
		measure(o, name, beside, shared);
	if (waitpid(child, &status, 0) != child || status)
		return ty_fail(err, TY_CLOSED, "the measuring process ended with status %#x", (unsigned)status);
	if (!shared->done)
		return ty_fail(err, shared->error.code, "%s", shared->error.text);
	return TY_OK;
}

static enum ty_code measure_both(const struct cli_options *o, struct shared *shared, struct ty_error *err)
{
	const char *driver = o->driver[0] ? o->driver : NULL;
	enum ty_code code;
	char name[16];

	snprintf(name, sizeof name, "cuda:%u", (unsigned)o->device);
	ty_calibration_default(&shared->result);
	code = run(o, name, false, shared, err);
	if (code != TY_OK)
		return code;
	code = ty_busy_start(driver, (int)o->device, false, err);
	if (code == TY_OK)
		code = run(o, name, true, shared, err);
	ty_busy_stop();
	return code;
}

int cli_calibrate(const struct cli_options *o)
{
	struct shared *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct ty_error err = {0};
	char text[512];

	if (shared == MAP_FAILED) {
		fprintf(stderr, "tyer: no memory\n");
		return 1;
	}
	if (measure_both(o, shared, &err) != TY_OK || ty_calibration_write(o->directory, &shared->result, &err) != TY_OK) {
		ty_escape(text, sizeof text, err.text, strlen(err.text), TY_ESCAPE_TEXT, NULL);
		fprintf(stderr, "tyer: %s: %s\n", ty_code_name(err.code), text);
		return err.code == TY_UNSUPPORTED ? 2 : 1;
	}
	ty_calibration_print(stdout, &shared->result);
	if (fflush(stdout)) {
		fprintf(stderr, "tyer: cannot write the calibration: %m\n");
		return 1;
	}
	return 0;
}
