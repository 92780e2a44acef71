/* SPDX-License-Identifier: Apache-2.0
 *
 * The one table of options. Command line, file, --help and the dump all walk it; the defaults are its texts, taken through
 * the same parser as everybody's.
 */
#include "base/config.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/text.h"

#define FILE_MAX_BYTES (256u << 10)
#define LINE_MAX_BYTES 1024u
#define PIECE_BYTES (64ull << 20) /* the arena comes in pieces of this size */
#define KIB 1024ull
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)
#define TIB (1024 * GIB)
#define SECOND 1000000ull

enum kind {
	BYTES, COUNT, MICROS, URL, LOCAL, PATH, ADDRESS, TEXT, DEVICE, TIER, QUOTA, UIDS, CHOICE, FORMAT, FILENAME, HELP, VERSION
};

struct option {
	const char *name;
	enum kind kind;
	size_t offset, size; /* of the member */
	uint64_t min, max;   /* BYTES, COUNT, MICROS; CHOICE: min says which one */
	const char *initial; /* default, in the option's own form; null: computed by fill_in */
	const char *shown;   /* what --help says instead of `initial` */
	const char *help;
};

/* The words of a CHOICE, by its value. */
enum choice { ON_OFF, SHARING, VERIFY, LEVEL, POLICY };
#define WORDS_MAX 4
static const char *const words[][WORDS_MAX + 1] = {
	[ON_OFF] = { "off", "on" },
	[SHARING] = { [TY_CONFIG_SHARING_AUTO] = "auto", [TY_CONFIG_SHARING_QUIET] = "quiet", [TY_CONFIG_SHARING_FAST] = "fast" },
	[VERIFY] = { [TY_CONFIG_VERIFY_NONE] = "none", [TY_CONFIG_VERIFY_SAMPLE] = "sample", [TY_CONFIG_VERIFY_FULL] = "full" },
	[POLICY] = { [TY_CONFIG_POLICY_ARC] = "arc", [TY_CONFIG_POLICY_LRU] = "lru", [TY_CONFIG_POLICY_S3FIFO] = "s3-fifo" },
	[LEVEL] = { [TY_LOG_ERROR] = "error", [TY_LOG_WARN] = "warn", [TY_LOG_INFO] = "info", [TY_LOG_DEBUG] = "debug" },
};

#define FIELD(member) offsetof(struct ty_config, member), sizeof(((struct ty_config *)0)->member)

