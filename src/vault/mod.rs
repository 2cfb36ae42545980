//! Client of the API of Vault and OpenBao, as far as `setup` needs it: log in, list and enable audit devices.
//!
//! Every call blocks, at most for the timeout, and reads at most 4 MiB of an answer. Redirects are not
//! followed: a token goes to the named server and to no other. Nothing secret is in an error.
//!
//! Source of the API: the HTTP API pages of both projects on `sys/audit` and the `auth` methods.

mod error;
#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;
mod tls;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use ureq::Agent;
use ureq::http::{Method, Request};

pub use error::VaultError;

use crate::secret::Secret;

/// The most that is read of an answer: lists of audit devices are a few KB.
const BODY_BYTES_MAX: u64 = 4 << 20;

/// Where and how to connect.
#[derive(Debug, Clone)]
pub struct Options {
    /// The server's URL, `http://` or `https://`, with or without a trailing slash.
    pub address: String,
    /// PEM file with the certificates to trust; `None`: those of the system.
    pub ca_cert: Option<PathBuf>,
    /// PEM files with the client's certificate chain and its key.
    pub client_cert: Option<(PathBuf, PathBuf)>,
    /// Longest time for one call, from resolving the name to the last byte of the answer.
    pub timeout: Duration,
}

/// How to get a token.
#[derive(Debug, Clone)]
pub enum Login {
    /// With a role's id and, unless the role needs none, its secret id.
    AppRole {
        /// The role's id.
        role_id: String,
        /// The secret id; empty for a role that needs none.
        secret_id: Secret,
    },
    /// With a signed token of somebody else: `jwt` and `kubernetes`.
    Jwt {
        /// The role to log in to.
        role: String,
        /// The signed token.
        jwt: Secret,
    },
    /// With the client certificate of the connection.
    Certificate {
        /// The role to log in to; empty lets the server choose.
        name: String,
    },
}

/// An audit device as `sys/audit` shows and takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// `socket`, `http` or `file`.
    pub kind: String,
    /// For people.
    pub description: String,
    /// Options; all of them are texts.
    pub options: BTreeMap<String, String>,
}

/// A connection to one server with, after a login, a token.
#[derive(Debug)]
pub struct Client {
    agent: Agent,
    base: String,
    namespace: String,
    token: Secret,
}

