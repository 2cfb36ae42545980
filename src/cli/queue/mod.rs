//! `queue`: pending tasks and dead letters of the durable store, of a running server or of a stopped one's directory.

mod desk;
mod render;
#[cfg(test)]
mod tests;

use std::io::Read;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use self::desk::{Access, Desk, DeskError};
use super::{FAILED, Io, OK, WRONG, io::Format};
use crate::config::Overrides;
use crate::control::Selection;
use crate::control::tasks::{Changed, FilterError, State, task_id};
use crate::store::Reason;

pub(super) const EXAMPLES: &str = "\
Examples:
  What could not be delivered in the last day, and why:
      vault-audit-filter queue list --state dead --since 24h
  One task with everything that is known of it and its record:
      vault-audit-filter queue show 0193653b5c6e0f3a9d2c4b1e8a7f6d5c
  Send the dead letters of a sink again, once its receiver is back:
      vault-audit-filter queue replay --sink payroll/slack
  Throw away what is too old to be of use:
      vault-audit-filter queue drop --state dead --until 720h
  Of one group and reason, all of them, without being asked:
      vault-audit-filter queue drop --group old --reason expired --yes
      vault-audit-filter queue replay --all
  Without a configuration:
      vault-audit-filter queue list --limit 0 --dir /var/lib/vault-audit-filter/queue
  For a script:
      vault-audit-filter queue list --format json | jq '.tasks[] | .reason'

Works while the server runs (through its control socket) and when it is down (on the files in async.durable.dir). `list` and
`show` change nothing. A replayed dead letter becomes a new task with its history; deliveries carry the new task's id.
Exit code: 0 done, 1 when nothing matched, 2 when something was wrong.";

const TIMES: &str = "how long ago (90m, 24h), or a time such as 2026-11-24T07:00:00Z";

/// Arguments of `queue`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List pending tasks and dead letters, oldest first
    #[command(after_help = LIST)]
    List(List),
    /// Show one task with its record
    #[command(after_help = SHOW)]
    Show(Show),
    /// Make new tasks of dead letters, so that they are delivered after all
    #[command(after_help = REPLAY)]
    Replay(Change),
    /// Remove tasks for good
    #[command(after_help = DROP)]
    Drop(Drop),
    /// Move damaged files out of the way, into quarantine/ in the store's directory
    #[command(after_help = SET_ASIDE)]
    SetAside(SetAside),
}

const LIST: &str = "\
Examples:
  Everything:                 vault-audit-filter queue list
  Of one group's Slack sink:  vault-audit-filter queue list --sink payroll/slack
  Refused for good:           vault-audit-filter queue list --state dead --reason permanent

Exit code: 0 when there is something, 1 when nothing matched, 2 when something was wrong.";
const SHOW: &str = "\
Examples:
  For people:                    vault-audit-filter queue show 0193653b5c6e0f3a9d2c4b1e8a7f6d5c
  The record, byte for byte:     vault-audit-filter queue show --format json 0193653b5c6e0f3a9d2c4b1e8a7f6d5c | jq .record";
const REPLAY: &str = "\
Examples:
  Two dead letters:              vault-audit-filter queue replay 0193653b5c6e0f3a9d2c4b1e8a7f6d5c 0193653b5c6e0f3a9d2c4b1e8a7f6d5d
  What an outage has left:       vault-audit-filter queue replay --sink payroll/slack --reason exhausted --since 6h
  All:                           vault-audit-filter queue replay --all";
const DROP: &str = "\
Examples:
  One dead letter:               vault-audit-filter queue drop 0193653b5c6e0f3a9d2c4b1e8a7f6d5c
  Those of a group that is gone: vault-audit-filter queue drop --group old --yes
  Pending tasks too:             vault-audit-filter queue drop --group old --state pending

A task that is being delivered is left.";
const SET_ASIDE: &str = "\
Examples:
  On the server of the default configuration:   vault-audit-filter queue set-aside
  In a directory:                                vault-audit-filter queue set-aside --dir /var/lib/vault-audit-filter

What is intact in a damaged file was read when the store was opened; the file itself is kept for whoever wants to look.";

/// Where the store is, and how to answer.
#[derive(Debug, Args)]
struct Place {
    /// Directory of the store, instead of the configuration's async.durable.dir
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// What to print
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
}

