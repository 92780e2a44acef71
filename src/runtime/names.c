/* SPDX-License-Identifier: Apache-2.0
 *
 * Names of actors: a liburcu hash table. A lookup reads under RCU and takes a reference; nobody waits.
 *
 * A name is a token that the actor holds, like a monitor's, and gives back at its end (monitor.c), or when it is taken
 * away. It is freed a grace period after it is both out of the table and home again, whichever comes second: while another is
 * still about to take it out, who comes later may find it, and no grace period that has begun waits for them. It refers to its
 * actor until it is freed, so that a reader that found it may take a reference of its own.
 *
 * tests/model/names.pml has all of it but the table, sides.pml what follows.
 *
 * Threads of the runtime are RCU readers. Other threads are not, and cannot be asked to register (they may have, for
 * purposes of their own): while one of them is in here it is counted, on one of two sides, and nothing is freed before each side was
 * seen at 0 once since it was unlinked. Newcomers are sent to the one side and the other in turn, so that each empties, however many
 * threads look for names without end. In deterministic mode there is one thread, and nothing to wait for.
 *
 *            who with whom   add   take away   find   the actor's end
 *            all             yes   yes         yes    yes
 */
#include <assert.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <urcu/urcu-memb.h>
#include <urcu/rculfhash.h>

#include "base/tsan.h"
#include "runtime/runtime.h"

#define BUCKETS 4096 /* TY_NAMES_MAX / BUCKETS names in each, at most; they do not grow: that needs a thread */
/* What liburcu's table takes: the buckets, and a struct of less than a page; likewise what its thread is known by. */
#define TABLE_BYTES (BUCKETS * sizeof(struct cds_lfht_node))
#define LITTLE_BYTES 4096
#define TURNS 3 /* from here to where both sides were seen empty: the first one may have been seen before */

struct ty_names {
	struct cds_lfht *table;
	_Atomic(uint64_t) used;    /* names not freed yet: anyone; relaxed but for ty_names_free */
	_Atomic(uint64_t) foreign[2]; /* threads in here that are no readers. seq_cst: see enter */
	/* Newcomers are counted on side turn % 2. It goes on when the other side is seen at 0: whoever does that read `turn` before. seq_cst, but
	 * who enters may be wrong about it, relaxed */
	_Atomic(uint64_t) turn;
};

/* LISTED to ATTACHED: ty_name, once the actor has the token; either to GONE: whoever unlinks. acq_rel. */
enum name_state { LISTED, ATTACHED, GONE };

enum { DELETED = 1, HOME = 2 }; /* of name.through: out of the table; back from the actor, or never given to it */

struct name {
	struct ty_monitor token;
	struct cds_lfht_node node;
	struct rcu_head rcu;
	struct ty_names *names;
	struct ty_actor *actor;  /* a reference, for readers */
	_Atomic(uint32_t) state;
	_Atomic(uint32_t) through; /* what it is through with. acq_rel: whoever comes second has it freed */
	uint64_t until;            /* it is freed when the turn is there; 0: no grace period is over yet. Of liburcu's thread */
	char text[];
};

static char grace_period; /* what ThreadSanitizer is told about it */

/* FNV-1a: names come from the program, not from its clients. */
static unsigned long hash(const char *text)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325);

	for (; *text; text++)
		h = (h ^ (unsigned char)*text) * UINT64_C(0x100000001b3);
	return (unsigned long)(h ^ h >> 32);
}

static int match(struct cds_lfht_node *node, const void *text)
{
	struct name *name = ty_container_of(node, struct name, node);

	ty_tsan_acquire(name); /* of ty_name, through the table */
	return strcmp(name->text, text) == 0;
}

/* Returns what `leave` is to be told. */
static uint32_t enter(struct ty_names *names)
{
	uint32_t side;

	if (ty_current && ty_current->reader) {
		urcu_memb_read_lock();
		return 0;
	}
	/* Either side is right. seq_cst, before the first look: either both_were_empty sees it, or this sees the name unlinked */
	side = atomic_load_explicit(&names->turn, memory_order_relaxed) % 2;
	atomic_fetch_add_explicit(&names->foreign[side], 1, memory_order_seq_cst);
	return side;
}

static void leave(struct ty_names *names, uint32_t side)
{
	if (ty_current && ty_current->reader) {
		ty_tsan_release(&grace_period);
		urcu_memb_read_unlock();
	} else {
		atomic_fetch_sub_explicit(&names->foreign[side], 1, memory_order_seq_cst);
	}
}

static void free_name(struct name *name)
{
	struct ty_names *names = name->names;

	ty_actor_unref(name->actor);
	free(name);
	atomic_fetch_sub_explicit(&names->used, 1, memory_order_release); /* pairs with ty_names_free */
}

