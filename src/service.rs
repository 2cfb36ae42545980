//! What the listeners serve: the ingest routes with their tokens, the admin routes, lines and datagrams.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;

use crate::evidence::Silence;
use crate::listener::http::{Request, Response};
use crate::listener::{BadFrame, LineReply, Park, Reply, Service, Source};
use crate::metrics::Registry;
use crate::pipeline::{self, Pipeline, Verdict};
use crate::secret::Secret;
use crate::status_page::{Condition, Look, StatusPage};
use crate::ticket::Ticket;

/// Ingest path; `/v1/audit/<source>` is the same with a name that the operator chose.
const INGEST_PATH: &str = "/v1/audit";

/// Most records in one request: bounds what one request can make the program hold and write. A batch of the usual
/// records reaches the size limit of a body first.
const BATCH_RECORDS_MAX: usize = 65_536;

/// A named condition for `/readyz`.
pub struct ReadyCheck {
    /// Shown in the verbose answer.
    pub name: &'static str,
    /// `Err` says what is wrong, in a few words without secrets. Must not block.
    pub check: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
}

/// What requests, lines and datagrams are handled with: one configuration, whole. A batch is handled by one of them from its begin to
/// its end.
pub struct Live {
    /// Rules and actions.
    pub pipeline: Arc<Pipeline>,
    tokens: Vec<Secret>,
    record_bytes_max: usize,
    checks: Vec<ReadyCheck>,
    /// No two have the same in one process.
    number: u64,
}

impl Live {
    /// `tokens` empty: no authentication. Frames over `record_bytes_max` are answered with 413.
    pub fn new(
        pipeline: Arc<Pipeline>,
        tokens: Vec<Secret>,
        record_bytes_max: usize,
        checks: Vec<ReadyCheck>,
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Live { pipeline, tokens, record_bytes_max, checks, number }
    }

    fn take_body(&self, body: &[u8], worker: &mut Worker, park: &dyn Park) -> Reply {
        let body = body.trim_ascii();
        let worker = worker.of(self);
        let single = memchr::memchr(b'\n', body).is_none() || self.pipeline.is_one_record(body, worker);
        let mut parked = false;
        let mut ticket = || {
            parked = true;
            park.ticket(204)
        };
        let verdict = if single {
            if body.len() > self.record_bytes_max {
                return self.too_large(1);
            }
            self.pipeline.handle(Source::Http, &[body], worker, &mut ticket)
        } else {
            let frames: Vec<&[u8]> =
                body.split(|b| *b == b'\n').map(<[u8]>::trim_ascii).filter(|f| !f.is_empty()).collect();
            if frames.len() > BATCH_RECORDS_MAX || frames.iter().any(|f| f.len() > self.record_bytes_max) {
                return self.too_large(frames.len());
            }
            self.pipeline.handle(Source::Http, &frames, worker, &mut ticket)
        };
        match verdict {
            Verdict::Acked if parked => Reply::Parked,
            Verdict::Acked => Reply::Now(Response::empty(204)),
            Verdict::TooLarge => Reply::Now(Response::text(
                413,
                "the records are larger than the store of side effects can take at a time; send fewer in one request, or raise async.durable.max_bytes (the store takes up to 16 MB at a time)\n",
            )),
            Verdict::Refused => {
                Reply::Now(Response::try_again("the record could not be written; try again\n"))
            }
        }
    }

    fn too_large(&self, frames: usize) -> Reply {
        self.pipeline.refused_oversize(Source::Http, frames);
        Reply::Now(Response::text(
            413,
            "a record is larger than limits.record_bytes_max, or there are more than 65536 in one request\n",
        ))
    }

    /// Compares with every token, so that the time does not tell which of them was nearly right.
    fn authorizes(&self, header: Option<&[u8]>) -> bool {
        if self.tokens.is_empty() {
            return true;
        }
        let Some(candidate) = header.and_then(bearer) else { return false };
        self.tokens.iter().fold(false, |ok, token| ok | token.matches(candidate))
    }
}

