//! Slack: `chat.postMessage` with a token, and incoming webhooks.
//!
//! Sources: <https://api.slack.com/methods/chat.postMessage> (errors of `ok: false`, limits),
//! <https://api.slack.com/messaging/webhooks> (plain-text errors), <https://api.slack.com/docs/rate-limits>.

use std::time::Instant;

use serde_json::json;

use super::answer::{self, class_of};
use super::client::{Answer, Endpoint, HttpClient};
use super::text::Messages;
use super::{Class, DeliveryError, Sink};
use crate::secret::Secret;
use crate::side_effect::{Task, TaskId};

/// The method's name, which the configured URL may or may not hold.
const METHOD: &str = "chat.postMessage";

/// What distinguishes the two ways in.
enum Way {
    Api { token: Secret, channel: String },
    Webhook,
}

/// A Slack channel.
pub(super) struct Slack {
    endpoint: Endpoint,
    way: Way,
    messages: Messages,
    client: HttpClient,
}

impl Slack {
    /// `url` is the API's base (`https://slack.com/api/`) or the method's own URL.
    pub(super) fn api(
        url: &str,
        token: &Secret,
        channel: &str,
        messages: Messages,
        client: HttpClient,
    ) -> Result<Slack, &'static str> {
        if token.is_empty() {
            return Err("the token is empty");
        }
        if channel.is_empty() {
            return Err("the channel is empty");
        }
        let base = url.trim().trim_end_matches('/');
        let whole = if base.ends_with(METHOD) { base.to_owned() } else { format!("{base}/{METHOD}") };
        let endpoint = Endpoint::parse(&Secret::new(whole))?;
        let way = Way::Api { token: token.clone(), channel: channel.to_owned() };
        Ok(Slack { endpoint, way, messages, client })
    }

    pub(super) fn webhook(
        url: &Secret,
        messages: Messages,
        client: HttpClient,
    ) -> Result<Slack, &'static str> {
        Ok(Slack { endpoint: Endpoint::parse(url)?, way: Way::Webhook, messages, client })
    }

    /// Equal for sinks that post to one channel.
    pub(super) fn destination(&self) -> String {
        match &self.way {
            Way::Api { channel, .. } => format!("{} {channel}", self.endpoint.expose()),
            Way::Webhook => self.endpoint.expose().to_owned(),
        }
    }

    /// Slack looks at no idempotency key; it is for what stands between.
    fn post(&self, id: TaskId, text: &str, deadline: Instant) -> Result<(), DeliveryError> {
        let id = id.to_string();
        let mut headers =
            vec![("content-type", "application/json; charset=utf-8"), ("idempotency-key", &*id)];
        let mut body = json!({ "text": text, "unfurl_links": false, "unfurl_media": false });
        let bearer;
        if let Way::Api { token, channel } = &self.way {
            bearer = format!("Bearer {}", token.expose());
            headers.push(("authorization", &bearer));
            body["channel"] = json!(channel);
        }
        let answer = self.client.post(&self.endpoint, &headers, body.to_string().as_bytes(), deadline)?;
        judge(&self.endpoint, &answer, matches!(self.way, Way::Api { .. }))
    }
}

impl Sink for Slack {
    fn name(&self) -> &'static str {
        match self.way {
            Way::Api { .. } => "slack",
            Way::Webhook => "slack_webhook",
        }
    }

    fn deliver(&self, task: &Task, deadline: Instant) -> Result<(), DeliveryError> {
        self.post(task.id, &self.messages.text(task), deadline)
    }

    fn deliver_text(&self, id: TaskId, text: &str, deadline: Instant) -> Result<(), DeliveryError> {
        self.post(id, &self.messages.own(text), deadline)
    }

    fn abort(&self) {
        self.client.abort();
    }
}

