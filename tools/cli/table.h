/* SPDX-License-Identifier: Apache-2.0
 *
 * A table of text for a terminal: columns as wide as their widest cell.
 */
#ifndef TYER_CLI_TABLE_H
#define TYER_CLI_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include <tyer/result.h>

#define TABLE_COLUMNS 12
#define TABLE_CELL 64 /* bytes of a cell with its zero; longer text is cut */

struct table {
	size_t columns, count, room; /* cells, with the headings */
	char (*cells)[TABLE_CELL];
	bool right[TABLE_COLUMNS];  /* aligned right: numbers */
	bool failed;                /* no memory */
};

/* Headings: a null-terminated list; one that begins with '>' makes its column a right-aligned one. */
void table_begin(struct table *t, const char *const *headings);
/* The next cell, row by row. The text may come from outside: it is made safe to show. */
void table_text(struct table *t, const char *text);
void table_cell(struct table *t, const char *fmt, ...) TY_PRINTF(2, 3);
/* Print and free. False: no memory for it. */
bool table_end(struct table *t, FILE *out);

#endif
