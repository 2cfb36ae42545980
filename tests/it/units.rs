//! What is installed: units, configuration of the service, manual pages.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::docs;
use crate::harness::{PROGRAM, run_program};
use crate::support::{TempDir, left_out};

/// The most exposure that `systemd-analyze security` may find, in tenths (it does so on a scale to 10).
const EXPOSURE_MAX: &str = "15";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// The names of the units in `systemd/`.
fn units() -> Vec<String> {
    let files = std::fs::read_dir(root().join("systemd")).expect("its units");
    let name = |file: std::io::Result<std::fs::DirEntry>| {
        file.expect("readable").file_name().into_string().expect("UTF-8")
    };
    let mut names: Vec<String> = files.map(name).collect();
    names.retain(|name| name.ends_with(".service") || name.ends_with(".socket"));
    names.sort();
    assert_eq!(names.len(), 5, "{names:?}");
    names
}

/// The units in a directory of their own, with the program under test in the place of the installed one.
fn copies(dir: &TempDir) -> Vec<String> {
    let copy = |name: &String| {
        let path = dir.join(name);
        let unit = text(&format!("systemd/{name}")).replace("/usr/bin/vault-audit-filter", PROGRAM);
        std::fs::write(&path, unit).expect("written");
        path.display().to_string()
    };
    units().iter().map(copy).collect()
}

/// The output of `systemd-analyze`, which must like what it sees and complain of nothing. `None`: it is not here.
#[track_caller]
fn analyze(test: &str, arguments: &[String]) -> Option<String> {
    let output = match Command::new("systemd-analyze").args(arguments).output() {
        Ok(output) => output,
        Err(e) => {
            left_out(test, &format!("no systemd-analyze (Debian's package systemd): {e}"));
            return None;
        }
    };
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success() && err.is_empty(), "{arguments:?}: {out}{err}");
    Some(out)
}

#[test]
fn the_units_are_right() {
    let dir = TempDir::new("units");
    let files = copies(&dir);
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    // The manual page is not installed here.
    let verify = [words(&["verify", "--man=no"]), files].concat();
    if analyze("the_units_are_right", &verify).is_none() {
        return;
    }
    let service = dir.join("vault-audit-filter.service").display().to_string();
    let threshold = format!("--threshold={EXPOSURE_MAX}");
    let rate = words(&["security", "--offline=true", "--no-pager", &threshold, &service]);
    let said = analyze("the_units_are_right", &rate).expect("it is here");
    eprintln!("{}", said.lines().last().unwrap_or_default());
    // With the drop-in for low ports as well.
    let drop_ins = dir.join("vault-audit-filter.service.d");
    std::fs::create_dir(&drop_ins).expect("a directory");
    std::fs::write(drop_ins.join("low-ports.conf"), text("systemd/low-ports.conf")).expect("written");
    analyze("the_units_are_right", &words(&["verify", "--man=no", &service]));
    let said = analyze("the_units_are_right", &rate).expect("it is here");
    eprintln!("low ports: {}", said.lines().last().unwrap_or_default());
}

/// The values of a key in a unit.
fn values(unit: &str, key: &str) -> Vec<String> {
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).map(str::to_owned).collect()
}

#[test]
fn the_socket_units_have_the_addresses_and_names_of_the_listeners() {
    let config = vault_audit_filter::config::Config::default();
    let http = config.listen.http_address.expect("on by default");
    let audit = config.vault.audit_address;
    let wanted = [
        ("http", "ListenStream", http.as_str()),
        ("tcp", "ListenStream", audit.as_str()),
        ("udp", "ListenDatagram", audit.as_str()),
        ("unix", "ListenStream", "/run/vault-audit-filter.sock"),
    ];
    for (name, key, address) in wanted {
        let unit = text(&format!("systemd/vault-audit-filter-{name}.socket"));
        assert_eq!(values(&unit, key), [address], "{name}");
        assert_eq!(values(&unit, "FileDescriptorName"), [name]);
        assert_eq!(values(&unit, "Service"), ["vault-audit-filter.service"]);
    }
    let service = text("systemd/vault-audit-filter.service");
    let environment = values(&service, "Environment");
    let kept = values(&service, "FileDescriptorStoreMax")[0].parse::<usize>().expect("a number");
    assert!(kept > config.limits.connections_max, "every connection finds room");
    assert!(environment.contains(&format!("FDSTORE={kept}")), "{environment:?}");
    let control = "VAULT_AUDIT_FILTER_CONTROL_SOCKET=/run/vault-audit-filter/control.sock".to_owned();
    assert!(environment.contains(&control), "{environment:?}");
    assert_eq!(values(&service, "RuntimeDirectory"), ["vault-audit-filter"]);
}

