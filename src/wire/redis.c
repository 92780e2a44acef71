/* SPDX-License-Identifier: Apache-2.0 */
#include "redis.h"

#include <arpa/inet.h>
#include <assert.h>
#include <stdio.h>
#include <string.h>

/* ---- pieces of text ----------------------------------------------------------------------------------------- */

struct piece {
	const char *at;
	size_t length;
};

/* Up to the next `end`, which is eaten; false: there is nothing any more. */
static bool next_piece(struct piece *rest, char end, struct piece *out)
{
	const char *found;

	if (!rest->length)
		return false;
	found = memchr(rest->at, end, rest->length);
	out->at = rest->at;
	out->length = found ? (size_t)(found - rest->at) : rest->length;
	rest->length -= out->length + (found != NULL);
	rest->at += out->length + (found != NULL);
	return true;
}

static bool is_word(const struct piece *p, const char *word)
{
	return p->length == strlen(word) && !memcmp(p->at, word, p->length);
}

static bool take_number(const struct piece *p, uint32_t max, uint32_t *out)
{
	uint32_t number = 0;

	if (!p->length || p->length > 6)
		return false;
	for (size_t i = 0; i < p->length; i++) {
		if (p->at[i] < '0' || p->at[i] > '9')
			return false;
		number = number * 10 + (uint32_t)(p->at[i] - '0');
	}
	*out = number;
	return number <= max;
}

/* ADDRESS:PORT. */
static bool take_node(const struct piece *p, struct ty_redis_node *out)
{
	const char *colon = memrchr(p->at, ':', p->length);
	uint8_t address[16];
	struct piece port;
	uint32_t number;
	size_t n;

	if (!colon)
		return false;
	n = (size_t)(colon - p->at);
	port = (struct piece){colon + 1, p->length - n - 1};
	if (n >= sizeof out->host || memchr(p->at, 0, n) || !take_number(&port, 65535, &number) || !number)
		return false;
	memcpy(out->host, p->at, n);
	out->host[n] = 0;
	out->port = (uint16_t)number;
	return !n || inet_pton(AF_INET, out->host, address) == 1 || inet_pton(AF_INET6, out->host, address) == 1;
}

/* ---- ---------------------------------------------------------------------------------------------------------- */

bool ty_redis_redirection(const char *text, size_t length, struct ty_redis_node *node, uint32_t *slot, bool *asking)
{
	struct piece rest = {text, length}, word, number, where;

	if (!next_piece(&rest, ' ', &word) || !next_piece(&rest, ' ', &number) || !next_piece(&rest, ' ', &where))
		return false;
	*asking = is_word(&word, "ASK");
	return (*asking || is_word(&word, "MOVED")) && take_number(&number, TY_REDIS_SLOTS - 1, slot) && take_node(&where, node);
}

enum { ADDRESS = 1, FLAGS = 2, FIRST_SLOT = 8, FIELDS };

static bool has_flag(struct piece flags, const char *name)
{
	struct piece flag;

	while (next_piece(&flags, ',', &flag))
		if (is_word(&flag, name))
			return true;
	return false;
}

bool ty_redis_next_master(const char **text, size_t *left, struct ty_redis_node *node, const char **bad)
{
	struct piece rest = {*text, *left}, line;
	bool found = false;

	*bad = NULL;
	while (!found && !*bad && next_piece(&rest, '\n', &line)) {
		struct piece field[FIELDS] = {{0}}, address;
		int count = 0;

		if (line.length && line.at[line.length - 1] == '\r')
			line.length--;
		if (!line.length)
			continue;
		while (count < FIELDS && next_piece(&line, ' ', &field[count]))
			count++;
		if (count < FIRST_SLOT) {
			*bad = "its list of nodes cannot be read";
		} else if (count > FIRST_SLOT && field[FIRST_SLOT].length && field[FIRST_SLOT].at[0] != '[' && has_flag(field[FLAGS], "master")) {
			/* ADDRESS:PORT@PORT,NAME */
			if (has_flag(field[FLAGS], "fail") || has_flag(field[FLAGS], "noaddr") || has_flag(field[FLAGS], "handshake"))
				*bad = "a node that has slots is not there";
			else if (!next_piece(&field[ADDRESS], '@', &address) || !take_node(&address, node))
				*bad = "a node's address cannot be read";
			found = !*bad;
		}
	}
	*text = rest.at;
	*left = rest.length;
	return found;
}

static int digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool ty_redis_key(const char *name, size_t length, const char *prefix, uint8_t out[TY_REDIS_KEY_BYTES])
{
	size_t n = strlen(prefix);

	if (length != n + 2 * TY_REDIS_KEY_BYTES || memcmp(name, prefix, n) != 0)
		return false;
	for (size_t i = 0; i < TY_REDIS_KEY_BYTES; i++) {
		int high = digit(name[n + 2 * i]), low = digit(name[n + 2 * i + 1]);

		if (high < 0 || low < 0)
			return false;
		out[i] = (uint8_t)(high << 4 | low);
	}
	return true;
}

void ty_redis_pattern(const char *prefix, const uint8_t *key, size_t key_bytes, char *out, size_t size)
{
	size_t n = 0;

	assert(2 * strlen(prefix) + 2 * key_bytes + 2 <= size);
	for (; *prefix; prefix++) {
		if (strchr("*?[]\\^-", *prefix))
			out[n++] = '\\';
		out[n++] = *prefix;
	}
	for (size_t i = 0; i < key_bytes; i++)
		n += (size_t)snprintf(out + n, size - n, "%02x", key[i]);
	out[n++] = '*';
	out[n] = 0;
}
