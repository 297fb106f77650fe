//! The codec's NIFs as the VM calls them.
//!
//! rustler's attribute for NIFs allocates a list of the arguments and decodes each: a tenth of what it takes to encode a few
//! fields. Here a call costs what the VM asks for it, and the rest is as rustler does it.
//!
//! Guarantee: a panic is raised as the error `:nif_panicked` in the process that called.

use std::ffi::c_int;
use std::marker::PhantomData;
use std::panic::{self, AssertUnwindSafe};

use rustler::codegen_runtime::inventory;
use rustler::sys::{self, ErlNifEnv, ErlNifTerm};
use rustler::{Nif, SchedulerFlags};

use super::{Handle, Heap};
use crate::codec;

mod atoms {
    rustler::atoms! { nif_panicked }
}

/// A NIF of the name and with the arguments of `codec::$name`.
macro_rules! nif {
    ($name:ident / $arity:literal, $scheduler:ident) => {
        inventory::submit! {
            Nif {
                name: concat!(stringify!($name), "\0").as_ptr().cast(),
                arity: $arity,
                flags: SchedulerFlags::$scheduler as u32,
                raw_func: {
                    unsafe extern "C" fn call(env: *mut ErlNifEnv, _: c_int, arguments: *const ErlNifTerm) -> ErlNifTerm {
                        // SAFETY: this is the VM, calling with as many arguments as it was told.
                        unsafe { run::<$arity>(env, arguments, codec::$name) }
                    }
                    call
                },
            }
        }
    };
}

nif!(codec_encode / 1, Normal);
nif!(codec_encode_dirty / 2, DirtyCpu);
nif!(codec_decode / 2, Normal);
nif!(codec_decode_dirty / 2, DirtyCpu);

/// Answers a call with what `work` makes of its arguments.
///
/// # Safety
/// `env` is the environment of a call that is running, and `arguments` are `N` terms of it.
#[inline(always)]
unsafe fn run<const N: usize>(
    env: *mut ErlNifEnv,
    arguments: *const ErlNifTerm,
    work: impl for<'a> FnOnce(Heap<'a>, [Handle<'a>; N]) -> Handle<'a>,
) -> ErlNifTerm {
    // SAFETY: a handle is a term and nothing else.
    let arguments = unsafe { arguments.cast::<[Handle<'_>; N]>().read() };
    let heap = Heap { env, lifetime: PhantomData };
    // What a panic leaves half done is memory that is kept between calls; that is lost then.
    match panic::catch_unwind(AssertUnwindSafe(|| work(heap, arguments))) {
        Ok(answer) => answer.0,
        // SAFETY: see above.
        Err(_) => unsafe { sys::enif_raise_exception(env, atoms::nif_panicked().as_c_arg()) },
    }
}
