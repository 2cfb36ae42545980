//! Finding, reading and resolving: from the command line, the environment and the file to a [`Config`].

use std::path::{Path, PathBuf};

use super::env::{self, Environment};
use super::files::{CONFIG_BYTES_MAX, Files, read_bounded};
use super::keys::{Draft, KEYS};
use super::problem::{Origin, Problem, Problems, Report, printable};
use super::section::Section;
use super::tree::{self, Node, Value, child_path};
use super::values::{Content, Given, quoted};
use super::{Config, RuleGroup, RuleText, cases, cross, groups};

/// Name of the configuration file in the home directory.
const HOME_FILE: &str = ".vault-audit-filter.yaml";

/// The configuration file of the machine.
const SYSTEM_FILE: &str = "/etc/vault-audit-filter/config.yaml";

/// Sections whose items are read one by one and not through the table of keys.
const LISTS: [&str; 2] = ["rule_groups", "tests"];

/// What is put over the file.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--config`.
    pub config_path: Option<PathBuf>,
    /// Flags that are named after keys: the key's path and the text given.
    pub flags: Vec<(&'static str, String)>,
    /// The environment.
    pub environment: Environment,
}

/// A configuration that was read and checked.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// Odd things that do not keep the server from starting.
    pub warnings: Vec<Problem>,
    /// The file that was read; `None`: there was none, the defaults hold.
    pub path: Option<PathBuf>,
}

impl Loaded {
    /// One line on where the settings came from.
    pub fn source(&self) -> String {
        match &self.path {
            Some(path) => format!("configuration file {}", printable(&path.display().to_string())),
            None => format!("no configuration file ($HOME/{HOME_FILE}, {SYSTEM_FILE}): built-in defaults"),
        }
    }
}

/// Compilers of the texts that the configuration only carries. Each returns its error as text of one or more lines (with a
/// caret, for one).
#[derive(Clone, Copy)]
pub struct Checks<'c> {
    /// Tries a rule.
    pub rule: &'c dyn Fn(&str) -> Result<(), String>,
    /// Tries a message template.
    pub template: &'c dyn Fn(&str) -> Result<(), String>,
}

impl Checks<'_> {
    /// Accepts every text.
    pub const NONE: Checks<'static> = Checks { rule: &|_| Ok(()), template: &|_| Ok(()) };
}

/// What the readers of groups need beside the tree.
pub(super) struct Context<'c> {
    pub(super) files: Files<'c>,
    pub(super) checks: Checks<'c>,
}

/// [`load_checked`] without a look into rules and templates.
///
/// # Errors
///
/// As [`load_checked`].
pub fn load(overrides: &Overrides) -> Result<Loaded, Problems> {
    load_checked(overrides, Checks::NONE)
}

/// Reads flags, environment and file, checks everything, rules and templates of the groups too, and reports every problem
/// at once. Blocks on the file system; opens no socket and writes nothing.
///
/// # Errors
///
/// Everything that is wrong, in the order of the file.
pub fn load_checked(overrides: &Overrides, checks: Checks<'_>) -> Result<Loaded, Problems> {
    load_from(overrides, checks, searched(overrides))
}

/// Where to look when no file is named.
fn searched(overrides: &Overrides) -> impl Iterator<Item = PathBuf> + use<> {
    let home = overrides.environment.get("HOME").filter(|home| !home.is_empty());
    [home.map(|home| Path::new(home).join(HOME_FILE)), Some(SYSTEM_FILE.into())].into_iter().flatten()
}

/// [`load_checked`] with the places to look in when `--config` and its variable are not given.
pub(super) fn load_from(
    overrides: &Overrides,
    checks: Checks<'_>,
    searched: impl Iterator<Item = PathBuf>,
) -> Result<Loaded, Problems> {
    let (config, report, path) = read(overrides, checks, searched);
    if report.problems.is_empty() {
        Ok(Loaded { config, warnings: report.warnings, path })
    } else {
        Err(Problems(report.problems))
    }
}

/// Where the control socket is, as far as that can be read from a configuration with which something else is wrong.
pub fn control_path(overrides: &Overrides) -> Option<PathBuf> {
    read(overrides, Checks::NONE, searched(overrides)).0.control_path()
}

/// What can be read, with all that is wrong with it.
fn read(
    overrides: &Overrides,
    checks: Checks<'_>,
    searched: impl Iterator<Item = PathBuf>,
) -> (Config, Report, Option<PathBuf>) {
    let mut report = Report::default();
    let named = overrides.config_path.clone().or_else(|| {
        let variable = overrides.environment.get("VAULT_AUDIT_FILTER_CONFIG");
        variable.filter(|path| !path.is_empty()).map(PathBuf::from)
    });
    let (path, text) = find(named, searched, &mut report);
    if let Some(path) = &path {
        report.file = printable(&path.display().to_string());
    }
    let root = text.and_then(|text| tree::parse(&text, &mut report));
    let config = resolve(root.as_ref(), overrides, checks, &mut report);
    report.sort();
    (config, report, path)
}

