//! States to JSON and back, as NIFs. `DurableHandoff.Codec` is their only caller and documents what they are for.
//!
//! Guarantees
//! - No call runs longer than about a millisecond on a normal scheduler: input and output are bounded there, more is a dirty
//!   call. Every call counts against the time slice of its process.
//! - No recursion deeper than 128 levels, no memory beyond a multiple of input and output, no term asked what it may not be asked.
//!
//! | file | what |
//! |---|---|
//! | `heap.rs` | reading and making terms: all the unsafe code |
//! | `heap/calls.rs` | how the VM calls what is here |
//! | `heap/pages.rs` | large pages for large outputs |
//! | `heap/pool.rs` | strings that share a binary |
//! | `encode.rs` | a term walked into JSON, and the holes it leaves |
//! | `calendar.rs` | a `DateTime` as a string |
//! | `decode.rs` | JSON read into a term |
//! | `keys.rs` | keys that come again |
//! | `names.rs` | atoms that come again |
//! | `memory.rs` | memory that is kept between calls, and output that grows |
//! | `time.rs` | what a call costs its process |

mod calendar;
mod decode;
mod encode;
mod heap;
mod keys;
mod memory;
mod names;
mod time;

use rustler::types::atom;
use state_codec::{Output, Storage, text};

use encode::{Bounds, Encoder, Hole, Stop};
use heap::{Handle, Heap};
use memory::Growing;

mod atoms {
    rustler::atoms! { key, refused, too_large }
}

/// Output of a call on a normal scheduler: a third of a millisecond at the slowest rate measured.
const SHORT_OUTPUT: usize = 128 * 1024;

/// Bounds of such a call. A hole costs as much as a few dozen bytes; a sixteenth of the output says what the rest will be like.
const SHORT: Bounds = Bounds { holes: 2 * 1024, forecast: SHORT_OUTPUT / 16 };

/// Above that the VM writes the whole itself: it may end the process for it, we could only end the VM.
const LONG_OUTPUT: usize = 1024 * 1024 * 1024;

/// Bounds of a dirty call. As many holes cost Elixir far more than the walk it is spared.
const LONG: Bounds = Bounds { holes: 1024 * 1024, forecast: usize::MAX };

heap::nif!(codec_encode / 1, Normal);
heap::nif!(codec_encode_dirty / 2, DirtyCpu);
heap::nif!(codec_decode / 2, Normal);
heap::nif!(codec_decode_dirty / 2, DirtyCpu);

/// The JSON of a term: a binary, or a list of binaries and holes (`{value}`, `{value, :key}`); `:too_large` for this call.
fn codec_encode<'a>(heap: Heap<'a>, [term]: [Handle<'a>; 1]) -> Handle<'a> {
    let output = Output::new(memory::borrow(), SHORT_OUTPUT);
    let (encoded, output) = encode(heap, term, output, SHORT);
    time::charge(heap, output.len(), time::WRITE);
    let result = match encoded {
        Ok(holes) => finish(heap, heap.make_binary(output.written()), output.len(), &holes),
        Err(Stop::Improper) => one_hole(heap, term),
        Err(Stop::Full) => None,
    };
    memory::give_back(output.into_parts().0);
    result.unwrap_or_else(|| atoms::too_large().into())
}

/// The same without a bound, into memory of about as many bytes as expected to begin with.
fn codec_encode_dirty<'a>(heap: Heap<'a>, [term, expected]: [Handle<'a>; 2]) -> Handle<'a> {
    let expected = heap.integer(expected).and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(0);
    let output = Output::new(Growing::new(expected), LONG_OUTPUT);
    let (encoded, output) = encode(heap, term, output, LONG);
    time::charge(heap, output.len(), time::WRITE);
    let result = encoded.ok().and_then(|holes| {
        let (storage, len) = output.into_parts();
        finish(heap, storage.into_binary(heap, len), len, &holes)
    });
    // What is too large even here is one hole.
    let result = result.or_else(|| one_hole(heap, term));
    result.unwrap_or_else(|| atoms::too_large().into())
}

/// The term a JSON text stands for; `:refused` when Elixir has to look at it.
fn codec_decode<'a>(heap: Heap<'a>, [text, copy]: [Handle<'a>; 2]) -> Handle<'a> {
    decode(heap, text, copy == atom::true_().into()).unwrap_or_else(|| atoms::refused().into())
}

/// The same, for long texts.
fn codec_decode_dirty<'a>(heap: Heap<'a>, arguments: [Handle<'a>; 2]) -> Handle<'a> {
    codec_decode(heap, arguments)
}

fn encode<'a, S: Storage>(
    heap: Heap<'a>,
    term: Handle<'a>,
    output: Output<S>,
    bounds: Bounds,
) -> (Result<Vec<Hole<'a>>, Stop>, Output<S>) {
    names::with(|names| {
        let mut encoder = Encoder::new(heap, term, names, output, bounds);
        let done = encoder.run();
        let (output, holes) = encoder.finish();
        (done.map(|()| holes), output)
    })
}

/// Nothing written: Elixir does it all.
fn one_hole<'a>(heap: Heap<'a>, term: Handle<'a>) -> Option<Handle<'a>> {
    heap.make_list(&[heap.make_tuple(&[term])?])
}

/// The whole output, cut where it has holes.
fn finish<'a>(heap: Heap<'a>, whole: Handle<'a>, len: usize, holes: &[Hole<'a>]) -> Option<Handle<'a>> {
    if holes.is_empty() {
        return Some(whole);
    }
    let mut parts = Vec::with_capacity(2 * holes.len() + 1);
    let mut start = 0;
    for hole in holes {
        if hole.at > start {
            parts.push(heap.make_part(whole, start, hole.at - start));
        }
        start = hole.at;
        let key: Handle<'a> = atoms::key().into();
        parts.push(if hole.key { heap.make_tuple(&[hole.term, key])? } else { heap.make_tuple(&[hole.term])? });
    }
    if len > start {
        parts.push(heap.make_part(whole, start, len - start));
    }
    heap.make_list(&parts)
}

fn decode<'a>(heap: Heap<'a>, binary: Handle<'a>, copy: bool) -> Option<Handle<'a>> {
    let bytes = heap.bytes(binary)?;
    time::charge(heap, bytes.len(), time::READ);
    decode::decode(heap, binary, text::utf8(bytes)?, copy)
}
