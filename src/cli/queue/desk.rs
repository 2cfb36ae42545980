//! Where `queue` gets its answers: from a running server's control socket, or from the files of a stopped one.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cli::{self, Io, WRONG, say_problems};
use crate::clock;
use crate::config::{CONTROL_SOCKET_NAME, Config, Overrides};
use crate::control::tasks::{Changed, Filter, FilterError, Page, State, TaskBook, TaskDetail, task_id};
use crate::control::{Client, ClientError, ClosedBook, OpenBook, PAGE_TASKS_MAX, Selection};
use crate::metrics::Registry;
use crate::server::store_settings;
use crate::side_effect::SinkSpec;
use crate::sink::{self, HttpClient};
use crate::store::{self, OpenError, Store};

/// What will be done with the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Nothing is changed, not even when the store was not closed in order.
    Look,
    /// Tasks are replayed or dropped.
    Change,
}

/// Who answers.
pub(super) enum Desk {
    /// The server that runs.
    Running(Client),
    /// The files.
    Stopped(Box<dyn TaskBook>),
}

/// Why a question has no answer.
#[derive(Debug)]
pub(super) enum DeskError {
    /// It cannot be asked like that.
    Asked(FilterError),
    /// There is no such task.
    NothingThere(String),
    /// The server or the files.
    Failed(String),
}

impl fmt::Display for DeskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeskError::Asked(error) => error.fmt(f),
            DeskError::NothingThere(what) | DeskError::Failed(what) => f.write_str(what),
        }
    }
}

impl From<ClientError> for DeskError {
    fn from(error: ClientError) -> Self {
        match &error {
            ClientError::Refused { status: 404, .. } => DeskError::NothingThere(error.to_string()),
            _ => DeskError::Failed(error.to_string()),
        }
    }
}

impl From<io::Error> for DeskError {
    fn from(error: io::Error) -> Self {
        let cure = match error.kind() {
            io::ErrorKind::ResourceBusy => {
                "; nobody answers at its control socket: name the configuration that the server uses with --config FILE"
            }
            _ => "",
        };
        DeskError::Failed(format!("the durable store: {error}{cure}"))
    }
}

impl From<FilterError> for DeskError {
    fn from(error: FilterError) -> Self {
        DeskError::Asked(error)
    }
}

/// Where socket and files are.
pub(super) struct Places {
    pub(super) socket: PathBuf,
    /// `None`: the store is not enabled.
    pub(super) dir: Option<PathBuf>,
    pub(super) config: Config,
    /// Names of the sinks in it.
    pub(super) sinks: Vec<String>,
    /// The configuration was read, so what it does not have is unknown.
    pub(super) is_configured: bool,
}

impl Places {
    /// From `--dir`, else from the configuration. What is wrong has been said when there is none.
    fn find(dir: Option<&Path>, overrides: &Overrides, io: &mut Io<'_>) -> Option<Places> {
        if let Some(dir) = dir {
            let mut config = Config::default();
            dir.clone_into(&mut config.side_effects.durable.dir);
            return Some(Places {
                socket: dir.join(CONTROL_SOCKET_NAME),
                dir: Some(dir.to_owned()),
                config,
                sinks: Vec::new(),
                is_configured: false,
            });
        }
        let loaded = match cli::load(overrides).map(|checked| checked.loaded) {
            Ok(loaded) => loaded,
            Err(problems) => {
                say_problems(&problems, io);
                io.say("the store's directory can be given without a configuration: --dir DIR");
                return None;
            }
        };
        let durable = &loaded.config.side_effects.durable;
        let dir = durable.enabled.then(|| durable.dir.clone());
        let sinks = sink_names(&loaded.config).map_err(|what| io.say(&what)).ok()?;
        match loaded.config.control_path() {
            Some(socket) => Some(Places { socket, dir, config: loaded.config, sinks, is_configured: true }),
            None => {
                io.say(&format!(
                    "{}: async.durable.enabled is false, so no task is kept; name the configuration that the server uses \
                     with --config FILE, or the store's directory with --dir DIR",
                    loaded.source()
                ));
                None
            }
        }
    }
}

impl Desk {
    /// The server's desk where one runs, else the files. The error is the exit code; why has been said.
    pub(super) fn open(
        dir: Option<&Path>,
        overrides: &Overrides,
        access: Access,
        io: &mut Io<'_>,
    ) -> Result<Desk, u8> {
        let places = Places::find(dir, overrides, io).ok_or(WRONG)?;
        let client = Client::at(&places.socket);
        let no_server = match client.probe() {
            Ok(()) => return Ok(Desk::Running(client)),
            Err(ClientError::NoServer(e)) => e,
            Err(error) => {
                io.say(&error.to_string());
                return Err(WRONG);
            }
        };
        let Some(dir) = &places.dir else {
            io.say(&format!(
                "no server answers at {:?} ({no_server}), and async.durable.enabled is false, so there are no files to look at",
                places.socket
            ));
            return Err(WRONG);
        };
        if !dir.is_dir() {
            io.say(&format!(
                "there is no store in {dir:?}; name the configuration that the server uses with --config FILE, or the \
                 store's directory with --dir DIR"
            ));
            return Err(WRONG);
        }
        open_files(dir, &places, access).map(Desk::Stopped).map_err(|what| {
            io.say(&what);
            WRONG
        })
    }