/* Has each side been seen at 0 since the name was unlinked? Who is counted after that does not find it. Each turn is the work of somebody who
 * read it, and then saw the side that it does not send to at 0; so of those that follow the first one both are after the
 * unlinking, and they are of one side and the other. */
static bool both_were_empty(struct ty_names *names, struct name *name)
{
	uint64_t turn = atomic_load_explicit(&names->turn, memory_order_seq_cst);

	if (!name->until)
		name->until = turn + TURNS;
	while (turn < name->until) {
		if (atomic_load_explicit(&names->foreign[(turn + 1) % 2], memory_order_seq_cst))
			return false;
		if (atomic_compare_exchange_strong_explicit(&names->turn, &turn, turn + 1, memory_order_seq_cst, memory_order_seq_cst))
			turn++;
	}
	return true;
}

static void grace_period_over(struct rcu_head *head)
{
	struct name *name = ty_container_of(head, struct name, rcu);

	ty_tsan_acquire(name); /* of free_later */
	if (!both_were_empty(name->names, name)) {
		urcu_memb_call_rcu(head, grace_period_over);
		return;
	}
	ty_tsan_acquire(&grace_period);
	free_name(name);
}

/* ---- the table ----------------------------------------------------------------------------- */

void ty_names_free(struct ty_names *names)
{
	int failed;

	if (!names)
		return;
	/* acquire: pairs with free_name. The barrier waits for the thread that frees: this is destroy, which may wait */
	ty_tsan_library_begin();
	while (atomic_load_explicit(&names->used, memory_order_acquire))
		urcu_memb_barrier();
	failed = cds_lfht_destroy(names->table, NULL);
	ty_tsan_library_end();
	assert(!failed);
	(void)failed;
	free(names);
}

/* liburcu ends the process where it finds no memory: what it is about to take must be there to take. Others may take it meanwhile, but that
 * is a moment. Whether one more thread may be made nobody can ask. */
