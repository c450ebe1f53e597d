package config

// descriptions has a line for each setting of the schema; described says how it is read.
const descriptions = `
name | aq | - | The member's name, unique in the cluster.
scope | aq | - | The cluster's name. PostgreSQL gets it as cluster_name.
namespace | a | service | The first part of the keys' path in the store: /namespace/scope/.
thread_pool_size | i | - | Patroni's threads.
thread_stack_size | i | - | Patroni's threads.
log | a | - | The log: type (plain or json), level (DEBUG, INFO, WARNING, ERROR), dir (a folder, where the file pgregent.log is written; without it standard error). Patroni's other settings are accepted and have no effect.
tags | r | - | The member's tags: nofailover, failover_priority, noloadbalance, clonefrom, replicatefrom, nosync, sync_priority, nostream, and any of your own.
bootstrap.dcs | b | ttl 8, loop_wait 2, retry_timeout 3, failsafe_mode on | The dynamic configuration that a new cluster begins with.
bootstrap.method | b | initdb | How a new cluster is made. Anything else than initdb is refused.
bootstrap.initdb | b | - | Options of initdb. Not allowed: pgdata, nosync, no-sync, pwfile, pwprompt, username, sync-only, version, help.
bootstrap.pg_hba | b | - | Lines appended to pg_hba.conf of a new cluster.
bootstrap.post_bootstrap | b | - | A command line that is run once on a new primary, with a connection string as its last argument. When it fails the bootstrap is undone.
bootstrap.post_init | b | - | Another name for post_bootstrap.
bootstrap.users | i | - | Not supported since Patroni 4 either: use post_bootstrap.
citus | x | - | Citus clusters are not supported.
kubernetes | x | - | This store is not supported.
raft | x | - | This store is not supported.
etcd | x | - | etcd's version 2 API is not supported; use etcd3.
consul | a | - | The store Consul: a mapping with the settings below.
zookeeper | a | - | The store ZooKeeper: a mapping with the settings below.
exhibitor | a | - | ZooKeeper, whose hosts are asked of Exhibitor.
restapi.listen | aq | - | host:port where the REST API listens.
restapi.connect_address | a | as listen | host:port where others reach it.
restapi.authentication.username | r | - | User for requests that change something.
restapi.authentication.password | r | - | Its password.
restapi.certfile | a | - | Certificate (PEM) of the API; turns on TLS. Its files are read again at a reload; turning TLS on or off needs a restart of the agent.
restapi.keyfile | r | as certfile | Its key.
restapi.keyfile_password | r | - | The key's password.
restapi.cafile | r | - | Certificates of those who sign client certificates.
restapi.ciphers | r | Go's | Cipher suites, up to TLS 1.2.
restapi.verify_client | r | none | Client certificates: none, optional (needed for what changes something), required.
restapi.allowlist | r | everybody | Addresses, networks and names that may change something.
restapi.allowlist_include_members | r | off | Adds the members of the cluster to the list.
restapi.http_extra_headers | r | - | Headers of every answer.
restapi.https_extra_headers | r | - | Headers of every answer with TLS.
restapi.server_tokens | r | original | What the header Server says: original, minimal, productonly.
restapi.request_queue_size | i | - | Patroni's web server.
restapi.thread_pool_size | i | - | Patroni's web server.
restapi.access.credentials | ro | - | Further users: a list of name, role (read, operator, admin), and password or password_file.
restapi.access.certificates | ro | - | Common names of client certificates, and their roles.
restapi.access.protect_reads | ro | off | Asks for a role for reading too; health checks stay open, without a body.
restapi.access.audit_log | ro | - | A file, or stderr: one JSON line for everything that changes something, accepted or refused.
ctl.insecure | a | off | Does not verify the API's certificates.
ctl.cacert | a | - | Certificates of those who sign the API's.
ctl.certfile | a | - | Client certificate, for the tools and for members among each other.
ctl.keyfile | a | - | Its key.
ctl.keyfile_password | a | - | The key's password.
ctl.authentication.username | a | restapi's | User, for the tools and for members among each other.
ctl.authentication.password | a | restapi's | Its password.
etcd3.host | a | - | host:port of one etcd server.
etcd3.hosts | a | - | All of them: a list, or a text with commas.
etcd3.url | a | - | The same as a URL.
etcd3.proxy | a | - | A proxy in front of etcd; members are not looked up.
etcd3.srv | a | - | A domain whose SRV records name the servers.
etcd3.srv_suffix | a | - | Suffix of the SRV records' names.
etcd3.protocol | a | http | http or https.
etcd3.port | a | 2379 | Port, where host does not have one.
etcd3.use_proxies | a | off | Keeps to hosts, without looking up the members.
etcd3.username | a | - | etcd's user.
etcd3.password | a | - | Its password.
etcd3.cacert | a | - | Certificates of those who sign etcd's.
etcd3.cert | a | - | Client certificate.
etcd3.key | a | - | Its key.
consul.host | a | 127.0.0.1:8500 | host:port of the Consul agent.
consul.url | a | - | The same as a URL.
consul.port | a | 8500 | Port, where host does not have one.
consul.scheme | a | http | http or https.
consul.token | a | - | ACL token.
consul.verify | a | on | Verifies the certificate of https.
consul.cacert | a | - | Certificates of those who sign it.
consul.cert | a | - | Client certificate.
consul.key | a | - | Its key.
consul.dc | a | the agent's | Datacenter.
consul.consistency | a | consistent | What reads ask for.
consul.checks | a | - | Health checks that end the session.
consul.register_service | a | off | Registers the member as a service, with its role as a tag.
consul.service_tags | a | - | Further tags of the service.
consul.service_check_interval | a | 5s | How often Consul checks the service.
consul.service_check_tls_server_name | a | - | Name in the certificate of the check.
zookeeper.hosts | a | - | host:port of the servers.
zookeeper.use_ssl | a | off | TLS.
zookeeper.verify | a | on | Verifies the servers' certificates.
zookeeper.cacert | a | - | Certificates of those who sign them.
zookeeper.cert | a | - | Client certificate.
zookeeper.key | a | - | Its key.
zookeeper.key_password | a | - | The key's password.
zookeeper.set_acls | a | - | ACLs of the nodes: principal to permissions.
zookeeper.auth_data | a | - | Digest authentication: scheme to user:password.
exhibitor.hosts | a | - | Exhibitor's hosts.
exhibitor.port | a | - | Exhibitor's port.
exhibitor.poll_interval | a | 300 | How often Exhibitor is asked, in seconds.
postgresql.listen | aq | - | Addresses and port where PostgreSQL listens.
postgresql.connect_address | a | from listen | host:port where clients and replicas reach it.
postgresql.proxy_address | a | - | host:port of a proxy in front of it, published for discovery only.
postgresql.data_dir | aq | - | The data directory.
postgresql.config_dir | a | data_dir | Where postgresql.conf, pg_hba.conf and pg_ident.conf are.
postgresql.config_base_name | a | postgresql | Name of the configuration file, without .conf.
postgresql.custom_conf | a | - | A file that postgresql.conf includes in the place of postgresql.base.conf.
postgresql.bin_dir | a | from PATH | Where PostgreSQL's programs are.
postgresql.bin_name | a | - | Names of single programs.
postgresql.pgpass | a | pgpass in the home directory | The password file that is written for the replica's receiver.
postgresql.database | a | postgres | The database that is connected to.
postgresql.krbsrvname | a | - | krbsrvname in connection strings.
postgresql.use_unix_socket | a | off | Own connections go through the socket.
postgresql.use_unix_socket_repl | a | off | Own replication connections too.
postgresql.use_pg_rewind | rd | off | Rewinds a former leader that has diverged. Without it, or when it cannot be rewound, it is copied anew; what is replaced is set aside.
postgresql.use_slots | id | on | Only the dynamic configuration's counts.
postgresql.parameters | rd | - | PostgreSQL's settings. The file wins one by one, but for those that all members must agree on, which only the dynamic configuration sets.
postgresql.parameters_primary | rd | - | The same on the primary only, over parameters.
postgresql.parameters_replica | rd | - | The same on replicas only.
postgresql.parameters_standby_leader | rd | - | The same on the leader of a standby cluster only.
postgresql.pg_hba | rd | - | pg_hba.conf as a whole.
postgresql.pg_hba_primary | rd | - | The same on the primary only, in its place.
postgresql.pg_hba_replica | rd | - | The same on replicas only.
postgresql.pg_hba_standby_leader | rd | - | The same on the leader of a standby cluster only.
postgresql.pg_ident | rd | - | pg_ident.conf as a whole.
postgresql.pg_ident_primary | rd | - | The same on the primary only, in its place.
postgresql.pg_ident_replica | rd | - | The same on replicas only.
postgresql.pg_ident_standby_leader | rd | - | The same on the leader of a standby cluster only.
postgresql.recovery_conf | rd | - | Further recovery settings, such as restore_command.
postgresql.pg_ctl_timeout | id | - | pg_ctl is not used.
postgresql.remove_data_directory_on_rewind_failure | i | - | Nothing is removed: the directory is set aside before it is copied anew.
postgresql.remove_data_directory_on_diverged_timelines | i | - | Nothing is removed: the directory is set aside before it is copied anew.
postgresql.create_replica_methods | a | basebackup | How replicas are made. Anything else than basebackup is refused.
postgresql.create_replica_method | a | basebackup | Another name for create_replica_methods.
postgresql.basebackup | a | - | Options of pg_basebackup.
postgresql.rewind | a | - | Options of pg_rewind.
postgresql.callbacks.on_start | rd | - | A command line, run with on_start, role and scope when PostgreSQL has started, or ran already when the agent started.
postgresql.callbacks.on_stop | rd | - | The same, when PostgreSQL was stopped.
postgresql.callbacks.on_restart | rd | - | The same, when PostgreSQL was restarted without a change of role.
postgresql.callbacks.on_reload | rd | - | The same, when PostgreSQL has read a changed configuration.
postgresql.callbacks.on_role_change | rd | - | The same, when the role has changed.
postgresql.pre_promote | rd | - | A command line that is run before a promotion, while the node holds the lease. When it fails the node gives the lease back and leaves it to others for a ttl.
postgresql.before_stop | rd | - | A command line that is run before PostgreSQL is stopped in order. Its exit status does not matter. A fence does not run it.
postgresql.authentication.*.username | a | - | The account.
postgresql.authentication.*.password | a | - | Its password; without one pg_hba.conf or a certificate lets it in.
postgresql.authentication.*.sslmode | a | prefer | libpq's sslmode.
postgresql.authentication.*.sslcert | a | - | libpq's sslcert.
postgresql.authentication.*.sslkey | a | - | libpq's sslkey.
postgresql.authentication.*.sslpassword | a | - | libpq's sslpassword.
postgresql.authentication.*.sslrootcert | a | - | libpq's sslrootcert.
postgresql.authentication.*.sslcrl | a | - | libpq's sslcrl.
postgresql.authentication.*.sslcrldir | a | - | libpq's sslcrldir.
postgresql.authentication.*.gssencmode | a | prefer | libpq's gssencmode.
postgresql.authentication.*.channel_binding | a | prefer | libpq's channel_binding.
postgresql.authentication.*.sslnegotiation | a | - | libpq's sslnegotiation, from PostgreSQL 17 on.
watchdog.mode | a | automatic | The watchdog device as a rung of the fence: off, automatic, required.
watchdog.device | a | /dev/watchdog | The device.
watchdog.safety_margin | a | 5 | Seconds between the device's time-out and the ttl; -1: half of the ttl.
watchdog.driver | a | default | testing: a FIFO in the place of the device.
pgregent.state_dir | ao | data_dir + .pgregent | Where the agent keeps its own state and the guard's socket.
pgregent.guard | ao | pgregent-guard beside pgregent | The guard's program.
pgregent.timeouts.callback | ro | 300 | Seconds that a callback may take.
pgregent.timeouts.pre_promote | ro | 60 | Seconds that pre_promote may take, and primary_start_timeout when that is shorter.
pgregent.timeouts.before_stop | ro | 10 | Seconds that before_stop may take; 30 at most, on a leader primary_stop_timeout.
pgregent.timeouts.post_bootstrap | bo | 3600 | Seconds that post_bootstrap may take.
fence | ao | automatic | required: the node does not lead unless the fence is bounded. Or a mapping with the settings below.
fence.mode | ao | automatic | The same, in the mapping.
fence.cgroup | ao | automatic | A cgroup of PostgreSQL's own, where one can be made: automatic, off.
fence.admission | ao | off | Lets the kernel drop clients' packets after the deadline: automatic, off.
fence.pid_namespace | ao | off | A PID namespace of PostgreSQL's own. pg_ctl and the process ids that PostgreSQL reports do not work from outside then.
`
