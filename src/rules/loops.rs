//! Builtins that walk over a collection with a predicate.

use super::code::{Body, Loop, LoopName};
use super::eval::{Scope, Vm};
use super::types::{MapTy, Slice};
use super::value::{Array, Evaluated, Fault, Items, Value, fault};

/// What can be walked over. Go counts the entries of a map, but has no element to give.
#[derive(Clone, Copy)]
enum Collection<'a> {
    Array(&'a Array<'a>),
    Text(&'a [u8]),
    Entries(usize),
}

impl<'a> Collection<'a> {
    fn of(value: Value<'a>) -> Result<Collection<'a>, Fault> {
        match value {
            Value::Array(array) => Ok(Collection::Array(array)),
            Value::Str(text) => Ok(Collection::Text(text)),
            Value::Map(map) => Ok(Collection::Entries(map.entries.len())),
            other => Err(fault(format!("wanted an array, found {}", other.type_name()))),
        }
    }

    fn len(self) -> usize {
        match self {
            Collection::Array(array) => array.items.len(),
            Collection::Text(text) => text.len(),
            Collection::Entries(count) => count,
        }
    }

    fn item(self, index: usize) -> Result<Value<'a>, &'static str> {
        match self {
            Collection::Array(array) => array.items.get(index).ok_or("there is no element here"),
            Collection::Text(text) => {
                text.get(index).map(|byte| Value::U8(*byte)).ok_or("there is no element here")
            }
            Collection::Entries(_) => Err("a map has no elements: take `keys`, `values` or `toPairs` of it"),
        }
    }

    fn scope(self, index: usize, acc: Value<'a>) -> Scope<'a> {
        Scope { item: self.item(index), index, acc }
    }
}

type Values<'a> = bumpalo::collections::Vec<'a, Value<'a>>;

impl<'a> Vm<'a> {
    /// `all`, `none`, `any`, `one`.
    pub(crate) fn test_loop(&self, looped: &'a Loop, outer: &Scope<'a>) -> Result<bool, Fault> {
        let collection = Collection::of(self.eval(&looped.collection, outer)?)?;
        let mut hits = 0;
        for index in 0..collection.len() {
            let hit = self.hit(looped, collection, index)?;
            match looped.name {
                LoopName::All if !hit => return Ok(false),
                LoopName::None if hit => return Ok(false),
                LoopName::Any if hit => return Ok(true),
                _ => hits += usize::from(hit),
            }
        }
        Ok(match looped.name {
            LoopName::All | LoopName::None => true,
            LoopName::One => hits == 1,
            _ => false,
        })
    }

    fn hit(&self, looped: &'a Loop, collection: Collection<'a>, index: usize) -> Result<bool, Fault> {
        self.step(1)?;
        let scope = collection.scope(index, Value::Nil);
        match &looped.body {
            Body::Cond(cond) => self.test(cond, &scope),
            Body::Item => scope.item.map_err(fault)?.bool(),
            Body::Value(ex) => self.eval(ex, &scope)?.bool(),
        }
    }

    fn body(&self, looped: &'a Loop, scope: &Scope<'a>) -> Evaluated<'a> {
        self.step(1)?;
        match &looped.body {
            Body::Item => scope.item.map_err(fault),
            Body::Value(ex) => self.eval(ex, scope),
            Body::Cond(cond) => self.test(cond, scope).map(Value::Bool),
        }
    }

    /// The loops that yield something else than a bool.
    pub(crate) fn eval_loop(&self, looped: &'a Loop, outer: &Scope<'a>) -> Evaluated<'a> {
        let collection = Collection::of(self.eval(&looped.collection, outer)?)?;
        match looped.name {
            LoopName::All | LoopName::None | LoopName::Any | LoopName::One => {
                self.test_loop(looped, outer).map(Value::Bool)
            }
            LoopName::Filter => self.filter(looped, collection),
            LoopName::Map => self.map_loop(looped, collection),
            LoopName::Find | LoopName::FindLast | LoopName::FindIndex | LoopName::FindLastIndex => {
                self.find(looped, collection)
            }
            LoopName::Count => self.count(looped, collection),
            LoopName::Sum => self.sum(looped, collection),
            LoopName::GroupBy => self.group_by(looped, collection),
            LoopName::SortBy => self.sort_by(looped, collection, outer),
            LoopName::Reduce => self.reduce(looped, collection, outer),
        }
    }

