/* SPDX-License-Identifier: Apache-2.0
 *
 * The configuration: defaults, command line, file, their order, and the words of each refusal.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/config.h"
#include "base/log.h"

static struct ty_config config;
static struct ty_error err;
static bool help, version;
static char file[] = "/tmp/tyer-config-XXXXXX";

#define PARSE(...) parse((const char *const[]){ "tyerd", __VA_ARGS__, NULL })

static enum ty_code parse(const char *const *args)
{
	int argc = 0;

	while (args[argc])
		argc++;
	err = (struct ty_error){ 0 };
	return ty_config_parse(&config, argc, (char **)(uintptr_t)args, &help, &version, &err);
}

static void refused(const char *const *args, const char *text)
{
	if (parse(args) != TY_INVALID)
		fail_msg("taken: %s %s", args[1], args[2] ? args[2] : "");
	if (!strstr(err.text, text))
		fail_msg("said \"%s\", expected \"%s\"", err.text, text);
	assert_int_equal(err.code, TY_INVALID);
}
#define REFUSED(text, ...) refused((const char *const[]){ "tyerd", __VA_ARGS__, NULL }, text)

static void write_file(const char *text)
{
	FILE *f = fopen(file, "w");

	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

static int make_file(void **state)
{
	int fd = mkstemp(file);

	(void)state;
	return fd < 0 ? -1 : close(fd);
}

static int drop_file(void **state)
{
	(void)state;
	return unlink(file);
}

static void defaults(void **state)
{
	(void)state;
	assert_int_equal(parse((const char *const[]){ "tyerd", NULL }), TY_OK);
	assert_false(help);
	assert_false(version);
	assert_string_equal(config.http, "127.0.0.1:9700");
	assert_string_equal(config.cuda_driver, "libcuda.so.1");
	assert_int_equal(config.l1_size, 4ull << 30);
	assert_int_equal(config.l1_ahead, 1ull << 30);
	assert_int_equal(config.staging, 160ull << 20);
	assert_int_equal(config.gpu_sharing, TY_CONFIG_SHARING_AUTO);
	assert_int_equal(config.populate_threads, 1);
	assert_int_equal(config.chunk_tokens, 256);
	assert_int_equal(config.workers, 0);
	assert_int_equal(config.max_request_bytes, 4u << 20);
	assert_int_equal(config.max_requests, 256);
	assert_int_equal(config.max_timeout_us, 600000000);
	assert_int_equal(config.default_timeout_us, 30000000);
	assert_int_equal(config.max_clients, 256);
	assert_int_equal(config.max_registrations, 64);
	assert_int_equal(config.max_sessions, 4096);
	assert_int_equal(config.max_session_chunks, 65536);
	assert_int_equal(config.max_operations, 64);
	assert_int_equal(config.max_operation_chunks, 4096);
	assert_int_equal(config.max_operation_bytes, 16ull << 30);
	assert_int_equal(config.stop_timeout_us, 10000000);
	assert_int_equal(config.log_level, TY_LOG_INFO);
	assert_false(config.log_json);
	assert_int_equal(config.device_count, 1);
	assert_string_equal(config.device[0], access("/dev/nvidiactl", F_OK) ? "host" : "cuda:0");
}

static void default_sockets(void **state)
{
	char text[128], expected[128];

	(void)state;
	assert_int_equal(setenv("XDG_RUNTIME_DIR", "/run/user/77", 1), 0);
	assert_int_equal(ty_default_listen(text, sizeof text, &err), TY_OK);
	assert_string_equal(text, geteuid() ? "ipc:///run/user/77/tyer/tyer.sock" : "ipc:///run/tyer/tyer.sock");
	assert_int_equal(unsetenv("XDG_RUNTIME_DIR"), 0);
	assert_int_equal(ty_default_listen(text, sizeof text, &err), TY_OK);
	snprintf(expected, sizeof expected, "ipc:///tmp/tyer-%u/tyer.sock", (unsigned)geteuid());
	assert_string_equal(text, geteuid() ? expected : "ipc:///run/tyer/tyer.sock");
	assert_int_equal(ty_default_listen(text, 10, &err), TY_INVALID);

	assert_int_equal(PARSE("--listen", "ipc:///a/b/c.sock"), TY_OK);
	assert_string_equal(config.attach, "/a/b/attach.sock");
	REFUSED("expected ipc:///PATH", "--listen=ipc://c.sock");
	assert_int_equal(PARSE("--listen", "tcp://127.0.0.1:5"), TY_OK);
	assert_non_null(strstr(config.attach, "/attach.sock"));
	assert_int_equal(PARSE("--listen", "ipc:///a/b", "--attach=/x y/z"), TY_OK);
	assert_string_equal(config.attach, "/x y/z");
	REFUSED("--attach: found the path of --listen", "--listen=ipc:///a/attach.sock");
}

static void both_forms(void **state)
{
	(void)state;
	assert_int_equal(PARSE("--l1-size", "1.5GiB", "--workers=3", "--log-level=debug", "--log-format", "json",
				 "--stop-timeout-us", "1.5s", "--http=off", "--device=host:delay-us=5,fail-every=2",
				 "--device", "cuda:3", "--max-request-bytes", "64KiB"),
		TY_OK);
	assert_int_equal(config.l1_size, 3ull << 29);
	assert_int_equal(config.workers, 3);
	assert_int_equal(config.log_level, TY_LOG_DEBUG);
	assert_true(config.log_json);
	assert_int_equal(config.stop_timeout_us, 1500000);
	assert_string_equal(config.http, "off");
	assert_int_equal(config.device_count, 2);
	assert_string_equal(config.device[0], "host:delay-us=5,fail-every=2");
	assert_string_equal(config.device[1], "cuda:3");
	assert_int_equal(config.max_request_bytes, 65536);
}

static void policies_and_quotas(void **state)
{
	(void)state;
	assert_int_equal(PARSE("--l1-size=1GiB"), TY_OK);
	assert_int_equal(config.policy, TY_CONFIG_POLICY_ARC);
	assert_int_equal(config.quota_count, 0);
	assert_int_equal(PARSE("--policy=s3-fifo", "--quota", "acme=512MiB", "--quota==1GiB,256MiB", "--quota=a=b=,64MiB"), TY_OK);
	assert_int_equal(config.policy, TY_CONFIG_POLICY_S3FIFO);
	assert_int_equal(config.quota_count, 3);
	assert_string_equal(config.quotas[0].tenant, "acme");
	assert_int_equal(config.quotas[0].hard, 512ull << 20);
	assert_int_equal(config.quotas[0].soft, 512ull << 20);
	assert_string_equal(config.quotas[1].tenant, "");
	assert_int_equal(config.quotas[1].soft, 256ull << 20);
	assert_string_equal(config.quotas[2].tenant, "a=b");
	assert_int_equal(config.quotas[2].hard, 0);
}

static void sizes_are_rounded(void **state)
{
	(void)state;
	assert_int_equal(PARSE("--l1-size", "67108865"), TY_OK);
	assert_int_equal(config.l1_size, 128u << 20);
	assert_int_equal(config.l1_ahead, 128u << 20);
	assert_int_equal(PARSE("--l1-size=8TiB", "--l1-ahead=8TiB"), TY_OK);
	assert_int_equal(config.l1_size, 8ull << 40);
}

static void help_and_version(void **state)
{
	(void)state;
	assert_int_equal(PARSE("--help"), TY_OK);
	assert_true(help);
	assert_int_equal(PARSE("-h"), TY_OK);
	assert_true(help);
	assert_int_equal(PARSE("--version"), TY_OK);
	assert_true(version);
	assert_false(help);
	/* before anything else is looked at: a broken file must not keep a person from the help */
	assert_int_equal(PARSE("--config", "/nonexistent", "--help"), TY_OK);
	assert_true(help);
	REFUSED("--help: found a value", "--help=yes");
}

