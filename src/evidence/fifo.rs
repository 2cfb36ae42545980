//! The last so many of something, found by hash: a ring in the order of their coming, and an open-addressing index over it. Memory is fixed
//! when it is made, and no operation takes longer because much has come and gone: removing leaves no mark in the index.

/// What is kept. The hash must be even over all of its bits and not to be foreseen by whoever sends.
pub(super) trait Hashed: Copy {
    /// Equal for equal ones, and the same as long as it is kept.
    fn hash(&self) -> u64;
}

/// At most `capacity` of them, oldest first. Beside each, the index takes 8 to 16 bytes.
#[derive(Debug)]
pub(super) struct Fifo<T> {
    /// Positions are used one after the other and then again, so it grows to `capacity` and no further.
    ring: Vec<T>,
    capacity: usize,
    oldest: usize,
    len: usize,
    /// A position in `ring` and one; 0 is free. At most half of it is used.
    index: Box<[u32]>,
}

impl<T: Hashed> Fifo<T> {
    /// Room for so many, from 1 to some two thousand million. The ring's memory is asked for at once and used as it fills.
    pub(super) fn new(capacity: usize) -> Fifo<T> {
        let capacity = capacity.clamp(1, u32::MAX as usize / 2);
        let index = vec![0; (capacity * 2).next_power_of_two()].into_boxed_slice();
        Fifo { ring: Vec::with_capacity(capacity), capacity, oldest: 0, len: 0, index }
    }

    pub(super) fn is_full(&self) -> bool {
        self.len == self.capacity
    }

    /// The one that came first.
    pub(super) fn oldest(&self) -> Option<&T> {
        if self.len == 0 { None } else { self.ring.get(self.oldest) }
    }

    /// One with this hash for which `is` says true.
    pub(super) fn find(&mut self, hash: u64, is: impl Fn(&T) -> bool) -> Option<&mut T> {
        let mut slot = self.home(hash);
        while let Some(position) = self.position(slot) {
            if is(&self.ring[position]) {
                return self.ring.get_mut(position);
            }
            slot = self.next(slot);
        }
        None
    }

    /// Adds one; when it is full, the oldest goes, and is returned.
    pub(super) fn push(&mut self, item: T) -> Option<T> {
        let gone = if self.is_full() { self.pop() } else { None };
        let position = (self.oldest + self.len) % self.capacity;
        match self.ring.get_mut(position) {
            Some(place) => *place = item,
            None => self.ring.push(item),
        }
        self.len += 1;
        let mut slot = self.home(item.hash());
        while self.index[slot] != 0 {
            slot = self.next(slot);
        }
        self.index[slot] = u32::try_from(position + 1).unwrap_or(u32::MAX);
        gone
    }

    /// Takes out the oldest.
    pub(super) fn pop(&mut self) -> Option<T> {
        let item = *self.oldest()?;
        self.unlink(self.oldest);
        self.oldest = (self.oldest + 1) % self.capacity;
        self.len -= 1;
        Some(item)
    }

    /// Those from number `from` on, counted from the oldest one, at most `max`.
    pub(super) fn some(&self, from: usize, max: usize) -> Vec<T> {
        let numbers = from..self.len.min(from.saturating_add(max));
        numbers.map(|number| self.ring[(self.oldest + number) % self.capacity]).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Where a hash is looked for first.
    #[allow(clippy::cast_possible_truncation, reason = "the low bits are wanted")]
    fn home(&self, hash: u64) -> usize {
        hash as usize & (self.index.len() - 1)
    }

    fn next(&self, slot: usize) -> usize {
        (slot + 1) & (self.index.len() - 1)
    }

    fn position(&self, slot: usize) -> Option<usize> {
        (self.index[slot] as usize).checked_sub(1)
    }

    /// Takes a position out of the index, and moves back whatever stands further than it has to because of it.
    fn unlink(&mut self, position: usize) {
        let mut hole = self.home(self.ring[position].hash());
        while self.position(hole) != Some(position) {
            hole = self.next(hole);
        }
        let mut slot = self.next(hole);
        while let Some(other) = self.position(slot) {
            let home = self.home(self.ring[other].hash());
            let (way, gap) = (slot.wrapping_sub(home), slot.wrapping_sub(hole));
            let mask = self.index.len() - 1;
            if way & mask >= gap & mask {
                self.index[hole] = self.index[slot];
                hole = slot;
            }
            slot = self.next(slot);
        }
        self.index[hole] = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    /// A hash that tests choose, and a name.
    #[derive(Debug, Clone, Copy, PartialEq)]
    struct Item(u64, u32);

    impl Hashed for Item {
        fn hash(&self) -> u64 {
            self.0
        }
    }

    proptest! {
        /// Against a queue that is searched from end to end; few hashes, so that many collide and wrap around.
        #[test]
        fn it_keeps_what_a_plain_queue_keeps(
            capacity in 1usize..20,
            steps in prop::collection::vec((0u64..40, 0u32..6, 0u8..8), 0..400),
        ) {
            let (mut fifo, mut plain) = (Fifo::new(capacity), VecDeque::new());
            for (hash, name, what) in steps {
                // The highest hashes lie at the end of the index and go on at its begin.
                let item = Item(if hash > 30 { u64::MAX - hash } else { hash }, name);
                if what == 0 {
                    prop_assert_eq!(fifo.pop(), plain.pop_front());
                } else {
                    let gone = if plain.len() == capacity { plain.pop_front() } else { None };
                    prop_assert_eq!(fifo.push(item), gone);
                    plain.push_back(item);
                }
                prop_assert_eq!(fifo.oldest(), plain.front());
                prop_assert_eq!((fifo.len(), fifo.is_full()), (plain.len(), plain.len() == capacity));
                prop_assert_eq!(fifo.some(1, 5), plain.iter().skip(1).take(5).copied().collect::<Vec<_>>());
                for hash in (0..31).chain((31..40).map(|hash| u64::MAX - hash)) {
                    for name in 0..6 {
                        let is = |item: &Item| *item == Item(hash, name);
                        prop_assert_eq!(fifo.find(hash, is).is_some(), plain.iter().any(is));
                    }
                }
            }
        }
    }

    #[test]
    fn its_memory_stays_as_it_was_made() {
        let mut fifo = Fifo::new(1000);
        let (ring, index) = (fifo.ring.capacity(), fifo.index.len());
        assert_eq!((ring, index), (1000, 2048));
        for n in 0..100_000_u64 {
            fifo.push(Item(n.wrapping_mul(0x9e37_79b9_7f4a_7c15), 0));
            if n % 7 == 0 {
                fifo.pop();
            }
        }
        assert_eq!((fifo.ring.capacity(), fifo.index.len()), (ring, index));
        assert_eq!(fifo.index.iter().filter(|slot| **slot != 0).count(), fifo.len());
    }
}