static const struct option options[] = {
	{ "config", FILENAME, 0, 0, 0, 0, NULL, "none",
	  "file with lines \"name = value\" (names as here without --; # starts a comment); the command line overrides it" },
	{ "listen", URL, FIELD(listen), 0, 0, NULL, "ipc:///run/tyer/tyer.sock; see below if not root",
	  "where requests are answered: ipc://PATH, tls+tcp://IP:PORT, or tcp://IP:PORT with --tcp-insecure" },
	{ "allow-uid", UIDS, FIELD(allow_uid), 0, 0, NULL, "none",
	  "UID[,UID]...: users who may be clients, beside root and the one that the service runs as; each is a tenant of its own" },
	{ "tcp-insecure", CHOICE, FIELD(tcp_insecure), ON_OFF, 0, "off", NULL,
	  "allow tcp:// without TLS: whoever reaches the port may send requests, as any client" },
	{ "tls-cert", TEXT, FIELD(tls_cert), 0, 0, NULL, "none", "PEM file with the certificate and its key, for tls+tcp://" },
	{ "tls-ca", TEXT, FIELD(tls_ca), 0, 0, NULL, "none", "PEM file: clients of tls+tcp:// must show a certificate that one of these signed" },
	{ "attach", PATH, FIELD(attach), 0, 0, NULL, "attach.sock beside --listen", "UNIX socket over which clients hand descriptors" },
	{ "admin", LOCAL, FIELD(admin), 0, 0, NULL, "the path of --listen with .admin behind it",
	  "where the administration's requests are answered, for root and the service's user alone: ipc://PATH, or off" },
	{ "events", LOCAL, FIELD(events), 0, 0, "off", NULL,
	  "PUB socket that tells what is stored and evicted, for root and the service's user alone: ipc://PATH, or off" },
	{ "http", ADDRESS, FIELD(http), 0, 0, "127.0.0.1:9700", NULL,
	  "IP:PORT of /metrics, /healthz, /readyz and /status (port 0: any free one), or off" },
	{ "l1-size", BYTES, FIELD(l1_size), PIECE_BYTES, 8 * TIB, "4GiB", NULL, "host memory for chunks; rounded up to 64MiB" },
	{ "l1-ahead", BYTES, FIELD(l1_ahead), PIECE_BYTES, 8 * TIB, "1GiB", NULL,
	  "how much of it is kept touched and free ahead of use; never more than --l1-size" },
	{ "policy", CHOICE, FIELD(policy), POLICY, 0, "arc", NULL, "what goes first when space is needed: arc, lru or s3-fifo" },
	{ "quota", QUOTA, FIELD(quotas), 0, 0, NULL, "none",
	  "TENANT=HARD[,SOFT]: bytes that a tenant may have at most, and beyond which its chunks go first; repeatable" },
	{ "keep-percent", COUNT, FIELD(keep_percent), 0, 100, "50", NULL,
	  "share of the arena that pins (PIN, and the engines' own) may take away from eviction" },
	{ "populate-threads", COUNT, FIELD(populate_threads), 1, 8, "1", NULL, "threads that touch it" },
	{ "checksum-threads", COUNT, FIELD(checksum_threads), 0, 8, "2", NULL,
		"threads that sum up stored chunks behind the stores; 0: none" },
	{ "device", DEVICE, FIELD(device), 0, 0, NULL, "cuda:0 if an NVIDIA driver is loaded, else host",
	  "cuda:N, host, or host:FAULTS (tests); may be given up to 16 times" },
	{ "cuda-driver", TEXT, FIELD(cuda_driver), 0, 0, "libcuda.so.1", NULL, "the driver's library" },
	{ "tier", TIER, FIELD(tier), 0, 0, NULL, "none",
	  "a store below the arena: KIND:WHERE[,name=value]..., see docs/tiers.md; may be given up to 8 times, in order" },
	{ "prefetch-wait-us", MICROS, FIELD(prefetch_wait_us), 0, 3600 * SECOND, "2s", NULL,
	  "how long a LOOKUP may wait for chunks from the tiers, within its own deadline" },
	{ "drain-timeout-us", MICROS, FIELD(drain_timeout_us), 0, 600 * SECOND, "5s", NULL,
	  "how long chunks on their way to the tiers may take when the service stops" },
	{ "staging", BYTES, FIELD(staging), 16 * MIB, 16 * GIB, "160MiB", NULL, "device memory that Tyer takes on each GPU" },
	{ "gpu-sharing", CHOICE, FIELD(gpu_sharing), SHARING, 0, "auto", NULL,
	  "quiet: copy engines alone, no kernels; fast: the fastest way; auto: fast until a busy engine is noticed" },
	{ "calibration", TEXT, FIELD(calibration), 0, 0, "auto", NULL,
	  "directory of what is measured once on each GPU; auto: /var/cache/tyer, or the user's; off: compiled rates" },
	{ "gpu-stall-after", MICROS, FIELD(gpu_stall_after_us), 1000, 3600 * SECOND, "10s", NULL,
	  "a device whose owner is in one call, or one copy, for longer counts as stalled" },
	{ "gpu-stall-limit", MICROS, FIELD(gpu_stall_limit_us), 0, 3600 * SECOND, "30s", NULL,
	  "and one that is so for longer than this has the service started again; 0: never" },
	{ "chunk-tokens", COUNT, FIELD(chunk_tokens), 16, 65536, "256", NULL, "tokens of a chunk" },
	{ "workers", COUNT, FIELD(workers), 0, 64, "0", NULL, "threads that ordinary actors share; 0: one per CPU, at most 8" },
	{ "max-request-bytes", BYTES, FIELD(max_request_bytes), 4 * KIB, 256 * MIB, "4MiB", NULL, "size of one request" },
	{ "max-requests", COUNT, FIELD(max_requests), 1, 65536, "256", NULL, "requests open at once" },
	{ "max-timeout-us", MICROS, FIELD(max_timeout_us), 1000, 3600 * SECOND, "600s", NULL,
	  "longest deadline that a request may ask for" },
	{ "default-timeout-us", MICROS, FIELD(default_timeout_us), 1000, 3600 * SECOND, "30s", NULL,
	  "deadline of a request that asks for none" },
	{ "max-clients", COUNT, FIELD(max_clients), 1, 1024, "256", NULL, "attached clients" },
	{ "max-registrations", COUNT, FIELD(max_registrations), 1, 4096, "64", NULL, "registered pools, per engine" },
	{ "max-sessions", COUNT, FIELD(max_sessions), 1, 1u << 20, "4096", NULL, "open sessions, per engine" },
	{ "max-session-chunks", COUNT, FIELD(max_session_chunks), 1, 1u << 20, "65536", NULL, "chunks of one session" },
	{ "max-operations", COUNT, FIELD(max_operations), 1, 4096, "64", NULL, "retrieves and stores in flight, per engine" },
	{ "max-all-operations", COUNT, FIELD(max_all_operations), 1, 65536, "1024", NULL,
	  "retrieves and stores in flight, of all engines; one engine may have as many as are free" },
	{ "max-all-operation-bytes", BYTES, FIELD(max_all_operation_bytes), PIECE_BYTES, 64 * TIB, "64GiB", NULL,
	  "bytes of retrieves and stores in flight, of all engines, likewise" },
	{ "max-client-requests", COUNT, FIELD(max_client_requests), 1, 65536, "64", NULL,
	  "open requests of one client; it may have as many as are free of --max-requests" },
	{ "max-operation-chunks", COUNT, FIELD(max_operation_chunks), 1, 65536, "4096", NULL, "chunks of one retrieve or store" },
	{ "max-operation-bytes", BYTES, FIELD(max_operation_bytes), PIECE_BYTES, 8 * TIB, "16GiB", NULL,
	  "bytes of retrieves and stores in flight, per engine" },
	{ "client-weight", COUNT, FIELD(client_weight), 1, 100, "10", NULL,
	  "share of a device that a client gets beside others, if its HELLO asks for none" },
	{ "max-client-weight", COUNT, FIELD(max_client_weight), 1, 100, "100", NULL, "the largest share that a HELLO may ask for" },
	{ "stop-timeout-us", MICROS, FIELD(stop_timeout_us), 0, 600 * SECOND, "10s", NULL,
	  "how long open requests may take to finish when the service stops" },
	{ "supervise", CHOICE, FIELD(supervise), ON_OFF, 0, "on", NULL,
	  "a process of its own keeps the cache and starts the service again when that dies" },
	{ "restart-backoff-us", MICROS, FIELD(restart_backoff_us), 0, 600 * SECOND, "30s", NULL,
	  "longest pause before a service that keeps dying is started again; the first restart comes at once" },
	{ "restart-verify", CHOICE, FIELD(restart_verify), VERIFY, 0, "sample", NULL,
	  "what a restart holds against its checksum before it serves it again: every 16th chunk, all (full), or none" },
	{ "log-level", CHOICE, FIELD(log_level), LEVEL, 0, "info", NULL, "error, warn, info or debug" },
	{ "log-format", FORMAT, FIELD(log_json), 0, 0, "text", NULL, "text, or json: one object a line" },
	{ "help", HELP, 0, 0, 0, 0, NULL, NULL, "show this and exit" },
	{ "version", VERSION, 0, 0, 0, 0, NULL, NULL, "show the version and exit" },
};
#define OPTION_COUNT (sizeof options / sizeof options[0])