impl Client {
    /// Prepares a client; nothing is sent yet. `namespace` goes with logins only: audit devices live in the root namespace.
    ///
    /// # Errors
    ///
    /// Certificates or keys that cannot be read.
    pub fn new(options: &Options, namespace: &str) -> Result<Self, VaultError> {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(options.timeout))
            .user_agent(concat!("vault-audit-filter/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls::config(options)?)
            .build();
        Ok(Client {
            agent: config.new_agent(),
            base: options.address.trim_end_matches('/').to_owned(),
            namespace: namespace.to_owned(),
            token: Secret::default(),
        })
    }

    /// Uses this token from now on.
    pub fn set_token(&mut self, token: Secret) {
        self.token = token;
    }

    /// Logs in at `auth/<mount>` and uses the token from now on.
    ///
    /// # Errors
    ///
    /// What the server or the way to it says; an answer without a token.
    pub fn login(&mut self, mount: &str, login: &Login) -> Result<(), VaultError> {
        let body = match login {
            Login::AppRole { role_id, secret_id } if secret_id.is_empty() => json!({ "role_id": role_id }),
            Login::AppRole { role_id, secret_id } => {
                json!({ "role_id": role_id, "secret_id": secret_id.expose() })
            }
            Login::Jwt { role, jwt } => json!({ "role": role, "jwt": jwt.expose() }),
            Login::Certificate { name } if name.is_empty() => json!({}),
            Login::Certificate { name } => json!({ "name": name }),
        };
        let path = format!("auth/{}/login", mount.trim_matches('/'));
        let answer = self.call(&Method::POST, &path, Some(&body), true)?;
        match answer["auth"]["client_token"].as_str() {
            Some(token) if !token.is_empty() => self.token = Secret::new(token),
            _ => return Err(VaultError::Answer { path, what: "no token in the answer".into() }),
        }
        Ok(())
    }

    /// Gives the token back, so that a login of ours leaves none behind.
    ///
    /// # Errors
    ///
    /// What the server or the way to it says.
    pub fn revoke_self(&self) -> Result<(), VaultError> {
        self.call(&Method::POST, "auth/token/revoke-self", None, true).map(drop)
    }

    /// The audit devices by path, without trailing slash.
    ///
    /// # Errors
    ///
    /// What the server or the way to it says.
    pub fn audit_devices(&self) -> Result<BTreeMap<String, Device>, VaultError> {
        let answer = self.call(&Method::GET, "sys/audit", None, false)?;
        // Both projects show the devices below `data`; Vault before 0.10 at the top only.
        let devices = answer["data"].as_object().or_else(|| answer.as_object());
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let device = |(path, value): (&String, &Value)| {
            let kind = value.get("type")?.as_str()?.to_owned();
            let options = value["options"].as_object();
            let options =
                options.into_iter().flatten().map(|(name, value)| (name.clone(), text(value))).collect();
            let device = Device { kind, description: text(&value["description"]), options };
            Some((path.trim_matches('/').to_owned(), device))
        };
        Ok(devices.into_iter().flatten().filter_map(device).collect())
    }

    /// Enables an audit device at `path`. The server sends it a probe record before it answers.
    ///
    /// # Errors
    ///
    /// What the server or the way to it says. After a timeout the device may be there or not.
    pub fn enable_audit_device(&self, path: &str, device: &Device) -> Result<(), VaultError> {
        let body =
            json!({ "type": device.kind, "description": device.description, "options": device.options });
        self.call(&Method::PUT, &format!("sys/audit/{path}"), Some(&body), false).map(drop)
    }

    /// One call. An answer without a body is null.
    fn call(
        &self,
        method: &Method,
        path: &str,
        body: Option<&Value>,
        in_namespace: bool,
    ) -> Result<Value, VaultError> {
        let unsent = |error: ureq::http::Error| VaultError::Unsendable { what: error.to_string() };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}/v1/{path}", self.base))
            .header("X-Vault-Request", "true");
        if !self.token.is_empty() {
            request = request.header("X-Vault-Token", self.token.expose());
        }
        if in_namespace && !self.namespace.is_empty() {
            request = request.header("X-Vault-Namespace", &self.namespace);
        }
        let sent = match body {
            Some(body) => {
                let request = request.header("Content-Type", "application/json").body(body.to_string());
                self.agent.run(request.map_err(unsent)?)
            }
            // Else it would be sent in chunks, of which there are none: not everybody on the way reads the end of that.
            None if *method == Method::POST => self.agent.run(request.body(String::new()).map_err(unsent)?),
            None => self.agent.run(request.body(()).map_err(unsent)?),
        };
        let failed = |error: &ureq::Error| VaultError::transport(&self.base, error);
        let mut answer = sent.map_err(|error| failed(&error))?;
        let status = answer.status().as_u16();
        if (300..400).contains(&status) {
            let to = answer.headers().get("location").and_then(|to| to.to_str().ok()).unwrap_or_default();
            return Err(VaultError::Redirect { to: to.to_owned() });
        }
        let read = answer.body_mut().with_config().limit(BODY_BYTES_MAX).lossy_utf8(true).read_to_string();
        let text = read.map_err(|error| failed(&error))?;
        if status >= 400 {
            return Err(VaultError::refused(path, status, &text));
        }
        if text.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).map_err(|error| VaultError::Answer {
            path: path.to_owned(),
            what: format!("the answer is not JSON ({error}); is this the API of Vault or OpenBao?"),
        })
    }
}
