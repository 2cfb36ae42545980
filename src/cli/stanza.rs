//! The `audit` stanza of OpenBao's configuration (2.4 and later), as HCL or JSON. Pure.
//!
//! All option values are texts; `headers` is a text that holds JSON. Values like `env://NAME` are resolved by the server.

use std::fmt::Write as _;

use serde_json::json;

use crate::vault::Device;

/// The stanza as HCL, with a comment on where it goes.
pub(super) fn hcl(path: &str, device: &Device) -> String {
    let mut text = String::from(
        "# In the configuration file of OpenBao 2.4 or later, the same on every node; then SIGHUP or a restart.\n\
         # OpenBao does not take changes to a device that exists: remove the stanza, reload, add the new one.\n",
    );
    if device.options.values().any(|value| value.contains("env://")) {
        text.push_str("# The server reads AUDIT_AUTHORIZATION from its own environment; its value is the whole `Bearer TOKEN`.\n");
    }
    let _ = writeln!(text, "audit {} {} {{", quoted(&device.kind), quoted(path));
    if !device.description.is_empty() {
        let _ = writeln!(text, "  description = {}", quoted(&device.description));
    }
    text.push_str("  options {\n");
    let width = device.options.keys().map(String::len).max().unwrap_or(0);
    for (name, value) in &device.options {
        let _ = writeln!(text, "    {name:width$} = {}", quoted(value));
    }
    text.push_str("  }\n}\n");
    text
}

/// The stanza as JSON. OpenBao's reader takes an object with one key for one more label of the block, so `local`, at its
/// default, stands beside `options`.
pub(super) fn json(path: &str, device: &Device) -> String {
    let mut inner = serde_json::Map::new();
    if !device.description.is_empty() {
        inner.insert("description".into(), json!(device.description));
    }
    inner.insert("local".into(), json!(false));
    inner.insert("options".into(), json!(device.options));
    let stanza = json!({ "audit": [{ &device.kind: { path: inner } }] });
    format!("{stanza:#}\n")
}

/// A string of HCL.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
