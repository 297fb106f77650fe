//! JSON encoding and decoding of states, as NIFs. `DurableHandoff.Codec` is the only caller and documents them.
//!
//! Guarantees
//! - No call runs longer than about a millisecond on a normal scheduler: its input and output are bounded, larger ones
//!   use a dirty call. Every call is charged to the time slice of its process.
//! - Recursion is at most 128 levels deep, and memory is at most a multiple of input and output.
//!
//! | file | what |
//! |---|---|
//! | `heap.rs` | reading and making terms: all the unsafe code |
//! | `heap/calls.rs` | the functions that the VM calls |
//! | `heap/pages.rs` | large pages for large outputs |
//! | `heap/pool.rs` | strings that share a binary |
//! | `encode.rs` | a term to JSON, with holes for what Elixir must encode |
//! | `calendar.rs` | a `DateTime` as a string |
//! | `decode.rs` | JSON to a term |
//! | `keys.rs` | cache of object keys |
//! | `names.rs` | cache of atom texts |
//! | `memory.rs` | buffers kept between calls, and output that grows |
//! | `time.rs` | time slices charged for calls |

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

/// Largest output of a call on a normal scheduler: a third of a millisecond at the slowest rate measured.
const SHORT_OUTPUT: usize = 128 * 1024;

/// The bounds of such a call. A hole costs as much as a few dozen bytes. A sixteenth of the output is enough
/// to predict the size of the rest.
const SHORT: Bounds = Bounds { holes: 2 * 1024, forecast: SHORT_OUTPUT / 16 };

/// Above this size Elixir encodes the whole term: the VM can end a process that runs out of memory, but a NIF
/// could only end the VM.
const LONG_OUTPUT: usize = 1024 * 1024 * 1024;

/// The bounds of a dirty call. Further holes would cost Elixir more time than the NIF saves.
const LONG: Bounds = Bounds { holes: 1024 * 1024, forecast: usize::MAX };

heap::nif!(codec_encode / 1, Normal);
heap::nif!(codec_encode_dirty / 2, DirtyCpu);
heap::nif!(codec_decode / 2, Normal);
heap::nif!(codec_decode_dirty / 2, DirtyCpu);

/// Encodes a term: a binary, or a list of binaries and holes (`{value}`, `{value, :key}`), or `:too_large` for this call.
fn codec_encode<'a>(heap: Heap<'a>, [term]: [Handle<'a>; 1]) -> Handle<'a> {
    let output = Output::new(memory::borrow(), SHORT_OUTPUT);
    let (encoded, output) = encode(heap, term, output, SHORT);
    time::charge(heap, output.len(), time::WRITE);
    let result = match encoded {
        Ok(holes) => finish(heap, heap.make_binary(output.written()), output.len(), &holes),
        Err(Stop::Refused) => one_hole(heap, term),
        Err(Stop::Full) => None,
    };
    memory::give_back(output.into_parts().0);
    result.unwrap_or_else(|| atoms::too_large().into())
}

/// As `codec_encode`, on a dirty scheduler. `expected` is the size of the first buffer in bytes.
fn codec_encode_dirty<'a>(heap: Heap<'a>, [term, expected]: [Handle<'a>; 2]) -> Handle<'a> {
    let expected = heap.integer(expected).and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(0);
    let output = Output::new(Growing::new(expected), LONG_OUTPUT);
    let (encoded, output) = encode(heap, term, output, LONG);
    time::charge(heap, output.len(), time::WRITE);
    let result = encoded.ok().and_then(|holes| {
        let (storage, len) = output.into_parts();
        finish(heap, storage.into_binary(heap, len), len, &holes)
    });
    // A term that is too large even for this call becomes one hole.
    let result = result.or_else(|| one_hole(heap, term));
    result.unwrap_or_else(|| atoms::too_large().into())
}

/// Decodes a JSON text; `:refused` when Elixir must decode it or report the error.
fn codec_decode<'a>(heap: Heap<'a>, [text, copy]: [Handle<'a>; 2]) -> Handle<'a> {
    decode(heap, text, copy == atom::true_().into()).unwrap_or_else(|| atoms::refused().into())
}

/// As `codec_decode`, on a dirty scheduler for long texts.
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

/// One hole for the whole term: Elixir encodes all of it.
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
