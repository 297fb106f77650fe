//! Divides what every target lacks among the sources.
//!
//! Guarantee: all sources compute their parts from the same numbers. The parts of one target never exceed its
//! lack, those of one source never exceed its excess, and all excess that fits is in some part. Each source
//! has a part of nearly every target, in proportion, so a source whose servers may not run everywhere still
//! finds slots.
//!
//! Method: the free slots of all targets form one line, on which those of each target are spread evenly. Each
//! source takes a section of the line as long as its part of the whole excess.

use super::whole;

/// The number of positions on the line; more than any target can lack.
const LINE: u128 = 1 << 48;

/// Returns how many servers the source at index `own` moves, and the most that may go to each target. `kept`
/// is what other sources had to round down.
pub fn split(excesses: &[f64], lacks: &[f64], kept: f64, own: usize) -> (u64, Vec<u64>) {
    let lacks = rounded(lacks, 0.0, excesses.iter().map(|excess| whole(*excess)).sum());
    let room: u64 = lacks.iter().sum();
    let moves = rounded(excesses, kept, room);
    let all: u64 = moves.iter().sum();
    if all == 0 {
        return (0, vec![0; lacks.len()]);
    }
    let before: u64 = moves[..own].iter().sum();
    let end = |moves: u64| narrow(u128::from(room) * u128::from(moves) / u128::from(all));
    let (first, last) = (prefix(&lacks, end(before)), prefix(&lacks, end(before + moves[own])));
    let row: Vec<u64> = last.iter().zip(&first).map(|(last, first)| last - first).collect();
    (moves[own].min(row.iter().sum()), row)
}

/// Rounds parts to whole numbers: first all down, then the parts with the largest fractions up, as long as
/// the other side has more. The sum never exceeds that of the parts and `more`.
fn rounded(parts: &[f64], more: f64, others: u64) -> Vec<u64> {
    let mut moves: Vec<u64> = parts.iter().map(|part| whole(*part)).collect();
    let down: u64 = moves.iter().sum();
    let spare = whole(parts.iter().sum::<f64>() + more).saturating_sub(down).min(others.saturating_sub(down));
    let part = |index: usize| parts[index].fract();
    let mut order: Vec<usize> =
        (0..parts.len()).filter(|index| part(*index) > 1e-6 && part(*index) < 1.0 - 1e-6).collect();
    order.sort_by(|a, b| part(*b).total_cmp(&part(*a)));
    for index in order.into_iter().take(usize::try_from(spare).unwrap_or(usize::MAX)) {
        moves[index] += 1;
    }
    moves
}

/// How many of the first `rank` slots on the line belong to each target.
fn prefix(lacks: &[u64], rank: u64) -> Vec<u64> {
    // The k-th of n slots is at (k + 1/2) / n of the line.
    let below = |position: u128, lack: u64| narrow((u128::from(lack) * position * 2 + LINE) / (LINE * 2)).min(lack);
    let count = |position: u128| lacks.iter().map(|lack| below(position, *lack)).sum::<u64>();
    let (mut low, mut high) = (0, LINE);
    while low + 1 < high {
        let middle = u128::midpoint(low, high);
        if count(middle) <= rank { low = middle } else { high = middle }
    }
    let mut taken: Vec<u64> = lacks.iter().map(|lack| below(low, *lack)).collect();
    let mut rest = rank.saturating_sub(taken.iter().sum());
    // Slots at the same position are ordered by target.
    for (taken, lack) in taken.iter_mut().zip(lacks) {
        let more = (below(high, *lack) - *taken).min(rest);
        *taken += more;
        rest -= more;
    }
    taken
}

fn narrow(number: u128) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rows(excesses: &[f64], lacks: &[f64]) -> Vec<(u64, Vec<u64>)> {
        (0..excesses.len()).map(|own| split(excesses, lacks, 0.0, own)).collect()
    }

    #[test]
    fn many_sources_with_small_excesses_fill_many_targets() {
        let moves: u64 = rows(&[3.0; 64], &[3.0; 64]).iter().map(|(moves, _)| moves).sum();
        assert_eq!(moves, 192);
    }

    #[test]
    fn every_source_has_a_part_of_every_target() {
        for (moves, row) in rows(&[34.0, 33.0, 33.0], &[50.0, 30.0, 20.0]) {
            assert!(moves >= 33 && row.iter().all(|quota| *quota >= 6), "{moves} {row:?}");
        }
    }

    proptest! {
        #[test]
        fn parts_add_up_to_the_excess_that_fits_and_to_no_more_than_any_target_lacks(
            excesses in prop::collection::vec(0.0..300.0_f64, 1..40),
            lacks in prop::collection::vec(0.0..300.0_f64, 1..40),
        ) {
            let rows = rows(&excesses, &lacks);
            for (target, lack) in lacks.iter().enumerate() {
                let given: u64 = rows.iter().map(|(_, row)| row[target]).sum();
                prop_assert!(given as f64 <= lack.ceil(), "target {target} lacks {lack} and gets {given}");
            }
            for ((moves, row), excess) in rows.iter().zip(&excesses) {
                prop_assert!(*moves <= row.iter().sum() && *moves as f64 <= excess.ceil());
            }
            let moves: u64 = rows.iter().map(|(moves, _)| moves).sum();
            let fits = excesses.iter().sum::<f64>().min(lacks.iter().sum::<f64>());
            prop_assert!(moves as f64 <= fits + 1e-3, "{moves} of {fits}");
            // Rounding costs one server for each node of the side that has less.
            let nodes = excesses.len().max(lacks.len());
            prop_assert!(moves as f64 + nodes as f64 >= fits, "{moves} of {fits}");
        }

        #[test]
        fn a_prefix_grows_by_one_place_at_a_time(lacks in prop::collection::vec(0..40_u64, 1..20)) {
            let all: u64 = lacks.iter().sum();
            let mut last = prefix(&lacks, 0);
            prop_assert_eq!(last.iter().sum::<u64>(), 0);
            for rank in 1..=all {
                let next = prefix(&lacks, rank);
                prop_assert_eq!(next.iter().sum::<u64>(), rank);
                prop_assert!(next.iter().zip(&last).all(|(next, last)| next >= last));
                last = next;
            }
        }
    }
}
