//! Templates: text with `{{ EXPR }}` in it, where EXPR is an expression of the rule language over the record.

use crate::clock;
use crate::record::{DecodeScratch, Decoder, FieldPlan};
use crate::rules::{EvalScratch, Expr, Limits};

use super::super::escape::Markup;

/// Most bytes of a template.
const TEMPLATE_BYTES_MAX: usize = 64 << 10;
/// Most characters that one expression adds to a message.
const VALUE_CHARS_MAX: usize = 16 << 10;
/// Steps that one expression may take on one record.
const STEPS_MAX: usize = 1_000_000;
/// What stands in for an expression that failed on a record.
const FAILED: &str = "(error)";

/// Something wrong with a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateError {
    /// Where, in bytes from the template's start.
    pub offset: usize,
    /// What, and what to write instead.
    pub message: String,
}

/// A part of a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'t> {
    /// Text as it is.
    Literal(&'t str),
    /// The source of an expression, without its braces and the space around it.
    Expr {
        /// The expression.
        source: &'t str,
        /// Where it starts in the template, in bytes.
        offset: usize,
    },
}

/// Splits a template. Strings (with `"`, `'` or back-ticks) and nested braces within an expression do not end it; to write two opening
/// braces as text, write `{{ "{{" }}`.
///
/// # Errors
/// Every `{{` that has no `}}`, or nothing in it.
pub fn split(template: &str) -> Result<Vec<Piece<'_>>, Vec<TemplateError>> {
    if template.len() > TEMPLATE_BYTES_MAX {
        let message = format!("the template has {} bytes; {TEMPLATE_BYTES_MAX} are allowed", template.len());
        return Err(vec![TemplateError { offset: 0, message }]);
    }
    let (mut pieces, mut errors) = (Vec::new(), Vec::new());
    let mut at = 0;
    while let Some(open) = template[at..].find("{{").map(|i| at + i) {
        if open > at {
            pieces.push(Piece::Literal(&template[at..open]));
        }
        let inside = open + 2;
        let Some(close) = find_close(template, inside) else {
            let message = "this {{ has no }}; to write braces as text: {{ \"{{\" }}".to_owned();
            errors.push(TemplateError { offset: open, message });
            return Err(errors);
        };
        let source = template[inside..close].trim();
        let offset = inside + template[inside..close].len() - template[inside..close].trim_start().len();
        if source.is_empty() {
            let message =
                "nothing between {{ and }}; write an expression such as {{ Request.Path }}".to_owned();
            errors.push(TemplateError { offset: open, message });
        } else {
            pieces.push(Piece::Expr { source, offset });
        }
        at = close + 2;
    }
    if at < template.len() {
        pieces.push(Piece::Literal(&template[at..]));
    }
    if errors.is_empty() { Ok(pieces) } else { Err(errors) }
}

/// The offset of the `}}` that ends the expression starting at `from`.
fn find_close(template: &str, from: usize) -> Option<usize> {
    let bytes = template.as_bytes();
    let (mut depth, mut quote, mut i) = (0usize, None, from);
    while let Some(&b) = bytes.get(i) {
        match (quote, b) {
            // Back-tick strings have no escapes.
            (Some(q), b'\\') if q != b'`' => i += 1,
            (Some(q), _) if b == q => quote = None,
            (Some(_), _) => {}
            (None, b'"' | b'\'' | b'`') => quote = Some(b),
            (None, b'{') => depth += 1,
            (None, b'}') if depth > 0 => depth -= 1,
            (None, b'}') if bytes.get(i + 1) == Some(&b'}') => return Some(i),
            _ => {}
        }
        i += 1;
    }
    None
}

enum Part {
    Literal(String),
    Value(Box<Expr>),
}

/// A compiled template.
pub struct Template {
    decoder: Decoder,
    parts: Vec<Part>,
}

impl Template {
    /// Compiles a template.
    ///
    /// # Errors
    /// Everything that is wrong with it, with places.
    pub fn compile(template: &str) -> Result<Template, Vec<TemplateError>> {
        let limits = Limits { steps_max: STEPS_MAX, ..Limits::default() };
        let mut plan = FieldPlan::new();
        let (mut parts, mut errors) = (Vec::new(), Vec::new());
        for piece in split(template)? {
            match piece {
                Piece::Literal(text) => parts.push(Part::Literal(text.to_owned())),
                Piece::Expr { source, offset } => match Expr::compile(source, &mut plan, &limits) {
                    Ok(expression) => parts.push(Part::Value(Box::new(expression))),
                    Err(e) => {
                        let help = e.help.map_or_else(String::new, |help| format!("; {help}"));
                        errors.push(TemplateError {
                            offset: offset + e.span.start,
                            message: e.message + &help,
                        });
                    }
                },
            }
        }
        if errors.is_empty() { Ok(Template { decoder: plan.build(), parts }) } else { Err(errors) }
    }

    /// The message about a record: what the template says as it stands, values made harmless for the destination. An
    /// expression that fails leaves a mark and does not stop the message.
    pub fn render(&self, markup: Markup, record: &[u8]) -> String {
        let mut scratch = DecodeScratch::default();
        let record = self.decoder.decode(record, &mut scratch);
        let (mut out, mut value) = (String::new(), String::new());
        let mut evaluation = EvalScratch::default();
        evaluation.set_now(jiff::Timestamp::try_from(clock::wall()).unwrap_or_default());
        for part in &self.parts {
            match (part, &record) {
                (Part::Literal(text), _) => out.push_str(text),
                (Part::Value(expression), Ok(record)) => {
                    value.clear();
                    if expression.render(record, &mut evaluation, &mut value).is_err() {
                        FAILED.clone_into(&mut value);
                    }
                    if let Some((end, _)) = value.char_indices().nth(VALUE_CHARS_MAX) {
                        value.truncate(end);
                        value.push('…');
                    }
                    markup.push_value(&mut out, &value);
                }
                (Part::Value(_), Err(_)) => out.push_str(FAILED),
            }
        }
        out
    }
}

impl std::fmt::Debug for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Template").field("parts", &self.parts.len()).finish_non_exhaustive()
    }
}
