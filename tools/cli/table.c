/* SPDX-License-Identifier: Apache-2.0 */
#include "table.h"

#include <assert.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

void table_text(struct table *t, const char *text)
{
	size_t length = strlen(text);
	char *cell;
	bool cut;

	if (t->failed)
		return;
	if (t->count == t->room) {
		size_t room = t->room ? 2 * t->room : 64;
		void *cells = reallocarray(t->cells, room, sizeof *t->cells);

		if (!cells) {
			t->failed = true;
			return;
		}
		t->cells = cells;
		t->room = room;
	}
	cell = t->cells[t->count++];
	length = ty_escape(cell, TABLE_CELL - 3, text, length, TY_ESCAPE_TEXT, &cut);
	if (cut)
		memcpy(cell + length, "..", 3);
}

void table_cell(struct table *t, const char *fmt, ...)
{
	char text[256];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	table_text(t, text);
}

void table_begin(struct table *t, const char *const *headings)
{
	memset(t, 0, sizeof *t);
	for (; headings[t->columns]; t->columns++) {
		assert(t->columns < TABLE_COLUMNS);
		t->right[t->columns] = headings[t->columns][0] == '>';
		table_text(t, headings[t->columns] + t->right[t->columns]);
	}
}

/* In characters, each taken for one column of the terminal. */
static size_t width_of(const char *text)
{
	size_t length = strlen(text), width = 0;

	for (size_t at = 0; at < length; width++) {
		uint32_t code;

		at += ty_utf8_next(text + at, length - at, &code);
	}
	return width;
}

bool table_end(struct table *t, FILE *out)
{
	size_t widths[TABLE_COLUMNS] = { 0 };
	bool good = !t->failed;

	assert(t->failed || t->count % t->columns == 0);
	for (size_t i = 0; good && i < t->count; i++) {
		size_t width = width_of(t->cells[i]);

		if (width > widths[i % t->columns])
			widths[i % t->columns] = width;
	}
	for (size_t i = 0; good && i < t->count; i++) {
		size_t column = i % t->columns;
		int pad = (int)(widths[column] - width_of(t->cells[i]));
		bool last = column + 1 == t->columns;

		if (t->right[column])
			fprintf(out, "%*s%s", pad, "", t->cells[i]);
		else
			fprintf(out, "%s%*s", t->cells[i], last ? 0 : pad, "");
		fputs(last ? "\n" : "  ", out);
	}
	free(t->cells);
	t->cells = NULL;
	return good;
}
