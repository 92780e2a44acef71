/* SPDX-License-Identifier: Apache-2.0
 *
 * The one table of options. Command line, file, --help and the dump all walk it; the defaults are its texts, taken through
 * the same parser as everybody's.
 */
#include "config_private.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>


#define FILE_MAX_BYTES (256u << 10)
#define LINE_MAX_BYTES 1024u
#define KIB 1024ull
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)
#define TIB (1024 * GIB)
#define SECOND 1000000ull

#define FIELD(member) offsetof(struct ty_config, member), sizeof(((struct ty_config *)0)->member)

static const struct ty_option options[] = {
	{ "config", FILENAME, 0, 0, 0, 0, NULL, "none",
	  "file with lines \"name = value\" (names as here without --; # starts a comment); the command line overrides it" },
	{ "listen", URL, FIELD(listen), 0, 0, NULL, "ipc:///run/tyer/tyer.sock; see below if not root",
	  "where requests are answered: ipc:///PATH, tls+tcp://IP:PORT, or tcp://IP:PORT with --tcp-insecure" },
	{ "allow-uid", UIDS, FIELD(allow_uid), 0, 0, NULL, "none",
	  "UID[,UID]...: users who may be clients, beside root and the one that the service runs as; each is a tenant of its own" },
	{ "embed-uid", UIDS, FIELD(embed_uid), 0, 0, NULL, "none",
	  "UID[,UID]...: users whose engines may move their blocks themselves: those can read and change all of the cache" },
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
	  "IP:PORT of /metrics, /healthz, /readyz, /status and /trace (port 0: any free one), or off" },
	{ "l1-size", BYTES, FIELD(l1_size), TY_CONFIG_PIECE_BYTES, 8 * TIB, "4GiB", NULL, "host memory for chunks; rounded up to 64MiB" },
	{ "l1-ahead", BYTES, FIELD(l1_ahead), TY_CONFIG_PIECE_BYTES, 8 * TIB, "1GiB", NULL,
	  "how much of it is kept touched and free ahead of use; never more than --l1-size" },
	{ "policy", CHOICE, FIELD(policy), POLICY, 0, "arc", NULL, "what goes first when space is needed: arc, lru or s3-fifo" },
	{ "quota", QUOTA, FIELD(quotas), 0, 0, NULL, "none",
	  "TENANT=HARD[,SOFT]: bytes that a tenant may have at most, and beyond which its chunks go first; repeatable" },
	{ "keep-percent", COUNT, FIELD(keep_percent), 0, 100, "50", NULL,
	  "share of the arena that pins (PIN, and the engines' own) may take away from eviction" },
	{ "populate-threads", COUNT, FIELD(populate_threads), 1, 8, "1", NULL, "threads that touch it" },
	{ "checksum-threads", COUNT, FIELD(checksum_threads), 0, 8, "2", NULL,
		"threads that sum up stored chunks behind the stores; 0: none" },
	{ "pack-threads", COUNT, FIELD(pack_threads), 1, 8, "2", NULL,
		"threads that pack what goes down to tiers with compress=, and as many that unpack what comes up" },
	{ "device", DEVICE, FIELD(device), 0, 0, NULL, "cuda:0 if an NVIDIA driver is loaded, else host",
	  "cuda:N, host, or host:FAULTS (tests); may be given up to 16 times" },
	{ "cuda-driver", TEXT, FIELD(cuda_driver), 0, 0, "libcuda.so.1", NULL, "the driver's library" },
	{ "tier", TIER, FIELD(tier), 0, 0, NULL, "none",
	  "a store below the arena: KIND:WHERE[,name=value]..., see docs/tiers.md; may be given up to 8 times, in order" },
	{ "prefetch-wait-us", MICROS, FIELD(prefetch_wait_us), 0, 3600 * SECOND, "2s", NULL,
	  "how long a LOOKUP may wait for chunks from the tiers, within its own deadline" },
	{ "drain-timeout-us", MICROS, FIELD(drain_timeout_us), 0, 600 * SECOND, "5s", NULL,
	  "how long chunks on their way to the tiers may take when the service stops" },
	{ "scrub-rate", BYTES, FIELD(scrub_rate), 0, TIB, "8MiB", NULL,
	  "bytes a second at which the arena, and each tier that can be listed, is read and verified; 0: not at all" },
	{ "scrub-interval", MICROS, FIELD(scrub_interval_us), 0, 3600 * SECOND, "3600s", NULL,
	  "the time from the start to the first such pass, and from one to the next, if it is not longer" },
	{ "staging", BYTES, FIELD(staging), 16 * MIB, 16 * GIB, "160MiB", NULL, "device memory that Tyer takes on each GPU; with --gpu-sharing quiet none" },
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
	{ "spin-us", MICROS, FIELD(spin_us), 0, 10000, "0us", "20us, 2us where there are no more than two CPUs",
	  "how long a thread without work looks for some before it sleeps: more answers sooner, and takes CPU; 0: chosen" },
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
	{ "max-all-operation-bytes", BYTES, FIELD(max_all_operation_bytes), TY_CONFIG_PIECE_BYTES, 64 * TIB, "64GiB", NULL,
	  "bytes of retrieves and stores in flight, of all engines, likewise" },
	{ "max-client-requests", COUNT, FIELD(max_client_requests), 1, 65536, "64", NULL,
	  "open requests of one client; it may have as many as are free of --max-requests" },
	{ "max-operation-chunks", COUNT, FIELD(max_operation_chunks), 1, 65536, "4096", NULL, "chunks of one retrieve or store" },
	{ "max-operation-bytes", BYTES, FIELD(max_operation_bytes), TY_CONFIG_PIECE_BYTES, 8 * TIB, "16GiB", NULL,
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
	{ "check", CHECK, 0, 0, 0, 0, NULL, NULL,
	  "say whether the other options, and those of --config, can be taken, and exit: status 0 or 2" },
	{ "help", HELP, 0, 0, 0, 0, NULL, NULL, "show this and exit" },
	{ "version", VERSION, 0, 0, 0, 0, NULL, NULL, "show the version and exit" },
};
#define OPTION_COUNT (sizeof options / sizeof options[0])
_Static_assert(OPTION_COUNT <= TY_OPTIONS_MAX, "a source says which options it has given");