/* Where a value came from: a line of a file, or the command line (file null). */
struct source {
	const char *file;
	unsigned line;
	bool seen[OPTION_COUNT];
};

/* ---- errors -------------------------------------------------------------------------------- */

#define SHOWN_MAX 64 /* bytes of outside text in an error */

static const char *shown(char out[SHOWN_MAX], const char *text, size_t length)
{
	bool cut;
	size_t n = ty_escape(out, SHOWN_MAX - 4, text, length, TY_ESCAPE_TEXT, &cut);

	if (cut)
		memcpy(out + n, "...", 4);
	return out;
}

TY_PRINTF(4, 5)
static enum ty_code refuse(const struct source *from, const char *name, struct ty_error *err, const char *fmt, ...)
{
	char text[192], file[SHOWN_MAX];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	if (!from->file)
		return ty_fail(err, TY_INVALID, "--%s: %s", name, text);
	shown(file, from->file, strlen(from->file));
	return ty_fail(err, TY_INVALID, "%s:%u: %s%s%s", file, from->line, name, *name ? ": " : "", text);
}

/* ---- one value ----------------------------------------------------------------------------- */

static void *member(struct ty_config *config, const struct option *o)
{
	return (char *)config + o->offset;
}

static uint64_t number_of(const struct ty_config *config, const struct option *o)
{
	const char *at = (const char *)config + o->offset;
	uint64_t wide;
	uint32_t narrow;

	if (o->size == sizeof wide) {
		memcpy(&wide, at, sizeof wide);
		return wide;
	}
	memcpy(&narrow, at, sizeof narrow);
	return narrow;
}

static void set_number(struct ty_config *config, const struct option *o, uint64_t value)
{
	uint32_t narrow = (uint32_t)value;

	if (o->size == sizeof value)
		memcpy(member(config, o), &value, sizeof value);
	else
		memcpy(member(config, o), &narrow, sizeof narrow);
}

static void format_number(char *out, size_t size, enum kind kind, uint64_t value)
{
	if (kind == BYTES)
		ty_format_bytes(out, size, value);
	else if (kind == MICROS)
		ty_format_time_us(out, size, value);
	else
		snprintf(out, size, "%" PRIu64, value);
}

static enum ty_code set_count(struct ty_config *config, const struct option *o, const char *value,
	const struct source *from, struct ty_error *err)
{
	char low[32], high[32], found[SHOWN_MAX];
	struct ty_error why;
	enum ty_code code;
	uint64_t number;

	if (o->kind == BYTES)
		code = ty_parse_bytes(value, &number, &why);
	else if (o->kind == MICROS)
		code = ty_parse_time_us(value, &number, &why);
	else
		code = ty_parse_count(value, UINT64_MAX, &number, &why);
	format_number(low, sizeof low, o->kind, o->min);
	format_number(high, sizeof high, o->kind, o->max);
	if (code == TY_INVALID && o->kind == COUNT)
		return refuse(from, o->name, err, "found \"%s\", expected a whole number, %s to %s",
			shown(found, value, strlen(value)), low, high);
	if (code)
		return refuse(from, o->name, err, "%s, %s to %s", why.text, low, high);
	if (number < o->min || number > o->max)
		return refuse(from, o->name, err, "found \"%s\", expected %s to %s", shown(found, value, strlen(value)),
			low, high);
	set_number(config, o, number);
	return TY_OK;
}

