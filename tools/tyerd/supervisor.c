/* SPDX-License-Identifier: Apache-2.0
 *
 * The supervisor: one thread that calls no driver, reads no client's request and touches no page of the arena, so that little can
 * end it. It starts the worker, keeps the descriptors that the worker hands it, and starts another one on them when that ends:
 * at once the first time, then later and later, for as long as workers do not live. While none serves it answers on their
 * HTTP socket (pages.h). SIGHUP: the worker is asked to stop, and
 * this process becomes the program that now lies at its path, on the same descriptors.
 *
 * Its death is the worker's (PR_SET_PDEATHSIG): no worker is left behind that holds sockets and GPUs.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/text.h"
#include "notify.h"
#include "pages.h"
#include "run.h"

#define SETTLED_MS 10000     /* a worker that lived for so long did not die of its start */
#define BACKOFF_MIN_MS 100   /* between the second short life in a row and the next one */
#define EXIT_NEVER_BEGAN 126 /* of a new process that could not become the worker's program */
#define NO_PROCESS_MS 1000   /* until a fork that failed is tried again */
#define STOP_GRACE_MS 5000   /* beyond --stop-timeout-us and --drain-timeout-us, before a worker that was asked to stop is killed */
#define CHECK_MS 10000       /* for a new program to say whether it takes the configuration */
#define UNREADY_MAX 3        /* workers in a row that crash or are killed over a kept cache before they are ready: it is given up */
#define UNRETURNED_MAX 8     /* workers in a row that crash before all of a kept cache is back: likewise. They serve meanwhile, so it may be others' doing */
#define REASON_MAX 200

enum intent { RUN, STOP, UPGRADE };

struct supervisor {
	const struct ty_config *config;
	char **argv;
	char path[PATH_MAX]; /* of the program, as it was called at the start */
	struct ty_kept *kept;
	int signals;
	enum intent intent;

	pid_t pid;       /* of the worker, 0: there is none */
	int channel;     /* to it */
	int64_t started; /* when, ms */
	bool ready;      /* it said so */
	bool returned;   /* and that all of a kept cache is back */
	int64_t kill_at; /* it was asked to stop: killed at this time */
	char told[REASON_MAX]; /* why it ends, in its own words */

	int64_t next_start;          /* while there is no worker */
	uint32_t restarts, in_a_row; /* workers that ended and were followed by another; of them, short lives just now */
	uint32_t unready, unreturned; /* in a row, of those that were given a cache: that did not become ready; that crashed before it was back */
	char reason[REASON_MAX];     /* why the last one ended ... */
	int64_t ended;               /* ... and when, ms */
	struct ty_pages pages;
};

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- a worker begins ---------------------------------------------------------------------------------- */

static bool set_number(const char *name, uint64_t value)
{
	char text[24];

	snprintf(text, sizeof text, "%llu", (unsigned long long)value);
	return setenv(name, text, 1) == 0;
}

/* What the next program is to know of those before it. */
static bool export_history(const struct supervisor *s)
{
	return set_number(TY_RESTARTS_ENV, s->restarts) && setenv(TY_REASON_ENV, s->reason, 1) == 0 &&
	       set_number(TY_ENDED_ENV, (uint64_t)s->ended);
}

/* In the new process. It dies with its parent, and has no signal blocked that it did not block itself. */
static void become_worker(struct supervisor *s, pid_t parent, int channel)
{
	sigset_t none;

	sigemptyset(&none);
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent)
		_exit(EXIT_FAILURE);
	signal(SIGHUP, SIG_IGN); /* means the supervisor */
	unsetenv("NOTIFY_SOCKET");
	if (sigprocmask(SIG_SETMASK, &none, NULL) == 0 && export_history(s) && ty_kept_hand_on(s->kept, &channel) &&
		set_number(TY_SUPERVISOR_ENV, (uint64_t)channel))
		execv(s->path, s->argv);
	ty_log(TY_LOG_ERROR, "supervisor", "cannot start %s: %s", s->path, strerror(errno));
	_exit(EXIT_NEVER_BEGAN);
}

static bool start_worker(struct supervisor *s)
{
	int ends[2];
	pid_t parent = getpid(), pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
		return false;
	pid = fork();
	if (pid == 0)
		become_worker(s, parent, ends[1]);
	close(ends[1]);
	if (pid < 0) {
		close(ends[0]);
		return false;
	}
	s->pid = pid;
	s->channel = ends[0];
	s->started = now_ms();
	s->ready = s->returned = false;
	s->kill_at = INT64_MAX;
	s->told[0] = '\0';
	return true;
}

