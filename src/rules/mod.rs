//! The rule language: expr (expr-lang, semantics of 1.17) over audit records, with Go-RE2 regular expressions.

pub mod go_regex;
