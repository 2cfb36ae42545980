//! Field paths (`Request.Path`) as template expressions.

use crate::record::schema::{AUDIT_LOG, Type};
use crate::record::{FieldPlan, Record, Slot, SlotId};

use super::template::{Expression, Template, TemplateError};

struct Field(SlotId);

impl Expression for Field {
    fn render(&self, record: &Record<'_>, out: &mut String) -> Result<(), String> {
        match record.slot(self.0) {
            Slot::Unreached | Slot::Absent | Slot::Null => {}
            Slot::Bool(b) => out.push_str(if b { "true" } else { "false" }),
            Slot::Number(text) | Slot::Str(text) => out.push_str(text),
            Slot::Json(json) => out.push_str(&String::from_utf8_lossy(json)),
        }
        Ok(())
    }
}

impl Template {
    /// Compiles a template.
    ///
    /// # Errors
    /// Everything that is wrong with it, with places.
    pub fn compile(template: &str) -> Result<Template, Vec<TemplateError>> {
        Template::compile_with(template, &mut |source, plan| compile(source, plan))
    }
}

fn compile(source: &str, plan: &mut FieldPlan) -> Result<Box<dyn Expression>, (usize, String)> {
    let (mut ty, mut path, mut at) = (Type::Struct(&AUDIT_LOG), Vec::new(), 0);
    for name in source.split('.') {
        let field = match ty {
            Type::Struct(s) => s.field(name),
            _ => None,
        };
        let field = field.ok_or_else(|| (at, format!("unknown name {name:?}")))?;
        path.push(field.json);
        ty = field.ty;
        at += name.len() + 1;
    }
    Ok(Box::new(Field(plan.want(&path))))
}