/* Printable, and such that a config file can say it: no space at an end, nothing that starts a comment. */
static bool is_plain(const char *text)
{
	size_t length = strlen(text);

	for (size_t at = 0; at < length;) {
		uint32_t code;

		at += ty_utf8_next(text + at, length - at, &code);
		if (code < 0x20 || (code >= 0x7f && code < 0xa0) || code == 0xfffd)
			return false;
	}
	return length && text[0] != ' ' && text[0] != '#' && text[length - 1] != ' ' && !strstr(text, " #");
}

/* Digits without a leading zero, at most max. */
static bool is_number(const char *text, uint64_t max)
{
	uint64_t value;

	return (text[0] != '0' || !text[1]) && !ty_parse_count(text, max, &value, NULL);
}

static bool is_url(const char *text)
{
	const char *port = strrchr(text, ':');

	if (!strncmp(text, "ipc://", 6))
		return text[6] && strlen(text + 6) < sizeof(((struct ty_config *)0)->attach);
	if (!strncmp(text, "tls+", 4))
		text += 4;
	return !strncmp(text, "tcp://", 6) && port > text + 6 && is_number(port + 1, 65535);
}

/* 1.2.3.4:80 or [::1]:80; whether the address itself is one is the socket's to say, its characters are ours. */
static bool is_address(const char *text)
{
	const char *port = strrchr(text, ':');
	size_t host;

	if (!strcmp(text, "off"))
		return true;
	if (!port || !is_number(port + 1, 65535))
		return false;
	host = (size_t)(port - text);
	if (text[0] == '[')
		return host > 3 && strspn(text + 1, "0123456789abcdefABCDEF:.") == host - 2 && text[host - 1] == ']';
	return host > 6 && strspn(text, "0123456789.") == host;
}

static bool is_device(const char *text)
{
	if (!strncmp(text, "cuda:", 5))
		return is_number(text + 5, 255);
	return !strcmp(text, "host") || (!strncmp(text, "host:", 5) && text[5]);
}

/* Its form alone: what it says is read by the service, which knows the kinds. */
static bool is_tier(const char *text)
{
	size_t kind = strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789");

	return kind > 0 && text[kind] == ':' && text[kind + 1];
}

static enum ty_code set_text(struct ty_config *config, const struct option *o, const char *value,
	const struct source *from, struct ty_error *err)
{
	static const char *const expected[] = {
		[URL] = "ipc://PATH (a path below 108 bytes), tls+tcp://IP:PORT or tcp://IP:PORT",
		[LOCAL] = "ipc:///PATH (a path below 108 bytes) or off",
		[PATH] = "a path",
		[ADDRESS] = "IP:PORT or off",
		[TEXT] = "a file name",
		[DEVICE] = "cuda:N, host or host:FAULTS",
		[TIER] = "KIND:WHERE[,name=value]...",
	};
	size_t size = o->kind == DEVICE ? sizeof config->device[0] : o->kind == TIER ? sizeof config->tier[0] : o->size;
	size_t length = strlen(value);
	char found[SHOWN_MAX];
	char *to = member(config, o);
	bool good = is_plain(value);

	shown(found, value, length);
	if (length >= size)
		return refuse(from, o->name, err, "found \"%s\" of %zu bytes, expected at most %zu", found, length, size - 1);
	if (o->kind == URL)
		good = good && is_url(value);
	else if (o->kind == LOCAL)
		good = good && (!strcmp(value, "off") || (!strncmp(value, "ipc:///", 7) && is_url(value)));
	else if (o->kind == ADDRESS)
		good = good && is_address(value);
	else if (o->kind == DEVICE)
		good = good && is_device(value);
	else if (o->kind == TIER)
		good = good && is_tier(value);
	if (!good)
		return refuse(from, o->name, err, "found \"%s\", expected %s", found, expected[o->kind]);
	if (o->kind == DEVICE) {
		/* two names of one device: clients could not tell them apart, and a device has one owner */
		size_t name = !strncmp(value, "host", 4) ? 4 : length + 1;

		for (uint32_t i = 0; i < config->device_count; i++)
			if (!strncmp(config->device[i], value, name))
				return refuse(from, o->name, err, "found \"%s\" again, expected each device once", found);
		if (config->device_count == TY_CONFIG_DEVICES)
			return refuse(from, o->name, err, "found more than %d devices", TY_CONFIG_DEVICES);
		to = config->device[config->device_count++];
	} else if (o->kind == TIER) {
		if (config->tier_count == TY_CONFIG_TIERS)
			return refuse(from, o->name, err, "found more than %d tiers", TY_CONFIG_TIERS);
		to = config->tier[config->tier_count++];
	}
	memcpy(to, value, length + 1);
	return TY_OK;
}