static void check_alone(void **state)
{
	(void)state;
	assert_int_equal(PARSE("--workers", "2"), TY_OK);
	assert_false(config.check);
	/* unlike --help it looks at all that there is */
	assert_int_equal(PARSE("--check", "--workers", "2"), TY_OK);
	assert_true(config.check);
	assert_int_equal(config.workers, 2);
	REFUSED("--workers: found \"many\"", "--check", "--workers", "many");
	assert_int_equal(PARSE("--config", "/nonexistent", "--check"), TY_IO);
	REFUSED("--check: given twice", "--check", "--check");
	REFUSED("--check: found a value", "--check=on");
}

/* Options that are fine alone, and say different things together. */
static void contradictions(void **state)
{
	char uids[48];

	(void)state;
	REFUSED("--default-timeout-us: found 30s, expected at most --max-timeout-us, 1s", "--max-timeout-us=1s");
	REFUSED("--client-weight: found 10, expected at most --max-client-weight, 5", "--max-client-weight=5");
	REFUSED("--client-weight: found 100, expected at most --max-client-weight, 99", "--max-client-weight=99", "--client-weight=100");
	assert_int_equal(PARSE("--max-client-weight=5", "--client-weight=5"), TY_OK);
	REFUSED("--gpu-stall-limit: found 9999ms, expected 0 or at least --gpu-stall-after, 10s", "--gpu-stall-limit=9999ms");
	REFUSED("--gpu-stall-limit: found 30s, expected 0 or at least --gpu-stall-after, 60s", "--gpu-stall-after=60s");
	assert_int_equal(PARSE("--gpu-stall-limit=0", "--gpu-stall-after=60s"), TY_OK);
	assert_int_equal(PARSE("--gpu-stall-limit=10s"), TY_OK);
	snprintf(uids, sizeof uids, "--embed-uid=%u,%u", (unsigned)geteuid(), 4242u);
	REFUSED("--embed-uid: found user 4242, expected one that may be a client: named in --allow-uid, too", uids);
	assert_int_equal(PARSE(uids, "--allow-uid=4242"), TY_OK);
}

