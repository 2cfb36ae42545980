//! The routes of the control API: a request in, an answer out. Knows no sockets.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::answer::Answer;
use super::reload::{Applied, ReloadError};
use super::selection::{self, Selection};
use super::status;
use super::tasks::{Changed, Filter, FilterError, State, TaskBook, TaskDetail, task_id};
use crate::cli::judge;
use crate::clock;
use crate::listener::{Listening, Park, Reply, Service as _};
use crate::metrics::Registry;
use crate::record::DecodeScratch;
use crate::rules::EvalScratch;
use crate::service::{Gateway, Worker};
use crate::tail::Taps;
use crate::ticket::{Outcome, Ticket};

/// Tasks in one answer where the request does not say how many.
const PAGE_TASKS: usize = 100;
/// Most tasks in one answer.
pub const PAGE_TASKS_MAX: usize = 10_000;
/// How long records that were fed in may wait for their ack.
const ACK_TIMEOUT: Duration = Duration::from_secs(30);
/// How often whoever waits for an ack looks whether the program ends.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What the API looks at and works on.
pub struct Parts {
    /// Takes records as the listeners do.
    pub gateway: Arc<Gateway>,
    /// The counters.
    pub registry: Arc<Registry>,
    /// The durable store, where it is enabled.
    pub tasks: Option<Arc<dyn TaskBook>>,
    /// Where the running rules show what they match.
    pub taps: Arc<Taps>,
    /// Reads the configuration again and puts it to use. Blocks until that is done.
    pub reload: Reload,
}

/// See [`Parts::reload`].
pub type Reload = Box<dyn Fn() -> Result<Applied, ReloadError> + Send + Sync>;

/// The control API of a running server.
pub struct Api {
    parts: Parts,
    listeners: Vec<Listening>,
    started: Instant,
}

/// Buffers of one thread.
pub(super) struct ApiWorker {
    ingest: Worker,
}

/// A request.
#[derive(Debug, Clone, Copy)]
pub(super) struct ApiRequest<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) query: &'a str,
    pub(super) body: &'a [u8],
}

const ROUTES: &str = "there are GET /v1/status, POST /v1/match, POST /v1/audit, POST /v1/reload, GET /v1/tail, GET /v1/pending[/ID], POST /v1/pending/drop, \
     GET /v1/dead-letters[/ID], POST /v1/dead-letters/replay, POST /v1/dead-letters/drop and POST /v1/set-aside";

impl Api {
    /// The API over the parts of a server with these listeners.
    pub fn new(listeners: Vec<Listening>, parts: Parts) -> Api {
        Api { parts, listeners, started: clock::now() }
    }

    pub(super) fn taps(&self) -> &Arc<Taps> {
        &self.parts.taps
    }

    pub(super) fn gateway(&self) -> &Gateway {
        &self.parts.gateway
    }

    pub(super) fn worker(&self) -> ApiWorker {
        // A log file that hangs must not cost the operator one of these few threads.
        let ingest = Worker::by_lanes().taking_again();
        ApiWorker { ingest }
    }

    /// Answers a request. May block for the store's disk, and with `POST /v1/audit` until the records are acked.
    pub(super) fn answer(&self, request: &ApiRequest<'_>, worker: &mut ApiWorker) -> Answer {
        let Some(route) = request.path.strip_prefix("/v1/") else {
            return Answer::error(404, &format!("{:?} does not exist", request.path), ROUTES);
        };
        match (request.method, route) {
            ("GET", "status") => Answer::json(&status::status(&self.parts, &self.listeners, self.started)),
            ("POST", "match") => self.explain(request.body),
            ("POST", "audit") => self.feed(request.body, worker),
            ("POST", "reload") => self.reload(),
            (_, "status" | "tail") => not_allowed("GET"),
            ("POST", "set-aside") => self.set_aside(),
            (_, "match" | "audit" | "set-aside" | "reload") => not_allowed("POST"),
            _ => match route.split_once('/').unwrap_or((route, "")) {
                ("pending", rest) => self.tasks(State::Pending, rest, request),
                ("dead-letters", rest) => self.tasks(State::Dead, rest, request),
                _ => Answer::error(404, &format!("{:?} does not exist", request.path), ROUTES),
            },
        }
    }

