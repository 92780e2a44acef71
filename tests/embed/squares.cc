// SPDX-License-Identifier: Apache-2.0
//
// squares.c in C++: an owner that waits in its own way, workers on the pool, a thread that sends, a port that receives.
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <new>
#include <thread>
#include <vector>

#include <tyer/actor.h>

namespace
{

constexpr std::uint64_t job_count = 10000;
constexpr std::size_t worker_count = 100;
enum : std::uint32_t { SQUARE = 1, ADD, SUM };

struct Job {
	ty_msg msg{};
	std::uint64_t number = 0;
};
TY_MESSAGE(square, SQUARE, Job)
TY_MESSAGE(add, ADD, Job)
TY_MESSAGE(sum, SUM, Job)

struct Unref {
	void operator()(ty_actor *actor) const { ty_actor_unref(actor); }
};
using Actor = std::unique_ptr<ty_actor, Unref>;

// An object in an actor's state: the runtime gives the bytes, start constructs, stop destroys.
class Owner
{
public:
	explicit Owner(ty_actor *main) : main_(main), fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}
	~Owner() { close(fd_); }

	static Owner &of(void *self) { return *static_cast<Owner *>(self); }
	static ty_code start(void *self, void *arg)
	{
		new (self) Owner(static_cast<ty_actor *>(arg));
		return of(self).fd_ < 0 ? TY_IO : TY_OK;
	}
	static void stop(void *self) { of(self).~Owner(); }
	void add(const Job &job)
	{
		sum_.number += job.number;
		if (++count_ == job_count && sum_send(main_, &sum_) != TY_OK)
			std::abort();
	}
	static void wait(void *self, std::int64_t deadline)
	{
		pollfd fd{of(self).fd_, POLLIN, 0};
		std::int64_t left = deadline == TY_NEVER ? 1000000 : (deadline - ty_now()) / 1000000;
		std::uint64_t wakes;

		left = std::clamp<std::int64_t>(left, 0, 1000000);
		if (poll(&fd, 1, static_cast<int>(left)) > 0 && read(fd.fd, &wakes, sizeof wakes) < 0)
			std::abort();
	}
	static void wake(void *self)
	{
		const std::uint64_t one = 1;

		if (write(of(self).fd_, &one, sizeof one) < 0)
			std::abort();
	}

private:
	ty_actor *main_;
	int fd_;
	std::uint64_t count_ = 0;
	Job sum_;
};

void owner_add(Owner *owner, Job *job)
{
	owner->add(*job);
}
TY_HANDLER(add, owner_add, Owner)

struct Worker {
	ty_actor *owner;

	static ty_code start(void *self, void *arg)
	{
		new (self) Worker{static_cast<ty_actor *>(arg)};
		return TY_OK;
	}
};

void worker_square(Worker *worker, Job *job)
{
	job->number *= job->number;
	if (add_send(worker->owner, job) != TY_OK)
		std::abort();
}
TY_HANDLER(square, worker_square, Worker)

const ty_handler owner_handlers[] = {{"add", owner_add_run}};
const ty_handler worker_handlers[] = {{"square", worker_square_run}};

ty_class class_of_owner()
{
	ty_class cls{};

	cls.name = "owner";
	cls.state_size = sizeof(Owner);
	cls.first_type = ADD;
	cls.type_count = 1;
	cls.handlers = owner_handlers;
	cls.start = Owner::start;
	cls.stop = Owner::stop;
	cls.wait = {Owner::wait, Owner::wake};
	return cls;
}

ty_class class_of_worker()
{
	ty_class cls{};

	cls.name = "worker";
	cls.state_size = sizeof(Worker);
	cls.first_type = SQUARE;
	cls.type_count = 1;
	cls.handlers = worker_handlers;
	cls.start = Worker::start;
	return cls;
}

const ty_class owner_class = class_of_owner(), worker_class = class_of_worker();

Actor spawn(ty_runtime *rt, const ty_class &cls, void *arg, ty_executor executor)
{
	ty_spawn_options options{};
	ty_actor *actor = nullptr;

	options.size = sizeof options;
	options.executor = executor;
	options.cpu = -1;
	if (ty_spawn(rt, &cls, arg, &options, &actor) != TY_OK)
		std::abort();
	return Actor(actor);
}

} // namespace

int main()
{
	std::vector<Job> jobs(job_count);
	std::vector<Actor> workers;
	ty_runtime_options options{};
	ty_runtime *rt = nullptr;
	ty_port *port = nullptr;
	ty_error err{};

	options.size = sizeof options;
	options.workers = 2;
	if (ty_runtime_create(&options, &rt, &err) != TY_OK) {
		std::cerr << err.text << '\n';
		return 1;
	}
	if (ty_port_open(rt, nullptr, &port) != TY_OK)
		return 1;
	Actor owner = spawn(rt, owner_class, ty_port_address(port), TY_DEDICATED);
	for (std::size_t i = 0; i < worker_count; i++)
		workers.push_back(spawn(rt, worker_class, owner.get(), TY_POOL));
	std::thread producer([&] {
		for (std::uint64_t i = 0; i < job_count; i++) {
			jobs[i].number = i;
			if (square_send(workers[i % worker_count].get(), &jobs[i]) != TY_OK)
				std::abort();
		}
	});
	const std::uint64_t sum = sum_of(ty_port_wait(port, TY_NEVER))->number;

	producer.join();
	ty_port_close(port);
	ty_runtime_destroy(rt);
	std::cout << "sum of squares: " << sum << '\n';
	return sum != (job_count - 1) * job_count * (2 * job_count - 1) / 6;
}
