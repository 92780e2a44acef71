/* SPDX-License-Identifier: Apache-2.0
 *
 * tyerd: the service. Parses its configuration, and is the supervisor, or the worker that a supervisor started, or, without
 * supervision, the worker alone.
 */
#include <fcntl.h>
#include <stdio.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "actors/tier.h"
#include "base/log.h"
#include "notify.h"
#include "run.h"
#include "say.h"

/* Descriptors 0 to 2 exist: nothing that is opened later may be taken for one of them. */
static void fill_standard_descriptors(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

#define DESCRIPTORS_MIN 256 /* ours, with what is kept for a restart (TY_KEPT_HIGH and on), and some clients' */

/* Every client may have a thousand descriptors on their way (wire/attach.h): take what the system allows. */
static bool raise_descriptor_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return true;
	if (limit.rlim_max < DESCRIPTORS_MIN) {
		ty_say(STDERR_FILENO, "tyerd: %llu descriptors may be open (ulimit -Hn), expected %d or more\n",
			(unsigned long long)limit.rlim_max, DESCRIPTORS_MIN);
		return false;
	}
	limit.rlim_cur = limit.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &limit); /* if not, those past it are refused */
	return true;
}

/* The socket to the supervisor that started us; -1: none did. */
static int supervisor_socket(void)
{
	const char *text = getenv(TY_SUPERVISOR_ENV);
	uint64_t fd;

	if (!text || ty_parse_count(text, 65535, &fd, NULL) != TY_OK || fcntl((int)fd, F_SETFD, FD_CLOEXEC) != 0)
		return -1;
	unsetenv(TY_SUPERVISOR_ENV);
	return (int)fd;
}

/* As far as the words go; what the machine says to them is seen at a start. */
static int check(const struct ty_config *config)
{
	enum ty_code code = TY_OK;
	struct ty_tier_config tier;
	struct ty_error err;

	for (uint32_t i = 0; code == TY_OK && i < config->tier_count; i++)
		code = ty_tier_parse(config->tier[i], &tier, &err);
	if (code != TY_OK) {
		ty_say(STDERR_FILENO, "tyerd: %s\n", err.text);
		return 2;
	}
	puts("tyerd: the configuration holds");
	return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
	static struct ty_config config;
	struct ty_error err;
	struct ty_kept kept;
	bool help = false, version = false;
	int supervisor;

	if (ty_config_parse(&config, argc, argv, &help, &version, &err) != TY_OK) {
		ty_say(STDERR_FILENO, "tyerd: %s\n", err.text);
		return 2;
	}
	if (help) {
		ty_config_help(stdout, argv[0]);
		return EXIT_SUCCESS;
	}
	if (version) {
		puts("tyerd " TY_VERSION);
		return EXIT_SUCCESS;
	}
	if (config.check)
		return check(&config);
	fill_standard_descriptors();
	if (!raise_descriptor_limit())
		return EXIT_FAILURE;
	ty_log_setup((enum ty_log_level)config.log_level, config.log_json);
	ty_kept_take(&kept);
	supervisor = supervisor_socket();
	if (supervisor < 0 && config.supervise)
		return ty_supervisor_run(&config, argv, &kept);
	if (supervisor >= 0) {
		/* again: the kernel forgets it for a program that has capabilities of its own, to lock memory, say */
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		ty_notify_over(supervisor);
	}
	return ty_worker_run(&config, &kept);
}
