/* SPDX-License-Identifier: Apache-2.0
 *
 * Tiers: where chunks lie below the arena. A tier is an actor that takes struct ty_tier_io messages and sends each home
 * exactly once; a library that brings one implements struct ty_tier_class and nothing else. docs/tiers.md.
 *
 *   prefetch   --EXISTS, GET-->  tier  --the same io, its outcome set-->  prefetch
 *   writeback  --PUT-->          tier  --                            -->  writeback
 *
 * What a tier promises:
 *   - It never blocks its callers: an io is submitted with a message, answered with one, and past the tier's limits it is
 *     refused at once. GETs and EXISTS have credits of their own, so that writes cannot stand in their way; and so has what
 *     no prompt waits for (LIST, and what is `aside`), so that it stands in nobody's.
 *   - It ends every io: by its deadline where it can, and in any case when it is told to stop.
 *   - Between submit and completion it may read (PUT) or write (GET) the parts' memory, and not a moment after.
 *   - GET answers DONE only if every byte was checked against the checksums that came down with it, and the header is the
 *     chunk's own (envelope.h). Anything else is CORRUPT, counted, and out of the way for the next time.
 *   - A chunk becomes visible in it whole or not at all.
 *   - It packs what goes down, if it is told to, and unpacks whatever it finds packed (tier_pack.c).
 */
#ifndef TY_ACTORS_TIER_H
#define TY_ACTORS_TIER_H

#include <stdatomic.h>
#include <tyer/actor.h>

#include "events.h"
#include "bytework.h"
#include "messages.h"
#include "base/config.h"
#include "cache/envelope.h"
#include "cache/policy.h"
#include "cache/space.h"

struct ty_service;

#define TY_MAX_TIERS 8
#define TY_TIER_TENANTS 8
#define TY_TIER_ARGS 16
#define TY_TIER_QUERY 512 /* keys of one EXISTS */
#define TY_TIER_GIVEN_UP 64 /* operations of a disk that were answered at their deadline and are not over: past it, it is asked for nothing */

enum ty_tier_verb { TY_TIER_PUT, TY_TIER_GET, TY_TIER_EXISTS, TY_TIER_DELETE, TY_TIER_LIST };
#define TY_TIER_VERBS (TY_TIER_LIST + 1)

enum ty_tier_outcome {
	TY_TIER_DONE,
	TY_TIER_MISSING,  /* it is not there */
	TY_TIER_CORRUPT,  /* it was there and wrong: a miss from now on */
	TY_TIER_FULL,     /* no room for it, whatever the tier took away */
	TY_TIER_FAILED,   /* the disk, the server, the network; `error` says what */
	TY_TIER_LATE,     /* its deadline passed */
	TY_TIER_STOPPED,  /* the tier stops */
	TY_TIER_OUTCOMES
};

struct ty_tier_part {
	uint8_t *data;      /* in the arena, TY_SLOT_ALIGN aligned, room up to the next multiple of it. GET: null = not wanted */
	uint64_t length;    /* PUT, GET: of the contents, known to both; EXISTS: answered */
	uint64_t checksum;  /* PUT: of the contents; GET: answered. ty_checksum */
};

/* A place between two pages, in the tier's own words. It may come from outside: the tier takes no word of it for granted. */
#define TY_TIER_CURSOR_MAX 80
struct ty_tier_cursor {
	uint32_t length; /* 0: the beginning; answered: that was all */
	uint8_t bytes[TY_TIER_CURSOR_MAX];
};

/* Whose chunks are, by number, from 1 on: as many as there are. All zero: none. A number is taken by each who keeps it; when the last one
 * drops it it is another identity's. */
struct ty_tier_names {
	struct ty_tier_name {
		struct ty_identity *identity;  /* null: this number is free */
		uint32_t uses, next;           /* next: of its bucket, or of those that are free; 0: none */
	} *name;                               /* `room` of them; the number is one more than the place */
	uint32_t *bucket;                      /* `room` of them */
	uint32_t room, given, free, count;     /* given: numbers so far; count: of these, not free */
};

