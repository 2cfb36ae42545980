//! The text of messages: from a template, from the readable default, or the record as it came.
//!
//! No I/O; the clock is read for `now()` in templates. Everything that comes from a record passes through [`Markup`]; what the operator wrote in a template stays as it is, so a
//! template can call a channel on purpose and a record cannot.

mod default;
mod template;

pub use super::escape::Markup;
use super::escape::cut;
use crate::config::MessageFormat;
use crate::side_effect::Task;
pub use template::{Piece, Template, TemplateError, split};

use default::DefaultText;

/// Most characters of a Slack message: longer ones are split by webhooks, which breaks code spans.
pub const SLACK_CHARS_MAX: usize = 4_000;
/// Most characters that Slack takes at all: the limit of `format: raw`.
pub const SLACK_RAW_CHARS_MAX: usize = 40_000;
/// Most characters of a Mattermost post (`PostMessageMaxRunesV2`).
pub const MATTERMOST_CHARS_MAX: usize = 16_383;
/// Most characters of the text in a webhook's JSON; the record stands beside it whole.
pub const WEBHOOK_CHARS_MAX: usize = 16_384;

/// Makes the texts of one sink. Compiled once, used by all its workers.
pub struct Messages {
    markup: Markup,
    format: MessageFormat,
    template: Option<Template>,
    default: DefaultText,
}

impl Messages {
    /// `template`: `None` is the readable default.
    pub fn new(markup: Markup, format: MessageFormat, template: Option<Template>) -> Self {
        Messages { markup, format, template, default: DefaultText::new() }
    }

    /// Text or raw.
    pub fn format(&self) -> MessageFormat {
        self.format
    }

    /// The most characters that a message may have.
    fn chars_max(&self) -> usize {
        match (self.markup, self.format) {
            (Markup::Slack, MessageFormat::Raw) => SLACK_RAW_CHARS_MAX,
            (Markup::Slack, MessageFormat::Text) => SLACK_CHARS_MAX,
            (Markup::Mattermost, _) => MATTERMOST_CHARS_MAX,
            (Markup::Plain, _) => WEBHOOK_CHARS_MAX,
        }
    }

    /// The message about a task's record.
    pub fn text(&self, task: &Task) -> String {
        let mut is_part = false;
        let (mut text, request_id) = match (self.format, &self.template) {
            (MessageFormat::Raw, _) => {
                // More than that is cut off in any case: no need to look at all of a large record.
                let bytes = task.record.get(..4 * self.chars_max());
                is_part = bytes.is_some_and(|b| b.len() < task.record.trim_ascii_end().len());
                let record = String::from_utf8_lossy(bytes.unwrap_or(&task.record));
                let mut text = String::with_capacity(record.len());
                self.markup.push_text(&mut text, record.trim());
                (text, self.default.request_id(&task.record))
            }
            (MessageFormat::Text, Some(template)) => {
                (template.render(self.markup, &task.record), self.default.request_id(&task.record))
            }
            (MessageFormat::Text, None) => self.default.render(self.markup, &task.group, &task.record),
        };
        if text.trim().is_empty() {
            // No destination takes an empty message, and the record did match.
            text = self.default.render(self.markup, &task.group, &task.record).0;
        }
        cut(&mut text, self.chars_max(), request_id.as_deref(), is_part);
        text
    }

    /// A message of the program itself.
    pub fn own(&self, text: &str) -> String {
        let mut out = String::new();
        self.markup.push_text(&mut out, text);
        cut(&mut out, self.chars_max(), None, false);
        out
    }
}

impl std::fmt::Debug for Messages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Messages")
            .field("markup", &self.markup)
            .field("format", &self.format)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
