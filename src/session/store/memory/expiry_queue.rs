//! The expiry queue: a binary heap that tells each record its position, so that any record can be removed.

use super::record::Timestamp;

/// When a record expires, and its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) at: Timestamp,
    pub(super) slot: u32,
}

/// A min-heap by time. Methods that move entries call `moved` with slot and new position of each.
#[derive(Default)]
pub(super) struct ExpiryQueue(Vec<Entry>);

impl ExpiryQueue {
    pub(super) fn first(&self) -> Option<Entry> {
        self.0.first().copied()
    }

    /// When the record at this position expires.
    pub(super) fn expires(&self, position: u32) -> Timestamp {
        self.0[position as usize].at
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn push(&mut self, entry: Entry, moved: impl FnMut(u32, u32)) {
        self.0.push(entry);
        self.sift(self.0.len() - 1, moved);
    }

    pub(super) fn remove(&mut self, position: u32, moved: impl FnMut(u32, u32)) {
        let position = position as usize;
        self.0.swap_remove(position);
        if position < self.0.len() {
            self.sift(position, moved);
        }
    }

    pub(super) fn change(&mut self, position: u32, at: Timestamp, moved: impl FnMut(u32, u32)) {
        self.0[position as usize].at = at;
        self.sift(position as usize, moved);
    }

    /// Notes that the record at this position is in another slot now.
    pub(super) fn set_slot(&mut self, position: u32, slot: u32) {
        self.0[position as usize].slot = slot;
    }

    /// Restores the heap order for the entry at this position.
    fn sift(&mut self, mut position: usize, mut moved: impl FnMut(u32, u32)) {
        let entry = self.0[position];
        let heap = &mut self.0;
        let mut put = |heap: &mut Vec<Entry>, position: usize, entry: Entry| {
            heap[position] = entry;
            moved(entry.slot, position as u32);
        };
        while let Some(parent) = position.checked_sub(1).map(|before| before / 2)
            && entry.at < heap[parent].at
        {
            let parent_entry = heap[parent];
            put(heap, position, parent_entry);
            position = parent;
        }
        loop {
            let left = 2 * position + 1;
            let child = match (heap.get(left), heap.get(left + 1)) {
                (Some(one), Some(other)) if other.at < one.at => left + 1,
                _ => left,
            };
            match heap.get(child).copied() {
                Some(child_entry) if child_entry.at < entry.at => put(heap, position, child_entry),
                _ => break,
            }
            position = child;
        }
        put(heap, position, entry);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn the_first_is_always_who_is_due_first_and_all_know_their_positions() {
        let (mut queue, mut positions, mut due) =
            (ExpiryQueue::default(), HashMap::new(), HashMap::new());
        let mut number = 1_u32;
        for step in 0..20_000 {
            number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (slot, at) = (number >> 26, Timestamp(u64::from(number >> 8) % 1_000));
            let stays = number & 128 == 0;
            let position = positions.get(&slot).copied().unwrap_or_default();
            let moved = |slot, position| {
                positions.insert(slot, position);
            };
            match due.contains_key(&slot) {
                false => queue.push(Entry { at, slot }, moved),
                true if stays => queue.change(position, at, moved),
                true => queue.remove(position, moved),
            }
            match due.contains_key(&slot) && !stays {
                true => drop(due.remove(&slot)),
                false => drop(due.insert(slot, at)),
            }
            assert_eq!(queue.len(), due.len(), "step {step}");
            assert_eq!(queue.first().map(|first| first.at), due.values().min().copied());
            for (slot, at) in &due {
                assert_eq!(queue.0[positions[slot] as usize], Entry { at: *at, slot: *slot });
            }
        }
    }
}
