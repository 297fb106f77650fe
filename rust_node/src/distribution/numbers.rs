//! Pids, references, and the numbers behind them.

use std::sync::atomic::{AtomicU64, Ordering};

use etf::{Atom, Pid, Reference};

use super::handshake::Local;

#[derive(Debug)]
pub(super) struct Numbers {
    node: Atom,
    creation: u32,
    next: AtomicU64,
}

impl Numbers {
    pub(super) fn new(local: &Local) -> Self {
        // Starts at 1, because a pid of 0 looks like a system process.
        Numbers { node: Atom::from(local.name.to_string()), creation: local.creation, next: AtomicU64::new(1) }
    }

    /// A number that was not drawn before.
    pub(super) fn draw(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn new_pid(&self) -> Pid {
        let [id, serial] = halves(self.draw());
        Pid { node: self.node.clone(), id, serial, creation: self.creation }
    }

    /// A pid for the reply to one call. Its serial is 0, and its id repeats after four billion calls.
    pub(super) fn new_call_pid(&self) -> Pid {
        Pid { serial: 0, ..self.new_pid() }
    }

    pub(super) fn reference(&self, number: u64) -> Reference {
        let [low, high] = halves(number);
        // Some nodes use only the lowest 18 bits of the first word.
        Reference { node: self.node.clone(), id: vec![low & 0x3_ffff, low, high], creation: self.creation }
    }
}

/// The number in a reference that this node made.
pub(super) fn number_of(reference: &Reference) -> Option<u64> {
    match reference.id[..] {
        [_, low, high] => Some(u64::from(high) << 32 | u64::from(low)),
        _ => None,
    }
}

fn halves(number: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = number.to_be_bytes();
    [u32::from_be_bytes([e, f, g, h]), u32::from_be_bytes([a, b, c, d])]
}
