//! Mattermost: posts with a token, and incoming webhooks.
//!
//! Sources: <https://api.mattermost.com/#operation/CreatePost>, <https://developers.mattermost.com/integrate/webhooks/incoming/>, and the
//! server's source for `pending_post_id` (a second post with the same one within 30 s returns the first) and the statuses of hooks.

use std::time::Instant;

use serde_json::json;

use super::answer::{self, class_of};
use super::client::{Answer, Endpoint, HttpClient};
use super::text::Messages;
use super::{Class, DeliveryError, Sink};
use crate::secret::Secret;
use crate::side_effect::{Task, TaskId};

/// The API's path below the configured base URL.
const PATH: &str = "/api/v4/posts";

enum Way {
    Api { token: Secret, channel: String },
    Webhook,
}

/// A Mattermost channel.
pub(super) struct Mattermost {
    endpoint: Endpoint,
    way: Way,
    messages: Messages,
    client: HttpClient,
}

impl Mattermost {
    /// `url` is the server's base URL; the API's path may be there already.
    pub(super) fn api(
        url: &str,
        token: &Secret,
        channel: &str,
        messages: Messages,
        client: HttpClient,
    ) -> Result<Mattermost, &'static str> {
        if token.is_empty() {
            return Err("the token is empty");
        }
        if channel.is_empty() {
            return Err("the channel is empty");
        }
        let base = url.trim().trim_end_matches('/');
        let base = base.strip_suffix(PATH).or_else(|| base.strip_suffix("/api/v4")).unwrap_or(base);
        let endpoint = Endpoint::parse(&Secret::new(format!("{base}{PATH}")))?;
        let way = Way::Api { token: token.clone(), channel: channel.to_owned() };
        Ok(Mattermost { endpoint, way, messages, client })
    }

    pub(super) fn webhook(
        url: &Secret,
        messages: Messages,
        client: HttpClient,
    ) -> Result<Mattermost, &'static str> {
        Ok(Mattermost { endpoint: Endpoint::parse(url)?, way: Way::Webhook, messages, client })
    }

    /// Equal for sinks that post to one channel.
    pub(super) fn destination(&self) -> String {
        match &self.way {
            Way::Api { channel, .. } => format!("{} {channel}", self.endpoint.expose()),
            Way::Webhook => self.endpoint.expose().to_owned(),
        }
    }

    fn post(&self, id: TaskId, text: &str, deadline: Instant) -> Result<(), DeliveryError> {
        let id = id.to_string();
        let mut headers = vec![("content-type", "application/json"), ("idempotency-key", &*id)];
        let bearer;
        let body = match &self.way {
            Way::Api { token, channel } => {
                bearer = format!("Bearer {}", token.expose());
                headers.push(("authorization", &bearer));
                json!({ "channel_id": channel, "message": text, "pending_post_id": id })
            }
            Way::Webhook => json!({ "text": text }),
        };
        let answer = self.client.post(&self.endpoint, &headers, body.to_string().as_bytes(), deadline)?;
        judge(&self.endpoint, &answer)
    }
}

impl Sink for Mattermost {
    fn name(&self) -> &'static str {
        match self.way {
            Way::Api { .. } => "mattermost",
            Way::Webhook => "mattermost_webhook",
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

fn judge(endpoint: &Endpoint, answer: &Answer) -> Result<(), DeliveryError> {
    if (200..300).contains(&answer.status) {
        // A log-in page or a captive portal answers 200, too.
        if answer.content_type == "text/html" {
            return Err(answer::error(
                endpoint,
                answer,
                Class::Transient,
                "a web page answered, not Mattermost",
            ));
        }
        return Ok(());
    }
    let parsed: Option<serde_json::Value> = serde_json::from_slice(&answer.body).ok();
    let id = parsed.as_ref().and_then(|v| v.get("id")).and_then(|id| id.as_str()).and_then(answer::code);
    let class = match (answer.status, id.unwrap_or_default()) {
        // The first post with this id is still being saved.
        (_, "api.post.deduplicate_create_post.pending") => Class::Transient,
        // The hook's id is wrong, which is said with 400.
        (400, id) if id.starts_with("web.incoming_webhook.invalid") => Class::Blocked,
        // Hooks are switched off.
        (501, _) => Class::Blocked,
        (status, _) => class_of(status),
    };
    Err(answer::error(endpoint, answer, class, id.unwrap_or_default()))
}