    /// An empty list of values that may grow to `most`; its bytes are paid for as it grows.
    fn list(&self) -> Values<'a> {
        Values::new_in(self.bump)
    }

    pub(crate) fn push(&self, values: &mut Values<'a>, value: Value<'a>) -> Result<(), Fault> {
        self.take_bytes(size_of::<Value<'_>>())?;
        values.push(value);
        Ok(())
    }

    fn any_array(&self, values: Values<'a>) -> Result<Value<'a>, Fault> {
        self.grow(values.len())?;
        Ok(self.array(Slice::Any, Items::Values(values.into_bump_slice())))
    }

    fn mapped(&self, looped: &'a Loop, collection: Collection<'a>, index: usize) -> Evaluated<'a> {
        let scope = collection.scope(index, Value::Nil);
        match &looped.map {
            Some(map) => self.eval(map, &scope),
            None => scope.item.map_err(fault),
        }
    }

    fn filter(&self, looped: &'a Loop, collection: Collection<'a>) -> Evaluated<'a> {
        let mut values = self.list();
        for index in 0..collection.len() {
            if self.hit(looped, collection, index)? {
                let value = self.mapped(looped, collection, index)?;
                self.push(&mut values, value)?;
            }
        }
        self.any_array(values)
    }

    fn map_loop(&self, looped: &'a Loop, collection: Collection<'a>) -> Evaluated<'a> {
        let mut values = self.list();
        for index in 0..collection.len() {
            let value = self.body(looped, &collection.scope(index, Value::Nil))?;
            self.push(&mut values, value)?;
        }
        self.any_array(values)
    }

    fn find(&self, looped: &'a Loop, collection: Collection<'a>) -> Evaluated<'a> {
        let backwards = matches!(looped.name, LoopName::FindLast | LoopName::FindLastIndex);
        let length = collection.len();
        for at in 0..length {
            let index = if backwards { length - 1 - at } else { at };
            if self.hit(looped, collection, index)? {
                return match looped.name {
                    LoopName::Find | LoopName::FindLast => self.mapped(looped, collection, index),
                    _ => Ok(Value::Int(index as i64)),
                };
            }
        }
        if looped.throws {
            Err(fault("no element fits, so there is none at this index"))
        } else {
            Ok(Value::Nil)
        }
    }

    fn count(&self, looped: &'a Loop, collection: Collection<'a>) -> Evaluated<'a> {
        let mut hits = 0;
        for index in 0..collection.len() {
            if self.hit(looped, collection, index)? {
                hits += 1;
                if looped.threshold.is_some_and(|threshold| hits >= threshold) {
                    break;
                }
            }
        }
        Ok(Value::Int(hits))
    }

    fn sum(&self, looped: &'a Loop, collection: Collection<'a>) -> Evaluated<'a> {
        let mut acc = Value::Int(0);
        for index in 0..collection.len() {
            let value = self.body(looped, &collection.scope(index, acc))?;
            acc = self.arithmetic(super::ast::BinaryOp::Add, value, acc)?;
        }
        Ok(acc)
    }

    fn group_by(&self, looped: &'a Loop, collection: Collection<'a>) -> Evaluated<'a> {
        let mut groups: bumpalo::collections::Vec<'a, (Value<'a>, Values<'a>)> =
            bumpalo::collections::Vec::new_in(self.bump);
        for index in 0..collection.len() {
            let scope = collection.scope(index, Value::Nil);
            let key = self.body(looped, &scope)?;
            self.hashable(key)?;
            let item = scope.item.map_err(fault)?;
            self.step(groups.len() / 8)?;
            let mut known = None;
            for (at, (other, _)) in groups.iter().enumerate() {
                if self.same_key(*other, key)? {
                    known = Some(at);
                    break;
                }
            }
            let at = match known {
                Some(at) => at,
                None => {
                    self.take_bytes(2 * size_of::<Value<'_>>())?;
                    groups.push((key, self.list()));
                    groups.len() - 1
                }
            };
            if let Some((_, values)) = groups.get_mut(at) {
                self.push(values, item)?;
            }
        }
        let mut entries = bumpalo::collections::Vec::with_capacity_in(groups.len(), self.bump);
        for (key, values) in groups {
            entries.push((key, self.array(Slice::Any, Items::Values(values.into_bump_slice()))));
        }
        Ok(self.map(MapTy::Groups, entries.into_bump_slice()))
    }

    fn sort_by(&self, looped: &'a Loop, collection: Collection<'a>, outer: &Scope<'a>) -> Evaluated<'a> {
        let desc = match &looped.third {
            None => false,
            Some(ex) => self.descending(self.eval(ex, outer)?)?,
        };
        let mut keyed = bumpalo::collections::Vec::new_in(self.bump);
        for index in 0..collection.len() {
            let scope = collection.scope(index, Value::Nil);
            let key = self.body(looped, &scope)?;
            self.take_bytes(2 * size_of::<Value<'_>>())?;
            keyed.push((key, scope.item.map_err(fault)?));
        }
        let sorted = self.sorted(&keyed, desc)?;
        self.grow(sorted.len())?;
        self.take_bytes(size_of_val(sorted) / 2)?;
        let values = self.bump.alloc_slice_fill_iter(sorted.iter().map(|(_, item)| *item));
        Ok(self.array(Slice::Any, Items::Values(values)))
    }

    fn reduce(&self, looped: &'a Loop, collection: Collection<'a>, outer: &Scope<'a>) -> Evaluated<'a> {
        let (mut acc, from) = match &looped.third {
            Some(ex) => (self.eval(ex, outer)?, 0),
            None if collection.len() == 0 => {
                return Err(fault("`reduce` of an empty array needs a start value"));
            }
            None => (collection.item(0).map_err(fault)?, 1),
        };
        for index in from..collection.len() {
            acc = self.body(looped, &collection.scope(index, acc))?;
        }
        Ok(acc)
    }

    /// "asc" or "desc".
    pub(crate) fn descending(&self, order: Value<'a>) -> Result<bool, Fault> {
        match order.str()? {
            b"asc" => Ok(false),
            b"desc" => Ok(true),
            other => Err(fault(format!(
                "unknown order {:?}: write \"asc\" or \"desc\"",
                String::from_utf8_lossy(other)
            ))),
        }
    }

    /// Sorted by the first of each pair; equal ones keep their order. Short lists are sorted as Go sorts them, by insertion.
    pub(crate) fn sorted(
        &self,
        items: &[(Value<'a>, Value<'a>)],
        desc: bool,
    ) -> Result<&'a mut [(Value<'a>, Value<'a>)], Fault> {
        self.take_bytes(2 * size_of_val(items))?;
        let sorted = self.bump.alloc_slice_copy(items);
        let spare = self.bump.alloc_slice_copy(items);
        self.merge_sort(sorted, spare, desc)?;
        Ok(sorted)
    }

    fn before(&self, a: Value<'a>, b: Value<'a>, desc: bool) -> Result<bool, Fault> {
        self.step(1)?;
        if desc { self.less(b, a) } else { self.less(a, b) }
    }

    fn merge_sort(
        &self,
        items: &mut [(Value<'a>, Value<'a>)],
        spare: &mut [(Value<'a>, Value<'a>)],
        desc: bool,
    ) -> Result<(), Fault> {
        if items.len() <= 12 {
            for i in 1..items.len() {
                let mut j = i;
                while j > 0 && self.before(items[j].0, items[j - 1].0, desc)? {
                    items.swap(j, j - 1);
                    j -= 1;
                }
            }
            return Ok(());
        }
        let middle = items.len() / 2;
        self.merge_sort(&mut items[..middle], &mut spare[..middle], desc)?;
        self.merge_sort(&mut items[middle..], &mut spare[middle..], desc)?;
        spare.copy_from_slice(items);
        let (mut left, mut right) = (0, middle);
        for item in items.iter_mut() {
            let take_right =
                left >= middle || right < spare.len() && self.before(spare[right].0, spare[left].0, desc)?;
            let from = if take_right { &mut right } else { &mut left };
            *item = spare[*from];
            *from += 1;
        }
        Ok(())
    }

    /// Keys of a group: the same value of the same type.
    fn same_key(&self, a: Value<'a>, b: Value<'a>) -> Result<bool, Fault> {
        match (a, b) {
            (Value::Str(a), Value::Str(b)) => Ok(a == b),
            (Value::Int(a), Value::Int(b)) => Ok(a == b),
            (a, b) => self.same(a, b),
        }
    }
}
