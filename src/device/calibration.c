/* SPDX-License-Identifier: Apache-2.0 */
#include "calibration.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FORM "tyer-calibration 1"
#define RATE_LEAST 1u /* MB/s; a rate of 0 says "never measured" and is no calibration's */
#define RATE_MOST 10000000u
#define LINE_MAX_BYTES 256
#define FILE_MAX_BYTES (64 << 10) /* one is two KiB long */

static const char *const directions[2] = {"store", "retrieve"};

void ty_calibration_default(struct ty_calibration *c)
{
	c->beside = false;
	c->launch_ns = TY_CALIBRATION_LAUNCH_NS;
	c->rates = ty_plan_defaults;
}

void ty_calibration_scale(struct ty_calibration *c)
{
	for (unsigned p = 1; p < TY_PATHS; p++)
		for (unsigned d = 0; d < 2; d++)
			for (unsigned i = 0; i < TY_PLAN_RUNS; i++) {
				uint64_t rate = (uint64_t)ty_plan_defaults.beside[p][d][i] * c->rates.alone[p][d][i] /
					ty_plan_defaults.alone[p][d][i];

				c->rates.beside[p][d][i] = (uint32_t)(rate < RATE_LEAST ? RATE_LEAST : rate > RATE_MOST ? RATE_MOST : rate);
			}
}

void ty_calibration_smooth(uint32_t rates[TY_PLAN_RUNS], const uint32_t compiled[TY_PLAN_RUNS])
{
	uint32_t measured[TY_PLAN_RUNS];

	for (unsigned i = 0; i < TY_PLAN_RUNS; i++)
		measured[i] = rates[i] = rates[i] ? rates[i] : i ? rates[i - 1] : compiled[i];
	for (unsigned i = 1; i < TY_PLAN_RUNS; i++) {
		uint32_t next = i + 1 < TY_PLAN_RUNS ? measured[i + 1] : UINT32_MAX;
		uint32_t least = measured[i - 1] < next ? measured[i - 1] : next;

		if (measured[i] + (uint64_t)measured[i] * TY_PLAN_GAIN / 1000 < least)
			rates[i] = least;
	}
}

void ty_calibration_name(char *out, size_t size, const char *directory, const uint8_t uuid[TY_UUID_BYTES], int driver)
{
	char hex[2 * TY_UUID_BYTES + 1];

	for (unsigned i = 0; i < TY_UUID_BYTES; i++)
		snprintf(hex + (size_t)2 * i, 3, "%02x", uuid[i]);
	snprintf(out, size, "%s/gpu-%s-driver-%d", directory, hex, driver);
}

static void print_table(FILE *out, const char *name, const uint32_t rates[TY_PATHS][2][TY_PLAN_RUNS])
{
	for (unsigned p = 1; p < TY_PATHS; p++)
		for (unsigned d = 0; d < 2; d++) {
			fprintf(out, "%s %s %s", name, ty_path_name((enum ty_path)p), directions[d]);
			for (unsigned i = 0; i < TY_PLAN_RUNS; i++)
				fprintf(out, " %u", rates[p][d][i]);
			fputc('\n', out);
		}
}

void ty_calibration_print(FILE *out, const struct ty_calibration *c)
{
	fprintf(out, FORM "\n# %s; MB/s by run length: 4 KiB, 8 KiB, ... 2 MiB\nuuid ", c->model);
	for (unsigned i = 0; i < TY_UUID_BYTES; i++)
		fprintf(out, "%02x", c->uuid[i]);
	fprintf(out, "\ndriver %d\nbeside-measured %d\nlaunch-ns %u\n", c->driver, c->beside, c->launch_ns);
	print_table(out, "alone", c->rates.alone);
	print_table(out, "beside", c->rates.beside);
}

/* ---- reading ---------------------------------------------------------------------------------- */

/* A whole number of `most` at most, and nothing else; moves past it and the space behind. */
static bool take_number(char **at, uint32_t least, uint32_t most, uint32_t *out)
{
	unsigned long n;
	char *end;

	if (**at < '0' || **at > '9')
		return false;
	errno = 0;
	n = strtoul(*at, &end, 10);
	if (errno || n < least || n > most || (*end && *end != ' '))
		return false;
	*out = (uint32_t)n;
	*at = *end ? end + 1 : end;
	return true;
}

static bool take_word(char **at, const char *word)
{
	size_t length = strlen(word);

	if (strncmp(*at, word, length) || (*at)[length] != ' ')
		return false;
	*at += length + 1;
	return true;
}

/* "staged store 1 2 3 ...": which row, as a bit of *seen; a second one of a row is refused. */
static bool take_row(char *at, uint32_t rates[TY_PATHS][2][TY_PLAN_RUNS], unsigned *seen)
{
	for (unsigned p = 1; p < TY_PATHS; p++)
		for (unsigned d = 0; d < 2; d++) {
			char *rest = at;
			unsigned bit = 1u << (2 * p + d);

			if (!take_word(&rest, ty_path_name((enum ty_path)p)) || !take_word(&rest, directions[d]))
				continue;
			for (unsigned i = 0; i < TY_PLAN_RUNS; i++)
				if (!take_number(&rest, RATE_LEAST, RATE_MOST, &rates[p][d][i]))
					return false;
			if (*rest || *seen & bit)
				return false;
			*seen |= bit;
			return true;
		}
	return false;
}

struct reading {
	struct ty_calibration got;
	unsigned alone, beside; /* rows seen */
	unsigned seen;          /* bits: uuid, driver, beside-measured, launch-ns */
};