/// Slack's two dialects: the API says `ok` or `error` in JSON, mostly with status 200; a webhook says `ok` or an error code as plain text.
fn judge(endpoint: &Endpoint, answer: &Answer, api: bool) -> Result<(), DeliveryError> {
    let fail = |class, what: &str| Err(answer::error(endpoint, answer, class, what));
    let good = (200..300).contains(&answer.status);
    let text = String::from_utf8_lossy(&answer.body);
    let parsed: Option<serde_json::Value> = serde_json::from_slice(&answer.body).ok();
    let said = parsed.as_ref().and_then(|v| v.get("error")).and_then(|e| e.as_str()).and_then(answer::code);
    match parsed.as_ref().and_then(|v| v.get("ok")).and_then(serde_json::Value::as_bool) {
        Some(true) if good => return Ok(()),
        Some(false) if good => {
            return fail(
                class_of_error(said.unwrap_or_default()).unwrap_or(Class::Transient),
                said.unwrap_or("ok: false"),
            );
        }
        _ => {}
    }
    let plain = if parsed.is_some() { said } else { answer::code(&text) };
    if !good {
        let class = plain.and_then(class_of_error).unwrap_or(match answer.status {
            // Slack names no cause that passes by itself with these.
            400 | 413 => Class::Permanent,
            status => class_of(status),
        });
        // 429 and 5xx are about now, whatever the body says.
        let class = if class_of(answer.status) == Class::Transient { Class::Transient } else { class };
        return fail(class, plain.unwrap_or_default());
    }
    if api {
        let what = if answer.complete { "the answer is not Slack's" } else { "the answer broke off" };
        return fail(Class::Transient, what);
    }
    match plain.and_then(class_of_error) {
        Some(class) => fail(class, plain.unwrap_or_default()),
        // A log-in page or a captive portal answers 200, too.
        None if answer.content_type == "text/html" => {
            fail(Class::Transient, "a web page answered, not Slack")
        }
        None => Ok(()),
    }
}

/// The meaning of Slack's error codes; `None`: not in its lists. An unknown code is taken as transient: attempts are bounded anyway.
fn class_of_error(code: &str) -> Option<Class> {
    Some(match code {
        "ratelimited"
        | "rate_limited"
        | "internal_error"
        | "fatal_error"
        | "service_unavailable"
        | "request_timeout"
        | "team_added_to_org"
        | "org_login_required"
        | "rollup_error" => Class::Transient,
        "msg_too_long"
        | "msg_blocks_too_long"
        | "no_text"
        | "invalid_blocks"
        | "invalid_blocks_format"
        | "invalid_attachments"
        | "too_many_attachments"
        | "invalid_payload"
        | "invalid_arguments"
        | "invalid_json"
        | "invalid_charset"
        | "invalid_form_data"
        | "invalid_post_type"
        | "invalid_arg_name"
        | "invalid_array_arg"
        | "json_not_object"
        | "missing_post_type"
        | "duplicate_message_not_found"
        | "metadata_too_large" => Class::Permanent,
        "invalid_auth"
        | "not_authed"
        | "account_inactive"
        | "token_revoked"
        | "token_expired"
        | "missing_scope"
        | "no_permission"
        | "not_allowed_token_type"
        | "ekm_access_denied"
        | "channel_not_found"
        | "not_in_channel"
        | "is_archived"
        | "channel_is_archived"
        | "no_service"
        | "no_service_id"
        | "no_team"
        | "team_disabled"
        | "no_active_hooks"
        | "invalid_token"
        | "action_prohibited"
        | "posting_to_general_channel_denied"
        | "access_denied"
        | "accesslimited"
        | "method_deprecated"
        | "deprecated_endpoint"
        | "two_factor_setup_required"
        | "team_access_not_granted"
        | "user_is_restricted"
        | "app_missing_action_url"
        | "messages_tab_disabled"
        | "user_not_found"
        | "invalid_channel"
        | "unknown_method" => Class::Blocked,
        _ if code.starts_with("restricted_action") => Class::Blocked,
        _ => return None,
    })
}