static void command_line_refusals(void **state)
{
	char args[40][40], long_value[400];
	const char *argv[42] = { "tyerd" };
	char text[80];

	(void)state;
	REFUSED("found option \"--l2-size\"", "--l2-size", "1GiB");
	REFUSED("found option \"--l1\"", "--l1=4GiB");
	REFUSED("found argument \"4GiB\"", "4GiB");
	REFUSED("found argument \"-x\"", "-x");
	REFUSED("found argument \"--\"", "--");
	REFUSED("--l1-size: found no value", "--l1-size");
	REFUSED("--l1-size: found no value", "--l1-size=");
	REFUSED("--l1-size: found no value", "--l1-size", "--workers=1");
	REFUSED("--l1-size: found no value", "--l1-size", "");
	REFUSED("--l1-size: found \"4GB\", expected bytes: a number, or one with KiB, MiB, GiB or TiB, 64MiB to 8TiB",
		"--l1-size", "4GB");
	REFUSED("--l1-size: found \"1MiB\", expected 64MiB to 8TiB", "--l1-size=1MiB");
	REFUSED("--l1-size: found \"9TiB\", expected 64MiB to 8TiB", "--l1-size=9TiB");
	REFUSED("--workers: found \"65\", expected 0 to 64", "--workers=65");
	REFUSED("--workers: found \"-1\", expected a whole number, 0 to 64", "--workers=-1");
	REFUSED("--workers: found \"4294967297\", expected 0 to 64", "--workers=4294967297");
	REFUSED("--workers: found \"two\"", "--workers", "two");
	REFUSED("--stop-timeout-us: found \"10min\", expected a time", "--stop-timeout-us=10min");
	REFUSED("--workers: given twice", "--workers=1", "--workers=1");
	REFUSED("--log-level: found \"loud\", expected one of error, warn, info, debug", "--log-level=loud");
	REFUSED("--gpu-sharing: found \"loud\", expected one of auto, quiet, fast", "--gpu-sharing=loud");
	REFUSED("--policy: found \"fifo\", expected one of arc, lru, s3-fifo", "--policy=fifo");
	REFUSED("--keep-percent: found \"101\"", "--keep-percent=101");
	REFUSED("--quota: found \"acme\", expected TENANT=HARD", "--quota=acme");
	REFUSED("--quota: found \"acme=\", expected TENANT=HARD", "--quota=acme=");
	REFUSED("--quota: found \"lots\", expected bytes", "--quota=acme=lots");
	REFUSED("--quota: found a hard quota of 0", "--quota=acme=0");
	REFUSED("--quota: found a soft quota above the hard one in \"acme=1GiB,2GiB\"", "--quota=acme=1GiB,2GiB");
	REFUSED("--quota: tenant \"acme\": quota of 5368709120 bytes, expected at most the arena's 4294967296",
		"--quota=acme=5GiB");
	REFUSED("--quota: tenant \"b\": with it the soft quotas are more than the arena's", "--quota=a=3GiB", "--quota=b=2GiB");
	REFUSED("--quota: tenant \"a\": has two quotas", "--quota=a=1GiB", "--quota=a=2GiB");
	REFUSED("--log-format: found \"xml\"", "--log-format=xml");
	REFUSED("--device: found \"cuda:0\" again", "--device=cuda:0", "--device=cuda:0");
	REFUSED("--device: found \"host\" again", "--device=host:hang-after=1", "--device=host");
	REFUSED("--device: found \"cuda:00\"", "--device=cuda:00");
	REFUSED("--device: found \"cuda:\"", "--device=cuda:");
	REFUSED("--device: found \"cuda:256\"", "--device=cuda:256");
	REFUSED("--device: found \"gpu0\", expected cuda:N, host or host:FAULTS", "--device=gpu0");
	REFUSED("--device: found \"host:\"", "--device=host:");
	REFUSED("--listen: found \"http://x\"", "--listen=http://x");
	REFUSED("--listen: found \"ipc://\"", "--listen=ipc://");
	REFUSED("--listen: found \"tcp://h:65536\"", "--listen=tcp://h:65536");
	REFUSED("--listen: found \"tcp://:5\"", "--listen=tcp://:5");
	REFUSED("--http: found \"localhost:80\", expected IP:PORT or off", "--http=localhost:80");
	REFUSED("--http: found \"127.0.0.1\"", "--http=127.0.0.1");
	REFUSED("--http: found \"127.0.0.1:99999\"", "--http=127.0.0.1:99999");
	REFUSED("--attach: found \"/a\\x1b[31m\"", "--attach=/a\x1b[31m");
	REFUSED("--attach: found \"/\xef\xbf\xbd\"", "--attach=/\xff");
	REFUSED("--attach: found \"/a #b\"", "--attach=/a #b");
	REFUSED("--config: given twice", "--config=/a", "--config=/b");
	assert_int_equal(PARSE("--http=[::1]:9700"), TY_OK);
	assert_int_equal(PARSE("--listen=tcp://localhost:65535"), TY_OK);
	memset(long_value, 'x', sizeof long_value - 1);
	memcpy(long_value, "--attach=/", 10);
	long_value[sizeof long_value - 1] = 0;
	REFUSED("of 390 bytes, expected at most 107", long_value);
	for (int i = 0; i < 17; i++) {
		snprintf(args[i], sizeof args[i], "--device=cuda:%d", i);
		argv[i + 1] = args[i];
	}
	snprintf(text, sizeof text, "--device: found more than %d devices", TY_CONFIG_DEVICES);
	refused(argv, text);
}

