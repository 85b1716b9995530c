//! When records are due: a binary heap that tells each record its place, so that one can leave from the middle.

use super::record::Timestamp;

/// When a record is due, and where it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) at: Timestamp,
    pub(super) slot: u32,
}

/// The first one is due first. Whoever changes it hears where each record that moved stands now: slot and place.
#[derive(Default)]
pub(super) struct Queue(Vec<Due>);

impl Queue {
    pub(super) fn first(&self) -> Option<Due> {
        self.0.first().copied()
    }

    /// When the record at this place is due.
    pub(super) fn due_at(&self, place: u32) -> Timestamp {
        self.0[place as usize].at
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn push(&mut self, due: Due, moved: impl FnMut(u32, u32)) {
        self.0.push(due);
        self.settle(self.0.len() - 1, moved);
    }

    pub(super) fn remove(&mut self, place: u32, moved: impl FnMut(u32, u32)) {
        let place = place as usize;
        self.0.swap_remove(place);
        if place < self.0.len() {
            self.settle(place, moved);
        }
    }

    pub(super) fn change(&mut self, place: u32, at: Timestamp, moved: impl FnMut(u32, u32)) {
        self.0[place as usize].at = at;
        self.settle(place as usize, moved);
    }

    /// The record at this place is kept in another slot now.
    pub(super) fn rename(&mut self, place: u32, slot: u32) {
        self.0[place as usize].slot = slot;
    }

    /// Moves what may stand at the wrong place to where it belongs.
    fn settle(&mut self, mut place: usize, mut moved: impl FnMut(u32, u32)) {
        let due = self.0[place];
        let heap = &mut self.0;
        let mut put = |heap: &mut Vec<Due>, place: usize, due: Due| {
            heap[place] = due;
            moved(due.slot, place as u32);
        };
        while let Some(parent) = place.checked_sub(1).map(|before| before / 2)
            && due.at < heap[parent].at
        {
            let parent_due = heap[parent];
            put(heap, place, parent_due);
            place = parent;
        }
        loop {
            let left = 2 * place + 1;
            let child = match (heap.get(left), heap.get(left + 1)) {
                (Some(one), Some(other)) if other.at < one.at => left + 1,
                _ => left,
            };
            match heap.get(child).copied() {
                Some(child_due) if child_due.at < due.at => put(heap, place, child_due),
                _ => break,
            }
            place = child;
        }
        put(heap, place, due);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn the_first_is_always_who_is_due_first_and_all_know_their_places() {
        let (mut queue, mut places, mut due) = (Queue::default(), HashMap::new(), HashMap::new());
        let mut number = 1_u32;
        for step in 0..20_000 {
            number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (slot, at) = (number >> 26, Timestamp(u64::from(number >> 8) % 1_000));
            let stays = number & 128 == 0;
            let place = places.get(&slot).copied().unwrap_or_default();
            let moved = |slot, place| {
                places.insert(slot, place);
            };
            match due.contains_key(&slot) {
                false => queue.push(Due { at, slot }, moved),
                true if stays => queue.change(place, at, moved),
                true => queue.remove(place, moved),
            }
            match due.contains_key(&slot) && !stays {
                true => drop(due.remove(&slot)),
                false => drop(due.insert(slot, at)),
            }
            assert_eq!(queue.len(), due.len(), "step {step}");
            assert_eq!(queue.first().map(|first| first.at), due.values().min().copied());
            for (slot, at) in &due {
                assert_eq!(queue.0[places[slot] as usize], Due { at: *at, slot: *slot });
            }
        }
    }
}