/* ---- what it says ------------------------------------------------------------------------------------- */

static void keep(struct supervisor *s, const char *name, int fd)
{
	int which = ty_kept_find(name);
	char state[TY_NOTIFY_MAX];

	if (which < 0) {
		if (fd >= 0)
			close(fd);
		return;
	}
	if (s->kept->fd[which] >= 0)
		close(s->kept->fd[which]);
	s->kept->fd[which] = fd;
	/* and who started us does the same, if it can */
	snprintf(state, sizeof state, "%s=1\nFDNAME=%s", fd >= 0 ? "FDSTORE" : "FDSTOREREMOVE", name);
	ty_notify(state, fd);
}

/* One message: lines of NAME=VALUE, as systemd takes them, and at most one descriptor. */
static void listen_to(struct supervisor *s, char *text, int fd)
{
	bool store = false, remove = false;
	const char *name = "";

	for (char *rest = text, *line; (line = strsep(&rest, "\n"));) {
		if (strcmp(line, "READY=1") == 0) {
			s->ready = true;
			s->unready = 0;
			ty_notify("READY=1", -1);
		} else if (strcmp(line, TY_NOTIFY_RETURNED) == 0) {
			s->returned = true;
			s->unreturned = 0;
		} else if (strcmp(line, "FDSTORE=1") == 0) {
			store = true;
		} else if (strcmp(line, "FDSTOREREMOVE=1") == 0) {
			remove = true;
		} else if (strncmp(line, "FDNAME=", 7) == 0) {
			name = line + 7;
		} else if (strncmp(line, TY_NOTIFY_REASON, strlen(TY_NOTIFY_REASON)) == 0) {
			ty_escape(s->told, sizeof s->told, line + strlen(TY_NOTIFY_REASON),
				strlen(line + strlen(TY_NOTIFY_REASON)), TY_ESCAPE_TEXT, NULL);
		}
	}
	if ((store && fd >= 0) || remove)
		keep(s, name, store ? fd : -1);
	else if (fd >= 0)
		close(fd);
}

/* False: nothing more to read now. */
static bool receive(struct supervisor *s)
{
	char text[TY_NOTIFY_MAX + 1];
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(4 * sizeof(int))];
	} control;
	struct iovec into = {.iov_base = text, .iov_len = sizeof text - 1};
	struct msghdr message = {
		.msg_iov = &into, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control.room,
	};
	ssize_t n = recvmsg(s->channel, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	int kept = -1;

	if (n <= 0)
		return false;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
		size_t bytes = c->cmsg_len - CMSG_LEN(0);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t at = 0; at + sizeof(int) <= bytes; at += sizeof(int)) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + at, sizeof fd);
			if (kept < 0)
				kept = fd;
			else
				close(fd);
		}
	}
	text[n] = '\0';
	listen_to(s, text, kept);
	return true;
}

/* ---- it ends ------------------------------------------------------------------------------------------- */

static bool never_began(int status)
{
	return WIFEXITED(status) && WEXITSTATUS(status) == EXIT_NEVER_BEGAN;
}

/* It was asked to stop before it came to look at signals: then the kernel ends it, and nothing was begun. */
static bool asked_too_early(const struct supervisor *s, int status)
{
	return s->intent == STOP && !s->ready && WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM;
}

static void describe_end(struct supervisor *s, int status)
{
	if (s->told[0])
		memcpy(s->reason, s->told, sizeof s->reason);
	else if (WIFSIGNALED(status))
		snprintf(s->reason, sizeof s->reason, "signal %d (%s)%s", WTERMSIG(status), strsignal(WTERMSIG(status)),
			WCOREDUMP(status) ? ", core dumped" : "");
	else if (never_began(status))
		snprintf(s->reason, sizeof s->reason, "%.150s could not be started", s->path);
	else
		snprintf(s->reason, sizeof s->reason, "exit status %d", WEXITSTATUS(status));
}

/* The first time at once; from the second short life in a row on twice as long each time. */
static int64_t backoff(const struct supervisor *s)
{
	int64_t most = s->config->restart_backoff_us / 1000, delay = BACKOFF_MIN_MS;

	if (s->in_a_row <= 1)
		return 0;
	for (uint32_t i = 2; i < s->in_a_row && delay < most; i++)
		delay *= 2;
	return delay < most ? delay : most;
}