static enum ty_code set_choice(struct ty_config *config, const struct option *o, const char *value,
	const struct source *from, struct ty_error *err)
{
	char found[SHOWN_MAX], expected[96];
	size_t used = 0;

	for (int i = 0; words[o->min][i]; i++) {
		if (!strcmp(value, words[o->min][i])) {
			memcpy(member(config, o), &i, sizeof i);
			return TY_OK;
		}
		used += (size_t)snprintf(expected + used, sizeof expected - used, "%s%s", i ? ", " : "", words[o->min][i]);
		assert(used < sizeof expected);
	}
	return refuse(from, o->name, err, "found \"%s\", expected one of %s", shown(found, value, strlen(value)), expected);
}

static const char *choice_of(const struct ty_config *config, const struct option *o)
{
	int i;

	memcpy(&i, (const char *)config + o->offset, sizeof i);
	return words[o->min][i];
}

static enum ty_code add_quota(struct ty_config *config, const struct option *o, const char *value,
	const struct source *from, struct ty_error *err)
{
	struct ty_error why;

	if (config->quota_count == TY_TENANT_QUOTAS_MAX)
		return refuse(from, o->name, err, "found more than %d quotas", TY_TENANT_QUOTAS_MAX);
	if (!is_plain(value))
		return refuse(from, o->name, err, "found a value that is not printable, expected TENANT=HARD[,SOFT]");
	if (ty_quota_parse(value, &config->quotas[config->quota_count], &why) != TY_OK)
		return refuse(from, o->name, err, "%s", why.text);
	config->quota_count++;
	return TY_OK;
}

static enum ty_code set_uids(struct ty_config *config, const struct option *o, const char *value,
	const struct source *from, struct ty_error *err)
{
	char found[SHOWN_MAX], number[16];
	const char *at = value;

	config->allow_uid_count = 0;
	for (;;) {
		size_t length = strcspn(at, ",");
		uint64_t uid;

		if (config->allow_uid_count == TY_CONFIG_UIDS)
			return refuse(from, o->name, err, "found more than %d users", TY_CONFIG_UIDS);
		if (length >= sizeof number)
			break;
		memcpy(number, at, length);
		number[length] = '\0';
		if (!is_number(number, UINT32_MAX - 1) || ty_parse_count(number, UINT32_MAX - 1, &uid, NULL) != TY_OK)
			break;
		config->allow_uid[config->allow_uid_count++] = (uint32_t)uid;
		if (at[length] == '\0')
			return TY_OK;
		at += length + 1;
	}
	return refuse(from, o->name, err, "found \"%s\", expected UID[,UID]...", shown(found, value, strlen(value)));
}

bool ty_config_allows_uid(const struct ty_config *config, uint32_t uid)
{
	if (uid == 0 || uid == geteuid())
		return true;
	for (uint32_t i = 0; i < config->allow_uid_count; i++)
		if (config->allow_uid[i] == uid)
			return true;
	return false;
}

static enum ty_code set_value(struct ty_config *config, const struct option *o, const char *value,
	const struct source *from, struct ty_error *err)
{
	char found[SHOWN_MAX];

	switch (o->kind) {
	case BYTES:
	case COUNT:
	case MICROS:
		return set_count(config, o, value, from, err);
	case CHOICE:
		return set_choice(config, o, value, from, err);
	case FORMAT:
		config->log_json = !strcmp(value, "json");
		if (config->log_json || !strcmp(value, "text"))
			return TY_OK;
		break;
	case QUOTA:
		return add_quota(config, o, value, from, err);
	case UIDS:
		return set_uids(config, o, value, from, err);
	case FILENAME:
	case HELP:
	case VERSION:
		assert(false);
		break;
	default:
		return set_text(config, o, value, from, err);
	}
	return refuse(from, o->name, err, "found \"%s\", expected one of %s", shown(found, value, strlen(value)), o->help);
}

/* A value from a source: each option at most once per source, but for devices, tiers and quotas, of which a source's first replaces
 * those of the sources before it. */
static enum ty_code take(struct ty_config *config, const struct option *o, const char *value, struct source *from,
	struct ty_error *err)
{
	size_t index = (size_t)(o - options);

	if (from->seen[index] && o->kind != DEVICE && o->kind != TIER && o->kind != QUOTA)
		return refuse(from, o->name, err, "given twice");
	if (!from->seen[index] && o->kind == DEVICE)
		config->device_count = 0;
	if (!from->seen[index] && o->kind == TIER)
		config->tier_count = 0;
	if (!from->seen[index] && o->kind == QUOTA)
		config->quota_count = 0;
	from->seen[index] = true;
	return set_value(config, o, value, from, err);
}

static const struct option *find(const char *name, size_t length)
{
	for (size_t i = 0; i < OPTION_COUNT; i++)
		if (strlen(options[i].name) == length && !memcmp(options[i].name, name, length))
			return &options[i];
	return NULL;
}

/* ---- the file ------------------------------------------------------------------------------ */

/* One line without its newline; it is changed. */
static enum ty_code take_line(struct ty_config *config, char *line, size_t length, struct source *from,
	struct ty_error *err)
{
	char found[SHOWN_MAX];
	const struct option *o;
	char *equals, *name, *value;
	size_t name_length;

