//! Strings: quoted, escaped, checked to be UTF-8.
//!
//! Guarantee: the escapes are Elixir's. A quote, a backslash and the five control characters with a letter of their own get
//! that letter, other characters below the space four upper-case hexadecimal digits; `/`, U+007F, U+2028 and everything else
//! stays as it is.

use crate::output::{Output, Storage};
use crate::{WriteError, scan};

/// The bytes of the longest escape, padded to a word of eight.
const ESCAPE: usize = 8;

/// The escape of each byte below 0x60 that has one, and its length.
static ESCAPES: scan::Escapes = {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut table = [([0; ESCAPE], 0); 0x60];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = ([b'\\', b'u', b'0', b'0', HEX[byte >> 4], HEX[byte & 15], 0, 0], 6);
        byte += 1;
    }
    let letters = *b"\x08b\x09t\x0an\x0cf\x0dr\"\"\\\\";
    let mut at = 0;
    while at < letters.len() {
        table[letters[at] as usize] = ([b'\\', letters[at + 1], 0, 0, 0, 0, 0, 0], 2);
        at += 2;
    }
    table
};

/// Writes `bytes` as a JSON string; nothing if there is an error.
#[inline]
pub fn put_string<S: Storage>(output: &mut Output<S>, bytes: &[u8]) -> Result<(), WriteError> {
    put_quoted(output, [], bytes, [b'"'])
}

/// Writes `lead`, `bytes` as a JSON string, and a colon; nothing if there is an error.
#[inline]
pub fn put_key<S: Storage>(output: &mut Output<S>, lead: u8, bytes: &[u8]) -> Result<(), WriteError> {
    put_quoted(output, [lead], bytes, [b'"', b':'])
}

#[inline]
fn put_quoted<S: Storage, const BEFORE: usize, const BEHIND: usize>(
    output: &mut Output<S>,
    lead: [u8; BEFORE],
    bytes: &[u8],
    end: [u8; BEHIND],
) -> Result<(), WriteError> {
    let around = BEFORE + 1 + BEHIND;
    let room = output.room(bytes.len() + around)?;
    room[..BEFORE].copy_from_slice(&lead);
    room[BEFORE] = b'"';
    let room = &mut room[BEFORE + 1..];
    let run = scan::copy_plain(bytes, room);
    if run.len == bytes.len() && (run.ascii || is_utf8(bytes)) {
        room[run.len..run.len + BEHIND].copy_from_slice(&end);
        output.advance(bytes.len() + around);
        return Ok(());
    }
    if run.len == bytes.len() {
        return Err(WriteError::InvalidUtf8);
    }
    let start = output.len();
    output.advance(BEFORE + 1 + run.len);
    put_escaped(output, bytes, run, &end).inspect_err(|_| output.truncate(start))
}

/// Writes what is left of a string behind its first `run`, and the end of it.
fn put_escaped<S: Storage>(output: &mut Output<S>, bytes: &[u8], run: scan::Run, end: &[u8]) -> Result<(), WriteError> {
    // The byte to escape is a whole character: the parts before and after it are UTF-8 if the whole is.
    let mut valid = run.ascii || is_utf8(&bytes[..run.len]);
    let mut rest = &bytes[run.len..];
    // If the bytes to escape are close together, restarting the scan after each costs more than the scan itself.
    loop {
        let room = output.room(rest.len() + scan::BLOCK_ROOM + end.len())?;
        let blocks = scan::copy_escaped(rest, room, &ESCAPES);
        output.advance(blocks.written);
        valid &= blocks.valid;
        rest = &rest[blocks.read..];
        if blocks.read == 0 {
            break;
        }
    }
    let tail = rest;
    let run = scan::copy_plain(rest, output.room(rest.len() + end.len())?);
    output.advance(run.len);
    let mut ascii = run.ascii;
    rest = &rest[run.len..];
    while let Some((&byte, behind)) = rest.split_first() {
        // Room for the escape, for at least the remaining bytes unescaped, and for the end.
        let room = output.room(ESCAPE + behind.len() + end.len())?;
        let (escape, len) = ESCAPES[usize::from(byte)];
        room[..ESCAPE].copy_from_slice(&escape);
        let run = scan::copy_plain(behind, &mut room[usize::from(len)..]);
        output.advance(usize::from(len) + run.len);
        ascii &= run.ascii;
        rest = &behind[run.len..];
    }
    output.put(end);
    if valid && (ascii || is_utf8(tail)) { Ok(()) } else { Err(WriteError::InvalidUtf8) }
}

/// Whether `bytes` is UTF-8, by the same rules as Elixir: no surrogates, nothing overlong, nothing above U+10FFFF.
#[inline]
fn is_utf8(bytes: &[u8]) -> bool {
    // Below that the call is not worth it.
    if bytes.len() < 64 { std::str::from_utf8(bytes).is_ok() } else { utf8(bytes).is_some() }
}

#[inline]
pub fn utf8(bytes: &[u8]) -> Option<&str> {
    simdutf8::basic::from_utf8(bytes).ok()
}
