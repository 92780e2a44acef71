/* SPDX-License-Identifier: Apache-2.0
 *
 * tyer: asks a running service. PING and STATUS need no attach connection, so this works for whoever may reach the request
 * socket, also over TCP.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <tyer/client.h>

#include "base/text.h"
#include "admin.h"
#include "calibrate.h"
#include "options.h"
#include "show.h"

enum { EXIT_ANSWERED_ERROR = 1, EXIT_NO_SERVICE = 2 };

/* One request's end, kept for after the callback. */
struct answer {
	bool there;
	enum ty_code code;
	uint64_t boot;
	char error[512];
	uint8_t *bytes; /* STATUS, and the administration's replies */
	size_t length;
	bool no_memory;
};

static int64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void keep(struct answer *a, const struct ty_result *r)
{
	a->there = true;
	a->code = r->code;
	a->boot = r->boot;
	ty_escape(a->error, sizeof a->error, r->error ? r->error : "", r->error ? strlen(r->error) : 0, TY_ESCAPE_TEXT, NULL);
}

static void keep_bytes(struct answer *a, const uint8_t *bytes, size_t length)
{
	a->length = length;
	a->bytes = malloc(length ? length : 1);
	if (a->bytes && length)
		memcpy(a->bytes, bytes, length);
	a->no_memory = !a->bytes;
}

static void on_ping(void *user, const struct ty_result *r)
{
	keep(user, r);
}

static void on_status(void *user, const struct ty_result *r)
{
	struct answer *a = user;

	keep(a, r);
	if (r->code)
		return;
	keep_bytes(a, r->status.bytes, r->status.length);
}

static void on_admin(void *user, const struct ty_result *r)
{
	struct answer *a = user;

	keep(a, r);
	if (!r->code)
		keep_bytes(a, r->admin.bytes, r->admin.length);
}

static enum ty_code send_request(struct ty_client *client, const struct cli_options *o, const struct cli_page *page, struct answer *a,
	struct ty_error *err)
{
	enum ty_code code;
	uint8_t *request;
	size_t length;

	if (o->command == CLI_PING)
		return ty_client_ping(client, on_ping, a, err);
	if (o->command == CLI_STATUS)
		return ty_client_status(client, on_status, a, err);
	request = cli_admin_request(o, page, &length);
	if (!request)
		return ty_fail(err, TY_NO_MEMORY, "no memory for a request");
	code = ty_client_admin(client, request, length, on_admin, a, err);
	free(request);
	return code;
}

/* What the library says may have the service's own words in it. */
static const char *safe(char out[512], const struct ty_error *err)
{
	ty_escape(out, 512, err->text, strlen(err->text), TY_ESCAPE_TEXT, NULL);
	return out;
}

/* Send one request and poll for its end, which the library sees to; 0 or an exit status, with the reason printed. */
static int ask(struct ty_client *client, const struct cli_options *o, const struct cli_page *page, struct answer *a)
{
	struct ty_error err = { 0 };
	enum ty_code code;
	char text[512];

	memset(a, 0, sizeof *a);
	code = send_request(client, o, page, a, &err);
	if (code) {
		fprintf(stderr, "tyer: %s: %s\n", ty_code_name(code), safe(text, &err));
		return EXIT_NO_SERVICE;
	}
	while (!a->there) /* who left earlier would leave `a` to a completion that comes when the client is closed */
		ty_client_poll(client, 0, 1000000);
	if (a->no_memory) {
		fprintf(stderr, "tyer: no memory\n");
		return EXIT_ANSWERED_ERROR;
	}
	if (a->code) {
		fprintf(stderr, "tyer: %s: %s\n", ty_code_name(a->code), a->error);
		return a->boot ? EXIT_ANSWERED_ERROR : EXIT_NO_SERVICE;
	}
	return 0;
}

/* An exit status: is all of it out? */
static int written(void)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return 0;
	fprintf(stderr, "tyer: cannot write: %m\n");
	return EXIT_ANSWERED_ERROR;
}

/* Why there is no client, with the service's own words made safe to show. */
static int no_client(const struct cli_options *o, enum ty_code code, const struct ty_error *err)
{
	char text[512];

	fprintf(stderr, "tyer: cannot reach %s%s: %s: %s\n", o->connect,
		o->connect_default ? ", where a tyerd of this user listens by default (--connect names another)" : "", ty_code_name(code),
		safe(text, err));
	return code == TY_INVALID ? EXIT_ANSWERED_ERROR : EXIT_NO_SERVICE;
}

