//! `man`: manual pages, one for each command, from the same definition as the help.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use super::{Cli, FAILED, Io, OK, WRONG};

pub(super) const EXAMPLES: &str = "\
Examples:
      vault-audit-filter man | man -l -
      vault-audit-filter man queue list | man -l -
      vault-audit-filter man --dir /usr/local/share/man/man1";

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Write the pages of all commands into this directory
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    dir: Option<PathBuf>,
    /// Print the page of this command [default: the program's]
    #[arg(value_name = "COMMAND")]
    command: Vec<String>,
}

/// Prints a page, or writes all of them.
pub(super) fn run(arguments: &Arguments, io: &mut Io<'_>) -> u8 {
    let mut program = Cli::command().disable_help_subcommand(true);
    program.build();
    match &arguments.dir {
        Some(dir) => match write_all(&program, dir) {
            Ok(()) => OK,
            Err(e) => {
                io.say(&format!("{dir:?}: {e}; name a directory that exists and can be written"));
                FAILED
            }
        },
        None => {
            let mut command = &program;
            for word in &arguments.command {
                let Some(found) = command.find_subcommand(word) else {
                    io.say(&format!("there is no command {word:?}: `vault-audit-filter --help` names them"));
                    return WRONG;
                };
                command = found;
            }
            match page(command) {
                Ok((_, text)) => io.print(&text),
                Err(e) => {
                    io.say(&e.to_string());
                    FAILED
                }
            }
        }
    }
}

fn write_all(command: &Command, dir: &Path) -> io::Result<()> {
    let (name, text) = page(command)?;
    std::fs::File::create(dir.join(name))?.write_all(text.as_bytes())?;
    command.get_subcommands().try_for_each(|command| write_all(command, dir))
}

/// The name of a command's page, and the page.
fn page(command: &Command) -> io::Result<(String, String)> {
    let man = Man::new(command.clone())
        .source(concat!("vault-audit-filter ", env!("CARGO_PKG_VERSION")))
        .manual("vault-audit-filter");
    let mut out = Vec::new();
    man.render_title(&mut out)?;
    man.render_name_section(&mut out)?;
    man.render_synopsis_section(&mut out)?;
    man.render_description_section(&mut out)?;
    man.render_options_section(&mut out)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut out)?;
    }
    if let Some(text) = command.get_after_long_help().or_else(|| command.get_after_help()) {
        as_it_stands(&text.to_string()).to_writer(&mut out)?;
    }
    Ok((man.get_filename(), String::from_utf8_lossy(&out).into_owned()))
}

/// The text behind the options: its lines stay as they are, and a word with a colon on the first one is the heading.
fn as_it_stands(text: &str) -> Roff {
    let mut roff = Roff::new();
    let (heading, text) = match text.split_once(":\n") {
        Some((first, rest)) if !first.contains(char::is_whitespace) => (first.to_uppercase(), rest),
        _ => ("NOTES".to_owned(), text),
    };
    roff.control("SH", [heading.as_str()]);
    roff.control("nf", []);
    for line in text.lines() {
        // A blank line would end the paragraph.
        match line.trim().is_empty() {
            true => roff.control("sp", []),
            false => roff.text([roman(line)]),
        };
    }
    roff.control("fi", []);
    roff
}
