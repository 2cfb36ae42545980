//! `rule_groups[].messaging`: which keys each type needs, takes and ignores.

use std::time::Duration;

use super::keys::{chosen, token_complaint};
use super::load::{Context, indented};
use super::problem::{Origin, Report};
use super::section::Section;
use super::tree::{Node, Value};
use super::values::{self, Given};
use super::{MessageFormat, Messaging, MessagingKind, files};
use crate::secret::Secret;

const KEYS: [&str; 11] = [
    "type",
    "webhook_url",
    "webhook_url_file",
    "url",
    "token",
    "token_file",
    "channel",
    "template",
    "format",
    "rate_per_s",
    "digest_window",
];

/// Where Slack's API is when `url` does not say.
const SLACK_API: &str = "https://slack.com/api/";

/// The longest `digest_window`.
const DIGEST_WINDOW_MAX: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Slack,
    SlackWebhook,
    Mattermost,
    MattermostWebhook,
    Webhook,
}

const TYPES: [(&str, Type); 5] = [
    ("slack", Type::Slack),
    ("slack_webhook", Type::SlackWebhook),
    ("mattermost", Type::Mattermost),
    ("mattermost_webhook", Type::MattermostWebhook),
    ("webhook", Type::Webhook),
];
const FORMATS: [(&str, MessageFormat); 2] = [("text", MessageFormat::Text), ("raw", MessageFormat::Raw)];

impl Type {
    fn name(self) -> &'static str {
        TYPES.iter().find(|(_, known)| *known == self).map_or("", |(name, _)| name)
    }

    /// The keys that this type reads, beside those that every type reads.
    fn reads(self) -> &'static [&'static str] {
        match self {
            Type::Slack | Type::Mattermost => &["url", "token", "token_file", "channel"],
            Type::SlackWebhook | Type::MattermostWebhook => &["webhook_url", "webhook_url_file"],
            Type::Webhook => &["webhook_url", "webhook_url_file", "token", "token_file"],
        }
    }
}

/// Reads one `messaging` section. `None` without a type (nobody is told) and after a problem.
pub(super) fn read(node: &Node, path: &str, context: &Context<'_>, report: &mut Report) -> Option<Messaging> {
    let section = Section::open(node, path, &KEYS, report)?;
    let before = report.problems.len();
    let common = common(&section, report);
    let files = &context.files;
    if !common.template.is_empty()
        && let Err(error) = (context.checks.template)(&common.template)
    {
        let origin = Origin::File(common.template_line);
        report.problem(&origin, &section.path_of("template"), indented(&error), "");
    }
    let type_key = section.path_of("type");
    let Some(node) = section.get("type").filter(|node| node.value != Value::Text(String::new())) else {
        if KEYS[1..].iter().any(|key| is_given(&section, key)) {
            let cure = "add `type:` with slack, slack_webhook, mattermost, mattermost_webhook or webhook";
            report.problem(&section.origin(), &type_key, "messaging has no type", cure);
        }
        return None;
    };
    let kind = chosen(&Given::node(&type_key, node), &TYPES, report)?;
    refuse_foreign_keys(kind, &section, report);
    let kind = match kind {
        Type::Slack | Type::Mattermost => api(kind, &section, files, report),
        Type::SlackWebhook => webhook(kind, &section, files, report)
            .map(|webhook_url| MessagingKind::SlackWebhook { webhook_url }),
        Type::MattermostWebhook => webhook(kind, &section, files, report)
            .map(|webhook_url| MessagingKind::MattermostWebhook { webhook_url }),
        Type::Webhook => {
            let url = webhook(kind, &section, files, report);
            let token = secret(&section, "token", files, report).unwrap_or_default();
            url.map(|webhook_url| MessagingKind::Webhook { webhook_url, token })
        }
    };
    let messaging = Messaging { kind: kind?, ..common };
    (report.problems.len() == before).then_some(messaging)
}

/// Whether a key holds something: the predecessor's files carry empty ones.
fn is_given(section: &Section<'_>, key: &str) -> bool {
    section.get(key).is_some_and(|node| node.value != Value::Text(String::new()))
}

/// What every type reads; the kind is filled in by the caller.
fn common(section: &Section<'_>, report: &mut Report) -> Messaging {
    let mut common = Messaging {
        kind: MessagingKind::SlackWebhook { webhook_url: Secret::default() },
        template: String::new(),
        template_line: section.line,
        format: MessageFormat::Text,
        rate_per_s: 1.0,
        digest_window: Duration::from_secs(60),
    };
    let key = |name: &str| section.path_of(name);
    if let Some(node) = section.get("template") {
        common.template = values::text(&Given::node(&key("template"), node), report).unwrap_or_default();
        common.template_line = node.line;
    }
    if let Some(node) = section.get("format") {
        common.format = chosen(&Given::node(&key("format"), node), &FORMATS, report).unwrap_or(common.format);
        if common.format == MessageFormat::Raw && is_given(section, "template") {
            let what = "raw sends the record as it came and ignores the template";
            report.warning(&node.origin(), &key("format"), what, "remove one of the two");
        }
    }
    if let Some(node) = section.get("rate_per_s") {
        let rate = values::number(&Given::node(&key("rate_per_s"), node), 1000.0, report);
        common.rate_per_s = rate.unwrap_or(common.rate_per_s);
    }
    if let Some(node) = section.get("digest_window") {
        let window_key = key("digest_window");
        match values::duration(&Given::node(&window_key, node), true, report) {
            Some(window) if window > DIGEST_WINDOW_MAX => {
                report.problem(
                    &node.origin(),
                    &window_key,
                    "longer than a day",
                    "write a duration up to 24h",
                );
            }
            Some(window) => common.digest_window = window,
            None => {}
        }
    }
    common
}