static int status(struct ty_client *client, const struct cli_options *o)
{
	Tyer__V1__StatusReply *reply;
	struct answer a;
	int exit_status = ask(client, o, NULL, &a);

	if (exit_status)
		return exit_status;
	reply = tyer__v1__status_reply__unpack(NULL, a.length, a.bytes);
	free(a.bytes);
	if (!reply) {
		fprintf(stderr, "tyer: %s answered something that is no status of Tyer\n", o->connect);
		return EXIT_NO_SERVICE;
	}
	if (!(o->json ? cli_show_json : cli_show_text)(stdout, a.boot, reply) || fflush(stdout)) {
		fprintf(stderr, "tyer: cannot write the status: %m\n");
		exit_status = EXIT_ANSWERED_ERROR;
	}
	tyer__v1__status_reply__free_unpacked(reply, NULL);
	return exit_status;
}

/* Page by page. */
static int administer(struct ty_client *client, const struct cli_options *o)
{
	uint64_t left = o->max ? o->max : UINT64_MAX;
	struct cli_page page = { 0 };
	struct cli_way way = { 0 };
	struct ty_error err = { 0 };
	bool whole = true;

	do {
		const struct cli_page asked = page;
		const uint64_t before = left;
		enum ty_code code;
		Tyer__V1__Reply *reply;
		struct answer a;
		int exit_status = ask(client, o, &page, &a);
		bool shown;

		if (exit_status)
			return exit_status;
		reply = tyer__v1__reply__unpack(NULL, a.length, a.bytes);
		free(a.bytes);
		shown = reply && cli_admin_show(stdout, stderr, o, reply, &page, &left, &whole);
		if (reply)
			tyer__v1__reply__free_unpacked(reply, NULL);
		if (!shown) {
			fprintf(stderr, "tyer: %s answered something else, or it cannot be written\n", o->connect);
			return EXIT_ANSWERED_ERROR;
		}
		code = cli_page_follows(&way, &asked, &page, before - left, &err);
		if (code) { /* it would go on for ever */
			fprintf(stderr, "tyer: %s: %s: %s\n", o->connect, ty_code_name(code), err.text);
			return EXIT_ANSWERED_ERROR;
		}
	} while ((page.cursor || page.below_length) && left);
	return whole ? 0 : EXIT_ANSWERED_ERROR;
}

static int ping(struct ty_client *client, const struct cli_options *o)
{
	int64_t best = INT64_MAX, worst = 0, sum = 0;

	for (uint64_t i = 0; i < o->count; i++) {
		int64_t start = now_us(), took;
		struct answer a;
		int exit_status = ask(client, o, NULL, &a);

		if (exit_status)
			return exit_status;
		took = now_us() - start;
		best = took < best ? took : best;
		worst = took > worst ? took : worst;
		sum += took;
		printf("answered in %" PRId64 " us, boot %016" PRIx64 "\n", took, a.boot);
	}
	if (o->count > 1)
		printf("%" PRIu64 " answers: best %" PRId64 " us, mean %" PRId64 " us, worst %" PRId64 " us\n", o->count, best,
			sum / (int64_t)o->count, worst);
	return written();
}

int main(int argc, char **argv)
{
	struct ty_error err = { 0 };
	struct ty_client *client;
	struct cli_options o;
	enum ty_code code;
	int exit_status;

	if (cli_options_parse(&o, argc, argv, &err)) {
		fprintf(stderr, "tyer: %s\n", err.text);
		return EXIT_ANSWERED_ERROR;
	}
	if (o.help) {
		cli_help(stdout);
		return written();
	}
	if (o.version) {
		puts("tyer " TY_VERSION);
		return written();
	}
	if (o.command == CLI_CALIBRATE)
		return cli_calibrate(&o);
	const struct ty_client_options options = {
		.size = sizeof options,
		.url = o.connect,
		.name = "tyer",
		.tls_ca = o.tls_ca[0] ? o.tls_ca : NULL,
		.tls_cert = o.tls_cert[0] ? o.tls_cert : NULL,
		.tls_name = o.tls_name[0] ? o.tls_name : NULL,
		.timeout_us = (uint32_t)o.timeout_us,
		.connect_timeout_us = (uint32_t)o.timeout_us,
	};
	code = ty_client_open(&options, &client, &err);
	if (code)
		return no_client(&o, code, &err);
	exit_status = cli_is_admin(o.command) ? administer(client, &o)
		      : o.command == CLI_PING ? ping(client, &o)
					      : status(client, &o);
	ty_client_close(client);
	return exit_status;
}
