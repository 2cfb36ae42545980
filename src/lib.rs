//! vault-audit-filter: rules, log files and notifications for the audit trail of HashiCorp Vault and OpenBao.
//!
//! ```text
//!             sockets                 bytes                values                      files / network
//!  ┌────────────────────────┐   ┌──────────────┐   ┌───────────────────────┐
//!  │ listener  HTTP POST    │   │              │   │ pipeline              │     ┌─────────────┐
//!  │ listener  TCP, Unix    ├──▶│   framing    ├──▶│  decode → rules match ├────▶│  log_file   │──▶ rotated files
//!  │ listener  UDP datagram │   │ bytes→Frame  │   │  → for each RuleGroup │     └─────────────┘
//!  └────────────────────────┘   └──────────────┘   └──────────┬────────────┘
//!         ▲   ack (HTTP status, counter)  ◀───────────────────┤  Task
//!         │                                                   ▼
//!         │                                         ┌──────────────────┐   durable: accept, take, reserve, end   ┌───────────────┐
//!         │                                         │ side_effect      │◀──────────────────────────────────────▶│ store         │
//!         │                                         │ queue and        │         dyn side_effect::Ledger         │ journal, disk │
//!         │                                         │ workers per sink │                                         └───────────────┘
//!         │                                         └────────┬─────────┘
//!         │                                                  ▼
//!         │                                         sink/{slack,mattermost,webhook,forward}
//!    listener (livez, readyz, metrics, status_page)  ◀── metrics ◀── every box
//!    control (status, match, dead letters, reload, tail) ◀── operator's socket
//!    cli: serve | check | test | match | setup | queue | status | tail | replay | reload | bench
//!    config ──▶ server (composition root, owns threads, reload and shutdown)
//! ```
//!
//! # Reading order
//!
//! [`pipeline`] first, then the box you came for: [`listener`] and [`framing`], [`record`], [`rules`],
//! [`rule_group`], [`log_file`], [`side_effect`], [`sink`], [`store`], [`evidence`]; [`server`] builds and joins everything.
//!
//! # Invariants
//!
//! 1. Pure modules (`framing`, `record`, `rules`, `evidence`, `side_effect::retry`) do no I/O, spawn nothing and read no clock.
//! 2. Threads are started through [`threads::spawn`] only, have names, and are joined.
//! 3. A frame is acked only after every matching log line has been written and, with the durable store, every task of it is on the
//!    disk. The thread that ended the sync sends the acks; no thread of the pool waits for another one's sync. Where lines wait in a log
//!    file's lane, the lane's thread sends them, and blocks on that file only.
//! 4. Every frame ends in exactly one of matched, unmatched, quarantined, duplicate, refused; the counters add up. Only what is the same,
//!    byte for byte, as a record that is done is a duplicate.
//! 5. No unbounded queue, buffer, timer set or thread set; each limit carries its unit in its name.
//! 6. No secret and no record body in diagnostics.
//! 7. Metric names exist only in [`metrics`].
//!
//! # What threads share between a socket and its ack
//!
//! Each with the reason why it makes nobody wait for another record's disk, network or rotation.
//!
//! | shared | how | who may hold it, and for how long |
//! |---|---|---|
//! | the poller, listening sockets | epoll in one-shot mode; a mutex per listening socket | one thread gets an event; accepting is the kernel's |
//! | a connection (`listener::slots`), with its TLS session | a mutex each | the thread that serves it, or the one that sends its parked reply: two records of one connection only |
//! | what TLS connections begin with (`listener::TlsSettings`) | an atomic snapshot | a reload exchanges it |
//! | free connection slots | a mutex | a push or a pop |
//! | keys of TLS tickets (rustls) | a read-write lock | within a handshake: reading a key; once in six hours making one |
//! | connections that are handed over at a stop | a mutex | a push |
//! | bytes buffered, stage, metrics | atomics | |
//! | the configuration in use (`service::Live`) | an atomic snapshot, one for each batch | a reload exchanges it; it waits for the last batches, they never for it |
//! | rules, groups, decoder, index | immutable; whether a rule has matched is an atomic, written once | |
//! | a log file's current generation, its room, its descriptors | an atomic snapshot, an addition, an exchange | an append shares with another one of the same file only what the kernel does to order two writes |
//! | a log file's appends in progress (`log_file::Flights`) | atomics | |
//! | permits to be inside an append | an addition per group of threads | the append itself; one permit fewer than threads, so that one is always outside |
//! | a log file's lane | two additions and a mutex, only where the file hangs or is always synced | pushing or taking batches; never the write |
//! | the events that a pool thread has taken | an exchange each | |
//! | a torn write's fragments | a mutex | only after a write that fell short: a push |
//! | standard output, where there are no groups | a mutex where it is a pipe or a terminal | the write itself: all records go to one stream in turn |
//! | the window against records sent twice (`evidence::Window`), where there is one | a mutex | looking up one mark of 16 bytes, or adding those of one batch |
//! | the halves that wait for each other (`evidence::Pairs`), where they are looked for | a mutex | one half, and what has become due |
//! | named sources, where silence is looked for | an immutable list and an addition; a mutex where a name is new | |
//! | followers (`tail`) | a flag; while somebody follows, a snapshot and bounded channels | `try_send` |
//! | a sink's queue | bounded channel | `try_send` |
//! | a sink's waiting room (`enqueue_mode: wait`) | a mutex | moving one task |
//! | the store's tasks (`store`) | a mutex | changing the index and copying records into the journal's buffer; never a read, a write or a sync |
//! | the journal's buffer (`store::journal`) | a mutex | copying records, or exchanging two buffers; the sync happens without it |
//! | received datagrams (`listener::udp`) | a mutex | copying a batch, or taking a piece out |
//!
//! A sync of the store holds up one thread of the pool at most, and the pool has one more for it. Log files that hang hold up all threads
//! but one of the pool at most, and it has one more for that; what comes later goes by the files' lanes (`pipeline::lanes`). Threads that hang
//! for longer than a second are replaced, each once.
//!
//! # Words
//!
//! Frame: the bytes of one record as received. Record: a decoded audit entry. Field: a typed path in a record.
//! Rule: one boolean expression. Rule group: rules and actions under one name. Action: what a matching group does.
//! Task: side-effect work for one record, one group and one sink. Sink: a remote destination. Attempt: a counted
//! try. Drop: work lost, always counted with a reason. Pending: a stored task that has not ended. Dead letter: a stored task that was
//! given up, kept with its reason. Drain: finish queued work at shutdown. Duplicate: a frame that is the same as a record that is done.
//! Quarantine: raw
//! frames that could not be decoded. Diagnostics: the program's own log.
#![forbid(unsafe_code)]

pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod diagnostics;
pub mod evidence;
pub mod framing;
pub mod identity;
pub mod listener;
pub mod load;
pub mod log_file;
pub mod metrics;
pub mod pipeline;
pub mod record;
pub mod rule_group;
pub mod rules;
pub mod secret;
pub mod server;
pub mod service;
pub mod side_effect;
pub mod signal;
pub mod sink;
pub mod status_page;
pub mod store;
pub mod tail;
mod text;
pub mod threads;
pub mod ticket;
pub mod trust;
pub mod vault;