/// The predecessor ignored its own keys where a type does not read them, so do we, with a warning; others are refused.
fn refuse_foreign_keys(kind: Type, section: &Section<'_>, report: &mut Report) {
    for key in ["webhook_url", "webhook_url_file", "url", "token", "token_file", "channel"] {
        let Some(node) = section.get(key).filter(|_| is_given(section, key) && !kind.reads().contains(&key))
        else {
            continue;
        };
        let what = format!("type {} does not use this key", kind.name());
        let path = section.path_of(key);
        if kind == Type::Webhook || key.ends_with("_file") {
            let cure = format!("remove it; {} reads {}", kind.name(), kind.reads().join(", "));
            report.problem(&node.origin(), &path, what, cure);
        } else {
            report.warning(&node.origin(), &path, what, "remove it");
        }
    }
}

/// `slack` and `mattermost`: the service's API with a token.
fn api(
    kind: Type,
    section: &Section<'_>,
    files: &files::Files<'_>,
    report: &mut Report,
) -> Option<MessagingKind> {
    let url_key = section.path_of("url");
    let url = match section.get("url").filter(|_| is_given(section, "url")) {
        Some(node) => values::url(&Given::node(&url_key, node), report),
        None if kind == Type::Slack => Some(SLACK_API.to_owned()),
        None => {
            let cure = "add `url: https://HOST`, the server's address";
            report.problem(&section.origin(), &url_key, "type mattermost needs url", cure);
            None
        }
    };
    let token = secret(section, "token", files, report);
    let token_key = section.path_of("token");
    if token.as_ref().is_some_and(Secret::is_empty) {
        let what = format!("type {} needs token", kind.name());
        report.problem(
            &section.origin(),
            &token_key,
            what,
            "add `token_file: PATH` (or `token:`), the bot's token",
        );
    } else if let Some(complaint) = token.as_ref().and_then(|token| token_complaint(token.expose())) {
        let origin =
            section.get("token").or(section.get("token_file")).map_or(section.origin(), Node::origin);
        report.problem(&origin, &token_key, complaint.0, complaint.1);
    }
    let channel_key = section.path_of("channel");
    let channel = match section.get("channel").filter(|_| is_given(section, "channel")) {
        Some(node) => values::some_line(&Given::node(&channel_key, node), report),
        None => {
            let what = format!("type {} needs channel", kind.name());
            report.problem(&section.origin(), &channel_key, what, "add `channel: ID`, the channel's id");
            None
        }
    };
    let (url, token, channel) = (url?, token?, channel?);
    Some(match kind {
        Type::Slack => MessagingKind::Slack { url, token, channel },
        _ => MessagingKind::Mattermost { url, token, channel },
    })
}

/// The webhook's URL, which is a secret: whoever knows it may post.
fn webhook(
    kind: Type,
    section: &Section<'_>,
    files: &files::Files<'_>,
    report: &mut Report,
) -> Option<Secret> {
    let url = secret(section, "webhook_url", files, report)?;
    let key = section.path_of("webhook_url");
    if url.is_empty() {
        let what = format!("type {} needs webhook_url", kind.name());
        report.problem(&section.origin(), &key, what, "add `webhook_url_file: PATH` (or `webhook_url:`)");
        return None;
    }
    match super::units::http_url(url.expose()) {
        Ok(()) => Some(url),
        Err((what, cure)) => {
            let origin = section.get("webhook_url").or(section.get("webhook_url_file"));
            report.problem(&origin.map_or(section.origin(), Node::origin), &key, what, cure);
            None
        }
    }
}

/// A secret key or its `_file`; empty where neither is given, `None` after a problem.
fn secret(section: &Section<'_>, key: &str, files: &files::Files<'_>, report: &mut Report) -> Option<Secret> {
    let file_key = format!("{key}_file");
    let (path, file_path) = (section.path_of(key), section.path_of(&file_key));
    let direct = section.get(key).filter(|_| is_given(section, key));
    let from_file = section.get(&file_key).filter(|_| is_given(section, &file_key));
    match (direct, from_file) {
        (None, None) => Some(Secret::default()),
        (Some(_), Some(node)) => {
            let what = format!("both {key} and {file_key} are given");
            report.problem(&node.origin(), &file_path, what, format!("keep {file_key} and remove {key}"));
            None
        }
        (Some(node), None) => values::line(&Given::node(&path, node).secret(), report).map(Secret::new),
        (None, Some(node)) => {
            let name = values::some_line(&Given::node(&file_path, node), report)?;
            files.secret(name.as_ref(), &node.origin(), &file_path, report)
        }
    }
}