#[test]
fn the_configuration_of_the_service_is_the_quickstart_at_other_paths() {
    let checked = run_program(&["check", "--config", "config/service.yaml"], b"");
    assert!(checked.status.success(), "{}{}", checked.stdout, checked.stderr);
    let parse = |name: &str| -> serde_yaml::Value {
        let text = text(name).replace("./vault-audit-filter-logs/", "/var/log/vault-audit-filter/");
        serde_yaml::from_str(&text).expect("YAML")
    };
    let (service, quick) = (parse("config/service.yaml"), parse("config/quickstart.yaml"));
    for key in ["vault", "listen", "quarantine", "rule_groups"] {
        assert_eq!(service[key], quick[key], "{key}");
    }
    let socket = service["control"]["socket"].as_str().expect("a path");
    assert!(text("systemd/vault-audit-filter.service").contains(&format!("CONTROL_SOCKET={socket}\n")));
}

/// Words of a help or of a page as it reads.
fn words(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    text.split(|c: char| !is_part(c)).map(|word| word.trim_end_matches('.').to_owned()).collect()
}

/// A page without its markup.
fn plain(page: &str) -> String {
    let mut text = page.to_owned();
    for (markup, plain) in
        [("\\fB", ""), ("\\fI", ""), ("\\fR", ""), ("\\-", "-"), ("\\&", ""), ("\\(aq", "'"), ("\\*(Aq", "'")]
    {
        text = text.replace(markup, plain);
    }
    text.replace("\\e", "\\").replace("\\\\", "\\")
}

#[test]
fn every_command_has_a_page_with_all_that_its_help_has() {
    let dir = TempDir::new("man");
    let written = run_program(&["man", "--dir", &dir.path().display().to_string()], b"");
    assert!(written.status.success(), "{}", written.stderr);
    let mut names: Vec<String> = std::fs::read_dir(dir.path())
        .expect("the pages")
        .map(|file| file.expect("readable").file_name().into_string().expect("UTF-8"))
        .collect();
    names.sort();
    let top = run_program(&["--help"], b"").stdout;
    let commands = docs::commands(&top);
    assert!(names.len() > commands.len() && commands.len() >= 12, "{names:?} for {commands:?}");
    for command in &commands {
        assert!(names.contains(&format!("vault-audit-filter-{command}.1")), "{command} in {names:?}");
    }
    for name in &names {
        let page = std::fs::read_to_string(dir.join(name)).expect("readable");
        let command: Vec<&str> =
            name.trim_end_matches(".1").trim_start_matches("vault-audit-filter").split('-').collect();
        // A command's name may have a hyphen in it.
        let command = joined(command.into_iter().filter(|word| !word.is_empty()).collect(), &commands);
        let arguments: Vec<&str> = command.iter().map(String::as_str).chain(["--help"]).collect();
        let help = run_program(&arguments, b"");
        assert!(help.status.success(), "{arguments:?}: {}", help.stderr);
        let has = words(&plain(&page));
        for word in words(&help.stdout).iter().filter(|word| word.starts_with("--") && word.len() > 2) {
            assert!(has.contains(word) || *word == "--help", "{name} lacks {word}");
        }
        for word in docs::commands(&help.stdout) {
            assert!(has.iter().any(|has| has.ends_with(&word)), "{name} lacks the command {word}");
        }
        let printed = run_program(
            &["man"].into_iter().chain(arguments[..arguments.len() - 1].iter().copied()).collect::<Vec<_>>(),
            b"",
        );
        assert_eq!(printed.stdout, page, "{name}");
        typeset(name, &dir.join(name));
    }
    let unknown = run_program(&["man", "nonsense"], b"");
    assert_eq!(unknown.status.code(), Some(2));
    assert!(unknown.stderr.contains("no command \"nonsense\""), "{}", unknown.stderr);
    let nowhere = run_program(&["man", "--dir", "/no/such/place"], b"");
    assert_eq!(nowhere.status.code(), Some(1));
}

/// The command that the words of a page's name stand for: one word, or a command and its sub-command.
fn joined(words: Vec<&str>, commands: &[String]) -> Vec<String> {
    match words.split_first() {
        Some((first, [])) => vec![(*first).to_owned()],
        Some((first, rest)) if commands.iter().any(|command| command == first) => {
            vec![(*first).to_owned(), rest.join("-")]
        }
        _ => Vec::new(),
    }
}

/// The typesetter says nothing about the page.
fn typeset(name: &str, page: &Path) {
    let Ok(output) = Command::new("groff").args(["-man", "-ww", "-z", "-Tutf8"]).arg(page).output() else {
        return left_out("every_command_has_a_page_with_all_that_its_help_has", "no groff to set it with");
    };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.is_empty(), "{name}: {said}");
    if let Ok(output) = Command::new("mandoc").args(["-T", "lint", "-W", "error"]).arg(page).output() {
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{name}: {said}");
    }
}
