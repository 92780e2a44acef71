/* SPDX-License-Identifier: Apache-2.0 */
#include "metrics.h"

#include <stdlib.h>
#include <string.h>

#include "metrics_view.h"

struct metrics {
	struct ty_service *service;
	struct ty_view view; /* of the request at hand; too large for a stack that others share */
};

static void status(void *self, struct ty_msg *msg)
{
	struct metrics *metrics = self;
	struct ty_exchange *exchange = ty_container_of(msg, struct ty_exchange, msg);

	ty_view_take(&metrics->view, metrics->service);
	exchange->reply.status = ty_status_make(&metrics->view);
	if (exchange->reply.status == NULL) {
		ty_exchange_refuse(exchange, TY_NO_MEMORY, "no memory for the status");
		return;
	}
	exchange->code = TY_OK;
	ty_exchange_answer(exchange);
}

static void plain_page(struct ty_scrape *scrape, struct ty_text *text, bool good, const char *words)
{
	scrape->status = good ? 200 : 503;
	scrape->type = "text/plain; charset=utf-8";
	ty_text_add(text, "%s", words);
}

static void status_page(struct ty_scrape *scrape, struct ty_text *text, const struct ty_view *view)
{
	Tyer__V1__StatusReply *reply = ty_status_make(view);

	scrape->status = 200;
	scrape->type = "application/json";
	if (reply) {
		ty_status_write_json(text, reply, view->service->boot);
		tyer__v1__status_reply__free_unpacked(reply, NULL);
	} else {
		text->failed = true;
	}
}

static void scrape(void *self, struct ty_msg *msg)
{
	struct metrics *metrics = self;
	struct ty_scrape *page = ty_container_of(msg, struct ty_scrape, msg);
	const struct ty_view *view = &metrics->view;
	struct ty_text text = {0};

	ty_view_take(&metrics->view, metrics->service);
	switch (page->page) {
	case TY_PAGE_METRICS:
		page->status = 200;
		page->type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
		ty_metrics_write(&text, view);
		break;
	case TY_PAGE_HEALTH:
		plain_page(page, &text, view->healthy, view->health);
		break;
	case TY_PAGE_READY:
		plain_page(page, &text, view->ready, view->readiness);
		break;
	case TY_PAGE_STATUS:
		status_page(page, &text, view);
		break;
	}
	if (text.failed) {
		free(text.data);
		text = (struct ty_text){0};
		page->status = 500;
	}
	page->body = text.data;
	page->length = text.length;
	page->done(page);
}

static enum ty_code start(void *self, void *arg)
{
	((struct metrics *)self)->service = arg;
	return TY_OK;
}

/* After the close: everybody who asked is still answered. */
static void refuse(void *self, struct ty_msg *msg)
{
	(void)self;
	if (msg->type == TY_METRICS_STATUS) {
		ty_exchange_refuse(ty_container_of(msg, struct ty_exchange, msg), TY_STOPPING, "the service is stopping");
	} else if (msg->type == TY_METRICS_SCRAPE) {
		struct ty_scrape *page = ty_container_of(msg, struct ty_scrape, msg);

		page->status = 503;
		page->done(page);
	}
}

static const struct ty_handler handlers[] = {{"status", status}, {"scrape", scrape}};

const struct ty_class ty_metrics_class = {
	.name = "metrics",
	.state_size = sizeof(struct metrics),
	.first_type = TY_METRICS_STATUS,
	.type_count = sizeof handlers / sizeof handlers[0],
	.handlers = handlers,
	.start = start,
	.refuse = refuse,
};