/* Was it a fault of its own, and nobody's kill? */
static bool crashed(int status)
{
	static const int faults[] = {SIGSEGV, SIGBUS, SIGABRT, SIGILL, SIGFPE, SIGTRAP, SIGSYS};

	for (size_t i = 0; WIFSIGNALED(status) && i < sizeof faults / sizeof faults[0]; i++)
		if (WTERMSIG(status) == faults[i])
			return true;
	return false;
}

/* A program that could not be started says nothing of the cache: it may be half a file, on its way. Nor does one that says that it cannot
 * serve, for want of an address or a tier's folder: a cache that it cannot use it puts away by itself. */
static bool is_caches_fault(struct supervisor *s, int status, bool refused)
{
	if (s->kept->fd[TY_KEPT_ARENA] < 0 || refused)
		return false;
	if (!s->ready)
		return ++s->unready == UNREADY_MAX;
	return !s->returned && crashed(status) && ++s->unreturned == UNRETURNED_MAX;
}

static void give_up_cache(struct supervisor *s)
{
	if (s->ready)
		ty_log(TY_LOG_ERROR, "supervisor", "%u workers in a row crashed before all of the cache was back: it is given up", s->unreturned);
	else
		ty_log(TY_LOG_ERROR, "supervisor", "%u workers in a row died over the cache before they were ready: it is given up", s->unready);
	s->unready = s->unreturned = 0;
	for (int i = 0; i < TY_KEPT_CACHE; i++)
		keep(s, ty_kept_names[i], -1);
}

/* A program that could not be started is tried again, not at once. */
static void plan_next(struct supervisor *s, int status, bool refused)
{
	int64_t now = now_ms(), lived = now - s->started, delay;
	char said[TY_NOTIFY_MAX];

	s->in_a_row = lived >= SETTLED_MS ? 1 : s->in_a_row + 1;
	if (is_caches_fault(s, status, refused))
		give_up_cache(s);
	delay = backoff(s);
	if (never_began(status) && delay < BACKOFF_MIN_MS)
		delay = BACKOFF_MIN_MS;
	s->next_start = now + delay;
	s->restarts++;
	ty_log(TY_LOG_ERROR, "supervisor", "the worker (pid %d) ended after %lld.%03lld s: %s; the next one starts in %lld ms (%s%u)",
		(int)s->pid, (long long)(lived / 1000), (long long)(lived % 1000), s->reason, (long long)delay,
		s->in_a_row > 1 ? "short lives in a row: " : "restarts: ", s->in_a_row > 1 ? s->in_a_row : s->restarts);
	snprintf(said, sizeof said, "STATUS=worker ended (%s), next one in %lld ms, restarts: %u", s->reason, (long long)delay,
		s->restarts);
	ty_notify(said, -1);
}

/* ---- upgrade ------------------------------------------------------------------------------------------- */

/* In a new process: the program at our path, asked whether it takes our options and the file as they are now. */
static void become_checker(const struct supervisor *s, char **argv, int words)
{
	int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

	if (null >= 0)
		dup2(null, STDOUT_FILENO);
	dup2(words, STDERR_FILENO);
	execv(s->path, argv);
	_exit(127);
}