    /// What the running rules make of a record; nothing is done with it.
    fn explain(&self, body: &[u8]) -> Answer {
        let pipeline = &self.parts.gateway.live().pipeline;
        let (mut decode, mut eval) = (DecodeScratch::default(), EvalScratch::default());
        let record = match pipeline.decoder().decode(body.trim_ascii(), &mut decode) {
            Ok(record) => record,
            Err(error) => {
                let what = format!("the body is no audit entry: {error}");
                return Answer::error(400, &what, "send one audit entry, as it stands in an audit log");
            }
        };
        eval.set_now(jiff::Timestamp::try_from(clock::wall()).unwrap_or(jiff::Timestamp::UNIX_EPOCH));
        let name = pipeline.fallback().map(|group| &group.name);
        let fallback = pipeline.groups().iter().position(|group| Some(&group.name) == name);
        Answer::json(&judge::explain_groups(pipeline.groups(), fallback, &record, &mut eval))
    }

    /// Takes records as the HTTP listener does, and answers when that one would.
    fn feed(&self, body: &[u8], worker: &mut ApiWorker) -> Answer {
        let (sender, acked) = bounded(1);
        let gateway = &self.parts.gateway;
        let waiting = Waiting { sender, ticket: RefCell::new(None) };
        let reply = gateway.feed(body, &mut worker.ingest, &waiting);
        // Ours must not be the one that is missing.
        drop(waiting);
        // As the listeners' threads do: this one sees to the sync that the ack may wait for.
        gateway.after_events(&mut worker.ingest);
        match reply {
            Reply::Now(response) if response.status == 204 => Answer::empty(),
            Reply::Now(response) => {
                let what = String::from_utf8_lossy(&response.body).trim_end().to_owned();
                Answer::error(response.status, &what, "see the server's diagnostics")
            }
            Reply::Parked => match self.wait_for(&acked) {
                Ok(Outcome::Done) => Answer::empty(),
                Ok(Outcome::Refused) => {
                    let what = "a log file did not take the records, or the durable store their tasks";
                    Answer::error(503, what, "send them again in a moment; see the server's diagnostics")
                }
                Err(_) => {
                    let what = format!("the records were not acked within {} s", ACK_TIMEOUT.as_secs());
                    Answer::error(503, &what, "send them again; what was done is not undone")
                }
            },
        }
    }

    /// Waits for the ack; no longer than the program can give one.
    fn wait_for(&self, acked: &Receiver<Outcome>) -> Result<Outcome, RecvTimeoutError> {
        let deadline = clock::now() + ACK_TIMEOUT;
        loop {
            match acked.recv_timeout(LOOK_EVERY) {
                Err(RecvTimeoutError::Timeout)
                    if clock::now() < deadline && !self.parts.gateway.is_stopped() => {}
                other => return other,
            }
        }
    }

    /// Puts the configuration to use that is in the file now, or says what is wrong with it.
    fn reload(&self) -> Answer {
        match (self.parts.reload)() {
            Ok(applied) => Answer::json(&applied),
            Err(error) => error.answer(),
        }
    }

    fn book(&self) -> Result<&dyn TaskBook, Answer> {
        self.parts.tasks.as_deref().ok_or_else(|| {
            let cure = "set async.durable.enabled: true and restart the server";
            Answer::error(409, "the durable store is not enabled, so no task is kept", cure)
        })
    }

    fn set_aside(&self) -> Answer {
        let moved = self.book().and_then(|book| book.set_aside().map_err(|e| store_failed(&e)));
        moved.map_or_else(|answer| answer, |moved| Answer::json(&serde_json::json!({ "moved": moved })))
    }