static bool liburcu_has_memory(void)
{
	void *table = calloc(1, TABLE_BYTES), *little = malloc(LITTLE_BYTES), *stack = MAP_FAILED;
	size_t stack_bytes = 0;
	pthread_attr_t attr;

	__asm__ volatile("" : "+r"(table), "+r"(little)); /* clang leaves out what is allocated only to be freed */
	if (table && little && pthread_getattr_default_np(&attr) == 0) {
		if (pthread_attr_getstacksize(&attr, &stack_bytes) == 0)
			stack = mmap(NULL, stack_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
		pthread_attr_destroy(&attr);
	}
	if (stack != MAP_FAILED)
		munmap(stack, stack_bytes);
	free(table);
	free(little);
	return stack != MAP_FAILED;
}

static struct ty_names *names_new(void)
{
	struct ty_names *names = calloc(1, sizeof *names);
	sigset_t all, before;

	if (!names || !liburcu_has_memory()) {
		free(names);
		return NULL;
	}
	ty_tsan_library_begin();
	names->table = cds_lfht_new_flavor(BUCKETS, BUCKETS, BUCKETS, 0, &urcu_memb_flavor, NULL);
	ty_tsan_library_end();
	if (!names->table) {
		free(names);
		return NULL;
	}
	/* liburcu's thread that frees, if this process has none yet: no signal is handled on it */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	ty_tsan_library_begin();
	urcu_memb_get_default_call_rcu_data();
	ty_tsan_library_end();
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return names;
}

static struct ty_names *names_of(struct ty_runtime *rt)
{
	return atomic_load_explicit(&rt->names, memory_order_acquire); /* pairs with names_made */
}

/* The table, made by the first that needs it. Null: no memory. */
static struct ty_names *names_made(struct ty_runtime *rt)
{
	struct ty_names *names = names_of(rt), *fresh;

	if (names)
		return names;
	fresh = names_new();
	if (!fresh)
		return NULL;
	if (atomic_compare_exchange_strong_explicit(
		    &rt->names, &names, fresh, memory_order_acq_rel, memory_order_acquire))
		return fresh;
	ty_names_free(fresh); /* another was first: `names` is its */
	return names;
}

static void free_later(struct name *name)
{
	if (name->actor->rt->sim) { /* there is no other thread that might look at it */
		free_name(name);
		return;
	}
	ty_tsan_release(name);
	ty_tsan_library_begin();
	urcu_memb_call_rcu(&name->rcu, grace_period_over);
	ty_tsan_library_end();
}

/* Once for each of DELETED and HOME. After it the name is there only for who is within enter and leave. */
static void is_through(struct name *name, uint32_t with)
{
	if (atomic_fetch_or_explicit(&name->through, with, memory_order_acq_rel))
		free_later(name);
}

/* Within enter and leave. Returns the state that it was in; GONE: another has unlinked it, or is about to. */
static uint32_t unlink_name(struct name *name)
{
	uint32_t state = atomic_exchange_explicit(&name->state, GONE, memory_order_acq_rel);
	int failed;

	if (state == GONE)
		return state;
	ty_tsan_library_begin();
	failed = cds_lfht_del(name->names->table, &name->node);
	ty_tsan_library_end();
	assert(!failed);
	(void)failed;
	is_through(name, DELETED);
	return state;
}

void ty_names_home(struct ty_monitor *token)
{
	struct name *name = ty_container_of(token, struct name, token);
	struct ty_names *names = name->names;
	uint32_t side = enter(names);

	unlink_name(name);
	leave(names, side);
	is_through(name, HOME);
}

/* ---- what is public ------------------------------------------------------------------------ */

static struct name *name_new(struct ty_names *names, struct ty_actor *actor, const char *text, size_t length)
{
	struct name *name = calloc(1, sizeof *name + length + 1);

	if (!name)
		return NULL;
	name->names = names;
	name->actor = ty_actor_ref(actor);
	memcpy(name->text, text, length);
	cds_lfht_node_init(&name->node);
	atomic_init(&name->state, LISTED);
	return name;
}

/* Add it. False: the name is taken. */
static bool list(struct name *name)
{
	struct cds_lfht_node *there;

	ty_tsan_release(name); /* pairs with match */
	ty_tsan_library_begin();
	there = cds_lfht_add_unique(name->names->table, hash(name->text), match, name->text, &name->node);
	ty_tsan_library_end();
	return there == &name->node;
}

enum ty_code ty_name(struct ty_actor *actor, const char *text)
{
	size_t length = text ? strnlen(text, TY_NAME_MAX + 1) : 0;
	struct ty_names *names;
	struct name *name = NULL;
	enum ty_code code = TY_NO_MEMORY;
	uint32_t listed = LISTED, side;

	if (length == 0 || length > TY_NAME_MAX)
		return TY_INVALID;
	names = names_made(actor->rt);
	if (!names)
		return TY_NO_MEMORY;
	if (atomic_fetch_add_explicit(&names->used, 1, memory_order_relaxed) >= TY_NAMES_MAX)
		code = TY_LIMIT;
	else
		name = name_new(names, actor, text, length);
	if (!name) {
		atomic_fetch_sub_explicit(&names->used, 1, memory_order_release);
		return code;
	}
	side = enter(names);
	if (!list(name)) {
		leave(names, side);
		free_name(name);
		return TY_EXISTS;
	}
	if (ty_monitors_attach(actor, &name->token)) {
		/* who has taken it away meanwhile left this to us; if the actor is over instead, nobody is asked */
		if (!atomic_compare_exchange_strong_explicit(
			    &name->state, &listed, ATTACHED, memory_order_acq_rel, memory_order_acquire))
			ty_monitors_detach(&name->token);
		leave(names, side);
		return TY_OK;
	}
	unlink_name(name);
	leave(names, side);
	is_through(name, HOME);
	return TY_CLOSED;
}

/* Within enter and leave. */
static struct name *look_up(struct ty_names *names, const char *text)
{
	struct cds_lfht_iter iter;
	struct cds_lfht_node *node;

	if (!text)
		return NULL;
	cds_lfht_lookup(names->table, hash(text), match, text, &iter);
	node = cds_lfht_iter_get_node(&iter);
	return node ? ty_container_of(node, struct name, node) : NULL;
}

enum ty_code ty_unname(struct ty_runtime *rt, const char *text)
{
	struct ty_names *names = names_of(rt);
	uint32_t state = GONE, side;
	struct name *name;

	if (!names)
		return TY_CLOSED;
	side = enter(names);
	name = look_up(names, text);
	if (name)
		state = unlink_name(name);
	if (state == ATTACHED)
		ty_monitors_detach(&name->token);
	leave(names, side);
	return state == GONE ? TY_CLOSED : TY_OK;
}

enum ty_code ty_find(struct ty_runtime *rt, const char *text, struct ty_actor **out)
{
	struct ty_names *names = names_of(rt);
	struct name *name;
	uint32_t side;

	*out = NULL;
	if (!names)
		return TY_CLOSED;
	side = enter(names);
	name = look_up(names, text);
	if (name)
		*out = ty_actor_ref(name->actor);
	leave(names, side);
	return *out ? TY_OK : TY_CLOSED;
}
