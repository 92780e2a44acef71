/* SPDX-License-Identifier: Apache-2.0
 *
 * Actors that watch each other, are linked, stop and fail, on one thread in the order that a seed gives.
 */
#ifndef TY_RUNTIME_MONITORS_HOUSE_H
#define TY_RUNTIME_MONITORS_HOUSE_H

#include "three.h"

enum { RUN = 1, DOWN, NOTE };

struct watch {
	struct ty_monitor monitor;
	int downs, released;
	enum ty_code reason;
};

/* A piece of a test, run in an actor. */
struct script {
	struct ty_msg msg;
	void (*run)(struct script *script);
	struct ty_actor *target;
	struct watch *watch;
	enum ty_code code;
	int ran;
};

/* What the actors saw since set_up. */
struct seen {
	int notes, refused, stopped;
	int notes_at_down; /* how many notes had come with the last DOWN */
};
extern struct seen seen;

extern struct ty_actor *note_to;       /* the next stop sends it a note */
extern const struct ty_class cls;      /* its argument: what start answers, or NULL: TY_OK */

void set_up(struct fixture *f, uint64_t seed); /* three of `cls` */

/* `script` runs in `actor`. */
void run_in(struct ty_actor *actor, struct script *script);

/* A script's run. */
void do_watch(struct script *s); /* s->watch, of s->target; its DOWN is counted there */
void do_unwatch(struct script *s);
void do_fail(struct script *s); /* with s->code */

struct watch make_watch(void);

#endif