/* ---- from a source ------------------------------------------------------------------------- */

/* A value from a source: each option at most once per source, but for devices, tiers and quotas, of which a source's first replaces
 * those of the sources before it. */
static enum ty_code take(struct ty_config *config, const struct ty_option *o, const char *value, struct ty_config_source *from,
	struct ty_error *err)
{
	size_t index = (size_t)(o - options);

	if (from->seen[index] && o->kind != DEVICE && o->kind != TIER && o->kind != QUOTA)
		return ty_config_refuse(from, o->name, err, "given twice");
	if (!from->seen[index] && o->kind == DEVICE)
		config->device_count = 0;
	if (!from->seen[index] && o->kind == TIER)
		config->tier_count = 0;
	if (!from->seen[index] && o->kind == QUOTA)
		config->quota_count = 0;
	from->seen[index] = true;
	return ty_config_set(config, o, value, from, err);
}

static const struct ty_option *find(const char *name, size_t length)
{
	for (size_t i = 0; i < OPTION_COUNT; i++)
		if (strlen(options[i].name) == length && !memcmp(options[i].name, name, length))
			return &options[i];
	return NULL;
}

/* ---- the file ------------------------------------------------------------------------------ */

/* One line without its newline; it is changed. */
static enum ty_code take_line(struct ty_config *config, char *line, size_t length, struct ty_config_source *from,
	struct ty_error *err)
{
	char found[TY_SHOWN_MAX];
	const struct ty_option *o;
	char *equals, *name, *value;
	size_t name_length;

	if (length > LINE_MAX_BYTES)
		return ty_config_refuse(from, "", err, "found a line of %zu bytes, expected at most %u", length, LINE_MAX_BYTES);
	if (memchr(line, 0, length))
		return ty_config_refuse(from, "", err, "found a zero byte, expected text");
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
		return ty_config_refuse(from, "", err, "found \"%s\", expected name = value", ty_config_shown(found, name, strlen(name)));
	value = equals + 1 + strspn(equals + 1, " \t");
	while (equals > name && (equals[-1] == ' ' || equals[-1] == '\t'))
		equals--;
	name_length = (size_t)(equals - name);
	o = find(name, name_length);
	if (!o || o->kind >= FILENAME) /* those that no file has */
		return ty_config_refuse(from, "", err, "found option \"%s\", expected one that --help lists for files",
			ty_config_shown(found, name, name_length));
	if (!*value)
		return ty_config_refuse(from, o->name, err, "found no value, expected one");
	return take(config, o, value, from, err);
}

static enum ty_code take_file(struct ty_config *config, const char *path, struct ty_error *err)
{
	struct ty_config_source from = { .file = path };
	char *text = malloc(FILE_MAX_BYTES + 2), *at, *end;
	enum ty_code code = TY_OK;
	char name[TY_SHOWN_MAX];
	FILE *file = NULL;
	size_t size;

