//! The arguments of `bench`, checked.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Arguments, Kind, read_bounded};
use crate::config::Environment;
use crate::load::{self, ClientTls, Target};
use crate::secret::Secret;
use crate::trust;

/// A longer token is none.
const TOKEN_BYTES_MAX: u64 = 4096;
/// Where the senders' entries go unless the address says something else.
const PATH: &str = "/v1/audit";
/// How an address says that TLS is spoken.
const HTTPS: &str = "https://";
/// How long a name with several addresses is tried for each.
const TRY_MAX: Duration = Duration::from_secs(2);

/// `1000`, `1000/s`, `0`.
pub(in crate::cli) fn rate(text: &str) -> Result<u64, String> {
    let digits = text.trim().strip_suffix("/s").unwrap_or(text).trim().replace(['_', ','], "");
    let rate: u64 =
        digits.parse().map_err(|_| "write records per second, such as 1000/s, or 0".to_owned())?;
    if rate > load::RATE_PER_S_MAX {
        return Err(format!("at most {}/s", load::RATE_PER_S_MAX));
    }
    Ok(rate)
}

/// `10s`, `1m30s`, `500ms`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "write a time with its unit, such as 500ms, 10s or 1m30s".to_owned();
    let signed: jiff::SignedDuration = text.trim().parse().map_err(|_| wrong())?;
    let duration = Duration::try_from(signed).map_err(|_| wrong())?;
    if duration.is_zero() {
        return Err("must be more than nothing".to_owned());
    }
    if duration > load::DURATION_MAX {
        return Err("at most 24h".to_owned());
    }
    Ok(duration)
}

/// Where the records go; an address of another machine is refused unless it is allowed.
pub(super) fn target(arguments: &Arguments) -> Result<Target, String> {
    let text = arguments.address.as_str();
    let cure = match arguments.kind {
        Kind::Http => "write HOST:PORT, http://HOST:PORT/PATH or https://HOST:PORT/PATH",
        Kind::Tcp | Kind::Udp => "write HOST:PORT",
        Kind::Unix => "write the path of a Unix socket",
    };
    let target = match arguments.kind {
        Kind::Unix if text.is_empty() => return Err(format!("ADDRESS is empty; {cure}")),
        Kind::Unix => return Ok(Target::Unix(PathBuf::from(text))),
        Kind::Http => {
            let (host, path) = http(text)?;
            let address = first(&host, Some(TRY_MAX), cure)?;
            Target::Http { address, host, path }
        }
        Kind::Tcp => Target::Tcp(first(text, Some(TRY_MAX), cure)?),
        Kind::Udp => Target::Udp(first(text, None, cure)?),
    };
    if let Some(address) = target.address() {
        if address.port() == 0 {
            return Err(format!("{text:?}: port 0 is no address; {cure}"));
        }
        check_local("ADDRESS", text, address, arguments.allow_remote)?;
    }
    Ok(target)
}

/// Refuses an admin address on another machine unless that is allowed.
pub(super) fn check_admin(arguments: &Arguments) -> Result<(), String> {
    let text = arguments.admin.as_str();
    let cure = "write the HOST:PORT of the receiver's listen.admin.address";
    let address = first(text, None, cure).map_err(|error| format!("--admin: {error}"))?;
    if !text.chars().all(|c| c.is_ascii_alphanumeric() || ".:-_[]%".contains(c)) {
        return Err(format!("--admin: {text:?} is no address; {cure}"));
    }
    check_local("--admin", text, address, arguments.allow_remote)
}

fn check_local(what: &str, text: &str, address: std::net::SocketAddr, allowed: bool) -> Result<(), String> {
    if allowed || load::is_of_this_machine(address.ip()) {
        return Ok(());
    }
    Err(format!(
        "{what}: {text:?} is not on this machine ({}); load may hurt it, so say --allow-remote when that is meant",
        address.ip()
    ))
}

fn first(text: &str, connects: Option<Duration>, cure: &str) -> Result<std::net::SocketAddr, String> {
    let found = load::resolve(text, connects).map_err(|error| format!("{text:?}: {error}; {cure}"))?;
    found.first().copied().ok_or_else(|| format!("{text:?}: no address; {cure}"))
}

/// Host with port, and path.
fn http(text: &str) -> Result<(String, String), String> {
    let rest = [HTTPS, "http://"].iter().find_map(|scheme| text.strip_prefix(scheme)).unwrap_or(text);
    let (host, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let is_plain = |c: char| c.is_ascii_graphic();
    if host.contains('@') || !rest.chars().all(is_plain) {
        return Err(format!("{text:?} is no address; write HOST:PORT, or http[s]://HOST:PORT/PATH"));
    }
    let path = if path.is_empty() || path == "/" { PATH } else { path };
    Ok((host.to_owned(), path.to_owned()))
}

/// What an https address needs: whom to believe.
pub(super) fn tls(arguments: &Arguments) -> Result<Option<ClientTls>, String> {
    let text = arguments.address.as_str();
    if arguments.kind != Kind::Http || !text.starts_with(HTTPS) {
        return match &arguments.ca_cert {
            Some(_) => Err("--ca-cert is for an https:// address only".to_owned()),
            None => Ok(None),
        };
    }
    let authorities = match &arguments.ca_cert {
        Some(path) => trust::certificates(path)
            .map_err(|what| format!("--ca-cert: {:?} {what}", path.display().to_string()))?,
        None => trust::system(&Environment::of_process())?
            .ok_or("this system names no authorities; say --ca-cert FILE")?,
    };
    let (host, _) = http(text)?;
    let name = host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name);
    let name = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    ClientTls::new(name, authorities.iter().map(|certificate| certificate.der().to_vec().into())).map(Some)
}

/// The token in a file.
pub(super) fn token(path: &Path) -> Result<Secret, String> {
    let fail = |why: &str| format!("--token-file {}: {why}", path.display());
    let bytes = read_bounded(path, TOKEN_BYTES_MAX).map_err(|error| fail(&error.to_string()))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| fail("must hold one line of text"))?.trim();
    if text.is_empty() || bytes.len() as u64 > TOKEN_BYTES_MAX || !text.chars().all(|c| c.is_ascii_graphic())
    {
        return Err(fail("must hold one token of visible ASCII characters, at most 4096"));
    }
    Ok(Secret::new(text))
}