/* Of a LIST: chunks that the tier holds, in no order. What is there from the first page to the last is in one page (a shared
 * store may tell it twice while it moves things about itself). A page with nothing in it is not the end. */
struct ty_tier_page {
	struct ty_tier_cursor cursor; /* from here. Answered: from where the next page is */
	uint32_t wanted;          /* the page ends when it has so many, or the tier has looked for long enough; it may have some more */
	bool shapes;              /* identity and parts are wanted, also where the tier has to read each chunk's header for them */
	uint32_t prefix_length;   /* only of keys that begin with so many bytes of `prefix` */
	struct ty_key prefix;
	uint32_t count, room;
	struct ty_tier_item { /* made by the tier; freed by ty_tier_page_clear */
		struct ty_key key;
		const struct ty_identity *identity; /* the page's own, once it was added; null: the chunk does not say */
		uint64_t bytes;                     /* that it takes there; 0: not known */
		uint32_t parts;                     /* 0: not known */
	} *item;
	struct ty_tier_names names; /* that its items are of */
};

/* One operation. Allocated by whoever submits it, who keeps the keys, the identity and the parts' memory until it is home. */
struct ty_tier_io {
	struct ty_msg msg;
	struct ty_actor *home;       /* where it goes back to, as ... */
	uint32_t home_type;          /* ... this message; outlives its ios */
	enum ty_tier_verb verb;
	int64_t deadline;            /* runtime's clock */
	_Atomic bool cancelled;      /* home: release; tier: acquire. Nobody wants it: end it early if that is easy */
	const struct ty_key *keys;   /* EXISTS: of one chain, head first; all others: one */
	uint32_t key_count;
	bool aside;                  /* nobody's prompt waits for it. GET, EXISTS: this is no use of the chunk; memory need not be the
	                                arena's */
	struct ty_tier_page *page;   /* LIST */
	const struct ty_identity *identity; /* PUT: whose chunk, for the header. GET: must be the header's. Null: not known */
	struct ty_identity *whose;       /* EXISTS: whoever asks has room for whose the first key's chunk is; null: not wanted ... */
	bool known;                      /* ... answered: it says so, and that was written ... */
	uint64_t takes;                  /* ... and the bytes that it takes there */
	uint64_t read;                   /* answered: bytes that came from there for it, as they lie there, whatever came of them */

	enum ty_tier_outcome outcome; /* set when it goes home */
	char error[120];              /* FAILED, CORRUPT: why */
	uint32_t found;               /* EXISTS: so many leading keys are there, all of the first one's shape */

	/* The tier's, while it has the io. */
	struct ty_tier_io *next;
	struct ty_tier_packed *packed; /* PUT: what a packer made of it; null: it was not with one */
	int64_t submitted;
	uint64_t bytes;               /* what it weighs against the tier's limit */

	uint32_t parts;               /* EXISTS: answered for the first key, room for TY_CHUNK_MAX_PARTS */
	struct ty_tier_part part[];
};

/* ---- what a tier is configured as: --tier KIND:WHERE[,name=value]... ---------------------------------------- */

enum ty_tier_write {
	TY_TIER_WRITE_COMMIT, /* a chunk goes down as soon as it is whole */
	TY_TIER_WRITE_REUSE,  /* when it is used for the second time */
	TY_TIER_WRITE_EVICT,  /* when the arena is about to drop it */
	TY_TIER_WRITE_NEVER,  /* only read */
};