	if (length > LINE_MAX_BYTES)
		return refuse(from, "", err, "found a line of %zu bytes, expected at most %u", length, LINE_MAX_BYTES);
	if (memchr(line, 0, length))
		return refuse(from, "", err, "found a zero byte, expected text");
	line[length] = 0;
	for (size_t i = 0; i < length; i++)
		if (line[i] == '#' && (i == 0 || line[i - 1] == ' ' || line[i - 1] == '\t')) {
			line[i] = 0;
			length = i;
		}
	while (length && strchr(" \t\r", line[length - 1]))
		line[--length] = 0;
	name = line + strspn(line, " \t");
	if (!*name)
		return TY_OK;
	equals = strchr(name, '=');
	if (!equals)
		return refuse(from, "", err, "found \"%s\", expected name = value", shown(found, name, strlen(name)));
	value = equals + 1 + strspn(equals + 1, " \t");
	while (equals > name && (equals[-1] == ' ' || equals[-1] == '\t'))
		equals--;
	name_length = (size_t)(equals - name);
	o = find(name, name_length);
	if (!o || o->kind == FILENAME || o->kind == HELP || o->kind == VERSION)
		return refuse(from, "", err, "found option \"%s\", expected one that --help lists for files",
			shown(found, name, name_length));
	if (!*value)
		return refuse(from, o->name, err, "found no value, expected one");
	return take(config, o, value, from, err);
}

static enum ty_code take_file(struct ty_config *config, const char *path, struct ty_error *err)
{
	struct source from = { .file = path };
	char *text = malloc(FILE_MAX_BYTES + 2), *at, *end;
	enum ty_code code = TY_OK;
	char name[SHOWN_MAX];
	FILE *file = NULL;
	size_t size;

	shown(name, path, strlen(path));
	if (!text)
		return ty_fail(err, TY_NO_MEMORY, "--config: no memory for %s", name);
	file = fopen(path, "re");
	if (!file) {
		code = ty_fail(err, TY_IO, "--config: cannot open %s: %m", name);
		goto out;
	}
	size = fread(text, 1, FILE_MAX_BYTES + 1, file);
	if (ferror(file)) {
		code = ty_fail(err, TY_IO, "--config: cannot read %s: %m", name);
		goto out;
	}
	if (size > FILE_MAX_BYTES) {
		code = ty_fail(err, TY_INVALID, "--config: %s is larger than %u bytes", name, FILE_MAX_BYTES);
		goto out;
	}
	for (at = text, end = text + size; at < end && !code;) {
		char *newline = memchr(at, '\n', (size_t)(end - at));
		size_t length = (size_t)((newline ? newline : end) - at);

		from.line++;
		code = take_line(config, at, length, &from, err);
		at += length + 1;
	}
out:
	if (file)
		fclose(file);
	free(text);
	return code;
}

/* ---- the command line ---------------------------------------------------------------------- */

struct walk {
	int argc;
	char **argv;
	int at;
};

/* The next option with its value (null for --help and --version); *o null at the end. */
static enum ty_code next_argument(struct walk *walk, const struct option **o, const char **value, struct ty_error *err)
{
	const struct source from = { .file = NULL };
	char found[SHOWN_MAX];
	const char *arg, *equals;
	size_t length;

	*o = NULL;
	*value = NULL;
	if (walk->at >= walk->argc)
		return TY_OK;
	arg = walk->argv[walk->at++];
	if (!strcmp(arg, "-h"))
		arg = "--help";
	if (strncmp(arg, "--", 2) || !arg[2])
		return ty_fail(err, TY_INVALID, "found argument \"%s\", expected --name value or --name=value (see --help)",
			shown(found, arg, strlen(arg)));
	arg += 2;
	equals = strchr(arg, '=');
	length = equals ? (size_t)(equals - arg) : strlen(arg);
	*o = find(arg, length);
	if (!*o)
		return ty_fail(err, TY_INVALID, "found option \"--%s\", expected one that --help lists",
			shown(found, arg, length));
	if ((*o)->kind == HELP || (*o)->kind == VERSION)
		return equals ? refuse(&from, (*o)->name, err, "found a value, expected none") : TY_OK;
	if (equals)
		*value = equals + 1;
	else if (walk->at < walk->argc && strncmp(walk->argv[walk->at], "--", 2))
		*value = walk->argv[walk->at++];
	if (!*value || !**value)
		return refuse(&from, (*o)->name, err, "found no value, expected one");
	return TY_OK;
}

/* ---- defaults ------------------------------------------------------------------------------ */

static enum ty_code default_folder(char *out, size_t size, struct ty_error *err)
{
	const char *runtime = getenv("XDG_RUNTIME_DIR");
	uid_t uid = geteuid();
	int n;

	if (uid == 0)
		n = snprintf(out, size, "/run/tyer");
	else if (runtime && runtime[0] == '/') /* the XDG specification has relative ones ignored */
		n = snprintf(out, size, "%s/tyer", runtime);
	else
		n = snprintf(out, size, "/tmp/tyer-%lu", (unsigned long)uid);
	if (n < 0 || (size_t)n >= size)
		return ty_fail(err, TY_INVALID, "XDG_RUNTIME_DIR: found %d bytes with /tyer, expected below %zu", n, size);
	return TY_OK;
}

