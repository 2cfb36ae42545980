//! `setup`: enables the audit device in Vault or OpenBao, or shows how to.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{FAILED, Io, WRONG, say_problems, say_warnings, stanza};
use crate::config::{self, AuditProtocol, Config, Environment, Overrides, read_bounded};
use crate::secret::Secret;
use crate::vault::{Client, Device, Login, Options, VaultError};

pub(super) const EXAMPLES: &str = "\
Examples:
  With a token, a socket device at vault.audit_address:
      VAULT_TOKEN=... vault-audit-filter setup --vault.audit_protocol tcp
  With an AppRole, over TLS:
      vault-audit-filter setup --vault.address https://vault.example:8200 --ca-cert ca.pem \\
          --auth approle --role-id 1234 --secret-id-file /run/secrets/secret-id
  From a pod of Kubernetes:
      vault-audit-filter setup --auth kubernetes --role audit-setup
  OpenBao 2.4 and later refuses this over its API by default; print the stanza for its configuration file instead:
      vault-audit-filter setup --print
      vault-audit-filter setup --print json --device socket

The server sends a probe to a new device and refuses it when nobody takes the probe: start `serve` first, or --skip-test.
The token needs this policy: path \"sys/audit\" { capabilities = [\"read\", \"sudo\"] }
                             path \"sys/audit/*\" { capabilities = [\"create\", \"update\", \"sudo\"] }
Exit code: 0 enabled, or enabled already; 1 refused or not reached; 2 wrong arguments or configuration.";

/// Longest time for one call to the API.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The largest file that holds a secret id or a signed token.
const CREDENTIAL_BYTES_MAX: u64 = 64 << 10;