struct ty_tier_config {
	char kind[16], where[TY_CONFIG_TIER_MAX];
	uint64_t size;                /* size=, bytes it may take at the start; UINT64_MAX: no limit */
	enum ty_tier_write write;     /* write=commit, reuse, evict, never. Read, and changed by CONFIGURE, by eviction alone */
	char tenants[TY_TIER_TENANTS][256]; /* tenant=, repeatable: only their chunks go down; none: everybody's */
	uint32_t tenant_count;
	uint32_t ops;                 /* ops=, in flight, reads and writes each */
	uint64_t bytes;               /* bytes=, in flight, reads and writes each */
	uint32_t queue;               /* queue=, chunks that wait to be written to it */
	uint64_t pins;                /* pins=, bytes of these that are pinned, because they were about to be evicted */
	int64_t timeout;              /* timeout=, ns an io may take */
	struct ty_packing packing;    /* compress=, of what goes down; the width is each chunk's own */
	enum { TY_TIER_SCRUB_LOCAL, TY_TIER_SCRUB_YES, TY_TIER_SCRUB_NO } scrub; /* scrub=yes, no; else: if nobody else writes to it */
	int64_t wait;                 /* wait=, ns that a store waits for its room until what lies there is written; 0: dropped */
	struct { char name[24], value[128]; } args[TY_TIER_ARGS]; /* what the kind itself may understand */
	uint32_t arg_count;
};

/* TY_INVALID names what of the text is wrong. */
TY_MUST_USE enum ty_code ty_tier_parse(const char *text, struct ty_tier_config *out, struct ty_error *err);

/* What the settings that may change later may be; the text says what was found and expected. */
TY_MUST_USE enum ty_code ty_tier_parse_size(const char *text, uint64_t *out, struct ty_error *err); /* "none": no limit */
TY_MUST_USE enum ty_code ty_tier_parse_write(const char *text, enum ty_tier_write *out, struct ty_error *err);
const char *ty_tier_write_name(enum ty_tier_write write);

/* ---- a tier ------------------------------------------------------------------------------------------------- */

enum ty_tier_state { TY_TIER_STARTING, TY_TIER_SERVING };

enum ty_tier_lane { TY_TIER_UP, TY_TIER_DOWN, TY_TIER_ASIDE, TY_TIER_LANES }; /* each with credits of its own */

enum { /* capabilities */
	TY_TIER_SHARED = 1,  /* others write to it too: a chunk that was not there may be there now */
	TY_TIER_LASTING = 2, /* it outlives this process */
	TY_TIER_LOCAL = 4,   /* of this machine */
	TY_TIER_DIRECT = 8,  /* straight from and to the arena, without a copy of the operating system's */
	TY_TIER_LISTS = 16,  /* it takes LIST */
};

/* Added to by whoever it happens to (relaxed), read by metrics. */
struct ty_tier_stats {
	_Atomic int state;                        /* enum ty_tier_state. The tier: release; others: acquire */
	_Atomic uint64_t submitted[TY_TIER_VERBS], outcomes[TY_TIER_VERBS][TY_TIER_OUTCOMES];
	_Atomic uint64_t refused[TY_TIER_VERBS];  /* past a limit: answered at once */
	_Atomic uint64_t put_bytes, get_bytes;
	_Atomic uint64_t busy_ns[TY_TIER_VERBS];  /* sum of the times from submit to completion */
	_Atomic uint64_t chunks, used_bytes;      /* that it holds, as far as it knows; set by the tier */
	_Atomic uint64_t scanning;                /* 1 while it still finds out what it holds */
	_Atomic uint64_t evicted;                 /* taken away by itself to make room */
	_Atomic uint64_t namespaces;              /* whose chunks it holds, as far as it keeps that in memory */
	_Atomic uint64_t given_up;                /* answered at their deadline, and still out with the disk */
	_Atomic uint64_t quarantine_bytes;        /* of wrong ones that are kept aside */
	_Atomic uint64_t quarantined, foreign;    /* wrong ones put aside; things found in it that are not its own */
	_Atomic uint64_t in_flight[TY_TIER_LANES], in_flight_bytes[TY_TIER_LANES]; /* the limits' own count */
	_Atomic uint64_t queued, pinned_bytes;    /* chunks that wait to be written; bytes of victims among them. eviction, writeback */
	_Atomic bool hangs;                       /* its oldest write is out for too long. writeback; eviction (relaxed) */
	_Atomic bool failing;                     /* its last write failed: no store waits for it. writeback; eviction (relaxed) */
	_Atomic uint64_t dropped;                 /* chunks that did not go down because it was too slow */
	_Atomic uint64_t offered_late;            /* that it was offered long after their commit: it lacked them. eviction */
	_Atomic uint64_t pack_from_bytes, pack_to_bytes; /* of chunks that were with a packer: before, and as they lie there */
	_Atomic uint64_t unpack_from_bytes, unpack_to_bytes; /* of parts that were unpacked */
	_Atomic uint64_t pack_ns, unpack_ns;      /* of packers' and unpackers' time */
	_Atomic uint64_t pack_as_they_are;        /* parts that were with a packer and did not get smaller */
	_Atomic uint64_t pack_given_up;           /* chunks that were late, or not wanted any more, before they were packed or unpacked */
	_Atomic uint64_t unpack_wrong;            /* packed parts that were damaged */
	_Atomic uint64_t buffer_bytes;            /* packed bytes in memory now, on their way in either direction */
	_Atomic uint64_t requests, retries;       /* to a server, where the tier has one: sent; of these, sent again. The tier */
	_Atomic uint64_t down;                    /* 1 while the server does not answer and the tier fails what it is asked. The tier */
	char note[160];                           /* what a person should know; before `state` leaves STARTING, then constant */
	bool note_warns;                          /* and that he should do something about. Likewise */
};