    fn tasks(&self, state: State, rest: &str, request: &ApiRequest<'_>) -> Answer {
        let book = match self.book() {
            Ok(book) => book,
            Err(answer) => return answer,
        };
        let done = match (request.method, rest, state) {
            ("GET", "", _) => list(book, state, request.query),
            ("POST", "drop", _) => change(state, request.body, |filter| book.discard(filter)),
            ("POST", "replay", State::Dead) => change(state, request.body, |filter| book.replay(filter)),
            (_, "", _) => Ok(not_allowed("GET")),
            (_, "drop", _) | (_, "replay", State::Dead) => Ok(not_allowed("POST")),
            ("GET", id, _) => show(book, state, id),
            _ => Ok(not_allowed("GET")),
        };
        done.unwrap_or_else(|answer| answer)
    }
}

fn not_allowed(method: &'static str) -> Answer {
    let cure = format!("send {method}");
    Answer { allow: Some(method), ..Answer::error(405, "this method does nothing here", &cure) }
}

fn list(book: &dyn TaskBook, state: State, query: &str) -> Result<Answer, Answer> {
    let asked = selection::from_query(query, state, clock::wall()).map_err(bad_request)?;
    let limit = asked.limit.unwrap_or(PAGE_TASKS);
    if limit > PAGE_TASKS_MAX {
        let cure = format!("ask for at most {PAGE_TASKS_MAX} and for what follows with offset=N");
        return Err(Answer::error(400, "the limit is too large", &cure));
    }
    let page = book.list(&asked.filter, asked.offset, limit).map_err(|e| store_failed(&e))?;
    Ok(Answer::json(&page))
}

fn show(book: &dyn TaskBook, state: State, id: &str) -> Result<Answer, Answer> {
    let id = task_id(id).map_err(bad_request)?;
    match book.show(id).map_err(|e| store_failed(&e))? {
        Some((task, record)) if task.state == state => Ok(Answer::json(&TaskDetail::new(task, &record))),
        Some((task, _)) => {
            let cure = "look under the other of /v1/pending and /v1/dead-letters";
            Err(Answer::error(404, &format!("the task {id} is {}", task.state.label()), cure))
        }
        None => {
            let cure = "it was delivered or dropped, or never was; `vault-audit-filter queue list` shows what there is";
            Err(Answer::error(404, &format!("there is no task {id}"), cure))
        }
    }
}

fn change(
    state: State,
    body: &[u8],
    work: impl FnOnce(&Filter) -> std::io::Result<Changed>,
) -> Result<Answer, Answer> {
    let selection: Selection = serde_json::from_slice(body).map_err(|e| {
        let cure = "send JSON such as {\"group\": \"payroll\"}, {\"ids\": [\"...\"]} or {\"all\": true}";
        Answer::error(400, &format!("the body does not say which tasks are meant: {e}"), cure)
    })?;
    let filter = selection.filter(state, clock::wall()).map_err(bad_request)?;
    work(&filter).map(|changed| Answer::json(&changed)).map_err(|e| store_failed(&e))
}

fn bad_request(error: FilterError) -> Answer {
    Answer::error(400, &error.what, &error.cure)
}

fn store_failed(error: &std::io::Error) -> Answer {
    let what = format!("the durable store: {error}");
    Answer::error(503, &what, "see the server's diagnostics; what was not done can be asked for again")
}

/// Waits for the ack of records on the thread that fed them in.
struct Waiting {
    sender: Sender<Outcome>,
    ticket: RefCell<Option<Ticket>>,
}

impl Park for Waiting {
    fn ticket(&self, _status: u16) -> Ticket {
        let mut asked = self.ticket.borrow_mut();
        let ticket = asked.get_or_insert_with(|| {
            let sender = self.sender.clone();
            // Disconnected: the time was up.
            Ticket::new(move |outcome| {
                let _ = sender.try_send(outcome);
            })
        });
        ticket.clone()
    }
}
