// SPDX-License-Identifier: Apache-2.0
#include "bench.hpp"

#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <future>
#include <map>
#include <string>

static std::promise<u64> over;
static int64_t began, began_cpu, took, took_cpu;
latency wake_latency;

static int64_t read_clock(clockid_t id)
{
	timespec now;

	clock_gettime(id, &now);
	return int64_t{now.tv_sec} * 1000000000 + now.tv_nsec;
}

int64_t clock_ns()
{
	return read_clock(CLOCK_MONOTONIC);
}

void clock_start()
{
	began_cpu = read_clock(CLOCK_PROCESS_CPUTIME_ID);
	began = clock_ns();
}

void finished(u64 check)
{
	over.set_value(check);
}

u64 wait_finished()
{
	u64 check = over.get_future().get();

	took = clock_ns() - began;
	took_cpu = read_clock(CLOCK_PROCESS_CPUTIME_ID) - began_cpu;
	return check;
}

int main(int argc, char **argv)
{
	static const std::map<std::string, u64 (*)(caf::actor_system &, const params &)> programs = {
		{"pingpong", run_pingpong}, {"counting", run_counting}, {"threadring", run_threadring},
		{"fjthroughput", run_fjthroughput}, {"fjcreate", run_fjcreate}, {"big", run_big},
		{"chameneos", run_chameneos}, {"bndbuffer", run_bndbuffer}, {"bndcrates", run_bndcrates}, {"philosophers", run_philosophers},
		{"concdict", run_concdict}, {"wake", run_wake}};
	auto program = argc > 3 ? programs.find(argv[1]) : programs.end();
	params p;

	if (program == programs.end()) {
		fprintf(stderr, "usage: savina-caf PROGRAM WORKERS PARAMETER...\n");
		return 2;
	}
	for (int i = 3; i < argc; i++)
		p.push_back(strtoull(argv[i], nullptr, 10));
	caf::actor_system_config config;
	config.set("scheduler.max-threads", static_cast<size_t>(atoi(argv[2])));
	u64 check;
	{
		caf::actor_system system{config};

		check = program->second(system, p);
	}
	printf("{\"ns\":%" PRId64 ",\"cpu_ns\":%" PRId64 ",\"check\":%" PRIu64, took, took_cpu, check);
	if (wake_latency.p50)
		printf(",\"p50\":%" PRId64 ",\"p99\":%" PRId64, wake_latency.p50, wake_latency.p99);
	printf("}\n");
	return 0;
}