/// The first file that is there, and its text. One that is there and cannot be read is a problem, as is a named one that
/// is not there.
fn find(
    named: Option<PathBuf>,
    searched: impl Iterator<Item = PathBuf>,
    report: &mut Report,
) -> (Option<PathBuf>, Option<String>) {
    let must_exist = named.is_some();
    for path in named.into_iter().chain(searched.filter(|_| !must_exist)) {
        match read_bounded(&path, CONFIG_BYTES_MAX) {
            Ok(text) => return (Some(path), Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_exist => {}
            Err(error) => {
                report.file = printable(&path.display().to_string());
                let cure = "name a readable configuration file with --config";
                report.problem(&Origin::File(0), "", format!("cannot read the file: {error}"), cure);
                return (Some(path), None);
            }
        }
    }
    (None, None)
}

pub(super) fn resolve(
    root: Option<&Node>,
    overrides: &Overrides,
    checks: Checks<'_>,
    report: &mut Report,
) -> Config {
    let context = Context { files: Files { environment: &overrides.environment }, checks };
    let mut draft = Draft::default();
    let empty = Node { line: 0, value: Value::Null };
    // Without a problem so far, the file was read whole or there is none.
    let readable = root.is_some() || report.problems.is_empty();
    let root_node = root.unwrap_or(&empty);
    scalars(root_node, "", &mut draft, report);
    env::apply(&overrides.environment, &mut draft, report);
    for (path, text) in &overrides.flags {
        let Some(key) = KEYS.iter().find(|key| key.path == *path) else { continue };
        let origin = Origin::Flag(format!("--{path}"));
        let given = Given { key: key.path, origin, content: Content::Text(text), secret: false };
        key.take(&mut draft, given, report);
    }
    let list = |name: &str| match &root_node.value {
        Value::Map(entries) => entries.iter().find(|entry| entry.key == name).map(|entry| &entry.node),
        _ => None,
    };
    let before = report.problems.len();
    let mut placed = list("rule_groups").map_or_else(Vec::new, |node| groups::read(node, &context, report));
    let whole = readable && report.problems.len() == before;
    cross::check(&mut draft, &mut placed, whole, &context.files, report);
    let groups: Vec<&RuleGroup> = placed.iter().map(|placed| &placed.group).collect();
    draft.config.tests = list("tests")
        .map_or_else(Vec::new, |node| cases::read(node, whole.then_some(groups.as_slice()), report));
    if placed.is_empty() && whole {
        let what = "there are no rule groups";
        let cure = "every record goes to standard output; add `rule_groups:`";
        report.warning(&Origin::File(0), "rule_groups", what, cure);
    }
    draft.config.rule_groups = placed.into_iter().map(|placed| placed.group).collect();
    draft.config
}

/// Takes the scalar keys at and below `path`.
fn scalars(node: &Node, path: &str, draft: &mut Draft, report: &mut Report) {
    let known = children(path);
    let Some(section) = Section::open(node, path, &known, report) else { return };
    for name in known {
        let Some(node) = section.get(name) else { continue };
        let path = child_path(path, name);
        if let Some(key) = KEYS.iter().find(|key| key.path == path) {
            key.take(draft, Given::node(key.path, node), report);
        } else if !LISTS.contains(&name) {
            scalars(node, &path, draft, report);
        }
    }
}

/// The keys directly below `path`, in the order of the table.
fn children(path: &str) -> Vec<&'static str> {
    let mut names = Vec::new();
    for key in &KEYS {
        let below = if path.is_empty() {
            Some(key.path)
        } else {
            key.path.strip_prefix(path).and_then(|rest| rest.strip_prefix('.'))
        };
        let name = below.and_then(|rest| rest.split('.').next());
        names.extend(name.filter(|name| !names.contains(name)));
    }
    if path.is_empty() {
        names.extend(LISTS);
    }
    names
}

/// Tries one rule; `number` counts from 0.
pub(super) fn check_rule(
    group: &str,
    key: &str,
    number: usize,
    rule: &RuleText,
    compile: &dyn Fn(&str) -> Result<(), String>,
    report: &mut Report,
) {
    if let Err(error) = compile(&rule.text) {
        let what = format!("group {}, rule {}: {}", quoted(group), number + 1, indented(&error));
        report.problem(&Origin::File(rule.line), key, what, "");
    }
}

/// Lines after the first stand below it.
pub(super) fn indented(text: &str) -> String {
    text.trim_end().replace('\n', "\n    ")
}
