//! A flat hash table from 64-bit keys that are hashes already; linear probing, one cache line per look-up as a rule.

/// A key that is not stored: `0` marks a free slot, and a real zero is stored as one.
const FREE: u64 = 0;
/// Three of four slots are used at most.
const LOAD: (usize, usize) = (3, 4);
/// Real hashes never lie this far from their place; keys of a hostile file may, and would make the table slow.
const MAX_PROBES: usize = 1000;

/// The keys of a table are not spread as hashes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotSpread;

#[derive(Debug, Clone, Copy)]
struct Slot<V> {
    key: u64,
    value: V,
}

/// Keys with values, all in one piece of memory.
#[derive(Debug, Clone)]
pub(super) struct Table<V> {
    slots: Vec<Slot<V>>,
    num_used: usize,
}

impl<V: Copy + Default> Table<V> {
    /// Room for `num_keys` keys before the table grows.
    pub(super) fn with_capacity(num_keys: usize) -> Self {
        let num_slots = num_keys + num_keys / 2 + 4;
        Self { slots: vec![Slot { key: FREE, value: V::default() }; num_slots], num_used: 0 }
    }

    /// How many keys are stored.
    pub(super) fn len(&self) -> usize {
        self.num_used
    }

    /// The value of a key.
    pub(super) fn get(&self, key: u64) -> Option<V> {
        let key = key.max(1);
        let mut at = self.place(key);
        for _ in 0..MAX_PROBES {
            let slot = &self.slots[at];
            if slot.key == key {
                return Some(slot.value);
            }
            if slot.key == FREE {
                return None;
            }
            at = self.after(at);
        }
        None
    }

    /// The value of a key, to be changed.
    pub(super) fn get_mut(&mut self, key: u64) -> Option<&mut V> {
        let key = key.max(1);
        let mut at = self.place(key);
        for _ in 0..MAX_PROBES {
            match self.slots[at].key {
                found if found == key => return Some(&mut self.slots[at].value),
                FREE => return None,
                _ => at = self.after(at),
            }
        }
        None
    }

    /// Stores a new key; `false` if it is there already, and then nothing changes.
    pub(super) fn insert(&mut self, key: u64, value: V) -> Result<bool, NotSpread> {
        if (self.num_used + 1) * LOAD.1 > self.slots.len() * LOAD.0 {
            self.grow()?;
        }
        self.put(key.max(1), value)
    }

    fn put(&mut self, key: u64, value: V) -> Result<bool, NotSpread> {
        let mut at = self.place(key);
        for _ in 0..MAX_PROBES {
            match self.slots[at].key {
                found if found == key => return Ok(false),
                FREE => {
                    self.slots[at] = Slot { key, value };
                    self.num_used += 1;
                    return Ok(true);
                }
                _ => at = self.after(at),
            }
        }
        Err(NotSpread)
    }

    fn grow(&mut self) -> Result<(), NotSpread> {
        let mut larger = Self::with_capacity(self.num_used + self.num_used / 2);
        for slot in self.slots.iter().filter(|slot| slot.key != FREE) {
            larger.put(slot.key, slot.value)?;
        }
        *self = larger;
        Ok(())
    }

    fn place(&self, key: u64) -> usize {
        ((u128::from(key) * self.slots.len() as u128) >> 64) as usize
    }

    fn after(&self, at: usize) -> usize {
        if at + 1 == self.slots.len() { 0 } else { at + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(number: u64) -> u64 {
        number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    #[test]
    fn what_was_stored_is_found_and_nothing_else() {
        let mut table = Table::with_capacity(1);
        for number in 1..2001_u64 {
            assert_eq!(table.insert(spread(number), number), Ok(true));
        }
        assert_eq!(table.insert(spread(7), 1), Ok(false), "the first value stays");
        assert_eq!(table.len(), 2000);
        for number in 1..2001_u64 {
            assert_eq!(table.get(spread(number)), Some(number));
            assert_eq!(table.get(spread(number) ^ 1), None);
        }
        *table.get_mut(spread(7)).expect("stored") = 70;
        assert_eq!(table.get(spread(7)), Some(70));
    }

    #[test]
    fn keys_that_all_want_one_place_are_refused_before_it_gets_slow() {
        let mut table = Table::with_capacity(4000);
        let refused = (1..4000_u64).find(|key| table.insert(*key, 0_u32).is_err());
        assert_eq!(refused, Some(MAX_PROBES as u64 + 1));
    }
}