enum ty_code ty_default_listen(char *out, size_t size, struct ty_error *err)
{
	char folder[96]; /* so that the socket's path stays below the 108 bytes of a UNIX address */
	enum ty_code code = default_folder(folder, sizeof folder, err);

	if (!code && (size_t)snprintf(out, size, "ipc://%s/tyer.sock", folder) >= size)
		code = ty_fail(err, TY_INVALID, "listen: the default address under %s is longer than %zu bytes", folder, size);
	return code;
}

enum ty_code ty_default_attach(const char *listen, char *out, size_t size, struct ty_error *err)
{
	const char *path = strncmp(listen, "ipc://", 6) ? NULL : listen + 6, *slash = path ? strrchr(path, '/') : NULL;
	enum ty_code code = TY_OK;
	char folder[96];
	int n;

	if (path) {
		n = snprintf(out, size, "%.*sattach.sock", slash ? (int)(slash + 1 - path) : 0, path);
	} else {
		code = default_folder(folder, sizeof folder, err);
		n = snprintf(out, size, "%s/attach.sock", code ? "" : folder);
	}
	if (!code && (n < 0 || (size_t)n >= size))
		code = ty_fail(err, TY_INVALID, "attach: the path beside --listen has %d bytes, expected below %zu", n, size);
	return code;
}

enum ty_code ty_default_calibration(char *out, size_t size, struct ty_error *err)
{
	const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
	int n;

	if (geteuid() == 0)
		n = snprintf(out, size, "/var/cache/tyer");
	else if (cache && cache[0] == '/')
		n = snprintf(out, size, "%s/tyer", cache);
	else if (home && home[0] == '/')
		n = snprintf(out, size, "%s/.cache/tyer", home);
	else
		return ty_fail(err, TY_INVALID, "calibration: no cache directory: neither XDG_CACHE_HOME nor HOME is set");
	if (n < 0 || (size_t)n >= size)
		return ty_fail(err, TY_INVALID, "calibration: the cache directory has %d bytes, expected below %zu", n, size);
	return TY_OK;
}

enum ty_code ty_default_admin(const char *listen, char *out, size_t size, struct ty_error *err)
{
	bool ipc = !strncmp(listen, "ipc://", 6);
	char folder[96];
	enum ty_code code = ipc ? TY_OK : default_folder(folder, sizeof folder, err);
	int n = ipc ? snprintf(out, size, "%s.admin", listen) : snprintf(out, size, "ipc://%s/admin.sock", code ? "" : folder);

	if (!code && (n < 0 || (size_t)n >= size || strlen(out + 6) >= sizeof(((struct ty_config *)0)->attach)))
		code = ty_fail(err, TY_INVALID, "admin: the path beside --listen has %d bytes, expected below %zu: say --admin", n - 6,
			sizeof(((struct ty_config *)0)->attach));
	return code;
}

static enum ty_code check_quotas(const struct ty_config *config, struct ty_error *err)
{
	struct ty_error why;

	if (ty_quotas_check(config->quotas, config->quota_count, config->l1_size, &why) != TY_OK)
		return ty_fail(err, TY_INVALID, "--quota: %s", why.text);
	return TY_OK;
}

/* What depends on the machine or on other options. */
static enum ty_code fill_in(struct ty_config *config, struct ty_error *err)
{
	char small[32], large[32];
	enum ty_code code = TY_OK;

	if (!config->listen[0])
		code = ty_default_listen(config->listen, sizeof config->listen, err);
	if (!code && !config->attach[0])
		code = ty_default_attach(config->listen, config->attach, sizeof config->attach, err);
	if (!code && !config->admin[0])
		code = ty_default_admin(config->listen, config->admin, sizeof config->admin, err);
	if (code)
		return code;
	if (!strncmp(config->listen, "ipc://", 6) && !strcmp(config->listen + 6, config->attach))
		return ty_fail(err, TY_INVALID, "--attach: found the path of --listen, expected another");
	if (!config->device_count) {
		/* the node that the kernel driver makes; a path given in --cuda-driver says as much */
		bool driver = access("/dev/nvidiactl", F_OK) == 0 ||
			      (strchr(config->cuda_driver, '/') && access(config->cuda_driver, R_OK) == 0);

		snprintf(config->device[0], sizeof config->device[0], driver ? "cuda:0" : "host");
		config->device_count = 1;
	}
	config->l1_size = (config->l1_size + PIECE_BYTES - 1) / PIECE_BYTES * PIECE_BYTES; /* max 8 TiB: no overflow */
	if (config->l1_ahead > config->l1_size)
		config->l1_ahead = config->l1_size;
	code = check_quotas(config, err);
	if (code)
		return code;
	if (config->default_timeout_us > config->max_timeout_us) {
		ty_format_time_us(small, sizeof small, config->default_timeout_us);
		ty_format_time_us(large, sizeof large, config->max_timeout_us);
		return ty_fail(err, TY_INVALID, "--default-timeout-us: found %s, expected at most --max-timeout-us, %s",
			small, large);
	}
	return TY_OK;
}

