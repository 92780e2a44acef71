/* SPDX-License-Identifier: Apache-2.0
 *
 * What the service and an owner in an engine's process say to one another (docs/embed.md): over a stream socket pair that the owner
 * made, whose one end it hands over in an EMBED frame of the attach protocol. The connection's end is the owner's, for the service; that
 * its copies have ended only the end of its process says.
 *
 *   owner   -> service  HELLO {id, name}                  first, once
 *   service -> owner    WELCOME {boot, sizes} + the arena's memfd
 *                       REFUSED {code, text}              instead; the end follows
 *   service -> owner    PIECE {index}                     has its pages: register it. Before the first GRANT that touches it
 *   service -> owner    MAP {map, memory, what it must come to}   a client registered what the owner calls `memory`
 *   owner   -> service  MAPPED {map, code, text}
 *   service -> owner    UNMAP {map}                       nothing of it is out
 *   owner   -> service  UNMAPPED {map}
 *   service -> owner    GRANT {op, map, marks, slots, blocks}     move these: the slots are its own until DONE
 *   service -> owner    CANCEL {op}                       nobody wants it any more; DONE comes as ever
 *   owner   -> service  DONE {op, code, text}             once for each GRANT: no copy of it is under way, or will be
 *
 * Every frame is little-endian and begins with magic, version, type and its own whole length; one of another length than its type
 * has is a violation, and ends the connection.
 */
#ifndef TY_WIRE_OWNER_H
#define TY_WIRE_OWNER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <tyer/client.h>

#define TY_OWNER_MAGIC 0x4f595454u /* "TTYO" */
#define TY_OWNER_VERSION 1
#define TY_OWNER_HEADER_BYTES 16
#define TY_OWNER_TEXT_MAX 144
#define TY_OWNER_NAME_MAX 32
#define TY_OWNER_TO_SERVICE_MAX 512u         /* bytes of the longest frame to the service ... */
#define TY_OWNER_TO_OWNER_MAX (16u << 20)    /* ... and to an owner */

enum ty_owner_type {
	TY_OWNER_HELLO = 1,
	TY_OWNER_WELCOME,
	TY_OWNER_REFUSED,
	TY_OWNER_PIECE,
	TY_OWNER_MAP,
	TY_OWNER_MAPPED,
	TY_OWNER_UNMAP,
	TY_OWNER_UNMAPPED,
	TY_OWNER_GRANT,
	TY_OWNER_CANCEL,
	TY_OWNER_DONE,
};

/* A RETRIEVE's or STORE's copies. */
struct ty_owner_grant {
	uint64_t op, map, client, left_us; /* left_us: until its deadline */
	uint32_t weight;
	bool store;
	struct ty_mark ready, done, layers;
	uint32_t count;            /* chunks */
	uint32_t blocks_per_chunk;
	const uint64_t *offsets;          /* to be sent: of each chunk's slot in the arena ... */
	const uint32_t *const *blocks;    /* ... and its blocks */
	const uint8_t *packed;            /* received: for ty_owner_grant_read; until the next take */
};

struct ty_owner_frame {
	enum ty_owner_type type;
	union {
		struct {
			uint8_t id[TY_OWNER_BYTES];
			char name[TY_OWNER_NAME_MAX + 1];
		} hello;
		struct {
			uint64_t boot, arena_bytes, piece_bytes;
		} welcome;
		struct {
			uint32_t index;
		} piece;
		struct {
			uint64_t map, memory, chunk_bytes;
			uint32_t chunk_tokens;
			uint8_t fingerprint[TY_KEY_BYTES];
		} map;
		struct { /* UNMAP, UNMAPPED: map. CANCEL: op. REFUSED, MAPPED, DONE: what of it applies */
			uint64_t number;
			enum ty_code code;
			char text[TY_OWNER_TEXT_MAX + 1];
		} end;
		struct ty_owner_grant grant;
	};
};

/* TY_PROTOCOL: these bytes are no frame. TY_UNSUPPORTED: they are one of another version. Reads nothing but the bytes. */
TY_MUST_USE enum ty_code ty_owner_decode(const uint8_t *bytes, size_t length, struct ty_owner_frame *frame, struct ty_error *err);
/* Of a received grant: count offsets, and count * blocks_per_chunk blocks, chunk by chunk. */
void ty_owner_grant_read(const struct ty_owner_grant *grant, uint64_t *offsets, uint32_t *blocks);

/* ---- the socket; none of these waits -------------------------------------------------------------------------------------- */

struct ty_owner_stream {
	int fd;
	size_t in_max;     /* longest frame that is taken */
	uint8_t *in, *out;
	size_t in_length, in_taken, in_room, out_length, out_sent, out_room;
	int send_fd;       /* goes with the first byte; the caller's. -1: none, or gone */
	int received_fd;   /* -1: none came. Close it, or take it and set -1 */
};

/* fd is the stream's from now on: not blocking. */
void ty_owner_stream_open(struct ty_owner_stream *stream, int fd, size_t in_max);
void ty_owner_stream_close(struct ty_owner_stream *stream);
/* Behind what is on its way out. TY_NO_MEMORY; TY_LIMIT: the frame is longer than the other side takes. */
TY_MUST_USE enum ty_code ty_owner_put(struct ty_owner_stream *stream, const struct ty_owner_frame *frame, struct ty_error *err);
/* TY_OK: all of it is out. TY_BUSY: the socket takes no more now. TY_CLOSED: the peer is gone. */
TY_MUST_USE enum ty_code ty_owner_flush(struct ty_owner_stream *stream, struct ty_error *err);
/* The next frame. TY_BUSY: not there yet. TY_CLOSED: the peer is gone. TY_PROTOCOL, TY_UNSUPPORTED, TY_NO_MEMORY: no more comes. */
TY_MUST_USE enum ty_code ty_owner_take(struct ty_owner_stream *stream, struct ty_owner_frame *frame, struct ty_error *err);
/* The last take gave a frame, so another may lie here already, of which the socket says nothing: whoever stops after some frames
 * has to come back by himself. */
bool ty_owner_more(const struct ty_owner_stream *stream);

#endif
