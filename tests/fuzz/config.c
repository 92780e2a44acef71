/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/config.h"
#include "fuzz.h"

static void keep(void *user, const char *name, const char *value)
{
	FILE *out = user;

	fprintf(out, "%s = %s\n", name, value);
}

static enum ty_code parse(const void *bytes, size_t size, struct ty_config *config, struct ty_error *err)
{
	int fd = memfd_create("config", MFD_CLOEXEC);
	char path[32];
	char *argv[] = {(char *)"tyerd", (char *)"--config", path, NULL};
	bool help, version;
	enum ty_code code;

	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	FUZZ_CHECK(fd >= 0 && write(fd, bytes, size) == (ssize_t)size);
	code = ty_config_parse(config, 3, argv, &help, &version, err);
	close(fd);
	return code;
}

/* What is read is told as lines that are read as the same; what is not says why. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct ty_config config, again;
	struct ty_error err = {.text = ""};
	char *text = NULL;
	size_t length = 0;
	FILE *out;

	if (parse(data, size, &config, &err) != TY_OK) {
		FUZZ_CHECK(err.code != TY_OK && err.text[0] != '\0');
		return 0;
	}
	out = open_memstream(&text, &length);
	FUZZ_CHECK(out != NULL);
	ty_config_dump(&config, keep, out);
	fclose(out);
	if (parse(text, length, &again, &err) != TY_OK) {
		fprintf(stderr, "%s\n%s", err.text, text);
		abort();
	}
	FUZZ_CHECK(memcmp(&config, &again, sizeof config) == 0);
	free(text);
	return 0;
}

size_t fuzz_seed(unsigned index, uint8_t *bytes)
{
	static const char *const seeds[] = {
		"",
		"# a comment\nlisten = ipc:///tmp/t/rpc.sock # here\nl1-size = 1.5GiB\n\nlog-level = debug\nlog-format = json\n",
		"listen = tls+tcp://127.0.0.1:9701\ntls-cert = /etc/tyer/cert.pem\nallow-uid = 1000,1001\nhttp = [::1]:0\n",
		"device = host:delay-us=3\ndevice = cuda:1\ntier = disk:/var/cache/tyer,size=1GiB\nquota = a=1GiB,512MiB\n",
		"default-timeout-us = 250ms\nmax-timeout-us = 1s\nmax-requests = 65536\nmax-all-operation-bytes = 64MiB\n",
		"tcp-insecure = on\nlisten=tcp://[::1]:1\n max-clients=1024\n",
	};

	if (index >= sizeof seeds / sizeof seeds[0])
		return SIZE_MAX;
	memcpy(bytes, seeds[index], strlen(seeds[index]));
	return strlen(seeds[index]);
}
