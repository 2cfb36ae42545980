//! Functions of arrays and maps.

use super::super::error::EvalErrorKind;
use super::super::eval::Vm;
use super::super::types::{MapTy, Slice};
use super::super::value::{Array, Evaluated, Fault, Items, Number, Value, fault, fault_of};
use super::{is_sortable, wrong};

type Values<'a> = bumpalo::collections::Vec<'a, Value<'a>>;

impl<'a> Vm<'a> {
    pub(super) fn array_builtin(&self, name: &'static str, args: &[Value<'a>]) -> Evaluated<'a> {
        let arg = |index: usize| args.get(index).copied().unwrap_or(Value::Nil);
        let array = || match arg(0) {
            Value::Array(array) => Ok(array),
            other => Err(wrong(name, other)),
        };
        match name {
            "first" => Ok(self.end(arg(0), 0)),
            "last" => Ok(self.end(arg(0), -1)),
            "get" => self.get(arg(0), arg(1)),
            "take" => self.take(array()?, arg(1)),
            "keys" | "values" | "toPairs" => self.entries(name, arg(0)),
            "fromPairs" => self.paired(array()?),
            "reverse" => {
                let array = array()?;
                let length = array.items.len();
                self.grow(length)?;
                let mut values = self.new_list(length)?;
                values.extend((0..length).rev().filter_map(|index| array.items.get(index)));
                Ok(self.array(Slice::Any, Items::Values(values.into_bump_slice())))
            }
            "uniq" => self.uniq(array()?),
            "concat" => self.concat(args),
            "flatten" => {
                let array = array()?;
                let mut values = bumpalo::collections::Vec::new_in(self.bump);
                self.flatten(array, &mut values)?;
                self.grow(values.len())?;
                Ok(self.array(Slice::Any, Items::Values(values.into_bump_slice())))
            }
            "sort" => self.sort(arg(0), args.get(1).copied()),
            _ => Err(fault(format!("`{name}` is not supported yet"))),
        }
    }

    fn new_list(&self, length: usize) -> Result<Values<'a>, Fault> {
        self.take_bytes(length.saturating_mul(size_of::<Value<'_>>()))?;
        Ok(bumpalo::collections::Vec::with_capacity_in(length, self.bump))
    }

    /// The first or last element, nil where there is none or where there cannot be one.
    fn end(&self, value: Value<'a>, index: i64) -> Value<'a> {
        match value {
            Value::Array(_) | Value::Str(_) | Value::Map(_) => {
                self.fetch(value, Value::Int(index), false).unwrap_or(Value::Nil)
            }
            _ => Value::Nil,
        }
    }

    /// As a member, but nil where there is none.
    fn get(&self, base: Value<'a>, key: Value<'a>) -> Evaluated<'a> {
        if let Value::Str(name) = key
            && let Some(method) = self.method_of(base, name)
        {
            return Ok(method);
        }
        match base {
            Value::Array(array) => {
                let index = key.to_int()?;
                let at = if index < 0 { index.wrapping_add(array.items.len() as i64) } else { index };
                Ok(usize::try_from(at).ok().and_then(|at| array.items.get(at)).unwrap_or(Value::Nil))
            }
            Value::Str(text) => {
                let index = key.to_int()?;
                let at = if index < 0 { index.wrapping_add(text.len() as i64) } else { index };
                let byte = usize::try_from(at).ok().and_then(|at| text.get(at));
                Ok(byte.map_or(Value::Nil, |byte| Value::U8(*byte)))
            }
            Value::Map(map) => Ok(self.lookup(map, key)?.unwrap_or(Value::Nil)),
            Value::Struct(value) => {
                let name = key.str()?;
                match value.def.fields.iter().position(|field| field.name.as_bytes() == name) {
                    Some(index) => self.field(value, index),
                    None => Ok(Value::Nil),
                }
            }
            Value::Time(_) => key.str().map(|_| Value::Nil),
            _ => Ok(Value::Nil),
        }
    }

    fn take(&self, array: &'a Array<'a>, count: Value<'a>) -> Evaluated<'a> {
        let count = match count {
            Value::Int(count) | Value::Duration(count) => count,
            Value::Month(count) | Value::Weekday(count) => i64::from(count),
            other => return Err(wrong("take", other)),
        };
        let count = usize::try_from(count)
            .map_err(|_| fault(format!("`take` wants a count of 0 or more, found {count}")))?;
        let items = array.items.slice(0, count.min(array.items.len()));
        Ok(Value::Array(self.bump.alloc(Array { slice: array.slice.clone(), nil: array.nil, items })))
    }

    /// In the order of the keys where they are strings: Go has no order here.
    fn entries(&self, name: &str, value: Value<'a>) -> Evaluated<'a> {
        let Value::Map(map) = value else { return Err(wrong(name, value)) };
        let sorted = self.by_key(map.entries)?;
        let mut values = self.new_list(sorted.len())?;
        for (key, value) in sorted.iter() {
            values.push(match name {
                "keys" => *key,
                "values" => *value,
                _ => {
                    let pair = self.values(&[*key, *value])?;
                    self.array(Slice::Pair, Items::Values(pair))
                }
            });
        }
        let slice = if name == "toPairs" { Slice::Pairs } else { Slice::Any };
        Ok(self.array(slice, Items::Values(values.into_bump_slice())))
    }

    /// Entries sorted by their keys where all are strings or all are integers; others stay as they are.
    pub(crate) fn by_key(
        &self,
        entries: &[(Value<'a>, Value<'a>)],
    ) -> Result<&'a [(Value<'a>, Value<'a>)], Fault> {
        self.take_bytes(size_of_val(entries))?;
        self.step(entries.len())?;
        let sorted = self.bump.alloc_slice_copy(entries);
        let strs = entries.iter().all(|(key, _)| matches!(key, Value::Str(_)));
        let ints = entries.iter().all(|(key, _)| matches!(key, Value::Int(_)));
        if strs || ints {
            sorted.sort_by(|(a, _), (b, _)| match (a, b) {
                (Value::Str(a), Value::Str(b)) => a.cmp(b),
                (Value::Int(a), Value::Int(b)) => a.cmp(b),
                _ => std::cmp::Ordering::Equal,
            });
        }
        Ok(sorted)
    }

    fn paired(&self, array: &'a Array<'a>) -> Evaluated<'a> {
        let mut entries: bumpalo::collections::Vec<'a, (Value<'a>, Value<'a>)> =
            bumpalo::collections::Vec::new_in(self.bump);
        for pair in array.items.iter() {
            let Value::Array(pair) = pair else { return Err(wrong("fromPairs", pair)) };
            let (Some(key), Some(value), 2) = (pair.items.get(0), pair.items.get(1), pair.items.len()) else {
                return Err(fault(format!("a pair has 2 elements, found {}", pair.items.len())));
            };
            self.hashable(key)?;
            self.take_bytes(2 * size_of::<Value<'_>>())?;
            let mut known = None;
            for (at, (other, _)) in entries.iter().enumerate() {
                if self.same(*other, key)? {
                    known = Some(at);
                    break;
                }
            }
            match known.and_then(|at| entries.get_mut(at)) {
                Some(entry) => entry.1 = value,
                None => entries.push((key, value)),
            }
        }
        Ok(self.map(MapTy::AnyAny, entries.into_bump_slice()))
    }

    fn uniq(&self, array: &'a Array<'a>) -> Evaluated<'a> {
        let mut kept: Values<'a> = bumpalo::collections::Vec::new_in(self.bump);
        'items: for item in array.items.iter() {
            for other in &kept {
                if self.equal(item, *other)? {
                    continue 'items;
                }
            }
            self.push(&mut kept, item)?;
        }
        Ok(self.array(Slice::Any, Items::Values(kept.into_bump_slice())))
    }

    fn concat(&self, args: &[Value<'a>]) -> Evaluated<'a> {
        let mut values: Values<'a> = bumpalo::collections::Vec::new_in(self.bump);
        for arg in args {
            let Value::Array(array) = arg else { return Err(wrong("concat", *arg)) };
            self.grow(array.items.len())?;
            for item in array.items.iter() {
                self.push(&mut values, item)?;
            }
        }
        // As Go: what nothing was put into is a nil slice.
        if values.is_empty() {
            return Ok(self.nil_array(Slice::Any));
        }
        Ok(self.array(Slice::Any, Items::Values(values.into_bump_slice())))
    }

    fn flatten(&self, array: &Array<'a>, values: &mut Values<'a>) -> Result<(), Fault> {
        let _deeper = self.deeper()?;
        for item in array.items.iter() {
            self.step(1)?;
            match item {
                Value::Array(inner) => self.flatten(inner, values)?,
                other => self.push(values, other)?,
            }
            if values.len() >= self.limits.memory_elements_max {
                return Err(fault_of(EvalErrorKind::Limit, "the rule makes too many elements"));
            }
        }
        Ok(())
    }

    fn sort(&self, value: Value<'a>, order: Option<Value<'a>>) -> Evaluated<'a> {
        let desc = order.map_or(Ok(false), |order| self.descending(order))?;
        let array = match value {
            Value::Array(array) if is_sortable(&array.slice) => array,
            // As Go: nothing is known of other slices.
            _ => return Ok(self.nil_array(Slice::Any)),
        };
        let mut keyed = bumpalo::collections::Vec::new_in(self.bump);
        for item in array.items.iter() {
            self.take_bytes(2 * size_of::<Value<'_>>())?;
            keyed.push((item, Value::Nil));
        }
        let sorted = self.sorted(&keyed, desc)?;
        self.grow(sorted.len())?;
        let values = self.bump.alloc_slice_fill_iter(sorted.iter().map(|(item, _)| *item));
        Ok(self.array(Slice::Any, Items::Values(values)))
    }

    /// `max` and `min`: numbers and arrays of numbers, however nested.
    pub(super) fn extreme(&self, name: &str, args: &[Value<'a>]) -> Evaluated<'a> {
        let _deeper = self.deeper()?;
        let mut best = None;
        for arg in args {
            match arg {
                Value::Array(array) => {
                    // Go walks typed slices element by element, with calls of its own.
                    let typed = !matches!(array.slice, Slice::Any | Slice::Int | Slice::Float);
                    for item in array.items.iter() {
                        self.step(1)?;
                        let value = match item {
                            Value::Array(_) => self.extreme(name, &[item])?,
                            item if item.number().is_some() => item,
                            item => return Err(wrong(name, item)),
                        };
                        if matches!(value, Value::Nil) && !typed {
                            continue;
                        }
                        self.better(name, &mut best, value)?;
                    }
                }
                value if value.number().is_some() => self.better(name, &mut best, *value)?,
                Value::Duration(_) | Value::Month(_) | Value::Weekday(_) => {
                    self.better(name, &mut best, *arg)?
                }
                // As Go: a single argument that is no number is handed back.
                other if args.len() == 1 => return Ok(*other),
                other => return Err(wrong(name, *other)),
            }
        }
        Ok(best.unwrap_or(Value::Nil))
    }

    fn better(&self, name: &str, best: &mut Option<Value<'a>>, value: Value<'a>) -> Result<(), Fault> {
        let better = match *best {
            None => true,
            Some(best) if name == "max" => self.less(best, value)?,
            Some(best) => self.ordered(super::super::ast::BinaryOp::Gt, best, value)?,
        };
        if better {
            *best = Some(value);
        }
        Ok(())
    }

    pub(super) fn mean(&self, args: &[Value<'a>]) -> Evaluated<'a> {
        let mut numbers = bumpalo::collections::Vec::new_in(self.bump);
        self.numbers("mean", args, &mut numbers)?;
        if numbers.is_empty() {
            return Ok(Value::Float(0.0));
        }
        Ok(Value::Float(numbers.iter().fold(0.0, |sum, number| sum + number) / numbers.len() as f64))
    }

    pub(super) fn median(&self, args: &[Value<'a>]) -> Evaluated<'a> {
        let mut numbers = bumpalo::collections::Vec::new_in(self.bump);
        self.numbers("median", args, &mut numbers)?;
        self.step(numbers.len().saturating_mul(4))?;
        // As Go sorts floats: NaN comes first.
        numbers.sort_by(|a, b| match (a.is_nan(), b.is_nan()) {
            (false, false) => a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal),
            (a, b) => b.cmp(&a),
        });
        let middle = numbers.len() / 2;
        Ok(Value::Float(
            match (
                numbers.len() % 2,
                middle.checked_sub(1).and_then(|at| numbers.get(at)),
                numbers.get(middle),
            ) {
                (1, _, Some(value)) => *value,
                (0, Some(low), Some(high)) => (low + high) / 2.0,
                _ => 0.0,
            },
        ))
    }

    /// All numbers of the arguments, in order.
    fn numbers(
        &self,
        name: &str,
        args: &[Value<'a>],
        out: &mut bumpalo::collections::Vec<'a, f64>,
    ) -> Result<(), Fault> {
        let _deeper = self.deeper()?;
        for arg in args {
            self.step(1)?;
            match arg {
                Value::Array(array) => {
                    for item in array.items.iter() {
                        self.numbers(name, &[item], out)?;
                    }
                }
                Value::Duration(value) => self.push_number(out, *value as f64)?,
                Value::Month(value) | Value::Weekday(value) => self.push_number(out, f64::from(*value))?,
                other => match other.number() {
                    Some(Number::Int(value)) => self.push_number(out, value as f64)?,
                    Some(Number::Float(value)) => self.push_number(out, value)?,
                    None => return Err(wrong(name, *other)),
                },
            }
        }
        Ok(())
    }

    fn push_number(&self, out: &mut bumpalo::collections::Vec<'a, f64>, value: f64) -> Result<(), Fault> {
        self.take_bytes(size_of::<f64>())?;
        out.push(value);
        Ok(())
    }
}