/// Where Kubernetes puts the token of a pod's service account.
const SERVICE_ACCOUNT_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// Arguments of `setup`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Print the stanza for the server's configuration file; needs no server
    #[arg(long, value_name = "FORMAT", num_args = 0..=1, default_missing_value = "hcl")]
    print: Option<PrintFormat>,
    /// Kind of audit device [default: socket; with --print, and without a socket listener, http]
    #[arg(long, value_name = "KIND")]
    device: Option<DeviceKind>,
    /// Where the server reaches the socket listener [default: vault.audit_address]
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,
    /// Where the server reaches the HTTP listener [default: /v1/audit at listen.http.address]
    #[arg(long, value_name = "URL")]
    uri: Option<String>,
    /// Do not let the server probe the new device
    #[arg(long)]
    skip_test: bool,
    /// How to log in
    #[arg(long, value_name = "METHOD", default_value = "token")]
    auth: Auth,
    /// Mount of the login method [default: its name]
    #[arg(long, value_name = "MOUNT")]
    auth_path: Option<String>,
    /// Role to log in to (jwt, kubernetes; for cert the certificate role)
    #[arg(long, value_name = "NAME")]
    role: Option<String>,
    /// Role id (approle)
    #[arg(long, value_name = "ID")]
    role_id: Option<String>,
    /// File with the secret id (approle)
    #[arg(long, value_name = "FILE")]
    secret_id_file: Option<PathBuf>,
    /// File with the signed token (jwt; kubernetes has a default)
    #[arg(long, value_name = "FILE")]
    jwt_file: Option<PathBuf>,
    /// PEM file with the authorities to trust [default: VAULT_CACERT, else the system's]
    #[arg(long, value_name = "FILE")]
    ca_cert: Option<PathBuf>,
    /// PEM file with the client's certificate [default: VAULT_CLIENT_CERT]
    #[arg(long, value_name = "FILE")]
    client_cert: Option<PathBuf>,
    /// PEM file with the client's key [default: VAULT_CLIENT_KEY]
    #[arg(long, value_name = "FILE")]
    client_key: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PrintFormat {
    Hcl,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DeviceKind {
    Http,
    Socket,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Auth {
    Token,
    Approle,
    Jwt,
    Kubernetes,
    Cert,
}

/// Why `setup` did not do what it was asked for: the exit code and the lines to say.
struct Failure {
    code: u8,
    lines: Vec<String>,
    /// What the operator needs instead, for standard output.
    stanza: Option<String>,
}

fn wrong(what: impl Into<String>) -> Failure {
    Failure { code: WRONG, lines: vec![what.into()], stanza: None }
}

/// Enables the device, or prints its stanza.
pub(super) fn run(arguments: &Arguments, overrides: &Overrides, io: &mut Io<'_>) -> u8 {
    let loaded = match config::load(overrides) {
        Ok(loaded) => loaded,
        Err(problems) => {
            say_problems(&problems, io);
            return WRONG;
        }
    };
    // What the groups do is no concern of this command.
    let about_vault: Vec<_> = loaded.warnings.into_iter().filter(|w| w.key.starts_with("vault.")).collect();
    say_warnings(&about_vault, io);
    let result = match arguments.print {
        Some(format) => print(format, arguments, &loaded.config, io),
        None => enable(arguments, &loaded.config, &overrides.environment, io),
    };
    match result {
        Ok(code) => code,
        Err(failure) => {
            for line in failure.lines {
                io.say(&line);
            }
            if let Some(stanza) = failure.stanza {
                io.print(&stanza);
            }
            failure.code
        }
    }
}

fn print(
    format: PrintFormat,
    arguments: &Arguments,
    config: &Config,
    io: &mut Io<'_>,
) -> Result<u8, Failure> {
    let kind = arguments.device.unwrap_or(match config.listen.http_address {
        Some(_) => DeviceKind::Http,
        None => DeviceKind::Socket,
    });
    let device = device(kind, arguments, config)?;
    let path = device_path(config)?;
    say_authorization(&device, io);
    Ok(io.print(&match format {
        PrintFormat::Hcl => stanza::hcl(&path, &device),
        PrintFormat::Json => stanza::json(&path, &device),
    }))
}

/// The path as the API takes it: no slash at its ends.
fn device_path(config: &Config) -> Result<String, Failure> {
    let path = config.vault.audit_path.trim_matches('/');
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/');
    if path.is_empty()
        || !path.bytes().all(plain)
        || path.split('/').any(|part| part.is_empty() || part == "..")
    {
        let path = &config.vault.audit_path;
        return Err(wrong(format!(
            "vault.audit_path: {path:?} is no path of an audit device; use letters, digits, - and _, as in vault-audit-filter"
        )));
    }
    Ok(path.to_owned())
}

/// What to ask the server for.
fn device(kind: DeviceKind, arguments: &Arguments, config: &Config) -> Result<Device, Failure> {
    let mut options = BTreeMap::new();
    let mut set = |name: &str, value: String| options.insert(name.to_owned(), value);
    match kind {
        DeviceKind::Socket => {
            let protocol = match config.vault.audit_protocol {
                AuditProtocol::Udp => "udp",
                AuditProtocol::Tcp => "tcp",
                AuditProtocol::None => {
                    return Err(wrong(
                        "vault.audit_protocol is none, so there is no socket listener; set it to udp or tcp, or use --device http",
                    ));
                }
            };
            let address = arguments.address.as_ref().unwrap_or(&config.vault.audit_address);
            set("address", reachable(address, "--address HOST:PORT")?);
            set("socket_type", protocol.to_owned());
        }
        DeviceKind::Http => {
            let uri = match (&arguments.uri, &config.listen.http_address) {
                (Some(uri), _) => uri.clone(),
                (None, Some(address)) => {
                    let scheme = if config.listen.http_tls.is_some() { "https" } else { "http" };
                    format!("{scheme}://{}/v1/audit", reachable(address, "--uri URL")?)
                }
                (None, None) => {
                    return Err(wrong("listen.http.address is off; give --uri URL, or use --device socket"));
                }
            };
            config::check_http_url(&uri).map_err(|(what, cure)| wrong(format!("--uri: {what}; {cure}")))?;
            set("uri", uri);
            set("headers", headers(config));
        }
    }
    if arguments.skip_test {
        set("skip_test", "true".to_owned());
    }
    let kind = match kind {
        DeviceKind::Socket => "socket",
        DeviceKind::Http => "http",
    };
    Ok(Device { kind: kind.to_owned(), description: config.vault.audit_description.clone(), options })
}

/// Headers for the HTTP device. Any `X-Idempotency-Key` lets its HTTP client try again when a kept connection turns out
/// to be closed; the token stays in the server's environment, as the whole value of the header.
fn headers(config: &Config) -> String {
    let mut headers = serde_json::Map::new();
    if !config.listen.http_tokens.is_empty() {
        headers.insert("Authorization".into(), serde_json::json!([AUTHORIZATION]));
    }
    headers.insert("X-Idempotency-Key".into(), serde_json::json!(["1"]));
    serde_json::Value::Object(headers).to_string()
}

/// From where the server takes the token for its HTTP device.
const AUTHORIZATION: &str = "env://AUDIT_AUTHORIZATION";

/// What the operator has to do for the token to be sent.
fn say_authorization(device: &Device, io: &mut Io<'_>) {
    if device.options.get("headers").is_some_and(|headers| headers.contains(AUTHORIZATION)) {
        io.say("put AUDIT_AUTHORIZATION=\"Bearer TOKEN\" into the environment of the server, with one of listen.http.tokens");
    }
}

/// An address that one can connect to: every interface is none.
fn reachable(address: &str, flag: &str) -> Result<String, Failure> {
    match config::check_host_port(address) {
        Err((what, cure)) => Err(wrong(format!("{address:?}: {what}; {cure}"))),
        Ok(true) => Err(wrong(format!(
            "{address} is every interface of this machine, not an address to connect to; give {flag} as the server sees it"
        ))),
        Ok(false) => Ok(address.to_owned()),
    }
}

fn enable(
    arguments: &Arguments,
    config: &Config,
    environment: &Environment,
    io: &mut Io<'_>,
) -> Result<u8, Failure> {
    let kind = arguments.device.unwrap_or(match config.vault.audit_protocol {
        AuditProtocol::None => DeviceKind::Http,
        _ => DeviceKind::Socket,
    });
    let device = device(kind, arguments, config)?;
    let path = device_path(config)?;
    let explain = |error: VaultError, doing: &str| explain(&error, doing, &path, &device, config);
    say_authorization(&device, io);
    let mut client = client(arguments, config, environment)?;
    let logged_in = login(&mut client, arguments, config).map_err(|failure| match failure {
        LoginFailure::Arguments(failure) => failure,
        LoginFailure::Server(error) => explain(error, "log in"),
    })?;
    let result = enable_with(&client, &path, &device, io).map_err(|(error, doing)| explain(error, doing));
    if logged_in && let Err(error) = client.revoke_self() {
        io.say(&format!("warning: the token of this login could not be revoked: {error}"));
    }
    result
}

/// Looks whether the device is there, enables it where not. An error comes with what was being done.
fn enable_with(
    client: &Client,
    path: &str,
    device: &Device,
    io: &mut Io<'_>,
) -> Result<u8, (VaultError, &'static str)> {
    let devices = client.audit_devices().map_err(|error| (error, "list the audit devices"))?;
    if let Some(there) = devices.get(path) {
        let same = there.kind == device.kind
            && device
                .options
                .iter()
                .all(|(name, value)| name == "skip_test" || there.options.get(name) == Some(value));
        if same {
            return Ok(io.print(&format!("the audit device {path} is enabled already, with these options\n")));
        }
        io.say(&format!(
            "the audit device {path} exists with other options ({} {:?}); disable it with `bao audit disable {path}` (or \
             `vault audit disable {path}`) and run this again, or choose another vault.audit_path",
            there.kind, there.options
        ));
        return Ok(FAILED);
    }
    client.enable_audit_device(path, device).map_err(|error| (error, "enable the audit device"))?;
    let to = device.options.get("address").or(device.options.get("uri")).cloned().unwrap_or_default();
    Ok(io.print(&format!("enabled the audit device {path}: {} to {to}\n", device.kind)))
}

fn client(arguments: &Arguments, config: &Config, environment: &Environment) -> Result<Client, Failure> {
    let file = |flag: &Option<PathBuf>, variable: &str| {
        flag.clone().or_else(|| environment.get(variable).filter(|path| !path.is_empty()).map(PathBuf::from))
    };
    let certificate = file(&arguments.client_cert, "VAULT_CLIENT_CERT");
    let client_cert = match (certificate, file(&arguments.client_key, "VAULT_CLIENT_KEY")) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) if arguments.auth == Auth::Cert => {
            return Err(wrong("--auth cert needs --client-cert FILE and --client-key FILE"));
        }
        (None, None) => None,
        _ => return Err(wrong("give both --client-cert and --client-key, or neither")),
    };
    let options = Options {
        address: config.vault.address.clone(),
        ca_cert: file(&arguments.ca_cert, "VAULT_CACERT"),
        client_cert,
        timeout: TIMEOUT,
    };
    Client::new(&options, &config.vault.namespace).map_err(|error| wrong(error.to_string()))
}

