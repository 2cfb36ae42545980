//! Numbers as Go computes and writes them.

/// `x` to the power of `y` with Go's special cases (`math.Pow`); whole powers by repeated squaring as Go does it, so that
/// results have the same last bit.
pub(crate) fn pow(x: f64, y: f64) -> f64 {
    if y == 0.0 || x == 1.0 {
        return 1.0;
    }
    if y == 1.0 {
        return x;
    }
    if x.is_nan() || y.is_nan() {
        return f64::NAN;
    }
    if x == 0.0 || x.is_infinite() || y.is_infinite() || x == -1.0 {
        return x.powf(y);
    }
    if y == 0.5 {
        return x.sqrt();
    }
    if y == -0.5 {
        return 1.0 / x.sqrt();
    }
    let (whole, mut fraction) = (y.abs().trunc(), y.abs().fract());
    if fraction != 0.0 && x < 0.0 {
        return f64::NAN;
    }
    if whole >= 9.223_372_036_854_776e18 {
        // Beyond 2^63 only the size of the base matters.
        return if (x.abs() < 1.0) == (y > 0.0) { 0.0 } else { f64::INFINITY };
    }
    let mut whole_int = whole as i64;
    let mut result = 1.0;
    let mut exponent: i64 = 0;
    if fraction != 0.0 {
        if fraction > 0.5 {
            fraction -= 1.0;
            whole_int += 1;
        }
        result = (fraction * x.ln()).exp();
    }
    let (mut base, mut base_exponent) = frexp(x);
    let mut bits = whole_int;
    while bits != 0 {
        if !(-(1 << 12)..=1 << 12).contains(&base_exponent) {
            exponent = exponent.saturating_add(base_exponent);
            break;
        }
        if bits & 1 == 1 {
            result *= base;
            exponent += base_exponent;
        }
        base *= base;
        base_exponent <<= 1;
        if base < 0.5 {
            base += base;
            base_exponent -= 1;
        }
        bits >>= 1;
    }
    if y < 0.0 {
        result = 1.0 / result;
        exponent = -exponent;
    }
    ldexp(result, exponent)
}

/// Splits into a fraction in [0.5, 1) and a power of two.
fn frexp(value: f64) -> (f64, i64) {
    if value == 0.0 || !value.is_finite() {
        return (value, 0);
    }
    let (value, adjust) =
        if value.abs() < f64::MIN_POSITIVE { (value * (1u64 << 52) as f64, -52) } else { (value, 0) };
    let bits = value.to_bits();
    let exponent = ((bits >> 52) & 0x7ff) as i64 - 1022;
    (f64::from_bits((bits & !(0x7ff << 52)) | (1022 << 52)), exponent + adjust)
}

fn ldexp(value: f64, exponent: i64) -> f64 {
    let mut value = value;
    let mut left = exponent.clamp(-4000, 4000);
    while left != 0 {
        let step = left.clamp(-1000, 1000);
        value *= 2f64.powi(step as i32);
        left -= step;
    }
    value
}

/// Go's conversion of a float to int on amd64: what does not fit is the smallest integer.
pub(crate) fn float_to_int(value: f64) -> i64 {
    if (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&value) {
        value as i64
    } else {
        i64::MIN
    }
}

/// Go's `math.Round`: half away from zero.
pub(crate) fn round(value: f64) -> f64 {
    value.round()
}

/// The shortest text that reads back as the same number, as Go's `%v` writes it: an exponent below 1e-4 and from 1e6 on.
pub(crate) fn format_v(value: f64) -> String {
    general(value, 6)
}

/// As Go's `strconv.FormatFloat(v, 'g', -1, 64)`: an exponent below 1e-4 and from 1e6 on, as for `%v`.
pub(crate) fn format_g(value: f64) -> String {
    general(value, 6)
}

fn general(value: f64, exponent_from: i32) -> String {
    if let Some(text) = not_finite(value) {
        return text.into();
    }
    let (negative, digits, point) = decimal(value);
    let exponent = point - 1;
    if value != 0.0 && (exponent < -4 || exponent >= exponent_from) {
        return scientific(negative, &digits, exponent, 2);
    }
    plain(negative, &digits, point)
}