/// Per-thread state: buffers that are used again for every frame, as long as the configuration is the same.
#[derive(Debug, Default)]
pub struct Worker {
    pipeline: pipeline::Worker,
    /// Of the [`Live`] that it was used with.
    number: u64,
}

impl Worker {
    /// Of a thread that must not block for a log file.
    pub fn by_lanes() -> Worker {
        Worker { pipeline: pipeline::Worker::by_lanes(), number: 0 }
    }

    /// Of a thread that takes what an operator feeds in on purpose, whether it has been received before or not.
    #[must_use]
    pub fn taking_again(self) -> Worker {
        Worker { pipeline: self.pipeline.taking_again(), number: self.number }
    }

    /// The buffers for this configuration.
    fn of(&mut self, live: &Live) -> &mut pipeline::Worker {
        if self.number != live.number {
            self.pipeline.renew();
            self.number = live.number;
        }
        &mut self.pipeline
    }
}

/// The service behind all listeners.
pub struct Gateway {
    live: ArcSwap<Live>,
    registry: Arc<Registry>,
    page: Option<StatusPage>,
    silence: Silence,
    draining: AtomicBool,
    stopped: AtomicBool,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("draining", &self.draining).finish_non_exhaustive()
    }
}

impl Gateway {
    /// Begins with this configuration.
    pub fn new(live: Live, registry: Arc<Registry>) -> Self {
        Gateway {
            live: ArcSwap::from_pointee(live),
            silence: Silence::new(Arc::clone(&registry)),
            registry,
            page: None,
            draining: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
        }
    }

    /// Serves this page on the admin address.
    #[must_use]
    pub fn showing(mut self, page: StatusPage) -> Self {
        self.page = Some(page);
        self
    }

    /// Who sends nothing any more.
    pub fn silence(&self) -> &Silence {
        &self.silence
    }

    /// What is used now.
    pub fn live(&self) -> Arc<Live> {
        self.live.load_full()
    }

    /// Uses another configuration from now on. What is being handled goes on with the earlier one, which is returned: when nothing else holds it
    /// any more ([`Arc::strong_count`] is 1), it is out of use for good.
    pub fn exchange(&self, live: Live) -> Arc<Live> {
        self.live.swap(Arc::new(live))
    }

    /// From now on `/readyz` answers 503.
    pub fn set_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Nothing more is written or acked from now on.
    pub fn set_stopped(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Whether [`Gateway::set_stopped`] was called.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Whether the server is stopping.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    fn ingest(&self, request: &Request<'_>, worker: &mut Worker, park: &dyn Park) -> Reply {
        let rest = request.path.strip_prefix(INGEST_PATH);
        if !rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
            return Reply::Now(Response::text(404, "not found; records go to POST /v1/audit\n"));
        }
        if request.method != "POST" {
            return Reply::Now(Response {
                headers: &[("Allow", "POST")],
                ..Response::text(405, "method not allowed; records go to POST /v1/audit\n")
            });
        }
        let live = self.live.load();
        if !live.authorizes(request.authorization) {
            return Reply::Now(Response {
                headers: &[("WWW-Authenticate", "Bearer")],
                ..Response::text(401, "a valid bearer token is needed\n")
            });
        }
        if let Some(name) = rest.and_then(|rest| rest.strip_prefix('/')) {
            self.silence.heard_from(name);
        }
        live.take_body(request.body, worker, park)
    }

    /// Takes the body of `POST /v1/audit` from the owner of the program: no token is asked for.
    pub fn feed(&self, body: &[u8], worker: &mut Worker, park: &dyn Park) -> Reply {
        self.live.load().take_body(body, worker, park)
    }

    fn admin(&self, request: &Request<'_>) -> Response {
        if !matches!(request.method, "GET" | "HEAD") {
            return Response {
                headers: &[("Allow", "GET, HEAD")],
                ..Response::text(405, "method not allowed\n")
            };
        }
        match request.path {
            "/livez" => Response::text(200, "ok\n"),
            "/readyz" | "/healthz" => {
                self.readiness(request.query.split('&').any(|p| p.starts_with("verbose")))
            }
            "/metrics" => Response {
                status: 200,
                content_type: Some("text/plain; version=0.0.4; charset=utf-8"),
                headers: &[],
                body: Cow::Owned(self.registry.render().into_bytes()),
                close: false,
            },
            path => self.status_page(path).unwrap_or_else(|| {
                let known = "/ (for a browser), /status.json, /livez, /readyz, /healthz and /metrics";
                Response::text(404, format!("not found; there are {known}\n"))
            }),
        }
    }

