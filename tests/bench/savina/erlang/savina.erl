%% SPDX-License-Identifier: Apache-2.0
%%
%% The programs in Erlang: erl ... -run savina main PROGRAM PARAMETER... prints one line of JSON. Mailboxes that fill up
%% are off the heap; whoever waits for a reply waits on a mailbox of its own.
-module(savina).
-export([main/1]).

-define(KEYS, 65536).
-define(CRATE, 10). % items

main([Name | Args]) ->
    process_flag(priority, normal),
    {Time, Cpu, Check} = program(list_to_atom(Name), [list_to_integer(A) || A <- Args]),
    io:format("{\"ns\":~b,\"cpu_ns\":~b,\"check\":~b}~n", [Time, Cpu, Check]),
    halt(0, [{flush, true}]).

%% Setup runs before the clock; Go starts and waits for the end; Result is asked afterwards.
timed(Go) ->
    {Cpu0, _} = statistics(runtime),
    T0 = erlang:monotonic_time(nanosecond),
    Check = Go(),
    T1 = erlang:monotonic_time(nanosecond),
    {Cpu1, _} = statistics(runtime),
    {T1 - T0, (Cpu1 - Cpu0) * 1000000, Check}.

crowded(Fun) ->
    spawn_opt(Fun, [{message_queue_data, off_heap}, {min_heap_size, 1000}]).

random(S) -> (S * 1664525 + 1013904223) band 16#ffffffff.

sum(0, _, Sum) -> Sum;
sum(N, Tag, Sum) -> receive {Tag, V} -> sum(N - 1, Tag, Sum + V) end.

%% ---- one message at a time

program(pingpong, [N]) ->
    Main = self(),
    Pong = spawn(fun() -> pong(0) end),
    timed(fun() ->
        spawn(fun() -> Main ! {over, ping(N, Pong, 0)}, Pong ! {stop, Main} end),
        sum(2, over, 0)
    end);
program(threadring, [K, N]) ->
    Main = self(),
    First = spawn(fun() -> receive {next, Next} -> link_loop(Next, Main, 0) end end),
    Last = lists:foldl(
        fun(_, Next) -> spawn(fun() -> link_loop(Next, Main, 0) end) end, First, lists:seq(2, K)),
    First ! {next, Last},
    {T, C, _} = timed(fun() -> First ! N, receive over -> ok end end),
    First ! stop,
    {T, C, sum(K, count, 0)};

%% ---- many one way

program(counting, [N]) ->
    Main = self(),
    Counter = crowded(fun() -> count_loop(N, Main, 0) end),
    timed(fun() -> spawn(fun() -> numbers(0, N, Counter) end), sum(1, over, 0) end);
program(fjthroughput, [K, N]) ->
    Main = self(),
    Sinks = [crowded(fun() -> count_loop(N, Main, 0) end) || _ <- lists:seq(1, K)],
    timed(fun() -> spawn(fun() -> spread(0, N, Sinks) end), sum(K, over, 0) end);
program(fjcreate, [N, Window]) ->
    Main = self(),
    timed(fun() ->
        crowded(fun() -> Main ! {over, create(0, 0, N, Window, 0, self())} end),
        sum(1, over, 0)
    end);

%% ---- crowds

program(big, [K, N]) ->
    Main = self(),
    All = [crowded(fun() -> receive {all, T} -> talk(T, K, N, I, 0, Main) end end) || I <- lists:seq(0, K - 1)],
    Table = list_to_tuple(All),
    [P ! {all, Table} || P <- All],
    {T, C, _} = timed(fun() -> [P ! pong || P <- All], sum(K, done, 0) end),
    [P ! stop || P <- All],
    {T, C, sum(K, received, 0)};
program(chameneos, [K, N]) ->
    Main = self(),
    timed(fun() ->
        Mall = crowded(fun() -> mall(N, K) end),
        [spawn(fun() -> creature(I rem 3, Mall, Main, 0) end) || I <- lists:seq(0, K - 1)],
        sum(K, over, 0)
    end);

%% ---- one owner

program(bndbuffer, [P, C, B, N]) ->
    bounded(P, C, B, N, fun produce/3, fun consume/1);
program(bndcrates, [P, C, B, N]) ->
    bounded(P, C, B div ?CRATE, N, fun fill_crates/3, fun empty_crates/1);
program(philosophers, [K, N]) ->
    Main = self(),
    timed(fun() ->
        Table = crowded(fun() -> [put({fork, I}, free) || I <- lists:seq(0, K - 1)], table(K, 0, K * N, Main) end),
        [spawn(fun() -> dine(I, N, Table) end) || I <- lists:seq(0, K - 1)],
        sum(1, over, 0)
    end);