static bool take_uuid(char *at, uint8_t uuid[TY_UUID_BYTES])
{
	for (unsigned i = 0; i < TY_UUID_BYTES; i++) {
		char byte[3] = {at[0], at[0] ? at[1] : '\0', '\0'}, *end;

		uuid[i] = (uint8_t)strtoul(byte, &end, 16);
		if (end != byte + 2 || byte[0] == '+' || byte[0] == '-' || byte[0] == ' ')
			return false;
		at += 2;
	}
	return !*at;
}

static bool take_line(struct reading *r, char *at)
{
	uint32_t number;

	if (take_word(&at, "uuid"))
		return !(r->seen & 1) && (r->seen |= 1, take_uuid(at, r->got.uuid));
	if (take_word(&at, "driver")) {
		bool good = !(r->seen & 2) && take_number(&at, 1, INT32_MAX, &number) && !*at;

		r->seen |= 2;
		r->got.driver = good ? (int)number : 0;
		return good;
	}
	if (take_word(&at, "beside-measured")) {
		bool good = !(r->seen & 4) && take_number(&at, 0, 1, &number) && !*at;

		r->seen |= 4;
		r->got.beside = good && number;
		return good;
	}
	if (take_word(&at, "launch-ns")) {
		bool good = !(r->seen & 8) && take_number(&at, 1, 1000000000, &r->got.launch_ns) && !*at;

		r->seen |= 8;
		return good;
	}
	if (take_word(&at, "alone"))
		return take_row(at, r->got.rates.alone, &r->alone);
	if (take_word(&at, "beside"))
		return take_row(at, r->got.rates.beside, &r->beside);
	return false;
}

static enum ty_code read_lines(FILE *in, const char *path, struct reading *r, struct ty_error *err)
{
	const unsigned rows = ((1u << (2 * TY_PATHS)) - 1) & ~3u;
	char line[LINE_MAX_BYTES];
	unsigned number = 0;

	while (fgets(line, sizeof line, in)) {
		size_t length = strlen(line);

		number++;
		if (!length || line[length - 1] != '\n')
			return ty_fail(err, TY_INVALID, "%.128s:%u: longer than %d bytes, or cut off", path, number, LINE_MAX_BYTES - 2);
		line[length - 1] = '\0';
		if (number == 1 ? strcmp(line, FORM) != 0 : line[0] != '#' && !take_line(r, line))
			return ty_fail(err, TY_INVALID, "%.128s:%u: no line of a calibration", path, number);
	}
	if (ferror(in))
		return ty_fail(err, TY_IO, "%.128s: cannot be read", path);
	if (r->seen != 15 || r->alone != rows || r->beside != rows)
		return ty_fail(err, TY_INVALID, "%.128s: a calibration that is not whole", path);
	return TY_OK;
}

enum ty_code ty_calibration_parse(FILE *in, const char *path, struct ty_calibration *c, struct ty_error *err)
{
	struct reading r = {.got = *c};
	enum ty_code code = read_lines(in, path, &r, err);

	if (code == TY_OK && (memcmp(r.got.uuid, c->uuid, TY_UUID_BYTES) != 0 || r.got.driver != c->driver))
		code = ty_fail(err, TY_INVALID, "%.128s: of another GPU or driver", path);
	if (code == TY_OK)
		*c = r.got;
	return code;
}

enum ty_code ty_calibration_read(const char *path, struct ty_calibration *c, bool *there, struct ty_error *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* of a pipe, say: the owner waits for nobody */
	enum ty_code code;
	struct stat st;
	FILE *in;

	*there = false;
	if (fd < 0)
		return errno == ENOENT ? TY_OK : ty_fail(err, TY_IO, "%.128s: %s", path, strerror(errno));
	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size > FILE_MAX_BYTES) {
		close(fd);
		return ty_fail(err, TY_INVALID, "%.128s: no ordinary file of at most %d bytes", path, FILE_MAX_BYTES);
	}
	in = fdopen(fd, "r");
	if (!in) {
		close(fd);
		return ty_fail(err, TY_NO_MEMORY, "%.128s: no memory to read it", path);
	}
	code = ty_calibration_parse(in, path, c, err);
	fclose(in);
	*there = code == TY_OK;
	return code;
}

/* ---- writing ---------------------------------------------------------------------------------- */

enum ty_code ty_calibration_write(const char *directory, const struct ty_calibration *c, struct ty_error *err)
{
	char path[512], whole[520];
	FILE *out;
	int fd;

	if (strlen(directory) > 256)
		return ty_fail(err, TY_INVALID, "the calibrations' directory: %zu bytes, expected at most 256", strlen(directory));
	ty_calibration_name(path, sizeof path, directory, c->uuid, c->driver);
	snprintf(whole, sizeof whole, "%s.XXXXXX", path);
	if (mkdir(directory, 0755) && errno != EEXIST)
		return ty_fail(err, TY_IO, "%.128s: %s", directory, strerror(errno));
	fd = mkostemp(whole, 0);
	out = fd < 0 ? NULL : fdopen(fd, "w");
	if (!out) {
		enum ty_code code = ty_fail(err, TY_IO, "%.160s: %s", whole, strerror(errno));

		if (fd >= 0) {
			close(fd);
			unlink(whole);
		}
		return code;
	}
	ty_calibration_print(out, c);
	if (fchmod(fd, 0644) | fflush(out) | fclose(out) || rename(whole, path)) {
		unlink(whole);
		return ty_fail(err, TY_IO, "%.160s: %s", path, strerror(errno));
	}
	return TY_OK;
}
