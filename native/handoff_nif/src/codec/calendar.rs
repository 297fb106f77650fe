//! `DateTime` in UTC: the only struct that is encoded here, because many states contain it.
//!
//! Guarantee: encodes only a complete `DateTime` of the ISO calendar in UTC whose fields are in range. Elixir
//! encodes all other structs.

use std::ops::RangeInclusive;

use super::heap::{Handle, Heap};

mod atoms {
    rustler::atoms! {
        date_time = "Elixir.DateTime",
        iso = "Elixir.Calendar.ISO",
        calendar, time_zone, utc_offset, std_offset, year, month, day, hour, minute, second, microsecond,
    }
}

/// The JSON string of the struct `map` of `module`, if it is such a `DateTime`.
pub fn date_time<'a>(heap: Heap<'a>, map: Handle<'a>, module: Handle<'a>) -> Option<Vec<u8>> {
    if module != atoms::date_time().into() {
        return None;
    }
    let field = |key: rustler::Atom| heap.value(map, key.into());
    let number = |key, range: RangeInclusive<i64>| within(heap, field(key)?, &range);

    let utc = heap.bytes(field(atoms::time_zone())?)? == b"Etc/UTC";
    if !utc || field(atoms::calendar())? != atoms::iso().into() {
        return None;
    }
    number(atoms::utc_offset(), 0..=0)?;
    number(atoms::std_offset(), 0..=0)?;
    let year = number(atoms::year(), 0..=9999)?;
    let month = number(atoms::month(), 1..=12)?;
    let day = number(atoms::day(), 1..=31)?;
    let hour = number(atoms::hour(), 0..=23)?;
    let minute = number(atoms::minute(), 0..=59)?;
    let second = number(atoms::second(), 0..=59)?;
    let &[fraction, precision] = heap.elements(field(atoms::microsecond())?)? else {
        return None;
    };
    let fraction = within(heap, fraction, &(0..=999_999))?;
    let precision = usize::try_from(within(heap, precision, &(0..=6))?).ok()?;

    let fraction = format!(".{fraction:06}");
    let fraction = if precision == 0 { "" } else { &fraction[..=precision] };
    Some(format!("\"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z\"").into_bytes())
}

fn within<'a>(heap: Heap<'a>, term: Handle<'a>, range: &RangeInclusive<i64>) -> Option<i64> {
    heap.integer(term).filter(|value| range.contains(value))
}