program(concdict, [K, N, W]) ->
    Main = self(),
    Dict = crowded(fun() -> dictionary() end),
    {T, C, Reads} = timed(fun() ->
        [spawn(fun() -> Main ! {over, user(N, W, I, Dict, 0)} end) || I <- lists:seq(0, K - 1)],
        sum(K, over, 0)
    end),
    Dict ! {total, self()},
    {T, C, sum(1, total, Reads)}.

%% ---- ping-pong, ring

pong(Count) ->
    receive
        {ping, From} -> From ! pong, pong(Count + 1);
        {stop, Main} -> Main ! {over, Count}
    end.

ping(0, _, Count) -> Count;
ping(N, Pong, Count) ->
    Pong ! {ping, self()},
    receive pong -> ping(N - 1, Pong, Count + 1) end.

link_loop(Next, Main, Count) ->
    receive
        1 -> Main ! over, link_loop(Next, Main, Count + 1);
        stop -> Next ! stop, Main ! {count, Count};
        N -> Next ! N - 1, link_loop(Next, Main, Count + 1)
    end.

%% ---- streams

numbers(N, N, _) -> ok;
numbers(I, N, To) -> To ! I, numbers(I + 1, N, To).

count_loop(0, Main, Sum) -> Main ! {over, Sum};
count_loop(N, Main, Sum) -> receive V -> count_loop(N - 1, Main, Sum + V) end.

spread(N, N, _) -> ok;
spread(I, N, Sinks) ->
    To = min(I + 64, N),
    [numbers(I, To, S) || S <- Sinks],
    spread(To, N, Sinks).

create(_, N, N, _, Sum, _) -> Sum;
create(Made, Answered, N, Window, Sum, Self) when Made < N, Made - Answered < Window ->
    spawn(fun() -> receive V -> Self ! {done, V + 1} end end) ! Made,
    create(Made + 1, Answered, N, Window, Sum, Self);
create(Made, Answered, N, Window, Sum, Self) ->
    receive {done, V} -> create(Made, Answered + 1, N, Window, Sum + V, Self) end.

%% ---- big, chameneos

talk(All, K, Left, Random, Received, Main) ->
    receive
        {ping, From} ->
            From ! pong,
            talk(All, K, Left, Random, Received + 1, Main);
        pong when Left > 0 ->
            R = random(Random),
            element((R bsr 8) rem K + 1, All) ! {ping, self()},
            talk(All, K, Left - 1, R, Received, Main);
        pong ->
            Main ! {done, 0},
            talk(All, K, Left, Random, Received, Main);
        stop ->
            Main ! {received, Received}
    end.

mall(0, 0) -> ok;
mall(0, Creatures) ->
    receive {enter, P, _} -> P ! bye, mall(0, Creatures - 1) end;
mall(N, Creatures) ->
    receive
        {enter, First, FirstColor} ->
            receive
                {enter, Second, SecondColor} ->
                    First ! {meet, SecondColor},
                    Second ! {meet, FirstColor},
                    mall(N - 1, Creatures)
            end
    end.

creature(Color, Mall, Main, Meetings) ->
    Mall ! {enter, self(), Color},
    receive
        {meet, Color} -> creature(Color, Mall, Main, Meetings + 1);
        {meet, Other} -> creature(3 - Color - Other, Mall, Main, Meetings + 1);
        bye -> Main ! {over, Meetings}
    end.

%% ---- bounded buffer. Used: stored, or on its way from a producer who was told to.

bounded(P, C, Places, N, Produce, Consume) ->
    Main = self(),
    timed(fun() ->
        Buffer = crowded(fun() -> buffer([], [], {[], []}, 0, Places, P * N, 0, Main) end),
        [spawn(fun() -> Buffer ! {hungry, self()}, Produce(0, N, Buffer) end) || _ <- lists:seq(1, P)],
        [spawn(fun() -> Buffer ! {free, self()}, Consume(Buffer) end) || _ <- lists:seq(1, C)],
        sum(1, over, 0)
    end).

%% A place holds an item or a crate of them.
buffer(_, _, _, _, _, 0, Sum, Main) ->
    Main ! {over, Sum};
buffer([P | Hungry], Idle, Full, Used, Size, Left, Sum, Main) when Used < Size ->
    P ! produce,
    buffer(Hungry, Idle, Full, Used + 1, Size, Left, Sum, Main);