    fn status_page(&self, path: &str) -> Option<Response> {
        let live = self.live.load();
        let look = || Look {
            pipeline: &live.pipeline,
            registry: &self.registry,
            conditions: self.conditions(&live),
            silence: &self.silence,
        };
        self.page.as_ref().and_then(|page| page.answer(path, look))
    }

    /// The conditions of readiness.
    fn conditions(&self, live: &Live) -> Vec<Condition> {
        let accepting = if self.is_draining() { Err("shutting down".to_owned()) } else { Ok(()) };
        let checks = live.checks.iter().map(|check| (check.name, (check.check)()));
        std::iter::once(("accepting", accepting)).chain(checks).collect()
    }

    fn readiness(&self, verbose: bool) -> Response {
        let mut lines = String::new();
        let mut ready = true;
        for (name, result) in self.conditions(&self.live.load()) {
            ready &= result.is_ok();
            match result {
                Ok(()) if verbose => lines.push_str(&format!("[+] {name} ok\n")),
                Ok(()) => {}
                Err(what) => lines.push_str(&format!("[-] {name}: {what}\n")),
            }
        }
        // A quiet cluster sends nothing: that makes nobody unready.
        match self.silence.silent().filter(|_| verbose) {
            Some(silent) if silent.is_empty() => lines.push_str("[+] senders ok\n"),
            Some(silent) => lines.push_str(&format!("[!] senders: {}\n", silent.join("; "))),
            None => {}
        }
        lines.push_str(if ready { "ready\n" } else { "not ready\n" });
        Response::text(if ready { 200 } else { 503 }, lines)
    }
}

/// The token of `Authorization: Bearer TOKEN`; the scheme's case does not matter (RFC 9110, 11.1).
fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = header.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

impl Service for Gateway {
    type Worker = Worker;

    fn worker(&self) -> Worker {
        Worker::default()
    }

    fn http(&self, source: Source, request: &Request<'_>, worker: &mut Worker, park: &dyn Park) -> Reply {
        match source {
            Source::Admin => Reply::Now(self.admin(request)),
            _ => self.ingest(request, worker, park),
        }
    }

    fn http_refused(&self, source: Source, status: u16) {
        if source == Source::Http && status == 413 {
            self.live.load().pipeline.refused_oversize(source, 1);
        }
    }

    fn lines(&self, source: Source, frames: &[&[u8]], worker: &mut Worker, park: &dyn Park) -> LineReply {
        let mut parked = false;
        let mut ticket = || {
            parked = true;
            park.ticket(204)
        };
        // A stream has no reply: a line that could not be written is counted as refused and said by its log file.
        let live = self.live.load();
        live.pipeline.handle_each(source, frames, worker.of(&live), &mut ticket);
        if parked { LineReply::Parked } else { LineReply::Continue }
    }

    fn datagrams(&self, frames: &[&[u8]], worker: &mut Worker) {
        // Nobody waits for a datagram: its tasks may wait for room without holding anything back.
        let mut ticket = || Ticket::new(|_| {});
        let live = self.live.load();
        live.pipeline.handle_each(Source::Udp, frames, worker.of(&live), &mut ticket);
    }

    fn bad_frame(&self, source: Source, bad: BadFrame<'_>, worker: &mut Worker) {
        let live = self.live.load();
        live.pipeline.bad_frame(source, bad, worker.of(&live));
    }

    fn after_events(&self, worker: &mut Worker) {
        // The store is the same in every configuration of a process.
        if worker.pipeline.owes_sync() {
            self.live.load().pipeline.commit(&mut worker.pipeline);
        }
    }

    fn after_datagrams(&self, worker: &mut Worker) {
        if worker.pipeline.owes_sync() {
            self.live.load().pipeline.nudge(&mut worker.pipeline);
        }
    }
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
