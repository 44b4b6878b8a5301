//! The device that a run computes on. `libtorch_cuda` is opened here at start: the default link drops it, because nothing
//! references it, and then CUDA would never be available.
#![allow(unsafe_code)]

use anyhow::{Result, bail};
use std::ffi::{CStr, c_char, c_void};
use tch::{Cuda, Device};

/// What was asked for: `auto`, `cpu` or `cuda:N`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first GPU if there is one, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// That GPU, or an error.
    Cuda(usize),
}

impl std::str::FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|n| n.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| format!("'{text}' is no device, expected auto, cpu or cuda:N")),
        }
    }
}

/// Opens the device, or says why it can't be had.
pub fn open(choice: DeviceChoice) -> Result<Device> {
    if choice == DeviceChoice::Cpu {
        return Ok(Device::Cpu);
    }
    let library = open_cuda_library();
    let why = match &library {
        Err(reason) => Some(format!("libtorch_cuda could not be opened: {reason}")),
        Ok(()) if !Cuda::is_available() => Some(
            "libtorch_cuda is loaded, but it sees no GPU (is the NVIDIA driver installed, and /dev/nvidia0 readable?)"
                .into(),
        ),
        Ok(()) => None,
    };
    match (choice, why) {
        (DeviceChoice::Cuda(index), None) if index as i64 >= Cuda::device_count() => {
            bail!("cuda:{index} was asked for, but there are {} GPUs", Cuda::device_count())
        }
        (DeviceChoice::Cuda(index), None) => Ok(Device::Cuda(index)),
        (DeviceChoice::Cuda(index), Some(why)) => bail!(
            "cuda:{index} was asked for, but CUDA is not available: {why}. `cargo xtask doctor` says what is missing; \
             --device cpu computes on the CPU"
        ),
        (_, None) => Ok(Device::Cuda(0)),
        (_, Some(_)) => Ok(Device::Cpu),
    }
}

/// Loads `libtorch_cuda.so` into the process, whose registration makes CUDA available to libtorch.
fn open_cuda_library() -> Result<(), String> {
    // SAFETY: the name is a C string; the library is libtorch's own, of the version that this program is linked with, found
    // by the same rpath, and is never closed. `dlerror` gives a C string that is valid until the next `dl` call.
    unsafe {
        if !libc::dlopen(c"libtorch_cuda.so".as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL).is_null() {
            return Ok(());
        }
        let message: *const c_char = libc::dlerror();
        Err(if message.is_null() {
            "no reason given".into()
        } else {
            CStr::from_ptr(message).to_string_lossy().into_owned()
        })
    }
}

/// From now on the same inputs give the same bits on a GPU too: libtorch chooses algorithms by rule instead of by trial,
/// without atomic additions, and an operation that has none is an error. Slower. To be called before the device is opened.
///
/// The CPU needs none of it: there, results depend on the number of threads alone.
pub fn deterministic() -> Result<()> {
    // The binding has no function for it, so libtorch's own is called by its symbol.
    const CONTEXT: &CStr = c"_ZN2at13globalContextEv";
    const ALGORITHMS: &CStr = c"_ZN2at7Context26setDeterministicAlgorithmsEbb";
    const CUDNN: &CStr = c"_ZN2at7Context21setDeterministicCuDNNEb";
    // SAFETY: at the start the only other thread waits for Ctrl-C and reads no variables. cuBLAS reads this one when it makes
    // its first handle.
    unsafe { std::env::set_var("CUBLAS_WORKSPACE_CONFIG", ":4096:8") };
    Cuda::cudnn_set_benchmark(false);
    // SAFETY: the symbols are those of `at::Context& at::globalContext()`, `void at::Context::setDeterministicAlgorithms(bool
    // enabled, bool warn_only)` and `void at::Context::setDeterministicCuDNN(bool)` in the Itanium ABI, in which a reference
    // and `this` are pointers and a `bool` is Rust's; they are looked up in the libtorch that the program is linked with.
    let done = unsafe {
        let symbol = |name: &CStr| libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr());
        let found = [CONTEXT, ALGORITHMS, CUDNN].map(symbol);
        if found.iter().any(|address| address.is_null()) {
            false
        } else {
            let context = std::mem::transmute::<*mut c_void, extern "C" fn() -> *mut c_void>(found[0])();
            std::mem::transmute::<*mut c_void, extern "C" fn(*mut c_void, bool, bool)>(found[1])(context, true, false);
            std::mem::transmute::<*mut c_void, extern "C" fn(*mut c_void, bool)>(found[2])(context, true);
            true
        }
    };
    if !done {
        bail!(
            "--deterministic: this libtorch has no `at::Context::setDeterministicAlgorithms`; `cargo xtask setup` installs one that has"
        )
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_that_is_not_there_is_an_error_with_its_reason() {
        if open(DeviceChoice::Auto).unwrap() != Device::Cpu {
            println!("skipped: this machine has a GPU");
            return;
        }
        let error = open(DeviceChoice::Cuda(0)).unwrap_err().to_string();
        assert!(error.contains("CUDA is not available: libtorch_cuda"), "{error}");
    }

    #[test]
    fn device_names_are_read_strictly() {
        assert_eq!("cuda:1".parse(), Ok(DeviceChoice::Cuda(1)));
        assert!("gpu".parse::<DeviceChoice>().unwrap_err().contains("expected auto, cpu or cuda:N"));
    }
}
