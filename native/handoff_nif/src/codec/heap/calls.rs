//! The codec's NIFs as the VM calls them.
//!
//! rustler's attribute for NIFs allocates a list of the arguments and decodes each: a tenth of the cost of encoding a few
//! fields. These functions take the arguments as they are; the rest is as in rustler.
//!
//! Guarantee: a panic raises `:nif_panicked` in the calling process.

use std::marker::PhantomData;
use std::panic::{self, AssertUnwindSafe};

use rustler::sys::{self, ErlNifEnv, ErlNifTerm};

use super::{Handle, Heap};

mod atoms {
    rustler::atoms! { nif_panicked }
}

/// Registers the function `$name` as a NIF of that name.
macro_rules! nif {
    ($name:ident / $arity:literal, $scheduler:ident) => {
        rustler::codegen_runtime::inventory::submit! {
            rustler::Nif {
                name: concat!(stringify!($name), "\0").as_ptr().cast(),
                arity: $arity,
                flags: rustler::SchedulerFlags::$scheduler as u32,
                raw_func: {
                    #[allow(unsafe_code)]
                    unsafe extern "C" fn call(
                        env: *mut rustler::sys::ErlNifEnv,
                        _: std::ffi::c_int,
                        arguments: *const rustler::sys::ErlNifTerm,
                    ) -> rustler::sys::ErlNifTerm {
                        // SAFETY: the VM calls with the registered number of arguments.
                        unsafe { $crate::codec::heap::run::<$arity>(env, arguments, $name) }
                    }
                    call
                },
            }
        }
    };
}

pub(in crate::codec) use nif;

/// Runs `work` on the arguments of a call.
///
/// # Safety
/// `env` is the environment of a call that is running, and `arguments` are `N` terms of it.
#[inline(always)]
pub(in crate::codec) unsafe fn run<const N: usize>(
    env: *mut ErlNifEnv,
    arguments: *const ErlNifTerm,
    work: impl for<'a> FnOnce(Heap<'a>, [Handle<'a>; N]) -> Handle<'a>,
) -> ErlNifTerm {
    // SAFETY: a handle is a term and nothing else.
    let arguments = unsafe { arguments.cast::<[Handle<'_>; N]>().read() };
    let heap = Heap { env, lifetime: PhantomData };
    // The only state that outlives a call are its buffers, and a panic drops those.
    match panic::catch_unwind(AssertUnwindSafe(|| work(heap, arguments))) {
        Ok(answer) => answer.0,
        // SAFETY: see above.
        Err(_) => unsafe { sys::enif_raise_exception(env, atoms::nif_panicked().as_c_arg()) },
    }
}
