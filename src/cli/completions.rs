//! `completions`: scripts for shells, from the same definition as the help.

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, Io};

pub(super) const EXAMPLES: &str = "\
Examples:
      vault-audit-filter completions bash > /etc/bash_completion.d/vault-audit-filter
      vault-audit-filter completions zsh > \"${fpath[1]}/_vault-audit-filter\"
      vault-audit-filter completions fish > ~/.config/fish/completions/vault-audit-filter.fish";

/// Prints the script for `shell`.
pub(super) fn run(shell: Shell, io: &mut Io<'_>) -> u8 {
    let mut command = Cli::command();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    io.print(&String::from_utf8_lossy(&script))
}