    /// What has to be asked one after the other for a list of these tasks: the server has pending tasks and dead letters in different
    /// places, and the files are read once for both.
    pub(super) fn parts(&self, state: Option<State>) -> Vec<Option<State>> {
        match (self, state) {
            (Desk::Running(_), None) => vec![Some(State::Pending), Some(State::Dead)],
            (_, state) => vec![state],
        }
    }

    /// Tasks of one of [`Desk::parts`].
    pub(super) fn list(
        &self,
        state: Option<State>,
        selection: &Selection,
        offset: u64,
        limit: u64,
    ) -> Result<Page, DeskError> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        match self {
            Desk::Running(client) => {
                let (limit, state) = (limit.min(PAGE_TASKS_MAX), state.unwrap_or(State::Dead));
                let mut target = format!("/v1/{}?limit={limit}&offset={offset}", route(state));
                let conditions = selection.to_query();
                if !conditions.is_empty() {
                    target.push('&');
                    target.push_str(&conditions);
                }
                Ok(client.get(&target)?)
            }
            Desk::Stopped(book) => {
                let all = *selection == Selection::default();
                let selection = Selection { all, ..selection.clone() };
                let filter = Filter { state, ..selection.filter(State::Dead, clock::wall())? };
                Ok(book.list(&filter, offset, limit)?)
            }
        }
    }

    pub(super) fn show(&self, id: &str) -> Result<TaskDetail, DeskError> {
        match self {
            Desk::Running(client) => match client.get(&format!("/v1/dead-letters/{id}")) {
                Err(ClientError::Refused { status: 404, .. }) => {
                    Ok(client.get(&format!("/v1/pending/{id}"))?)
                }
                other => Ok(other?),
            },
            Desk::Stopped(book) => {
                let (task, record) = book.show(task_id(id)?)?.ok_or_else(|| {
                    DeskError::NothingThere(format!(
                        "there is no task {id}; it was delivered or dropped, or never was; `vault-audit-filter queue list` \
                         shows what there is"
                    ))
                })?;
                Ok(TaskDetail::new(task, &record))
            }
        }
    }

    pub(super) fn replay(&self, selection: &Selection) -> Result<Changed, DeskError> {
        match self {
            Desk::Running(client) => Ok(client.post("/v1/dead-letters/replay", selection)?),
            Desk::Stopped(book) => Ok(book.replay(&selection.filter(State::Dead, clock::wall())?)?),
        }
    }

    pub(super) fn discard(&self, state: State, selection: &Selection) -> Result<Changed, DeskError> {
        match self {
            Desk::Running(client) => Ok(client.post(&format!("/v1/{}/drop", route(state)), selection)?),
            Desk::Stopped(book) => Ok(book.discard(&selection.filter(state, clock::wall())?)?),
        }
    }

    /// Where damaged files have been moved to.
    pub(super) fn set_aside(&self) -> Result<Vec<String>, DeskError> {
        match self {
            Desk::Running(client) => {
                let moved: SetAside = client.post("/v1/set-aside", &serde_json::json!({}))?;
                Ok(moved.moved)
            }
            Desk::Stopped(book) => Ok(book.set_aside()?),
        }
    }
}

#[derive(serde::Deserialize)]
struct SetAside {
    moved: Vec<String>,
}

fn route(state: State) -> &'static str {
    match state {
        State::Pending => "pending",
        State::Dead => "dead-letters",
    }
}

/// Why the files cannot be opened, with what to do where a server has them.
fn told(error: OpenError, dir: &Path, places: &Places) -> String {
    match error {
        OpenError::Locked { pid, .. } => {
            let who = pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
            format!(
                "the store in {dir:?} is in use by {who}, and nobody answers at {:?}; name the configuration that the server \
                 uses with --config FILE, or stop it first",
                places.socket
            )
        }
        other => other.to_string(),
    }
}

/// The files of a store that no server has open.
fn open_files(dir: &Path, places: &Places, access: Access) -> Result<Box<dyn TaskBook>, String> {
    if access == Access::Look {
        let book = ClosedBook { dir: dir.to_owned(), sinks: places.sinks.clone() };
        return Ok(Box::new(book));
    }
    let mut sinks = places.sinks.clone();
    if !places.is_configured {
        // Without a configuration every sink that a dead letter names is taken as one: the server sorts it out.
        let dead = store::Filter { kind: Some(store::Kind::Dead), ..store::Filter::default() };
        let looked = store::look(dir, &[], &dead, usize::MAX).map_err(|e| told(e, dir, places))?;
        sinks.extend(looked.listed.items.into_iter().map(|item| item.sink));
        sinks.sort_unstable();
        sinks.dedup();
    }
    let registry = Arc::new(Registry::new());
    let opened = Store::open(store_settings(&places.config.side_effects), &sinks, &registry)
        .map_err(|e| told(e, dir, places))?;
    let bytes_max = places.config.side_effects.durable.max_bytes;
    Ok(Box::new(OpenBook::new(opened.store, registry, dir, bytes_max, &opened.report)))
}

/// Names of the sinks that the configuration has.
fn sink_names(config: &Config) -> Result<Vec<String>, String> {
    let specs = sink::build(&config.rule_groups, &HttpClient::trusting(None))
        .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
    Ok(specs.iter().map(SinkSpec::name).collect())
}
