//! Conversions of numbers, and base64.

use super::super::eval::Vm;
use super::super::numbers;
use super::super::value::{Evaluated, Value, fault};
use super::wrong;

/// The alphabet of RFC 4648, section 4.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

impl<'a> Vm<'a> {
    pub(super) fn to_integer(&self, value: Value<'a>) -> Evaluated<'a> {
        let number = match value {
            Value::Str(text) => {
                let parsed = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
                parsed.ok_or_else(|| not_a_number(text, "an int"))?
            }
            Value::Duration(value) => value,
            Value::Month(value) | Value::Weekday(value) => i64::from(value),
            Value::Float(value) => numbers::float_to_int(value),
            other if other.number().is_some() => other.int()?,
            other => return Err(wrong("int", other)),
        };
        Ok(Value::Int(number))
    }

    pub(super) fn to_float_number(&self, value: Value<'a>) -> Evaluated<'a> {
        let number = match value {
            Value::Str(text) => std::str::from_utf8(text)
                .ok()
                .and_then(numbers::parse_float)
                .ok_or_else(|| not_a_number(text, "a float"))?,
            other if other.number().is_some() => other.to_float()?,
            other => return Err(wrong("float", other)),
        };
        Ok(Value::Float(number))
    }

    pub(super) fn to_base64(&self, value: Value<'a>) -> Evaluated<'a> {
        let text = value.str()?;
        self.take_bytes(text.len().div_ceil(3).saturating_mul(4))?;
        Ok(Value::Str(self.bump.alloc_slice_copy(&encode_base64(text))))
    }

    pub(super) fn decoded_base64(&self, value: Value<'a>) -> Evaluated<'a> {
        let text = value.str()?;
        self.take_bytes(text.len())?;
        let decoded = decode_base64(text).ok_or_else(|| fault("this is not base64"))?;
        Ok(Value::Str(self.bump.alloc_slice_copy(&decoded)))
    }
}

fn not_a_number(text: &[u8], wanted: &str) -> super::super::value::Fault {
    fault(format!("{:?} is not {wanted}", String::from_utf8_lossy(text)))
}

pub(crate) fn encode_base64(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for index in 0..4 {
            if index <= chunk.len() {
                out.push(ALPHABET[(bits >> (18 - 6 * index) & 63) as usize]);
            } else {
                out.push(b'=');
            }
        }
    }
    out
}

/// As Go's `base64.StdEncoding`: padding is a must, line breaks are skipped, spare bits are not looked at.
fn decode_base64(text: &[u8]) -> Option<Vec<u8>> {
    let text: Vec<u8> = text.iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
    if padding > 2 {
        return None;
    }
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let mut bits: u32 = 0;
    for (index, byte) in text[..text.len() - padding].iter().enumerate() {
        let value = ALPHABET.iter().position(|known| known == byte)?;
        bits = bits << 6 | value as u32;
        if index % 4 == 3 {
            out.extend_from_slice(&bits.to_be_bytes()[1..]);
            bits = 0;
        }
    }
    match padding {
        1 => out.extend_from_slice(&(bits << 6).to_be_bytes()[1..3]),
        2 => out.extend_from_slice(&(bits << 12).to_be_bytes()[1..2]),
        _ => {}
    }
    Some(out)
}