struct ty_tier {
	struct ty_service *service;
	const struct ty_tier_class *cls;
	uint32_t index;
	struct ty_tier_config config;
	_Atomic uint64_t size;  /* as configured, or changed since. eviction (CONFIGURE); the tier, metrics: relaxed, it stands alone */
	_Atomic(const struct ty_policy_class *) policy; /* by which it makes room; null: that is not its own to say. Set by open; then as size */
	uint32_t capabilities;  /* set by open */
	struct ty_actor *actor;
	void *state;            /* the library's, from open to close */
	struct ty_events_pending events; /* the actor's: not told yet */
	struct ty_tier_packed *packing; /* the actor's: PUTs that are with packers */
	uint32_t packer_turn;   /* the actor's: whose turn it is among packers and unpackers */
	_Atomic bool ending;    /* TY_TIER_STOP was sent, or will be at once. Main: release; packers, the disk's scanner: acquire */
	struct ty_tier_stats stats;
};

struct ty_tier_class {
	const char *kind;
	/* Check the configuration and whatever it names, before any actor runs; the service does not start if it fails. Sets
	 * tier->state and capabilities. TY_INVALID names the option, TY_DENIED, TY_IO, TY_UNSUPPORTED the place. */
	enum ty_code (*open)(struct ty_tier *tier, struct ty_error *err);
	void (*close)(struct ty_tier *tier); /* after the runtime's end */
	/* The actor. Its argument is the struct ty_tier, its first message type TY_TIER_START, and it takes:
	 *   TY_TIER_START   struct ty_msg      everybody is there
	 *   TY_TIER_IO      struct ty_tier_io  an operation; ends in ty_tier_complete
	 *   TY_TIER_STOP    struct ty_msg      nobody waits any more: what is out ends as soon as it can, what comes ends at once
	 *   TY_TIER_PACKED  struct ty_tier_packed  a PUT that it gave to ty_tier_pack
	 *   TY_TIER_UNPACKED struct ty_tier_unpack what it gave to ty_tier_unpack
	 * From TY_TIER_OWN on types are its own. No io is out when the actor itself is stopped. */
	const struct ty_class *actor;
	enum ty_executor executor;
	/* `size` or `policy` has changed: have the actor look. Any thread. Null: how large it is is not the tier's to say. */
	void (*resized)(struct ty_tier *tier);
	/* Spawn what else it needs, before the actor itself; may be null. */
	enum ty_code (*spawn)(struct ty_tier *tier, struct ty_error *err);
	void (*release)(struct ty_tier *tier); /* drops the references to those; may be null */
};

extern const struct ty_tier_class *const ty_tier_kinds[]; /* ends with null */
/* What ty_tier_parse takes itself: for a kind that is asked for an option that it does not have either. */
#define TY_TIER_EVERY "; of every tier: size, write, tenant, ops, bytes, queue, pins, wait, timeout, compress, scrub"
extern const struct ty_tier_class ty_redis_tier, ty_rediss_tier;
extern const struct ty_tier_class ty_s3_tier;
extern const struct ty_tier_class ty_disk_tier;