/// Which tasks are meant.
#[derive(Debug, Args)]
struct Conditions {
    /// Of this rule group
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// For this sink, such as payroll/slack
    #[arg(long, value_name = "NAME")]
    sink: Option<String>,
    #[arg(long, value_name = "TIME", help = format!("Accepted since then: {TIMES}"))]
    since: Option<String>,
    #[arg(long, value_name = "TIME", help = format!("Accepted before then: {TIMES}"))]
    until: Option<String>,
    /// Dead for this reason
    #[arg(long, value_name = "REASON", value_parser = Reason::ALL.map(Reason::label))]
    reason: Option<String>,
}

#[derive(Debug, Args)]
struct List {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    conditions: Conditions,
    /// Only these: pending tasks or dead letters
    #[arg(long, value_name = "STATE")]
    state: Option<StateArgument>,
    /// Most tasks to list; 0 lists all
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: u64,
}

#[derive(Debug, Args)]
struct Show {
    #[command(flatten)]
    place: Place,
    /// The task's id, as `queue list` shows it
    #[arg(value_name = "ID")]
    id: String,
}

#[derive(Debug, Args)]
struct Change {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    conditions: Conditions,
    /// Ids, as `queue list` shows them
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// All of them
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Args)]
struct Drop {
    #[command(flatten)]
    change: Change,
    /// Dead letters or pending tasks
    #[arg(long, value_name = "STATE", default_value = "dead")]
    state: StateArgument,
    /// Do not ask on a terminal
    #[arg(short, long)]
    yes: bool,
}

