/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "pair.h"

void on_done(void *user, const struct ty_result *result)
{
	struct outcome *o = user;

	o->calls++;
	o->result = *result;
	snprintf(o->error, sizeof o->error, "%s", result->error);
}

void wait_for(struct ty_client *c, const struct outcome *o)
{
	while (o->calls == 0)
		assert_int_not_equal(ty_client_poll(c, 0, FOREVER_US), 0);
	assert_int_equal(o->calls, 1);
}

void pair_start(struct pair *p, struct fake_options fake)
{
	memset(p, 0, sizeof *p);
	fake_start(&p->fake, &fake);
	p->options = fake_client_options(&p->fake);
}

void pair_open(struct pair *p)
{
	if (ty_client_open(&p->options, &p->client, &p->err) != TY_OK)
		fail_msg("ty_client_open: %s", p->err.text);
}

void pair_close(struct pair *p)
{
	ty_client_close(p->client);
	fake_stop(&p->fake);
}

void expect_open(const struct ty_client_options *o, enum ty_code code, const char *text)
{
	struct ty_client *c = (struct ty_client *)(uintptr_t)1;
	struct ty_error err = {.text = ""};

	assert_int_equal(ty_client_open(o, &c, &err), code);
	assert_null(c);
	assert_int_equal(err.code, code);
	if (strstr(err.text, text) == NULL)
		fail_msg("\"%s\" does not say \"%s\"", err.text, text);
}
