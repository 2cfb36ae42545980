//! The command line: arguments into a command, its result into an exit code. Nothing below this module ends the process
//! or writes to the terminal by itself.

mod bench;
mod check;
mod completions;
mod io;
mod man;
mod matching;
mod queue;
mod reload;
mod replay;
mod serve;
mod setup;
mod socket;
mod stanza;
mod status;
mod tail;
#[cfg(test)]
mod tests;
mod trials;
#[cfg(test)]
mod trials_tests;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use log::LevelFilter;

use crate::config::{Environment, Overrides, Problem, Problems};
use crate::diagnostics::{self, Format};
use crate::rule_group::{self, Checked};
use crate::sink::text::{Template, TemplateError};
pub use io::Io;
pub(crate) use matching::judge;

/// Everything is well (`match`: something matched).
const OK: u8 = 0;
/// What was asked for did not come out (`check`: problems; `match`: nothing matched; `serve`, `setup`: it failed).
const FAILED: u8 = 1;
/// Wrong arguments, a wrong configuration, unreadable input.
const WRONG: u8 = 2;

/// Filters the audit trail of HashiCorp Vault and OpenBao: rules choose records, which go to rotated log files, to other
/// receivers and to chat.
#[derive(Debug, Parser)]
#[command(name = "vault-audit-filter", version, arg_required_else_help = true, after_help = EXAMPLES)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  Run with three groups worth having, on loopback:
      vault-audit-filter serve --config config/quickstart.yaml
  See what is wrong with a configuration, all of it at once:
      vault-audit-filter check --config /etc/vault-audit-filter/config.yaml
  Look for deletes in an audit log:
      vault-audit-filter match --rule 'Request.Operation == \"delete\"' audit.log
  Make Vault send its audit entries here, or show how OpenBao is told to:
      vault-audit-filter setup
      vault-audit-filter setup --print
  See what could not be delivered, and send it again:
      vault-audit-filter queue list --state dead
      vault-audit-filter queue replay --sink payroll/slack

Settings come from flags, then the environment (VAULT_ADDR, VAULT_TOKEN, VAULT_NAMESPACE, and
VAULT_AUDIT_FILTER_ with a key's path in capitals), then the file, then the defaults.
Every key is explained in config/example.yaml.
`vault-audit-filter COMMAND --help` has examples for each command.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server
    #[command(visible_alias = "auditServer", after_help = serve::EXAMPLES)]
    Serve,
    /// Check configuration and rules; print every problem with its place
    #[command(after_help = check::EXAMPLES)]
    Check(check::Arguments),
    /// Run the tests of the configuration: records, the groups that they reach, the messages that these send
    #[command(after_help = trials::EXAMPLES)]
    Test(trials::Arguments),
    /// Print the records that match, from files or standard input, like grep
    #[command(after_help = matching::EXAMPLES)]
    Match(matching::Arguments),
    /// Enable the audit device in Vault or OpenBao, or print its stanza
    #[command(after_help = setup::EXAMPLES)]
    Setup(Box<setup::Arguments>),
    /// Send records at a rate; report throughput, latency and losses
    #[command(after_help = bench::EXAMPLES)]
    Bench(Box<bench::Arguments>),
    /// Look at pending tasks and dead letters of the durable store; replay or drop them
    #[command(after_help = queue::EXAMPLES)]
    Queue(queue::Arguments),
    /// Show what a running server does
    #[command(after_help = status::EXAMPLES)]
    Status(status::Arguments),
    /// Follow what the groups of a running server match
    #[command(after_help = tail::EXAMPLES)]
    Tail(tail::Arguments),
    /// Feed saved records through a running server as if they came from a sender
    #[command(after_help = replay::EXAMPLES)]
    Replay(replay::Arguments),
    /// Have a running server check its configuration and put it to use
    #[command(after_help = reload::EXAMPLES)]
    Reload(reload::Arguments),
    /// Print a completion script for a shell
    #[command(after_help = completions::EXAMPLES)]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print a manual page, or write those of all commands
    #[command(after_help = man::EXAMPLES)]
    Man(man::Arguments),
}