enum LoginFailure {
    Arguments(Failure),
    Server(VaultError),
}

/// Logs in, or takes the token of the configuration. Whether the token is of our own making.
fn login(client: &mut Client, arguments: &Arguments, config: &Config) -> Result<bool, LoginFailure> {
    let needs = |what: &str| LoginFailure::Arguments(wrong(what));
    let role = || arguments.role.clone();
    let (method, login) = match arguments.auth {
        Auth::Token => {
            if config.vault.token.is_empty() {
                let what =
                    "no token; set VAULT_TOKEN, vault.token_file or --vault.token, or log in with --auth";
                return Err(needs(what));
            }
            client.set_token(config.vault.token.clone());
            return Ok(false);
        }
        Auth::Approle => {
            let role_id =
                arguments.role_id.clone().ok_or_else(|| needs("--auth approle needs --role-id ID"))?;
            let secret_id = match &arguments.secret_id_file {
                Some(path) => credential(path, "--secret-id-file").map_err(LoginFailure::Arguments)?,
                None => Secret::default(),
            };
            ("approle", Login::AppRole { role_id, secret_id })
        }
        Auth::Jwt => {
            let role = role().ok_or_else(|| needs("--auth jwt needs --role NAME"))?;
            let path = arguments.jwt_file.clone().ok_or_else(|| needs("--auth jwt needs --jwt-file FILE"))?;
            let jwt = credential(&path, "--jwt-file").map_err(LoginFailure::Arguments)?;
            ("jwt", Login::Jwt { role, jwt })
        }
        Auth::Kubernetes => {
            let role = role().ok_or_else(|| needs("--auth kubernetes needs --role NAME"))?;
            let path = arguments.jwt_file.clone().unwrap_or_else(|| SERVICE_ACCOUNT_TOKEN.into());
            let jwt = credential(&path, "--jwt-file").map_err(LoginFailure::Arguments)?;
            ("kubernetes", Login::Jwt { role, jwt })
        }
        Auth::Cert => ("cert", Login::Certificate { name: role().unwrap_or_default() }),
    };
    let mount = arguments.auth_path.as_deref().unwrap_or(method);
    client.login(mount, &login).map_err(LoginFailure::Server)?;
    Ok(true)
}