buffer(Hungry, [C | Rest] = Idle, Full, Used, Size, Left, Sum, Main) ->
    case Full of
        {[], []} -> buffer_wait(Hungry, Idle, Full, Used, Size, Left, Sum, Main);
        {[], Back} -> buffer(Hungry, Idle, {lists:reverse(Back), []}, Used, Size, Left, Sum, Main);
        {[V | Front], Back} ->
            C ! {take, V},
            buffer(Hungry, Rest, {Front, Back}, Used - 1, Size, Left, Sum, Main)
    end;
buffer(Hungry, Idle, Full, Used, Size, Left, Sum, Main) ->
    buffer_wait(Hungry, Idle, Full, Used, Size, Left, Sum, Main).

buffer_wait(Hungry, Idle, {Front, Back} = Full, Used, Size, Left, Sum, Main) ->
    receive
        {stored, P, V, true} -> buffer([P | Hungry], Idle, {Front, [V | Back]}, Used, Size, Left, Sum, Main);
        {stored, _, V, false} -> buffer(Hungry, Idle, {Front, [V | Back]}, Used, Size, Left, Sum, Main);
        {freed, C, Count, S} -> buffer(Hungry, [C | Idle], Full, Used, Size, Left - Count, Sum + S, Main);
        {hungry, P} -> buffer([P | Hungry], Idle, Full, Used, Size, Left, Sum, Main);
        {free, C} -> buffer(Hungry, [C | Idle], Full, Used, Size, Left, Sum, Main)
    end.

produce(N, N, _) -> ok;
produce(I, N, Buffer) ->
    receive produce -> Buffer ! {stored, self(), I, I + 1 < N}, produce(I + 1, N, Buffer) end.

consume(Buffer) ->
    receive {take, V} -> Buffer ! {freed, self(), 1, V}, consume(Buffer) end.

fill_crates(N, N, _) -> ok;
fill_crates(I, N, Buffer) ->
    To = min(I + ?CRATE, N),
    receive produce -> Buffer ! {stored, self(), lists:seq(I, To - 1), To < N}, fill_crates(To, N, Buffer) end.

empty_crates(Buffer) ->
    receive {take, Crate} -> Buffer ! {freed, self(), length(Crate), lists:sum(Crate)}, empty_crates(Buffer) end.

%% ---- philosophers: forks and who waits are in the process dictionary, which changes in place

table(_, N, N, Main) ->
    Main ! {over, N};
table(K, Meals, N, Main) ->
    receive
        {hungry, Who, P} ->
            put({waiting, Who}, P),
            serve(Who, K),
            table(K, Meals, N, Main);
        {sated, Who} ->
            Right = (Who + 1) rem K,
            put({fork, Who}, free),
            put({fork, Right}, free),
            serve((Who + K - 1) rem K, K),
            serve(Right, K),
            table(K, Meals + 1, N, Main)
    end.

serve(Who, K) ->
    case get({waiting, Who}) of
        P when is_pid(P) ->
            Right = (Who + 1) rem K,
            case get({fork, Who}) =:= free andalso get({fork, Right}) =:= free of
                true ->
                    put({waiting, Who}, nobody),
                    put({fork, Who}, taken),
                    put({fork, Right}, taken),
                    P ! eat;
                false -> ok
            end;
        _ -> ok
    end.

dine(_, 0, _) -> ok;
dine(Who, N, Table) ->
    Table ! {hungry, Who, self()},
    receive eat -> Table ! {sated, Who} end,
    dine(Who, N - 1, Table).

%% ---- dictionary

dictionary() ->
    receive
        {read, Key, From} ->
            From ! {answer, get(Key)},
            dictionary();
        {write, Key, From} ->
            Value = case get(Key) of undefined -> 1; V -> V + 1 end,
            put(Key, Value),
            From ! {answer, Value},
            dictionary();
        {total, Main} ->
            Main ! {total, lists:sum([V || {K, V} <- get(), is_integer(K)])}
    end.

user(0, _, _, _, Reads) -> Reads;
user(N, W, Random, Dict, Reads) ->
    R1 = random(Random),
    R2 = random(R1),
    Key = (R2 bsr 8) rem ?KEYS,
    case (R1 bsr 8) rem 100 < W of
        true ->
            Dict ! {write, Key, self()},
            receive {answer, _} -> user(N - 1, W, R2, Dict, Reads) end;
        false ->
            Dict ! {read, Key, self()},
            receive {answer, _} -> user(N - 1, W, R2, Dict, Reads + 1) end
    end.
