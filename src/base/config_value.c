/* SPDX-License-Identifier: Apache-2.0
 *
 * One option's value: from text, with what is refused; and back to text.
 */
#include "config_private.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/text.h"

#define WORDS_MAX 4
static const char *const words[][WORDS_MAX + 1] = {
	[ON_OFF] = { "off", "on" },
	[SHARING] = { [TY_CONFIG_SHARING_AUTO] = "auto", [TY_CONFIG_SHARING_QUIET] = "quiet", [TY_CONFIG_SHARING_FAST] = "fast" },
	[VERIFY] = { [TY_CONFIG_VERIFY_NONE] = "none", [TY_CONFIG_VERIFY_SAMPLE] = "sample", [TY_CONFIG_VERIFY_FULL] = "full" },
	[POLICY] = { [TY_CONFIG_POLICY_ARC] = "arc", [TY_CONFIG_POLICY_LRU] = "lru", [TY_CONFIG_POLICY_S3FIFO] = "s3-fifo" },
	[LEVEL] = { [TY_LOG_ERROR] = "error", [TY_LOG_WARN] = "warn", [TY_LOG_INFO] = "info", [TY_LOG_DEBUG] = "debug" },
};

/* ---- errors -------------------------------------------------------------------------------- */

const char *ty_config_shown(char out[TY_SHOWN_MAX], const char *text, size_t length)
{
	bool cut;
	size_t n = ty_escape(out, TY_SHOWN_MAX - 4, text, length, TY_ESCAPE_TEXT, &cut);

	if (cut)
		memcpy(out + n, "...", 4);
	return out;
}

enum ty_code ty_config_refuse(const struct ty_config_source *from, const char *name, struct ty_error *err, const char *fmt, ...)
{
	char text[192], file[TY_SHOWN_MAX];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	if (!from->file)
		return ty_fail(err, TY_INVALID, "--%s: %s", name, text);
	ty_config_shown(file, from->file, strlen(from->file));
	return ty_fail(err, TY_INVALID, "%s:%u: %s%s%s", file, from->line, name, *name ? ": " : "", text);
}

/* ---- one value ----------------------------------------------------------------------------- */

static void *member(struct ty_config *config, const struct ty_option *o)
{
	return (char *)config + o->offset;
}

uint64_t ty_config_number(const struct ty_config *config, const struct ty_option *o)
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

static void set_number(struct ty_config *config, const struct ty_option *o, uint64_t value)
{
	uint32_t narrow = (uint32_t)value;

	if (o->size == sizeof value)
		memcpy(member(config, o), &value, sizeof value);
	else
		memcpy(member(config, o), &narrow, sizeof narrow);
}

void ty_config_format_number(char *out, size_t size, enum ty_option_kind kind, uint64_t value)
{
	if (kind == BYTES)
		ty_format_bytes(out, size, value);
	else if (kind == MICROS)
		ty_format_time_us(out, size, value);
	else
		snprintf(out, size, "%" PRIu64, value);
}