/* Its exit status, once it has ended; -1: it did not in time, or by a signal. */
static int wait_for_checker(pid_t pid)
{
	int64_t deadline = now_ms() + CHECK_MS;
	int status = -1;

	while (waitpid(pid, &status, WNOHANG) == 0) {
		if (now_ms() > deadline)
			kill(pid, SIGKILL);
		(void)poll(NULL, 0, 5);
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Would the program at our path run with the configuration as it is now? What is there may be half a file, or one that knows other
 * options than we do: then nobody would be left who holds the cache. If not, `why` says so, in its own words if it has any. */
static bool program_takes_it(const struct supervisor *s, char why[REASON_MAX])
{
	char words[REASON_MAX], *said = words, **argv;
	int ends[2], argc = 0, status = -1;
	ssize_t length = 0;
	pid_t pid;

	while (s->argv[argc])
		argc++;
	argv = calloc((size_t)argc + 2, sizeof *argv);
	if (!argv || pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) {
		snprintf(why, REASON_MAX, "%s", strerror(errno));
		free(argv);
		return false;
	}
	argv[0] = s->argv[0];
	argv[1] = (char *)(uintptr_t)"--check";
	memcpy(argv + 2, s->argv + 1, ((size_t)argc - 1) * sizeof *argv);
	pid = fork();
	if (pid == 0)
		become_checker(s, argv, ends[1]);
	if (pid > 0)
		status = wait_for_checker(pid);
	if (status != 0)
		length = read(ends[0], words, sizeof words - 1);
	close(ends[0]);
	close(ends[1]);
	free(argv);
	words[length > 0 ? length : 0] = '\0';
	words[strcspn(words, "\n")] = '\0';
	if (strncmp(words, "tyerd: ", 7) == 0)
		said += 7;
	if (*said)
		ty_escape(why, REASON_MAX, said, strlen(said), TY_ESCAPE_TEXT, NULL);
	else
		snprintf(why, REASON_MAX, "%.150s --check fails", s->path);
	return status == 0;
}

/* This process becomes the program that lies at its path now, with the configuration as it is now. */
static void upgrade(struct supervisor *s)
{
	char why[REASON_MAX];
	int none = -1;

	snprintf(s->reason, sizeof s->reason, "upgrade");
	if (!program_takes_it(s, why)) { /* any more */
		ty_log(TY_LOG_ERROR, "supervisor", "the upgrade is left: %s", why);
		return;
	}
	ty_log(TY_LOG_INFO, "supervisor", "going on as %s", s->path);
	if (export_history(s) && ty_kept_hand_on(s->kept, &none))
		execv(s->path, s->argv);
	ty_log(TY_LOG_ERROR, "supervisor", "cannot become %s: %s", s->path, strerror(errno));
}

/* The worker is gone. *exit_status is set when that is the end of the service. */
static bool ended(struct supervisor *s, int status, int *exit_status)
{
	bool refused = never_began(status) || (WIFEXITED(status) && (WEXITSTATUS(status) == 1 || WEXITSTATUS(status) == 2));

	s->ended = now_ms();
	while (s->channel >= 0 && receive(s)) /* its last words */
		;
	if (s->channel >= 0)
		close(s->channel);
	s->channel = -1;
	if (s->intent == UPGRADE)
		upgrade(s); /* and if that fails, as if it had died */
	/* A first one that says that it cannot serve is right; later ones may have met what passes. */
	if (s->intent == STOP || (refused && s->restarts == 0)) {
		*exit_status = WIFEXITED(status) ? WEXITSTATUS(status) : asked_too_early(s, status) ? EXIT_SUCCESS : EXIT_FAILURE;
		return true;
	}
	if (s->intent == RUN)
		describe_end(s, status);
	s->intent = RUN;
	plan_next(s, status, refused);
	s->pid = 0;
	return false;
}

static bool reap(struct supervisor *s, int *exit_status)
{
	int status;

	return s->pid && waitpid(s->pid, &status, WNOHANG) == s->pid && ended(s, status, exit_status);
}

/* ---- signals ------------------------------------------------------------------------------------------- */

static void ask_to_stop(struct supervisor *s, enum intent intent)
{
	s->intent = intent;
	if (!s->pid)
		return;
	kill(s->pid, SIGTERM);
	s->kill_at = now_ms() + (s->config->stop_timeout_us + s->config->drain_timeout_us) / 1000 + STOP_GRACE_MS;
}

static void on_hangup(struct supervisor *s)
{
	char why[REASON_MAX];

	if (s->intent != RUN)
		return;
	if (!program_takes_it(s, why)) {
		ty_log(TY_LOG_ERROR, "supervisor", "no upgrade: %s", why);
		return;
	}
	if (!s->pid) { /* between two workers */
		upgrade(s);
		return;
	}
	ty_log(TY_LOG_INFO, "supervisor", "upgrade: the worker is asked to stop");
	ask_to_stop(s, UPGRADE);
}

/* ---- the loop ------------------------------------------------------------------------------------------ */

/* True: the service ends. */
static bool on_signal(struct supervisor *s, int *exit_status)
{
	struct signalfd_siginfo info;

	if (read(s->signals, &info, sizeof info) != sizeof info)
		return false;
	switch (info.ssi_signo) {
	case SIGTERM:
	case SIGINT:
		ty_notify("STOPPING=1", -1);
		ask_to_stop(s, STOP);
		*exit_status = EXIT_SUCCESS;
		return !s->pid;
	case SIGHUP:
		on_hangup(s);
		return false;
	default: /* SIGCHLD */
		return false;
	}
}

/* How long to wait for something to happen, which at the latest does at `until`. */
static int patience(const struct supervisor *s, int64_t until)
{
	int64_t at = s->pid ? s->kill_at : s->next_start, left;

	at = until < at ? until : at;
	left = at == INT64_MAX ? INT_MAX : at - now_ms();
	return left < 0 ? 0 : left > 60000 ? 60000 : (int)left;
}

/* Where the pages are asked for, while no worker answers there; else -1. */
static int listener(const struct supervisor *s)
{
	return s->pid && s->ready ? -1 : s->kept->fd[TY_KEPT_HTTP];
}

static void serve_pages(struct supervisor *s)
{
	char why[REASON_MAX + 160], before[REASON_MAX + 80] = "";
	int64_t now = now_ms();

	if (s->restarts)
		snprintf(before, sizeof before, "the last worker ended (%s)", s->reason);
	if (s->pid)
		snprintf(why, sizeof why, "starting: %s%sa worker is not ready after %lld ms; restarts: %u", before, s->restarts ? "; " : "",
			(long long)(now - s->started), s->restarts);
	else
		snprintf(why, sizeof why, "restarting: %s; the next one starts in %lld ms; short lives in a row: %u; restarts: %u", before,
			(long long)(s->next_start > now ? s->next_start - now : 0), s->in_a_row, s->restarts);
	ty_pages_serve(&s->pages, listener(s), now, why, s->restarts);
}

static int supervise(struct supervisor *s)
{
	int status = EXIT_FAILURE;

	for (;;) {
		if (!s->pid && now_ms() >= s->next_start && !start_worker(s)) {
			ty_log(TY_LOG_ERROR, "supervisor", "cannot start a worker: %s", strerror(errno));
			s->next_start = now_ms() + NO_PROCESS_MS;
		}
		if (s->pid && now_ms() >= s->kill_at) {
			ty_log(TY_LOG_ERROR, "supervisor", "the worker (pid %d) does not stop: killing it", (int)s->pid);
			kill(s->pid, SIGKILL);
			s->kill_at = INT64_MAX;
		}

		struct pollfd p[2 + TY_PAGES_POLLED] = {{.fd = s->signals, .events = POLLIN}, {.fd = s->channel, .events = POLLIN}};
		int64_t until = ty_pages_poll(&s->pages, listener(s), now_ms(), p + 2);

		(void)poll(p, 2 + TY_PAGES_POLLED, patience(s, until));
		while (s->channel >= 0 && p[1].revents & POLLIN && receive(s))
			;
		/* It says nothing more, which poll would tell of without end; its own end comes as a signal, and a driver may keep it for seconds. */
		if (p[1].revents & POLLHUP && s->channel >= 0) {
			close(s->channel);
			s->channel = -1;
		}
		serve_pages(s);
		if (p[0].revents && on_signal(s, &status))
			return status;
		if (reap(s, &status))
			return status;
	}
}

/* What an earlier supervisor of this process counted. */
static void import_history(struct supervisor *s)
{
	const char *restarts = getenv(TY_RESTARTS_ENV), *reason = getenv(TY_REASON_ENV), *ended = getenv(TY_ENDED_ENV);
	uint64_t count = 0, when = 0;

	if (restarts && ty_parse_count(restarts, UINT32_MAX - 1, &count, NULL) == TY_OK)
		s->restarts = (uint32_t)count + 1; /* an upgrade is one too */
	snprintf(s->reason, sizeof s->reason, "%s", reason ? reason : "");
	if (ended && ty_parse_count(ended, INT64_MAX, &when, NULL) == TY_OK)
		s->ended = (int64_t)when; /* this process was the one before: by the same clock */
	unsetenv(TY_RESTARTS_ENV);
	unsetenv(TY_REASON_ENV);
	unsetenv(TY_ENDED_ENV);
}

int ty_supervisor_run(const struct ty_config *config, char **argv, struct ty_kept *kept)
{
	static struct supervisor s;
	ssize_t length;
	sigset_t set;
	int low = -1;

	s.config = config;
	s.argv = argv;
	s.kept = kept;
	s.channel = -1;
	ty_pages_open(&s.pages);
	length = readlink("/proc/self/exe", s.path, sizeof s.path - 1);
	if (length < 0) {
		perror("tyerd: /proc/self/exe");
		return EXIT_FAILURE;
	}
	import_history(&s);
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGCHLD);
	if (sigprocmask(SIG_BLOCK, &set, NULL) == 0)
		low = signalfd(-1, &set, SFD_CLOEXEC);
	s.signals = low < 0 ? -1 : fcntl(low, F_DUPFD_CLOEXEC, TY_KEPT_HIGH);
	if (s.signals < 0) {
		perror("tyerd: signalfd");
		return EXIT_FAILURE;
	}
	close(low);
	return supervise(&s);
}
