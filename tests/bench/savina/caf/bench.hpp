// SPDX-License-Identifier: Apache-2.0
//
// The programs for the C++ Actor Framework: savina-caf PROGRAM WORKERS PARAMETER... prints one line of JSON.
#ifndef SAVINA_BENCH_HPP
#define SAVINA_BENCH_HPP

#include <caf/all.hpp>

#include <cstdint>
#include <vector>

using u64 = uint64_t;
using params = std::vector<u64>;

void clock_start();
void finished(u64 check); // any thread, once
u64 wait_finished();      // by main; returns the check
int64_t clock_ns();

inline uint32_t next_random(uint32_t &state)
{
	state = state * 1664525u + 1013904223u;
	return state >> 8;
}

struct latency {
	int64_t p50, p99;
};
extern latency wake_latency;

u64 run_pingpong(caf::actor_system &, const params &);
u64 run_counting(caf::actor_system &, const params &);
u64 run_threadring(caf::actor_system &, const params &);
u64 run_fjthroughput(caf::actor_system &, const params &);
u64 run_fjcreate(caf::actor_system &, const params &);
u64 run_big(caf::actor_system &, const params &);
u64 run_chameneos(caf::actor_system &, const params &);
u64 run_bndbuffer(caf::actor_system &, const params &);
u64 run_bndcrates(caf::actor_system &, const params &);
u64 run_philosophers(caf::actor_system &, const params &);
u64 run_concdict(caf::actor_system &, const params &);
u64 run_wake(caf::actor_system &, const params &);

using go_atom = caf::atom_constant<caf::atom("go")>;
using ping_atom = caf::atom_constant<caf::atom("ping")>;
using pong_atom = caf::atom_constant<caf::atom("pong")>;
using done_atom = caf::atom_constant<caf::atom("done")>;
using stored_atom = caf::atom_constant<caf::atom("stored")>;
using freed_atom = caf::atom_constant<caf::atom("freed")>;
using hungry_atom = caf::atom_constant<caf::atom("hungry")>;
using sated_atom = caf::atom_constant<caf::atom("sated")>;
using read_atom = caf::atom_constant<caf::atom("read")>;
using write_atom = caf::atom_constant<caf::atom("write")>;

// Ends an actor that others may still hold.
inline void end(const caf::actor &a)
{
	caf::anon_send_exit(a, caf::exit_reason::user_shutdown);
}

#endif
