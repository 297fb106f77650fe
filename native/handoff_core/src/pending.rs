//! The servers that still run at the source and have not been tried yet.
//!
//! Guarantee: servers come by priority (higher first), then in the given order, among the classes that have a
//! target. A class without one is skipped as a whole, so a million servers without a target cost nothing.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use crate::ids::ServerId;

/// The next server of a class in the sort order: highest priority, then lowest id.
type Head = (i32, Reverse<u32>, usize);

/// All pending servers, by class.
#[derive(Debug)]
pub struct Pending {
    /// The ids of each class in order, and how many of them were taken.
    classes: Vec<(Vec<u32>, usize)>,
    priorities: Vec<i32>,
    heads: BinaryHeap<Head>,
    skipped: Vec<Head>,
    /// Removed servers that are still in the queue of their class.
    removed: BTreeSet<u32>,
    len: usize,
}

impl Pending {
    /// Sorts servers into `classes` queues. `servers` has class and priority of each, in the order of their
    /// ids.
    pub fn new(classes: usize, servers: &[(usize, i32)]) -> Self {
        let mut queues: Vec<(Vec<u32>, usize)> = vec![(Vec::new(), 0); classes];
        for (id, (class, _)) in (0_u32..).zip(servers) {
            queues[*class].0.push(id);
        }
        let priorities: Vec<i32> = servers.iter().map(|(_, priority)| *priority).collect();
        for (queue, _) in &mut queues {
            queue.sort_by_key(|id| Reverse(priorities[*id as usize]));
        }
        let mut pending = Pending {
            classes: queues,
            priorities,
            heads: BinaryHeap::new(),
            skipped: Vec::new(),
            removed: BTreeSet::new(),
            len: servers.len(),
        };
        (0..classes).for_each(|class| pending.push_head(class));
        pending
    }

    /// The class of the next server. Classes skipped since the last [`Pending::reconsider`] are left out.
    pub fn next_class(&self) -> Option<usize> {
        self.heads.peek().map(|(_, _, class)| *class)
    }

    /// Takes the next server of [`Pending::next_class`].
    pub fn take(&mut self) -> Option<ServerId> {
        let (_, Reverse(id), class) = self.heads.pop()?;
        self.classes[class].1 += 1;
        self.len -= 1;
        self.push_head(class);
        Some(ServerId(id))
    }

    /// Removes a waiting server of that class, even when it is not the next one.
    pub fn remove(&mut self, class: usize, id: ServerId) {
        self.len -= 1;
        let (ids, taken) = &self.classes[class];
        if ids.get(*taken) != Some(&id.0) {
            self.removed.insert(id.0);
            return;
        }
        self.heads.retain(|(_, _, other)| *other != class);
        self.skipped.retain(|(_, _, other)| *other != class);
        self.classes[class].1 += 1;
        self.push_head(class);
    }

    /// Skips the next class until [`Pending::reconsider`], because it has no target now.
    pub fn skip(&mut self) {
        self.skipped.extend(self.heads.pop());
    }

    /// Includes all classes again.
    pub fn reconsider(&mut self) {
        self.heads.extend(self.skipped.drain(..));
    }

    /// The number of waiting servers.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when no server waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The classes in which servers wait, each with those servers.
    pub fn waiting(&self) -> impl Iterator<Item = (usize, Vec<u32>)> {
        let waits = |id: &&u32| !self.removed.contains(id);
        let rest = move |(ids, taken): &(Vec<u32>, usize)| ids[*taken..].iter().filter(waits).copied().collect();
        self.classes.iter().map(rest).enumerate()
    }

    fn push_head(&mut self, class: usize) {
        let (ids, taken) = &mut self.classes[class];
        while ids.get(*taken).is_some_and(|id| self.removed.remove(id)) {
            *taken += 1;
        }
        if let Some(id) = ids.get(*taken) {
            self.heads.push((self.priorities[*id as usize], Reverse(*id), class));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_come_by_priority_then_in_the_given_order_across_classes() {
        let mut pending = Pending::new(2, &[(0, 0), (1, 0), (0, 5), (1, 5), (0, -1)]);
        let order: Vec<u32> = std::iter::from_fn(|| pending.take()).map(|id| id.0).collect();
        assert_eq!(order, [2, 3, 0, 1, 4]);
        assert_eq!(pending.len(), 0);
    }

    #[test]
    fn a_skipped_class_does_not_block_the_others_and_returns() {
        let mut pending = Pending::new(2, &[(0, 9), (1, 0), (1, 0)]);
        pending.skip();
        assert_eq!(pending.take(), Some(ServerId(1)));
        pending.reconsider();
        assert_eq!(pending.take(), Some(ServerId(0)));
        assert_eq!(pending.waiting().map(|(_, ids)| ids.len()).collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn removed_servers_are_skipped_at_any_position() {
        let mut pending = Pending::new(2, &[(0, 0), (0, 0), (0, 0), (1, 0), (0, 0)]);
        pending.remove(0, ServerId(1));
        pending.remove(0, ServerId(0));
        pending.remove(1, ServerId(3));
        assert_eq!(pending.waiting().collect::<Vec<_>>(), [(0, vec![2, 4]), (1, vec![])]);
        assert_eq!(pending.len(), 2);
        assert_eq!((pending.take(), pending.take(), pending.take()), (Some(ServerId(2)), Some(ServerId(4)), None));
    }

    #[test]
    fn a_skipped_class_whose_first_server_was_removed_returns_without_it() {
        let mut pending = Pending::new(1, &[(0, 0), (0, 0)]);
        pending.skip();
        pending.remove(0, ServerId(0));
        pending.reconsider();
        assert_eq!((pending.take(), pending.take()), (Some(ServerId(1)), None));
    }
}
