/* SPDX-License-Identifier: Apache-2.0
 *
 * Defaults that depend on the machine or on other options, and whether the options agree.
 */
#include "config_private.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"

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

/* Each is fine by itself. */
static enum ty_code check_pairs(const struct ty_config *config, struct ty_error *err)
{
	char small[32], large[32];

	if (config->default_timeout_us > config->max_timeout_us) {
		ty_format_time_us(small, sizeof small, config->default_timeout_us);
		ty_format_time_us(large, sizeof large, config->max_timeout_us);
		return ty_fail(err, TY_INVALID, "--default-timeout-us: found %s, expected at most --max-timeout-us, %s", small, large);
	}
	/* else who asks for nothing has more of a device than who asks for all that one may */
	if (config->client_weight > config->max_client_weight)
		return ty_fail(err, TY_INVALID, "--client-weight: found %u, expected at most --max-client-weight, %u", config->client_weight,
			config->max_client_weight);
	/* what is not stalled yet is not ended for it either */
	if (config->gpu_stall_limit_us && config->gpu_stall_limit_us < config->gpu_stall_after_us) {
		ty_format_time_us(small, sizeof small, config->gpu_stall_limit_us);
		ty_format_time_us(large, sizeof large, config->gpu_stall_after_us);
		return ty_fail(err, TY_INVALID, "--gpu-stall-limit: found %s, expected 0 or at least --gpu-stall-after, %s", small, large);
	}
	for (uint32_t i = 0; i < config->embed_uid.count; i++)
		if (!ty_config_allows_uid(config, config->embed_uid.uid[i]))
			return ty_fail(err, TY_INVALID, "--embed-uid: found user %u, expected one that may be a client: named in --allow-uid, too",
				config->embed_uid.uid[i]);
	return TY_OK;
}

enum ty_code ty_config_fill_in(struct ty_config *config, struct ty_error *err)
{
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
	config->l1_size = (config->l1_size + TY_CONFIG_PIECE_BYTES - 1) / TY_CONFIG_PIECE_BYTES * TY_CONFIG_PIECE_BYTES; /* max 8 TiB: no overflow */
	if (config->l1_ahead > config->l1_size)
		config->l1_ahead = config->l1_size;
	code = check_quotas(config, err);
	return code ? code : check_pairs(config, err);
}
