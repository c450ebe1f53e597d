// Package policytest is a model cluster driven by text: stories that say what the policy does in a situation, and show
// it. The same model runs under package sim with random schedules.
//
// The model has a store, a network, and nodes. A node is a clock with its own rate, a data directory, a guard, a
// PostgreSQL server and an agent. The agent is the loop of package ha in miniature: it reads the store, builds a
// policy.View, asks policy.Decide, and carries out the actions with dcs.Lease and the model's server, one task at a
// time, while it goes on renewing. Its memory ends with it; guard and server survive it and end with the node; the data
// directory survives everything. A server's WAL is a list of records with identities, so that the model knows when
// two servers agree, whatever their timeline numbers say; promotion picks the number as PostgreSQL does, 1 + the
// highest history file that is visible on the node. Patroni members are reduced to what their neighbours notice: they
// know the key `leader` and not the lease.
//
// Agent, guard and PostgreSQL are processes that die, stand still and go on each by itself (design section 7). The guard is
// the parent of the postmaster; its ladder (SIGINT, SIGQUIT, SIGKILL), its kernel timer and the kernel's death signal are
// events with their own delays, all of which end within dcs.FenceBound. A postmaster that stands still takes no signal in
// while its sessions go on; one that is killed leaves its busy backends, which acknowledge when they are done. A guard counts
// and kills what its postmaster left before it says that nothing is left, and a new guard what the last one left before it
// does anything. A data directory at rest holds standby.signal, so that a server that is started by hand is a replica.
//
// What is not held against anybody, the named exceptions: while agent and guard are both dead or stand still, and the
// postmaster is dead or stands still too, what it left may acknowledge, until somebody is able to act again and F has passed;
// and a server that is started by hand after a crash between its start as primary and the writing of standby.signal.
//
// The model leaves out the optional rungs (cgroup, PID namespace, admission, watchdog device), the pidfd and the socket.
// The package does not test package ha, package fence, a backend or real PostgreSQL, and it does not model replay that
// lags behind what was received, synchronous replication, or an archive.
//
// # Stories
//
// A story is a text file. Lines that begin with # and empty lines are prose. A block is one or more commands, a line
// ----, and the output; an empty line ends it. The first command is cluster. Run compares the outputs with what
// happens, and -rewrite records them. A command that prints nothing shows "ok".
//
//	# The primary's machine is lost.
//	cluster a b c
//	----
//	ok
//
//	kill a
//	run 12s
//	----
//	   0.00s a postgres: killed
//	   ...
//
// Output of everything that lets time pass: one line for everything that happens, "TIME NODE WHAT", where TIME counts
// from the end of the command cluster and WHAT is one of
//
//	REASON: DETAIL             a decision whose reason differs from the node's last one
//	  ACTION -> done           an action that was carried out, or a task that was begun (renewals are left out)
//	  ACTION -> ERROR          an action that failed; the decision ends there
//	  TASK failed: ERROR       a task that ended badly
//	postgres: WHAT             the server: started, promoted, stopped, killed, and what a busy backend acknowledges
//	guard: WHAT                the guard: an epoch opened, a fence, an epoch closed with its proof, orphans, its own end
//	patroni: WHAT              a Patroni member's decision, when it changes
//	!! ID violated at ...      a broken invariant; the test fails, also with -rewrite
//
// Commands that make the cluster
//
//	cluster a b c              three nodes; runs silently until a leads and the others stream, and starts the clock
//	cluster empty a b c        three nodes with empty data directories, programs started, nothing happened yet
//	cluster a p:patroni        p runs Patroni
//	cluster a b ttl=30 ...     settings of the dynamic configuration (default ttl 8, loop_wait 2, retry_timeout 3, and
//	                           failsafe=off, unlike the product)
//	join d                     adds a node with an empty data directory and starts it
//	patroni p                  adds a node that runs Patroni
//	twin a2 a                  adds a machine a2 whose member name is a
//
//	model seed=7 jitter=20ms lose-reply=0.05 ...
//	                           before cluster: draws durations and delays from a seed, as a simulation does. Further:
//	                           latency, late, late-by, lose-request, fence-lag (at most 100ms), writes, slack, dishonest
//
// Commands that let time pass
//
//	run 20s                    everything runs
//	advance 10s                servers, guards, sessions and requests under way go on; no agent's loop runs
//	tick a b                   after advance: these agents, or all, look once each, in this order
//	stabilize                  runs until nothing was printed for 12 s, at most two minutes
//	calm                       ends every fault, starts what does not run, takes back tags, requests and pause
//	settle 90s                 runs until the cluster is healthy; when it is not by then, L1 is violated
//	                           (not promised once a Patroni member was promoted, nor where only such are left and wait
//	                           for each other)
//
// Commands that do something to nodes
//
//	kill a                     the whole machine: agent, guard, server
//	kill-agent a               the agent alone
//	kill-guard a               the guard alone: the kernel sends the postmaster SIGQUIT
//	kill-postgres a            the server alone, with all its processes
//	kill-postmaster a          the postmaster alone: busy backends go on and acknowledge
//	restart a                  starts what does not run: guard and agent after kill, the agent after kill-agent
//	start-by-hand a            an administrator starts PostgreSQL, past the guard
//	stop a                     asks the agent to hand over and end (SIGTERM)
//	freeze a 5s                the agent stands still
//	freeze-guard a 5s          the guard stands still; the kernel's timer works
//	freeze-postmaster a 5s     the postmaster stands still; its sessions go on
//	pause-node a 5s            agent, guard and the whole server stand still; the kernel's timer works
//	busy a 2s                  a client's statement is in flight at a, and acknowledged in two seconds
//	wipe a                     the data directory is lost
//	forget a                   after kill: the disk's memory of promises is lost
//	swap a patroni             the other program is started on the node's data directory, under its name (or pgregent)
//	drift a 1.1                the node's clock runs at this rate from now on
//	tag a nofailover=true      sets tags
//	fail a promote             the next operation of this kind fails: initdb, start, promote, stop (in a demotion), clone, rewind
//	write a 100                a client writes 100 bytes of WAL at a; prints "a acknowledges 1@0/30000C4" or "a refuses
//	                           the write"
//	restart-postgres a         an operator asks a's agent to restart PostgreSQL; further: role=primary, pending
//	schedule-restart 30s a     the same in 30 s
//	reinit a                   an operator asks to make a's data anew; further: force, from-leader
//	cancel-reinit a            ... and thinks better of it
//	pending-restart a          a parameter waits for a restart
//	parameter-too-low a        a parameter is lower than on the primary: the replay is paused until a restart
//	status                     a line per node, "NODE STATE TIMELINE@LSN <- UPSTREAM epoch N for LEFT (TASK)", and the
//	                           store's lease and leader
//
// Commands that do something to the network
//
//	cut a                      a is cut from everything; heal a, or heal for all, ends every fault of this kind
//	cut a store                from the store; requests that had left arrive
//	cut a b                    from another node
//	slow-store a 3s            every request of a takes this much longer
//	slow-wal a 3s              WAL reaches a this much later
//	lose-reply a               the next write of a is performed, and a never hears of it
//
// Commands that do something to the store
//
//	switchover a b             writes the key failover: from a to b, or to anybody when b is left out
//	failover b                 the same without a leader
//	schedule 30s a b           a switchover that is due in 30 s
//	pause on, pause off        maintenance mode, in the dynamic configuration
//	set ttl=30 loop_wait=10    changes the dynamic configuration
//	failsafe on, failsafe off  failsafe mode, in the dynamic configuration
//	delete KEY                 an operator deletes leader, lease, initialize, ...
//	put KEY VALUE              an operator writes anything
//	end-session a              the store ends the session of a early
//	store                      prints "KEY = VALUE" for every key, " (session)" after those bound to one
package policytest
