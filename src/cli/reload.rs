//! `reload`: has a running server put its configuration to use anew, after it was checked.

use clap::Args;

use super::socket::Socket;
use super::{FAILED, Io, WRONG, io::Format, socket};
use crate::config::Overrides;
use crate::control::reload::Applied;
use crate::control::{Client, ClientError};
use crate::text::printable;

pub(super) const EXAMPLES: &str = "\
Examples:
  After the configuration was changed:
      vault-audit-filter reload
  Only when it is right, told before the server is asked:
      vault-audit-filter check && vault-audit-filter reload
  When the new configuration does not even say where the socket is:
      vault-audit-filter reload --socket /run/vault-audit-filter/control.sock

The server reads its own configuration file, all of it, and checks it. What is wrong leaves the old one in use. What cannot change
without a restart is named, and the rest is put to use. No record, task or connection is lost.
Exit code: 0 it is in use, 1 it is not and the old one stays, or no server runs there, 2 when something else was wrong.";

/// Arguments of `reload`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    server: Socket,
    /// What to print
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
}

/// Asks the server, and tells what became of it.
pub(super) fn run(arguments: &Arguments, overrides: &Overrides, io: &mut Io<'_>) -> u8 {
    let Some(path) = arguments.server.find_despite_mistakes(overrides, io) else { return WRONG };
    match Client::at(&path).post::<Applied>("/v1/reload", &serde_json::json!({})) {
        Ok(applied) => io.print(&match arguments.format {
            Format::Json => serde_json::to_string(&applied).unwrap_or_default() + "\n",
            Format::Text => text(&applied),
        }),
        Err(error) => {
            if let ClientError::Refused { problems, .. } = &error {
                problems.iter().for_each(|problem| {
                    io.say(&problem.split('\n').map(printable).collect::<Vec<_>>().join("\n"))
                });
            }
            let code = socket::failed(&path, &error, io);
            if matches!(error, ClientError::Refused { status: 422 | 503, .. }) { FAILED } else { code }
        }
    }
}

fn text(applied: &Applied) -> String {
    let mut out = String::new();
    let mut line = |text: &str| {
        out.push_str(&printable(text));
        out.push('\n');
    };
    applied.warnings.iter().for_each(|warning| line(&format!("warning: {warning}")));
    applied.changed.iter().for_each(|change| line(change));
    for key in &applied.restart {
        line(&format!("{key}: not changed, that needs a restart"));
    }
    let same = if applied.changed.is_empty() { ", as before" } else { "" };
    line(&format!("{} is in use{same}", applied.source));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_told_what_changed_and_what_did_not() {
        let applied = Applied {
            source: "configuration file a.yaml".into(),
            changed: vec!["group \"a\u{1b}[2J\" is new".into()],
            restart: vec!["listen.http.address".into()],
            warnings: vec!["odd".into()],
        };
        assert_eq!(
            text(&applied),
            "warning: odd\ngroup \"a\\u{1b}[2J\" is new\nlisten.http.address: not changed, that needs a restart\n\
             configuration file a.yaml is in use\n"
        );
        let same = Applied { changed: Vec::new(), restart: Vec::new(), warnings: Vec::new(), ..applied };
        assert_eq!(text(&same), "configuration file a.yaml is in use, as before\n");
    }
}