/// Options that every command takes.
#[derive(Debug, Args)]
struct Common {
    /// Configuration file [default: $HOME/.vault-audit-filter.yaml, else /etc/vault-audit-filter/config.yaml]
    #[arg(long, global = true, value_name = "FILE", help_heading = COMMON)]
    config: Option<PathBuf>,
    /// Least severe diagnostics to print [default: info]
    #[arg(long, global = true, value_name = "LEVEL", help_heading = COMMON)]
    log_level: Option<LogLevel>,
    /// How diagnostics look on standard error [default: text]
    #[arg(long, global = true, value_name = "FORMAT", help_heading = COMMON)]
    log_format: Option<LogFormat>,
    /// URL of Vault or OpenBao
    #[arg(long = "vault.address", global = true, value_name = "URL", help_heading = KEYS, hide_short_help = true)]
    vault_address: Option<String>,
    /// Token for setup; other users of this machine can see it, VAULT_TOKEN is better
    #[arg(long = "vault.token", global = true, value_name = "TOKEN", help_heading = KEYS, hide_short_help = true)]
    vault_token: Option<String>,
    /// File with the token for setup
    #[arg(long = "vault.token_file", global = true, value_name = "FILE", help_heading = KEYS, hide_short_help = true)]
    vault_token_file: Option<String>,
    /// Namespace that setup logs in to
    #[arg(long = "vault.namespace", global = true, value_name = "NAME", help_heading = KEYS, hide_short_help = true)]
    vault_namespace: Option<String>,
    /// Path of the audit device
    #[arg(long = "vault.audit_path", global = true, value_name = "PATH", help_heading = KEYS, hide_short_help = true)]
    vault_audit_path: Option<String>,
    /// Address of the UDP or TCP listener
    #[arg(long = "vault.audit_address", global = true, value_name = "HOST:PORT", help_heading = KEYS, hide_short_help = true)]
    vault_audit_address: Option<String>,
    /// Protocol of that listener: udp, tcp or none
    #[arg(long = "vault.audit_protocol", global = true, value_name = "PROTOCOL", help_heading = KEYS, hide_short_help = true)]
    vault_audit_protocol: Option<String>,
    /// Description of the audit device
    #[arg(long = "vault.audit_description", global = true, value_name = "TEXT", help_heading = KEYS, hide_short_help = true)]
    vault_audit_description: Option<String>,
}