static void file_and_order(void **state)
{
	(void)state;
	write_file("# a comment\n\n  workers = 5\t\r\nl1-size=2GiB # trailing\n"
		   "http\t=\toff\nattach = /a#b\ndevice = cuda:1\ndevice = cuda:2\nlog-level = warn");
	assert_int_equal(PARSE("--config", file), TY_OK);
	assert_int_equal(config.workers, 5);
	assert_int_equal(config.l1_size, 2ull << 30);
	assert_string_equal(config.http, "off");
	assert_string_equal(config.attach, "/a#b");
	assert_int_equal(config.device_count, 2);
	assert_int_equal(config.log_level, TY_LOG_WARN);
	/* the command line wins, wherever --config stands; its devices replace the file's */
	assert_int_equal(PARSE("--workers=6", "--device=host", "--config", file), TY_OK);
	assert_int_equal(config.workers, 6);
	assert_int_equal(config.device_count, 1);
	assert_string_equal(config.device[0], "host");
	assert_int_equal(config.l1_size, 2ull << 30);
}

static void file_refusals(void **state)
{
	char expected[128];
	struct {
		const char *text, *words;
	} cases[] = {
		{ "\n\nworkers = 99\n", ":3: workers: found \"99\", expected 0 to 64" },
		{ "workers 99\n", ":1: found \"workers 99\", expected name = value" },
		{ "workers =\n", ":1: workers: found no value" },
		{ "workers = # none\n", ":1: workers: found no value" },
		{ "= 5\n", ":1: found option \"\"" },
		{ "--workers = 5\n", ":1: found option \"--workers\"" },
		{ "check = on\n", ":1: found option \"check\"" },
		{ "worker = 5\n", ":1: found option \"worker\"" },
		{ "workers\x1b[2J = 5\n", ":1: found option \"workers\\x1b[2J\"" },
		{ "workers = 1\nworkers = 1\n", ":2: workers: given twice" },
		{ "config = /etc/passwd\n", ":1: found option \"config\"" },
		{ "help = 1\n", ":1: found option \"help\"" },
		{ "device = host\ndevice = host\n", ":2: device: found \"host\" again" },
		{ "l1-size = 4 GB\n", ":1: l1-size: found \"4 GB\"" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		write_file(cases[i].text);
		snprintf(expected, sizeof expected, "%s%s", file, cases[i].words);
		REFUSED(expected, "--config", file);
	}
	assert_int_equal(PARSE("--config=/nonexistent/x"), TY_IO);
	assert_non_null(strstr(err.text, "--config: cannot open /nonexistent/x: No such file"));
	assert_int_equal(PARSE("--config=/tmp"), TY_IO);
	assert_non_null(strstr(err.text, "--config: cannot read /tmp: Is a directory"));
}

/* ---- what is shown ------------------------------------------------------------------------- */

static void write_line(void *user, const char *name, const char *value)
{
	fprintf(user, "%s = %s\n", name, value);
}

static void dump_gives_the_same(void **state)
{
	struct ty_config before;
	FILE *f;

	(void)state;
	assert_int_equal(PARSE("--l1-size=1.3GiB", "--listen=tcp://h:1", "--device=cuda:1", "--device=host:delay-us=7",
				 "--log-format=json", "--gpu-sharing=quiet", "--log-level=debug", "--stop-timeout-us=7", "--attach=/a b=c#d"),
		TY_OK);
	before = config;
	f = fopen(file, "w");
	assert_non_null(f);
	ty_config_dump(&config, write_line, f);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(PARSE("--config", file), TY_OK);
	assert_memory_equal(&config, &before, sizeof config);
}

static void count_line(void *user, const char *name, const char *value)
{
	char option[64];
	char *help_text = *(char **)user;

	assert_true(*value != 0);
	snprintf(option, sizeof option, "\n  --%s ", name);
	if (!strstr(help_text, option))
		fail_msg("--help does not name --%s", name);
}

static void help_names_everything(void **state)
{
	size_t size;
	char *text;
	FILE *f = open_memstream(&text, &size);

	(void)state;
	assert_non_null(f);
	ty_config_help(f, "tyerd");
	assert_int_equal(fclose(f), 0);
	assert_int_equal(parse((const char *const[]){ "tyerd", NULL }), TY_OK);
	ty_config_dump(&config, count_line, &text);
	assert_non_null(strstr(text, "--l1-size BYTES\n"));
	assert_non_null(strstr(text, "default 4GiB; 64MiB to 8TiB\n"));
	assert_non_null(strstr(text, "default 30s; 1ms to 3600s\n"));
	assert_non_null(strstr(text, "--config FILE\n"));
	for (const char *line = text; *line; line = strchr(line, '\n') + 1)
		assert_true(strchr(line, '\n') - line <= 124);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults),
		cmocka_unit_test(default_sockets),
		cmocka_unit_test(both_forms),
		cmocka_unit_test(policies_and_quotas),
		cmocka_unit_test(sizes_are_rounded),
		cmocka_unit_test(help_and_version),
		cmocka_unit_test(check_alone),
		cmocka_unit_test(contradictions),
		cmocka_unit_test(command_line_refusals),
		cmocka_unit_test(file_and_order),
		cmocka_unit_test(file_refusals),
		cmocka_unit_test(dump_gives_the_same),
		cmocka_unit_test(help_names_everything),
	};

	return cmocka_run_group_tests(tests, make_file, drop_file);
}