/* ---- tier_pages.c ---- */

/* For tiers: one more of a page, unless the page is of keys that begin otherwise. False: no memory. */
TY_MUST_USE bool ty_tier_page_add(struct ty_tier_page *page, const struct ty_tier_item *item);
/* Whose an item of the page is, found out after it was added; an identity without a model is none. False: no memory. */
TY_MUST_USE bool ty_tier_page_owned(struct ty_tier_page *page, struct ty_tier_item *item, const struct ty_identity *identity);
void ty_tier_page_clear(struct ty_tier_page *page); /* its items are gone; the cursor stays */
/* For tiers, EXISTS: whose the first chunk is, if that is wanted, and said. */
void ty_tier_tell_whose(struct ty_tier_io *io, const struct ty_identity *identity);

/* Its number, a new one if need be, once more taken. 0: no memory. */
TY_MUST_USE uint32_t ty_tier_names_take(struct ty_tier_names *names, const struct ty_identity *identity);
void ty_tier_names_drop(struct ty_tier_names *names, uint32_t number); /* taken once less; 0 is allowed */
const struct ty_identity *ty_tier_names_at(const struct ty_tier_names *names, uint32_t number); /* as long as it is taken. 0: null */
void ty_tier_names_clear(struct ty_tier_names *names);

/* ---- tier.c ---- */

/* Hand an io to the tier. False: a limit would be passed, or the tier is not serving; it is still the caller's, at once.
 * Any actor. */
TY_MUST_USE bool ty_tier_submit(struct ty_tier *tier, struct ty_tier_io *io);
/* Send it home. The tier's actor, once an io: a PUT that is DONE has arrived, a DELETE that is DONE has taken away, and both are
 * told to whoever follows events. `fmt` may be null. */
void ty_tier_complete(struct ty_tier *tier, struct ty_tier_io *io, enum ty_tier_outcome outcome, const char *fmt, ...)
	TY_PRINTF(4, 5);

/* For tiers: the chunk is not in it any more, without a DELETE; `kind` (DROPPED, WRONG) says why. Told when the next io is sent
 * home, or by ty_tier_tell. The tier's actor. */
void ty_tier_gone(struct ty_tier *tier, const struct ty_key *key, Tyer__V1__Event__Kind kind);
void ty_tier_tell(struct ty_tier *tier);

/* Packed bytes of a chunk, where a tier has read them to. All zero: every part lies in its own place, as it is. */
struct ty_tier_stored {
	uint8_t *data[TY_CHUNK_MAX_PARTS];  /* null: as it is, or not wanted */
	uint64_t bytes[TY_CHUNK_MAX_PARTS]; /* that the part takes, packed; 0: as it is */
};

/* For tiers, after a GET: is what was read the chunk that was asked for, every byte of it? `header` is what lay before the
 * parts. Unpacks what is packed, and sets the parts' checksums. DONE, CORRUPT, or MISSING (of another version); LATE, STOPPED: given
 * up before all was unpacked; FAILED: no memory. The text says why. `stored` and `packer` may be null where nothing can be packed. Any thread. */
enum ty_tier_outcome ty_tier_check(struct ty_tier *tier, struct ty_tier_io *io, const uint8_t header[TY_ENVELOPE_BYTES],
	const struct ty_tier_stored *stored, struct ty_packer *packer, struct ty_error *err);

/* ---- packed chunks: for tiers (tier_pack.c, docs/compression.md). The tier's actor, where nothing else is said ----- */