fn credential(path: &Path, flag: &str) -> Result<Secret, Failure> {
    let failed = |what: String| wrong(format!("{flag} {:?}: {what}", path.display().to_string()));
    let text = read_bounded(path, CREDENTIAL_BYTES_MAX).map_err(|error| failed(error.to_string()))?;
    let secret = text.trim();
    if secret.is_empty() || secret.contains(char::is_control) {
        return Err(failed("the file does not hold one line of text".into()));
    }
    Ok(Secret::new(secret))
}

/// What failed, and what to do about it.
fn explain(error: &VaultError, doing: &str, path: &str, device: &Device, config: &Config) -> Failure {
    let mut lines = vec![format!("could not {doing}: {error}")];
    let address = &config.vault.address;
    lines.extend(match error {
        VaultError::Transport { untrusted: true, .. } => Some(
            "name the authority that signed the server's certificate with --ca-cert FILE or VAULT_CACERT"
                .to_owned(),
        ),
        VaultError::Transport { .. } => Some(
            "is the server running there? Set --vault.address, VAULT_ADDR or vault.address to its URL"
                .to_owned(),
        ),
        VaultError::Redirect { .. } => Some(
            "set --vault.address or VAULT_ADDR to that server: a token is not sent on to another".to_owned(),
        ),
        VaultError::Answer { .. } => Some(format!("is {address} the API of Vault or OpenBao?")),
        VaultError::Certificate { .. } | VaultError::Unsendable { .. } => None,
        VaultError::Refused { .. } => refusal(error, doing, path, device),
    });
    let stanza = error.says(NOT_BY_API).then(|| stanza::hcl(path, device));
    Failure { code: FAILED, lines, stanza }
}

/// How OpenBao 2.4 and later begin the refusal of devices that are not in the configuration file.
const NOT_BY_API: &str = "cannot enable audit device via API";

/// What to do about an error of the server itself.
fn refusal(error: &VaultError, doing: &str, path: &str, device: &Device) -> Option<String> {
    let cure = if error.says(NOT_BY_API) {
        "this OpenBao takes audit devices from its configuration file only; put the stanza below there, then SIGHUP or a \
         restart (`setup --print` shows one for the http device, which waits until a record is stored)"
            .to_owned()
    } else if error.says("test message") {
        "the server could not deliver its probe: start `vault-audit-filter serve` first, check that the address is the one \
         the server sees (--address, --uri), or use --skip-test"
            .to_owned()
    } else if error.says("only available in root namespace") {
        "audit devices live in the root namespace: use a token of the root namespace".to_owned()
    } else if error.says("unknown backend type") || error.says("unknown audit backend") {
        format!("this server has no {} audit device; use --device socket", device.kind)
    } else if error.says("path already in use") {
        format!("another device is at or below {path}; choose another vault.audit_path")
    } else if error.says("is sealed") || error.status() == Some(503) {
        "unseal the server first".to_owned()
    } else if doing == "log in" {
        "check the method (--auth), its mount (--auth-path), the role and the credential".to_owned()
    } else if error.status() == Some(403) {
        "the token is wrong, or its policy lacks sys/audit with sudo: see `vault-audit-filter setup --help`"
            .to_owned()
    } else {
        return None;
    };
    Some(cure)
}
