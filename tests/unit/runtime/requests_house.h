/* SPDX-License-Identifier: Apache-2.0
 *
 * Actors that ask, answer, keep and forward requests, on one thread in the order that a seed gives.
 */
#ifndef TY_RUNTIME_REQUESTS_HOUSE_H
#define TY_RUNTIME_REQUESTS_HOUSE_H

#include "three.h"

#define MS INT64_C(1000000)

enum { RUN = 1, QUESTION, ANSWER, UNKNOWN = 99 };

struct query {
	struct ty_request request;
	int received, answers, released;
	enum ty_code code;   /* of the last answer */
	int64_t answered_at;
	struct ty_actor *forward_to; /* the receiver forwards it once */
	bool keep;           /* the receiver keeps it */
	bool stop_first;     /* the receiver stops itself, then replies */
};

struct agent {
	struct query *kept;
};

/* A piece of a test, run in an actor. */
struct script {
	struct ty_msg msg;
	void (*run)(struct agent *agent, struct script *script);
	struct query *query;
	struct ty_actor *to;
	int64_t deadline;
	uint32_t type;
	enum ty_code code; /* what run's call answered */
};

extern const struct ty_class agent_class;    /* it has no refuse */
extern const struct ty_class refusing_class; /* its refuse takes answers */

void set_up(struct fixture *f, uint64_t seed); /* three agents */

/* `script` runs in `actor`. */
void run_in(struct ty_actor *actor, struct script *script);

/* A script's run. */
void do_ask(struct agent *agent, struct script *script);     /* script->query, of script->to */
void do_reply(struct agent *agent, struct script *script);   /* to what it kept */
void do_release(struct agent *agent, struct script *script); /* script->query */

struct query make_query(void);

/* Sets up; a asks b, which keeps `q` beyond its deadline. */
void time_out(struct fixture *f, struct query *q, uint64_t seed);

#endif
