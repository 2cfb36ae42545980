//! From the configuration to sinks.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::client::HttpClient;
use super::forward::Forward;
use super::mattermost::Mattermost;
use super::slack::Slack;
use super::text::{Markup, Messages, Template};
use super::webhook::Webhook;
use crate::config::{MessageFormat, Messaging, MessagingKind, RuleGroup};
use crate::side_effect::{SinkSettings, SinkSpec, Task};

/// A sink that cannot be made from its configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildError {
    /// The rule group.
    pub group: String,
    /// The key below the group, such as `messaging.template`.
    pub key: String,
    /// Line in the configuration file; 0 where it is not known.
    pub line: u32,
    /// What is wrong. Holds no secret.
    pub message: String,
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        write!(f, "group {:?}: {}: {}", self.group, self.key, self.message)
    }
}

impl std::error::Error for BuildError {}

/// Makes the sinks of all groups, in their order: forwarding first, then messaging.
///
/// # Errors
/// Everything that is wrong in any of them.
pub fn build(groups: &[RuleGroup], client: &HttpClient) -> Result<Vec<SinkSpec>, Vec<BuildError>> {
    let (mut specs, mut errors) = (Vec::new(), Vec::new());
    for group in groups {
        let error = |key: &str, line, message: String| BuildError {
            group: group.name.clone(),
            key: key.to_owned(),
            line,
            message,
        };
        if let Some(forwarding) = &group.forwarding {
            match Forward::new(forwarding, client.clone()) {
                Ok(sink) => specs.push(SinkSpec {
                    group: group.name.as_str().into(),
                    destination: sink.destination(),
                    sink: Arc::new(sink),
                    rate_per_s: 0.0,
                    digest: None,
                    settings: SinkSettings::Forwarding(forwarding.clone()),
                }),
                Err(message) => errors.push(error("forwarding.address", 0, message.to_owned())),
            }
        }
        if let Some(messaging) = &group.messaging {
            match messages(messaging) {
                Err(problems) => {
                    errors.extend(problems.into_iter().map(|(line, m)| error("messaging.template", line, m)));
                }
                Ok(messages) => match messaging_sink(group, messaging, messages, client) {
                    Ok(spec) => specs.push(spec),
                    Err(message) => errors.push(error("messaging", 0, message.to_owned())),
                },
            }
        }
    }
    if errors.is_empty() { Ok(specs) } else { Err(errors) }
}

/// What a group's messaging sends about a record, cut and escaped as its destination needs it.
///
/// # Errors
/// The template is wrong.
pub fn message_text(messaging: &Messaging, task: &Task) -> Result<String, String> {
    let texts = messages(messaging)
        .map_err(|problems| problems.into_iter().map(|(_, what)| what).collect::<Vec<_>>().join("; "))?;
    let whole_body =
        matches!(messaging.kind, MessagingKind::Webhook { .. }) && messaging.format == MessageFormat::Raw;
    Ok(if whole_body { String::from_utf8_lossy(&task.record).into_owned() } else { texts.text(task) })
}

/// The texts of one messaging block; errors with their lines.
fn messages(messaging: &Messaging) -> Result<Messages, Vec<(u32, String)>> {
    let markup = match messaging.kind {
        MessagingKind::Slack { .. } | MessagingKind::SlackWebhook { .. } => Markup::Slack,
        MessagingKind::Mattermost { .. } | MessagingKind::MattermostWebhook { .. } => Markup::Mattermost,
        MessagingKind::Webhook { .. } => Markup::Plain,
    };
    let template = match (messaging.format, messaging.template.trim()) {
        (MessageFormat::Raw, _) | (_, "") => None,
        _ => Some(Template::compile(&messaging.template).map_err(|errors| {
            let place = |e: &super::text::TemplateError| {
                (messaging.template_line, format!("at byte {} of the template: {}", e.offset, e.message))
            };
            errors.iter().map(place).collect::<Vec<_>>()
        })?),
    };
    Ok(Messages::new(markup, messaging.format, template))
}

fn messaging_sink(
    group: &RuleGroup,
    messaging: &Messaging,
    messages: Messages,
    client: &HttpClient,
) -> Result<SinkSpec, &'static str> {
    let client = client.clone();
    let spec = |destination: String, sink: Arc<dyn super::Sink>| SinkSpec {
        group: group.name.as_str().into(),
        sink,
        destination,
        rate_per_s: messaging.rate_per_s,
        digest: digest(group, messaging.digest_window),
        settings: settings(group, messaging),
    };
    Ok(match &messaging.kind {
        MessagingKind::Slack { url, token, channel } => {
            let sink = Slack::api(url, token, channel, messages, client)?;
            spec(sink.destination(), Arc::new(sink))
        }
        MessagingKind::SlackWebhook { webhook_url } => {
            let sink = Slack::webhook(webhook_url, messages, client)?;
            spec(sink.destination(), Arc::new(sink))
        }
        MessagingKind::Mattermost { url, token, channel } => {
            let sink = Mattermost::api(url, token, channel, messages, client)?;
            spec(sink.destination(), Arc::new(sink))
        }
        MessagingKind::MattermostWebhook { webhook_url } => {
            let sink = Mattermost::webhook(webhook_url, messages, client)?;
            spec(sink.destination(), Arc::new(sink))
        }
        MessagingKind::Webhook { webhook_url, token } => {
            let sink = Webhook::new(webhook_url, token, messages, client)?;
            spec(sink.destination(), Arc::new(sink))
        }
    })
}

/// What two sinks of one name are compared by.
fn settings(group: &RuleGroup, messaging: &Messaging) -> SinkSettings {
    let file = group.log_file.as_ref().map(|file| file.file_path.clone());
    SinkSettings::Messaging(Box::new(messaging.placeless()), file)
}

/// The digest names the group's log file: what was not told is there.
fn digest(group: &RuleGroup, window: Duration) -> Option<(Duration, Option<String>)> {
    let file = group.log_file.as_ref().map(|f| f.file_path.display().to_string());
    (!window.is_zero()).then_some((window, file))
}