/* Before a PUT is carried out. True: it is with a packer now, and comes to the actor once more as TY_TIER_PACKED. False: go on with it. */
TY_MUST_USE bool ty_tier_pack(struct ty_tier *tier, struct ty_tier_io *io);
/* Before a DELETE is carried out: PUTs of the chunk that are with a packer are given up, so that it does not come back. */
void ty_tier_pack_none(struct ty_tier *tier, const struct ty_key *key);
/* Of that message: the io; null: it was late, was deleted, or the tier stops: it has gone home. */
struct ty_tier_io *ty_tier_packed(struct ty_tier *tier, struct ty_msg *msg);
void ty_tier_packed_free(struct ty_tier_io *io); /* ty_tier_complete does so */
/* How a chunk lies there: of a PUT with what was packed of it; of a GET what is known, so without checksums and as it is. */
void ty_tier_describe(const struct ty_tier_io *io, struct ty_envelope *out);
/* The bytes of a PUT's part as they lie there, ty_envelope_padded with zeros, TY_ENVELOPE_ALIGN aligned. */
uint8_t *ty_tier_bytes(const struct ty_tier_io *io, uint32_t part);

/* Memory for packed bytes, TY_ENVELOPE_ALIGN aligned, counted. Null: there is none. What is in flight bounds it (`bytes`). Any thread. */
uint8_t *ty_tier_buffer(struct ty_tier *tier, uint64_t bytes);
void ty_tier_buffer_free(struct ty_tier *tier, uint8_t *buffer, uint64_t bytes); /* null is allowed */

/* A GET's packed bytes, from where they were read until they are in their places. */
struct ty_tier_unpack {
	struct ty_bytework work;
	struct ty_tier *tier;
	struct ty_tier_io *io;       /* stays with the tier until this is home: its places are written to */
	void *user;                  /* the tier's own */
	struct ty_tier_stored stored;
	uint8_t *buffer;             /* that they lie in, one behind the other, each padded */
	uint64_t room;
	enum ty_tier_outcome outcome; /* set when it is home, and ... */
	struct ty_error err;          /* ... why */
	uint8_t header[TY_ENVELOPE_BYTES];
};
/* Does this header say that parts are packed, of the chunk that is asked for, so that they are to be read to a buffer? If it does not, or is
 * wrong, they are read as they are, and ty_tier_check finds out. */
TY_MUST_USE bool ty_tier_is_packed(const struct ty_tier_io *io, const uint8_t header[TY_ENVELOPE_BYTES], struct ty_envelope *out);
/* With room for those packed parts of `shape` that are wanted. Null: no memory. */
struct ty_tier_unpack *ty_tier_unpack_new(struct ty_tier *tier, struct ty_tier_io *io, const struct ty_envelope *shape);
/* When all is read: to an unpacker, and back as TY_TIER_UNPACKED, checked. */
void ty_tier_unpack(struct ty_tier_unpack *unpack);
struct ty_tier_unpack *ty_tier_unpacked(struct ty_msg *msg); /* of that message */
void ty_tier_unpack_free(struct ty_tier_unpack *unpack); /* null is allowed */
/* For tiers that have a message of their own for it: to whoever unpacks. False: nobody can. */
TY_MUST_USE bool ty_tier_unpacker(struct ty_tier *tier, const struct ty_tier_io *io, struct ty_bytework *work);

/* The threads for it, before the tiers' actors: unpackers if there is a tier, packers if one of them packs. */
TY_MUST_USE enum ty_code ty_packers_spawn(struct ty_service *service, struct ty_error *err);
void ty_packers_release(struct ty_service *service);

/* "zstd", "zstd:LEVEL", "lz4", "none". */
TY_MUST_USE enum ty_code ty_tier_parse_packing(const char *text, struct ty_packing *out, struct ty_error *err);
const char *ty_codec_name(enum ty_codec codec);

/* Does the scrubber go through it? */
bool ty_tier_is_scrubbed(const struct ty_tier *tier);
/* Does this tier take chunks of that namespace (0: not known)? */
bool ty_tier_takes(const struct ty_tier *tier, uint16_t space);
const char *ty_tier_verb_name(enum ty_tier_verb verb);
const char *ty_tier_outcome_name(enum ty_tier_outcome outcome);

/* All of the configuration's, for the service. */
TY_MUST_USE enum ty_code ty_tiers_open(struct ty_service *service, struct ty_error *err);
void ty_tiers_close(struct ty_service *service);

#endif