#[derive(Debug, Args)]
struct SetAside {
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StateArgument {
    Pending,
    Dead,
}

impl From<StateArgument> for State {
    fn from(argument: StateArgument) -> State {
        match argument {
            StateArgument::Pending => State::Pending,
            StateArgument::Dead => State::Dead,
        }
    }
}

impl Conditions {
    fn selection(&self, ids: &[String], all: bool) -> Selection {
        Selection {
            ids: ids.to_vec(),
            group: self.group.clone(),
            sink: self.sink.clone(),
            since: self.since.clone(),
            until: self.until.clone(),
            reason: self.reason.clone(),
            all,
        }
    }
}

/// Does what is asked for; the exit code.
pub(super) fn run(arguments: &Arguments, overrides: &Overrides, io: &mut Io<'_>) -> u8 {
    let (place, access) = match &arguments.action {
        Action::List(List { place, .. }) | Action::Show(Show { place, .. }) => (place, Access::Look),
        Action::Replay(Change { place, .. })
        | Action::Drop(Drop { change: Change { place, .. }, .. })
        | Action::SetAside(SetAside { place }) => (place, Access::Change),
    };
    // Before a store is opened for something that will be refused.
    if let Err(error) = check(&arguments.action) {
        io.say(&error.to_string());
        return WRONG;
    }
    let desk = match Desk::open(place.dir.as_deref(), overrides, access, io) {
        Ok(desk) => desk,
        Err(code) => return code,
    };
    run_at(&desk, &arguments.action, io).unwrap_or_else(|error| {
        io.say(&error.to_string());
        match error {
            DeskError::NothingThere(_) => FAILED,
            _ => WRONG,
        }
    })
}

fn check(action: &Action) -> Result<(), DeskError> {
    let now = crate::clock::wall();
    let (selection, state) = match action {
        Action::List(list) => (list.conditions.selection(&[], false), State::Dead),
        Action::Replay(change) => (change.conditions.selection(&change.ids, change.all), State::Dead),
        Action::Drop(Drop { change, state, .. }) => {
            (change.conditions.selection(&change.ids, change.all), (*state).into())
        }
        Action::Show(show) => return task_id(&show.id).map(drop).map_err(DeskError::Asked),
        Action::SetAside(_) => return Ok(()),
    };
    let selection = match action {
        Action::List(_) => Selection { all: selection == Selection::default(), ..selection },
        _ => selection,
    };
    selection.filter(state, now).map(drop).map_err(|error| DeskError::Asked(for_options(error)))
}

/// The words of the API, as options of the command line.
fn for_options(mut error: FilterError) -> FilterError {
    if error.cure.contains("or all to mean") {
        error.cure = "give ids, an option (--group, --sink, --since, --until, --reason), or --all; \
                      `vault-audit-filter queue list` takes the same and shows what it would be"
            .to_owned();
    } else if error.what.starts_with("all does not go") {
        error.what = "--all does not go with ids or conditions".to_owned();
    }
    error
}

fn run_at(desk: &Desk, action: &Action, io: &mut Io<'_>) -> Result<u8, DeskError> {
    match action {
        Action::List(arguments) => list(desk, arguments, io),
        Action::Show(arguments) => {
            let detail = desk.show(&arguments.id)?;
            let text = match arguments.place.format {
                Format::Json => render::json(&detail),
                Format::Text => render::detail(&detail),
            };
            Ok(printed(io.print(&text)))
        }
        Action::Replay(change) => {
            let selection = change.conditions.selection(&change.ids, change.all);
            let changed = desk.replay(&selection)?;
            Ok(told(&changed, "replayed", change.place.format, State::Dead, io))
        }
        Action::Drop(arguments) => discard(desk, arguments, io),
        Action::SetAside(arguments) => {
            let moved = desk.set_aside()?;
            let text = match arguments.place.format {
                Format::Json => render::json(&serde_json::json!({ "moved": moved })),
                Format::Text => moved.iter().map(|path| format!("{}\n", render::safe(path))).collect(),
            };
            if moved.is_empty() {
                io.say("no damaged file is there to be set aside");
            }
            let code = printed(io.print(&text));
            Ok(if moved.is_empty() { FAILED } else { code })
        }
    }
}

/// The code of a print, for a command whose 1 means that nothing matched.
fn printed(code: u8) -> u8 {
    if code == OK { OK } else { WRONG }
}

fn list(desk: &Desk, arguments: &List, io: &mut Io<'_>) -> Result<u8, DeskError> {
    let selection = arguments.conditions.selection(&[], false);
    let state = match arguments.state {
        // A pending task has no reason.
        None if selection.reason.is_some() => Some(State::Dead),
        state => state.map(State::from),
    };
    let mut printer = render::Lister::new(arguments.place.format == Format::Json);
    let limit = if arguments.limit == 0 { u64::MAX } else { arguments.limit };
    let (mut total, mut damages) = (0, Vec::new());
    for state in desk.parts(state) {
        let mut offset = 0;
        loop {
            let page = desk.list(state, &selection, offset, limit.saturating_sub(printer.listed()))?;
            if offset == 0 {
                total += page.total;
            }
            if printed(io.print(&printer.tasks(&page.tasks))) != OK {
                return Ok(WRONG);
            }
            damages = page.damages;
            match page.next {
                Some(next) if printer.listed() < limit => offset = next,
                _ => break,
            }
        }
    }
    let code = printed(io.print(&printer.end(total)));
    for damage in &damages {
        let cure = "what is intact is listed; `vault-audit-filter queue set-aside` moves damaged files away once nothing in them is needed";
        io.say(&format!("damaged: {}; {cure}", render::safe(damage)));
    }
    let listed = printer.listed();
    if total > listed && arguments.place.format == Format::Text {
        let cure =
            if arguments.limit == 0 { "give conditions to see the others" } else { "--limit 0 lists all" };
        io.say(&format!("{listed} of {total} tasks; {cure}"));
    }
    Ok(if total == 0 && code == OK { FAILED } else { code })
}

fn discard(desk: &Desk, arguments: &Drop, io: &mut Io<'_>) -> Result<u8, DeskError> {
    let (change, state) = (&arguments.change, arguments.state.into());
    let selection = change.conditions.selection(&change.ids, change.all);
    if io.err_is_terminal && !arguments.yes {
        let count = desk.list(Some(state), &Selection { all: false, ..selection.clone() }, 0, 0)?.total;
        let meant = render::counted(count, state);
        if count > 0 && !confirmed(&format!("Drop {meant} for good? [y/N] "), io) {
            io.say("nothing was dropped");
            return Ok(FAILED);
        }
    }
    let changed = desk.discard(state, &selection)?;
    Ok(told(&changed, "dropped", change.place.format, state, io))
}

fn confirmed(question: &str, io: &mut Io<'_>) -> bool {
    use std::io::Write as _;
    let _ = io.err.write_all(question.as_bytes()).and_then(|()| io.err.flush());
    let mut answer = [0; 1];
    // The first character says it; nothing else is read from the terminal.
    matches!(io.input.read(&mut answer), Ok(1)) && answer[0].eq_ignore_ascii_case(&b'y')
}

fn told(changed: &Changed, what: &str, format: Format, state: State, io: &mut Io<'_>) -> u8 {
    let text = match format {
        Format::Json => render::json(changed),
        Format::Text => format!("{} {what}\n", render::counted(changed.done, state)),
    };
    let code = printed(io.print(&text));
    for failure in &changed.failed {
        io.say(&render::safe(failure));
    }
    match (code, changed.failed.is_empty(), changed.done) {
        (OK, true, 0) => FAILED,
        (OK, true, _) => OK,
        _ => WRONG,
    }
}