const COMMON: &str = "Options of every command";
const KEYS: &str = "Keys of the configuration";

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogLevel {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

impl Common {
    fn overrides(&self, environment: Environment) -> Overrides {
        let flags = [
            ("vault.address", &self.vault_address),
            ("vault.token", &self.vault_token),
            ("vault.token_file", &self.vault_token_file),
            ("vault.namespace", &self.vault_namespace),
            ("vault.audit_path", &self.vault_audit_path),
            ("vault.audit_address", &self.vault_audit_address),
            ("vault.audit_protocol", &self.vault_audit_protocol),
            ("vault.audit_description", &self.vault_audit_description),
        ];
        let flags = flags.into_iter().filter_map(|(key, value)| Some((key, value.clone()?))).collect();
        Overrides { config_path: self.config.clone(), flags, environment }
    }

    /// Level and format of the diagnostics: the flag, else the variable, else the default.
    fn diagnostics(&self, environment: &Environment) -> Result<(LevelFilter, Format), String> {
        let level = match self.log_level {
            Some(level) => Some(level),
            None => from_variable("VAULT_AUDIT_FILTER_LOG_LEVEL", environment)?,
        };
        let format = match self.log_format {
            Some(format) => Some(format),
            None => from_variable("VAULT_AUDIT_FILTER_LOG_FORMAT", environment)?,
        };
        let level = match level.unwrap_or(LogLevel::Info) {
            LogLevel::Off => LevelFilter::Off,
            LogLevel::Error => LevelFilter::Error,
            LogLevel::Warn => LevelFilter::Warn,
            LogLevel::Info => LevelFilter::Info,
            LogLevel::Debug => LevelFilter::Debug,
            LogLevel::Trace => LevelFilter::Trace,
        };
        let format = match format.unwrap_or(LogFormat::Text) {
            LogFormat::Text => Format::Text,
            LogFormat::Json => Format::Json,
        };
        Ok((level, format))
    }
}

fn from_variable<T: ValueEnum>(name: &str, environment: &Environment) -> Result<Option<T>, String> {
    let Some(text) = environment.get(name).filter(|text| !text.is_empty()) else { return Ok(None) };
    T::from_str(text, true).map(Some).map_err(|_| {
        let words: Vec<String> = T::value_variants()
            .iter()
            .filter_map(|v| Some(v.to_possible_value()?.get_name().to_owned()))
            .collect();
        format!("environment {name}: {text:?} is not one of {}", words.join(", "))
    })
}

/// Parses the process's arguments, runs the command and returns its exit code. Blocks until the command is done.
pub fn main() -> ExitCode {
    let mut io = Io::of_process();
    let code = run(std::env::args_os(), Environment::of_process(), &mut io);
    // Whoever read the output may have gone; there is nobody left to tell.
    let _ = io.out.flush();
    ExitCode::from(code)
}

/// The command line with everything that it reads and writes: arguments (the first is the program's name), environment,
/// streams. Returns the exit code: 0 well, 1 not, 2 for wrong arguments or a wrong configuration.
pub fn run(arguments: impl IntoIterator<Item = OsString>, environment: Environment, io: &mut Io<'_>) -> u8 {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let text = error.render().to_string();
            if error.use_stderr() {
                io.say(text.trim_end());
                return WRONG;
            }
            return io.print(&text);
        }
    };
    let diagnostics = match cli.common.diagnostics(&environment) {
        Ok(diagnostics) => diagnostics,
        Err(error) => {
            io.say(&error);
            return WRONG;
        }
    };
    let overrides = cli.common.overrides(environment);
    match cli.command {
        Command::Serve => {
            diagnostics::init(diagnostics.0, diagnostics.1);
            serve::run(&overrides, io)
        }
        Command::Check(arguments) => check::run(&arguments, &overrides, io),
        Command::Test(arguments) => trials::run(&arguments, &overrides, io),
        Command::Match(arguments) => matching::run(&arguments, &overrides, io),
        Command::Setup(arguments) => setup::run(&arguments, &overrides, io),
        Command::Bench(arguments) => bench::run(&arguments, io),
        Command::Queue(arguments) => queue::run(&arguments, &overrides, io),
        Command::Status(arguments) => status::run(&arguments, &overrides, io),
        Command::Tail(arguments) => tail::run(&arguments, &overrides, io),
        Command::Replay(arguments) => replay::run(&arguments, &overrides, io),
        Command::Reload(arguments) => reload::run(&arguments, &overrides, io),
        Command::Completions { shell } => completions::run(shell, io),
        Command::Man(arguments) => man::run(&arguments, io),
    }
}

/// Reads and checks a configuration whole, rules and templates too.
fn load(overrides: &Overrides) -> Result<Checked, Problems> {
    rule_group::load(overrides, &check_template)
}

fn check_template(text: &str) -> Result<(), String> {
    let places = |error: &TemplateError| format!("at byte {}: {}", error.offset, error.message);
    Template::compile(text)
        .map(drop)
        .map_err(|errors| errors.iter().map(places).collect::<Vec<_>>().join("; "))
}

/// Prints what is wrong with a configuration, one problem after the other, and how many there are.
fn say_problems(problems: &Problems, io: &mut Io<'_>) {
    io.say(&problems.to_string());
    let count = problems.len();
    io.say(&format!("{count} problem{} in the configuration", if count == 1 { "" } else { "s" }));
}

fn say_warnings(warnings: &[Problem], io: &mut Io<'_>) {
    for warning in warnings {
        io.say(&format!("warning: {warning}"));
    }
}