/// As Go's `encoding/json` writes a float: an exponent below 1e-6 and from 1e21 on. `None` for what JSON cannot say.
pub(crate) fn format_json(value: f64) -> Option<String> {
    if !value.is_finite() {
        return None;
    }
    let (negative, digits, point) = decimal(value);
    let size = value.abs();
    if size != 0.0 && !(1e-6..1e21).contains(&size) {
        return Some(scientific(negative, &digits, point - 1, if size < 1.0 { 1 } else { 2 }));
    }
    Some(plain(negative, &digits, point))
}

fn not_finite(value: f64) -> Option<&'static str> {
    if value.is_nan() {
        Some("NaN")
    } else if value == f64::INFINITY {
        Some("+Inf")
    } else if value == f64::NEG_INFINITY {
        Some("-Inf")
    } else {
        None
    }
}

/// Sign, shortest digits, and where the decimal point stands: `0.d1d2.. * 10^point`.
fn decimal(value: f64) -> (bool, String, i32) {
    let text = format!("{:e}", value.abs());
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let exponent: i32 = exponent.parse().unwrap_or(0);
    (value.is_sign_negative(), digits, exponent + 1)
}

fn scientific(negative: bool, digits: &str, exponent: i32, width: usize) -> String {
    let sign = if negative { "-" } else { "" };
    let (first, rest) = digits.split_at(1);
    let dot = if rest.is_empty() { "" } else { "." };
    let exponent_sign = if exponent < 0 { '-' } else { '+' };
    format!("{sign}{first}{dot}{rest}e{exponent_sign}{:0width$}", exponent.abs())
}

fn plain(negative: bool, digits: &str, point: i32) -> String {
    let sign = if negative { "-" } else { "" };
    if point <= 0 {
        let zero = digits.chars().all(|c| c == '0');
        let zeros = if zero { 0 } else { point.unsigned_abs() as usize };
        if zero {
            return format!("{sign}0");
        }
        return format!("{sign}0.{}{digits}", "0".repeat(zeros));
    }
    let point = point as usize;
    if digits.len() <= point {
        let zero = digits == "0";
        return if zero {
            format!("{sign}0")
        } else {
            format!("{sign}{digits}{}", "0".repeat(point - digits.len()))
        };
    }
    format!("{sign}{}.{}", &digits[..point], &digits[point..])
}

/// Go's `strconv.ParseFloat`: also `inf`, `nan`, hexadecimal floats, and underscores between digits; `None` for what is no
/// number or too large.
pub(crate) fn parse_float(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let lower = unsigned.to_ascii_lowercase();
    if matches!(lower.as_str(), "inf" | "infinity" | "nan") {
        return text.parse().ok();
    }
    let bytes = lower.as_bytes();
    let digit = |at: Option<&u8>| at.is_some_and(u8::is_ascii_hexdigit);
    let spaced = bytes.iter().enumerate().all(|(at, byte)| {
        *byte != b'_'
            || at > 0
                && (digit(bytes.get(at - 1)) || bytes.get(at - 1) == Some(&b'x'))
                && digit(bytes.get(at + 1))
    });
    if !spaced {
        return None;
    }
    let plain: String = lower.chars().filter(|c| *c != '_').collect();
    let value = match plain.strip_prefix("0x") {
        Some(hex) => hex_float(hex)?,
        None if plain.starts_with(|c: char| c.is_ascii_digit() || c == '.') => plain.parse().ok()?,
        None => return None,
    };
    let value = if text.starts_with('-') { -value } else { value };
    value.is_finite().then_some(value)
}

/// `1.8p3`: the exponent is a must.
fn hex_float(text: &str) -> Option<f64> {
    let (mantissa, exponent) = text.split_once('p')?;
    let exponent: i64 = exponent.parse().ok()?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut value = 0.0;
    for c in whole.chars().chain(fraction.chars()) {
        value = value * 16.0 + f64::from(c.to_digit(16)?);
    }
    Some(ldexp(value, exponent.checked_sub(4 * fraction.len() as i64)?))
}
