/* SPDX-License-Identifier: Apache-2.0
 *
 * OpenMetrics 1.0 text from the table of metrics.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "metrics_view.h"

void ty_text_add(struct ty_text *text, const char *fmt, ...)
{
	va_list args, again;
	int wanted;

	if (text->failed)
		return;
	va_start(args, fmt);
	va_copy(again, args);
	wanted = vsnprintf(text->data ? text->data + text->length : NULL, text->room - text->length, fmt, args);
	va_end(args);
	if (wanted < 0) {
		text->failed = true;
	} else if ((size_t)wanted >= text->room - text->length) {
		size_t room = (text->length + (size_t)wanted + 1) * 2;
		char *data = realloc(text->data, room < 4096 ? 4096 : room);

		if (data == NULL) {
			text->failed = true;
		} else {
			text->data = data;
			text->room = room < 4096 ? 4096 : room;
			vsnprintf(data + text->length, text->room - text->length, fmt, again);
			text->length += (size_t)wanted;
		}
	} else {
		text->length += (size_t)wanted;
	}
	va_end(again);
}

struct writer {
	struct ty_metric_sink sink;
	struct ty_text *out;
};

static void write_sample(struct ty_metric_sink *sink, const struct ty_metric *metric, const char *suffix, const char *labels,
	struct ty_value value)
{
	struct ty_text *out = ty_container_of(sink, struct writer, sink)->out;

	ty_text_add(out, "%s%s%s%s%s ", metric->name, suffix, labels[0] ? "{" : "", labels, labels[0] ? "}" : "");
	if (value.whole)
		ty_text_add(out, "%" PRIu64 "\n", value.number);
	else
		ty_text_add(out, "%.9g\n", value.real);
}

void ty_metrics_write(struct ty_text *out, const struct ty_view *view)
{
	static const char *const types[] = {"counter", "gauge", "histogram", "info", "stateset"};
	struct writer writer = {.sink.sample = write_sample, .out = out};

	for (size_t i = 0; i < ty_metric_count; i++) {
		const struct ty_metric *m = &ty_metrics[i];

		ty_text_add(out, "# TYPE %s %s\n", m->name, types[m->type]);
		if (m->unit[0])
			ty_text_add(out, "# UNIT %s %s\n", m->name, m->unit);
		ty_text_add(out, "# HELP %s %s\n", m->name, m->help);
		m->read(view, m, &writer.sink);
	}
	ty_text_add(out, "# EOF\n");
}
