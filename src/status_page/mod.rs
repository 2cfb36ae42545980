//! The status page of the admin address: how the program is, at a glance, in a browser.
//!
//! ```text
//!  GET /             page.html, filled (render) ─┐
//!  GET /status.json  the same numbers as JSON    ├─ overview: counters, gauges, the running configuration's snapshot
//!  GET /status.js    polls /status.json, draws   ┘
//!  GET /status.css
//! ```
//!
//! Whoever reaches the admin address sees it, so it shows what `/metrics` and `/readyz` show: names and numbers, no rule's text, no
//! destination's address, nothing of any record. It reads what is counted anyway, holds no lock longer than reading a number takes,
//! does no I/O, and is bounded: of what a configuration can have many of, the most noteworthy are shown, at most `overview::ROWS_MAX`.

mod health;
mod overview;
mod render;
#[cfg(test)]
mod tests;

use std::time::Instant;

use crate::clock;
use crate::config::Config;
use crate::evidence::Silence;
use crate::listener::Listening;
use crate::listener::http::Response;
use crate::metrics::Registry;
use crate::pipeline::Pipeline;

/// Nothing comes from elsewhere or goes there, nothing is run or styled that is not served beside it, nobody frames it.
const HEADERS: &[(&str, &str)] = &[
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
];

const CSS: &str = include_str!("page.css");
const JS: &str = include_str!("page.js");

/// A condition of readiness: its name, and what is wrong where it does not hold.
pub(crate) type Condition = (&'static str, Result<(), String>);

/// What the page shows and the registry does not know.
#[derive(Debug)]
pub struct StatusPage {
    listeners: Vec<Listening>,
    started: Instant,
    is_durable: bool,
}

/// What is looked at for one answer.
pub(crate) struct Look<'a> {
    pub(crate) pipeline: &'a Pipeline,
    pub(crate) registry: &'a Registry,
    pub(crate) conditions: Vec<Condition>,
    pub(crate) silence: &'a Silence,
}

impl StatusPage {
    /// The page of a server that starts now with this configuration and these listeners.
    pub fn new(config: &Config, listeners: Vec<Listening>) -> StatusPage {
        StatusPage { listeners, started: clock::now(), is_durable: config.side_effects.durable.enabled }
    }

    /// The answer to GET for `path`; `None` when it is no part of the page. `look` is asked where numbers are needed. Does not block.
    pub(crate) fn answer<'a>(&self, path: &str, look: impl FnOnce() -> Look<'a>) -> Option<Response> {
        let (content_type, body) = match path {
            "/" => ("text/html; charset=utf-8", render::html(&self.overview(&look())).into_bytes().into()),
            "/status.json" => ("application/json", render::json(&self.overview(&look())).into()),
            "/status.css" => ("text/css; charset=utf-8", CSS.as_bytes().into()),
            "/status.js" => ("text/javascript; charset=utf-8", JS.as_bytes().into()),
            _ => return None,
        };
        Some(Response { status: 200, content_type: Some(content_type), headers: HEADERS, body, close: false })
    }
}