static enum ty_code set_count(struct ty_config *config, const struct ty_option *o, const char *value,
	const struct ty_config_source *from, struct ty_error *err)
{
	char low[32], high[32], found[TY_SHOWN_MAX];
	struct ty_error why;
	enum ty_code code;
	uint64_t number;

	if (o->kind == BYTES)
		code = ty_parse_bytes(value, &number, &why);
	else if (o->kind == MICROS)
		code = ty_parse_time_us(value, &number, &why);
	else
		code = ty_parse_count(value, UINT64_MAX, &number, &why);
	ty_config_format_number(low, sizeof low, o->kind, o->min);
	ty_config_format_number(high, sizeof high, o->kind, o->max);
	if (code == TY_INVALID && o->kind == COUNT)
		return ty_config_refuse(from, o->name, err, "found \"%s\", expected a whole number, %s to %s",
			ty_config_shown(found, value, strlen(value)), low, high);
	if (code)
		return ty_config_refuse(from, o->name, err, "%s, %s to %s", why.text, low, high);
	if (number < o->min || number > o->max)
		return ty_config_refuse(from, o->name, err, "found \"%s\", expected %s to %s", ty_config_shown(found, value, strlen(value)),
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

	if (!strncmp(text, "ipc://", 6)) /* a path from the root: what is derived from it lies beside it, wherever tyerd is started */
		return text[6] == '/' && strlen(text + 6) < sizeof(((struct ty_config *)0)->attach);
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

static enum ty_code set_text(struct ty_config *config, const struct ty_option *o, const char *value,
	const struct ty_config_source *from, struct ty_error *err)
{
	static const char *const expected[] = {
		[URL] = "ipc:///PATH (a path below 108 bytes), tls+tcp://IP:PORT or tcp://IP:PORT",
		[LOCAL] = "ipc:///PATH (a path below 108 bytes) or off",
		[PATH] = "a path",
		[ADDRESS] = "IP:PORT or off",
		[TEXT] = "a file name",
		[DEVICE] = "cuda:N, host or host:FAULTS",
		[TIER] = "KIND:WHERE[,name=value]...",
	};
	size_t size = o->kind == DEVICE ? sizeof config->device[0] : o->kind == TIER ? sizeof config->tier[0] : o->size;
	size_t length = strlen(value);
	char found[TY_SHOWN_MAX];
	char *to = member(config, o);
	bool good = is_plain(value);

	ty_config_shown(found, value, length);
	if (length >= size)
		return ty_config_refuse(from, o->name, err, "found \"%s\" of %zu bytes, expected at most %zu", found, length, size - 1);
	if (o->kind == URL)
		good = good && is_url(value);
	else if (o->kind == LOCAL)
		good = good && (!strcmp(value, "off") || (!strncmp(value, "ipc:", 4) && is_url(value)));
	else if (o->kind == ADDRESS)
		good = good && is_address(value);
	else if (o->kind == DEVICE)
		good = good && is_device(value);
	else if (o->kind == TIER)
		good = good && is_tier(value);
	if (!good)
		return ty_config_refuse(from, o->name, err, "found \"%s\", expected %s", found, expected[o->kind]);
	if (o->kind == DEVICE) {
		/* two names of one device: clients could not tell them apart, and a device has one owner */
		size_t name = !strncmp(value, "host", 4) ? 4 : length + 1;

		for (uint32_t i = 0; i < config->device_count; i++)
			if (!strncmp(config->device[i], value, name))
				return ty_config_refuse(from, o->name, err, "found \"%s\" again, expected each device once", found);
		if (config->device_count == TY_CONFIG_DEVICES)
			return ty_config_refuse(from, o->name, err, "found more than %d devices", TY_CONFIG_DEVICES);
		to = config->device[config->device_count++];
	} else if (o->kind == TIER) {
		if (config->tier_count == TY_CONFIG_TIERS)
			return ty_config_refuse(from, o->name, err, "found more than %d tiers", TY_CONFIG_TIERS);
		to = config->tier[config->tier_count++];
	}
	memcpy(to, value, length + 1);
	return TY_OK;
}

static enum ty_code set_choice(struct ty_config *config, const struct ty_option *o, const char *value,
	const struct ty_config_source *from, struct ty_error *err)
{
	char found[TY_SHOWN_MAX], expected[96];
	size_t used = 0;

	for (int i = 0; words[o->min][i]; i++) {
		if (!strcmp(value, words[o->min][i])) {
			memcpy(member(config, o), &i, sizeof i);
			return TY_OK;
		}
		used += (size_t)snprintf(expected + used, sizeof expected - used, "%s%s", i ? ", " : "", words[o->min][i]);
		assert(used < sizeof expected);
	}
	return ty_config_refuse(from, o->name, err, "found \"%s\", expected one of %s", ty_config_shown(found, value, strlen(value)), expected);
}

const char *ty_config_choice(const struct ty_config *config, const struct ty_option *o)
{
	int i;

	memcpy(&i, (const char *)config + o->offset, sizeof i);
	return words[o->min][i];
}

static enum ty_code add_quota(struct ty_config *config, const struct ty_option *o, const char *value,
	const struct ty_config_source *from, struct ty_error *err)
{
	struct ty_error why;

	if (config->quota_count == TY_TENANT_QUOTAS_MAX)
		return ty_config_refuse(from, o->name, err, "found more than %d quotas", TY_TENANT_QUOTAS_MAX);
	if (!is_plain(value))
		return ty_config_refuse(from, o->name, err, "found a value that is not printable, expected TENANT=HARD[,SOFT]");
	if (ty_quota_parse(value, &config->quotas[config->quota_count], &why) != TY_OK)
		return ty_config_refuse(from, o->name, err, "%s", why.text);
	config->quota_count++;
	return TY_OK;
}

static enum ty_code set_uids(struct ty_config *config, const struct ty_option *o, const char *value,
	const struct ty_config_source *from, struct ty_error *err)
{
	struct ty_uids *uids = (struct ty_uids *)(void *)((char *)config + o->offset);
	char found[TY_SHOWN_MAX], number[16];
	const char *at = value;

	uids->count = 0;
	for (;;) {
		size_t length = strcspn(at, ",");
		uint64_t uid;

		if (uids->count == TY_CONFIG_UIDS)
			return ty_config_refuse(from, o->name, err, "found more than %d users", TY_CONFIG_UIDS);
		if (length >= sizeof number)
			break;
		memcpy(number, at, length);
		number[length] = '\0';
		if (!is_number(number, UINT32_MAX - 1) || ty_parse_count(number, UINT32_MAX - 1, &uid, NULL) != TY_OK)
			break;
		uids->uid[uids->count++] = (uint32_t)uid;
		if (at[length] == '\0')
			return TY_OK;
		at += length + 1;
	}
	return ty_config_refuse(from, o->name, err, "found \"%s\", expected UID[,UID]...", ty_config_shown(found, value, strlen(value)));
}

bool ty_uids_have(const struct ty_uids *uids, uint32_t uid)
{
	for (uint32_t i = 0; i < uids->count; i++)
		if (uids->uid[i] == uid)
			return true;
	return false;
}

bool ty_config_allows_uid(const struct ty_config *config, uint32_t uid)
{
	return uid == 0 || uid == geteuid() || ty_uids_have(&config->allow_uid, uid);
}

enum ty_code ty_config_set(struct ty_config *config, const struct ty_option *o, const char *value,
	const struct ty_config_source *from, struct ty_error *err)
{
	char found[TY_SHOWN_MAX];

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
	case CHECK:
	case HELP:
	case VERSION:
		assert(false);
		break;
	default:
		return set_text(config, o, value, from, err);
	}
	return ty_config_refuse(from, o->name, err, "found \"%s\", expected one of %s", ty_config_shown(found, value, strlen(value)), o->help);
}