enum ty_code ty_config_parse(struct ty_config *config, int argc, char **argv, bool *help, bool *version,
	struct ty_error *err)
{
	struct source from = { .file = NULL };
	struct walk walk = { argc, argv, 1 };
	const char *value, *path = NULL;
	const struct option *o;
	enum ty_code code;

	*help = *version = false;
	memset(config, 0, sizeof *config);
	for (size_t i = 0; i < OPTION_COUNT; i++)
		if (options[i].initial) {
			code = set_value(config, &options[i], options[i].initial, &from, err);
			assert(!code);
		}
	/* once over the command line for its form and the file, then the file, then the command line's values */
	do {
		code = next_argument(&walk, &o, &value, err);
		if (code)
			return code;
		if (o && o->kind == FILENAME) {
			if (path)
				return refuse(&from, o->name, err, "given twice");
			path = value;
		}
		if (o && (o->kind == HELP || o->kind == VERSION)) {
			*(o->kind == HELP ? help : version) = true;
			return TY_OK;
		}
	} while (o);
	if (path)
		code = take_file(config, path, err);
	for (walk.at = 1; !code;) {
		code = next_argument(&walk, &o, &value, err);
		if (!code && !o)
			return fill_in(config, err);
		if (!code && o->kind != FILENAME)
			code = take(config, o, value, &from, err);
	}
	return code;
}

/* ---- showing ------------------------------------------------------------------------------- */

static const char *placeholder(enum kind kind)
{
	static const char *const names[] = {
		[BYTES] = " BYTES", [COUNT] = " N", [MICROS] = " TIME", [URL] = " URL", [LOCAL] = " URL", [PATH] = " PATH",
		[ADDRESS] = " IP:PORT", [TEXT] = " FILE", [DEVICE] = " DEVICE", [TIER] = " TIER", [QUOTA] = " TENANT=HARD,SOFT",
		[UIDS] = " UIDS",
		[CHOICE] = " WORD", [FORMAT] = " FORMAT",
		[FILENAME] = " FILE", [HELP] = "", [VERSION] = "",
	};
	return names[kind];
}

void ty_config_help(FILE *out, const char *program)
{
	fprintf(out, "Usage: %s [--name value | --name=value]...\n\n"
		     "Keeps the KV caches of inference engines in host memory.\n\n",
		program);
	for (size_t i = 0; i < OPTION_COUNT; i++) {
		const struct option *o = &options[i];
		const char *initial = o->shown ? o->shown : o->initial;

		fprintf(out, "  --%s%s\n      %s\n", o->name, placeholder(o->kind), o->help);
		if (initial)
			fprintf(out, "      default %s", initial);
		if (o->kind <= MICROS) {
			char low[32], high[32];

			format_number(low, sizeof low, o->kind, o->min);
			format_number(high, sizeof high, o->kind, o->max);
			fprintf(out, "; %s to %s", low, high);
		}
		if (initial)
			fputc('\n', out);
	}
	fprintf(out, "\nBYTES: a number, or one with KiB, MiB, GiB or TiB (1.5GiB). TIME: microseconds, or a number with us, ms\n"
		     "or s. Sockets lie in /run/tyer if started by root, else in $XDG_RUNTIME_DIR/tyer, else in /tmp/tyer-UID.\n");
}

void ty_config_dump(const struct ty_config *config, void (*line)(void *user, const char *name, const char *value),
	void *user)
{
	for (size_t i = 0; i < OPTION_COUNT; i++) {
		const struct option *o = &options[i];
		char number[32];

		switch (o->kind) {
		case BYTES:
		case COUNT:
		case MICROS:
			format_number(number, sizeof number, o->kind, number_of(config, o));
			line(user, o->name, number);
			break;
		case CHOICE:
			line(user, o->name, choice_of(config, o));
			break;
		case FORMAT:
			line(user, o->name, config->log_json ? "json" : "text");
			break;
		case QUOTA:
			for (uint32_t q = 0; q < config->quota_count; q++) {
				char text[TY_QUOTA_TEXT];

				ty_quota_format(text, &config->quotas[q]);
				line(user, o->name, text);
			}
			break;
		case UIDS: {
			char text[TY_CONFIG_UIDS * 12] = "";

			for (uint32_t u = 0; u < config->allow_uid_count; u++)
				snprintf(text + strlen(text), sizeof text - strlen(text), "%s%" PRIu32, u ? "," : "", config->allow_uid[u]);
			if (text[0])
				line(user, o->name, text);
			break;
		}
		case DEVICE:
			for (uint32_t d = 0; d < config->device_count; d++)
				line(user, o->name, config->device[d]);
			break;
		case TIER:
			for (uint32_t t = 0; t < config->tier_count; t++)
				line(user, o->name, config->tier[t]);
			break;
		case FILENAME:
		case HELP:
		case VERSION:
			break;
		default:
			if (((const char *)config)[o->offset]) /* else it was not given, and has no default */
				line(user, o->name, (const char *)config + o->offset);
		}
	}
}