	ty_config_shown(name, path, strlen(path));
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

/* The next option with its value (null for --check, --help and --version); *o null at the end. */
static enum ty_code next_argument(struct walk *walk, const struct ty_option **o, const char **value, struct ty_error *err)
{
	const struct ty_config_source from = { .file = NULL };
	char found[TY_SHOWN_MAX];
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
			ty_config_shown(found, arg, strlen(arg)));
	arg += 2;
	equals = strchr(arg, '=');
	length = equals ? (size_t)(equals - arg) : strlen(arg);
	*o = find(arg, length);
	if (!*o)
		return ty_fail(err, TY_INVALID, "found option \"--%s\", expected one that --help lists",
			ty_config_shown(found, arg, length));
	if ((*o)->kind > FILENAME)
		return equals ? ty_config_refuse(&from, (*o)->name, err, "found a value, expected none") : TY_OK;
	if (equals)
		*value = equals + 1;
	else if (walk->at < walk->argc && strncmp(walk->argv[walk->at], "--", 2))
		*value = walk->argv[walk->at++];
	if (!*value || !**value)
		return ty_config_refuse(&from, (*o)->name, err, "found no value, expected one");
	return TY_OK;
}

enum ty_code ty_config_parse(struct ty_config *config, int argc, char **argv, bool *help, bool *version,
	struct ty_error *err)
{
	struct ty_config_source from = { .file = NULL };
	struct walk walk = { argc, argv, 1 };
	const char *value, *path = NULL;
	const struct ty_option *o;
	enum ty_code code;

	*help = *version = false;
	memset(config, 0, sizeof *config);
	for (size_t i = 0; i < OPTION_COUNT; i++)
		if (options[i].initial) {
			code = ty_config_set(config, &options[i], options[i].initial, &from, err);
			assert(!code);
		}
	/* once over the command line for its form and the file, then the file, then the command line's values */
	do {
		code = next_argument(&walk, &o, &value, err);
		if (code)
			return code;
		if (o && o->kind == FILENAME) {
			if (path)
				return ty_config_refuse(&from, o->name, err, "given twice");
			path = value;
		}
		if (o && (o->kind == HELP || o->kind == VERSION)) {
			*(o->kind == HELP ? help : version) = true;
			return TY_OK;
		}
		if (o && o->kind == CHECK && config->check)
			return ty_config_refuse(&from, o->name, err, "given twice");
		if (o && o->kind == CHECK)
			config->check = true;
	} while (o);
	if (path)
		code = take_file(config, path, err);
	for (walk.at = 1; !code;) {
		code = next_argument(&walk, &o, &value, err);
		if (!code && !o)
			return ty_config_fill_in(config, err);
		if (!code && o->kind < FILENAME)
			code = take(config, o, value, &from, err);
	}
	return code;
}

/* ---- showing ------------------------------------------------------------------------------- */

static const char *placeholder(enum ty_option_kind kind)
{
	static const char *const names[] = {
		[BYTES] = " BYTES", [COUNT] = " N", [MICROS] = " TIME", [URL] = " URL", [LOCAL] = " URL", [PATH] = " PATH",
		[ADDRESS] = " IP:PORT", [TEXT] = " FILE", [DEVICE] = " DEVICE", [TIER] = " TIER", [QUOTA] = " TENANT=HARD,SOFT",
		[UIDS] = " UIDS",
		[CHOICE] = " WORD", [FORMAT] = " FORMAT",
		[FILENAME] = " FILE", [CHECK] = "", [HELP] = "", [VERSION] = "",
	};
	return names[kind];
}

void ty_config_help(FILE *out, const char *program)
{
	fprintf(out, "Usage: %s [--name value | --name=value]...\n\n"
		     "Keeps the KV caches of inference engines in host memory.\n\n",
		program);
	for (size_t i = 0; i < OPTION_COUNT; i++) {
		const struct ty_option *o = &options[i];
		const char *initial = o->shown ? o->shown : o->initial;

		fprintf(out, "  --%s%s\n      %s\n", o->name, placeholder(o->kind), o->help);
		if (initial)
			fprintf(out, "      default %s", initial);
		if (o->kind <= MICROS) {
			char low[32], high[32];

			ty_config_format_number(low, sizeof low, o->kind, o->min);
			ty_config_format_number(high, sizeof high, o->kind, o->max);
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
		const struct ty_option *o = &options[i];
		char number[32];

		switch (o->kind) {
		case BYTES:
		case COUNT:
		case MICROS:
			ty_config_format_number(number, sizeof number, o->kind, ty_config_number(config, o));
			line(user, o->name, number);
			break;
		case CHOICE:
			line(user, o->name, ty_config_choice(config, o));
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
			const struct ty_uids *uids = (const struct ty_uids *)(const void *)((const char *)config + o->offset);
			char text[TY_CONFIG_UIDS * 12] = "";

			for (uint32_t u = 0; u < uids->count; u++)
				snprintf(text + strlen(text), sizeof text - strlen(text), "%s%" PRIu32, u ? "," : "", uids->uid[u]);
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
		case CHECK:
		case HELP:
		case VERSION:
			break;
		default:
			if (((const char *)config)[o->offset]) /* else it was not given, and has no default */
				line(user, o->name, (const char *)config + o->offset);
		}
	}
}
