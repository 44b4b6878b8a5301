//! The device that a run computes on. `libtorch_cuda` is opened here at start: the default link drops it, because nothing
//! references it, and then CUDA would never be available.
#![allow(unsafe_code)]

use anyhow::{Result, bail};
use std::ffi::{CStr, c_char, c_int, c_void};
use tch::{Cuda, Device, Kind, TchError, Tensor};

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

/// Opens the device, or says why it can't be had. To be called before anything else is asked of libtorch: it looks for CUDA
/// once, and what it has not found by then it never finds.
///
/// Loading libtorch's CUDA part takes half a second and 390 MiB of memory, so `auto` does it only where NVIDIA's driver is. If
/// CUDA can't be had all the same, a note on standard error says why.
pub fn open(choice: DeviceChoice) -> Result<Device> {
    match choice {
        DeviceChoice::Cpu => Ok(Device::Cpu),
        DeviceChoice::Auto if open_library(DRIVER).is_err() => Ok(Device::Cpu),
        DeviceChoice::Auto => Ok(count_gpus().map_or_else(
            |why| {
                eprintln!("note: computing on the CPU, though NVIDIA's driver is installed: {why}. {WAY_OUT}");
                Device::Cpu
            },
            |_| Device::Cuda(0),
        )),
        DeviceChoice::Cuda(index) => match count_gpus() {
            Ok(count) if index < count => Ok(Device::Cuda(index)),
            Ok(1) => bail!("cuda:{index} was asked for, but there is one GPU: expected cuda:0"),
            Ok(count) => {
                bail!("cuda:{index} was asked for, but there are {count} GPUs: expected cuda:0 to cuda:{}", count - 1)
            }
            Err(why) => bail!(
                "cuda:{index} was asked for, but CUDA is not available: {why}. {WAY_OUT}; --device cpu computes on the CPU"
            ),
        },
    }
}

/// The driver's part that programs load. It comes with the driver alone.
const DRIVER: &CStr = c"libcuda.so.1";

const WAY_OUT: &str = "`cargo xtask doctor` says what is missing";

/// Loads libtorch's CUDA part; gives the number of GPUs that it can use, at least one, or the reason for none.
fn count_gpus() -> Result<usize, String> {
    open_library(c"libtorch_cuda.so").map_err(|reason| {
        if reason.starts_with("libtorch_cuda.so: cannot open") {
            "this libtorch is built without it".into()
        } else {
            format!("libtorch_cuda can't be loaded: {reason}")
        }
    })?;
    if !tch::utils::has_cudart() {
        return Err(
            "libtorch_cuda was loaded after libtorch had looked for it, which is a fault of this program".into()
        );
    }
    match Cuda::device_count() {
        // libtorch knows why, and says so to whoever wants memory on a GPU.
        ..1 => Err(match Tensor::f_zeros([1], (Kind::Float, Device::Cuda(0))) {
            Err(TchError::Torch(reason)) => first_sentence(&reason).to_owned(),
            _ => "libtorch counts no GPU".into(),
        }),
        count => Ok(count as usize),
    }
}

/// Advice and a backtrace follow it.
fn first_sentence(reason: &str) -> &str {
    let line = reason.lines().next().unwrap_or_default();
    line.split(". ").next().unwrap_or(line)
}

/// Loads a shared library for good. libtorch's CUDA part registers itself with libtorch when it is loaded.
fn open_library(name: &CStr) -> Result<(), String> {
    // SAFETY: libtorch_cuda is of the libtorch that this program is linked with, found by the same rpath, and the driver's
    // library is what it would load itself; neither is ever closed. `dlerror` gives a C string that is valid until the next
    // `dl` call of this thread. All symbols are bound now, so that libraries of different versions are an error here.
    unsafe {
        if !libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL).is_null() {
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
        symbols([CONTEXT, ALGORITHMS, CUDNN]).map(|[context, algorithms, cudnn]| {
            let context = std::mem::transmute::<*mut c_void, extern "C" fn() -> *mut c_void>(context)();
            std::mem::transmute::<*mut c_void, extern "C" fn(*mut c_void, bool, bool)>(algorithms)(
                context, true, false,
            );
            std::mem::transmute::<*mut c_void, extern "C" fn(*mut c_void, bool)>(cudnn)(context, true);
        })
    };
    if done.is_none() {
        bail!(
            "--deterministic: this libtorch has no `at::Context::setDeterministicAlgorithms`; `cargo xtask setup` installs one that has"
        )
    }
    Ok(())
}

/// Bytes of a GPU's memory that are taken, by all processes together; `None` on the CPU, or if CUDA doesn't say.
///
/// The binding has no function for libtorch's own count. But libtorch keeps what it took from the GPU, so that at the end of
/// a run that has the GPU for itself this is the run's peak: its tensors, what the allocator holds between them, and CUDA's
/// own context.
pub fn memory_in_use(device: Device) -> Option<usize> {
    let Device::Cuda(index) = device else { return None };
    let index = c_int::try_from(index).ok()?;
    // SAFETY: the symbols are those of CUDA's runtime, a C interface that libtorch loads: `cudaError_t cudaGetDevice(int *)`,
    // `cudaSetDevice(int)` and `cudaMemGetInfo(size_t *free, size_t *total)`. An error is a number other than 0. The thread's
    // device is put back.
    unsafe {
        let [current, choose, memory] = symbols([c"cudaGetDevice", c"cudaSetDevice", c"cudaMemGetInfo"])?;
        let current = std::mem::transmute::<*mut c_void, extern "C" fn(*mut c_int) -> c_int>(current);
        let choose = std::mem::transmute::<*mut c_void, extern "C" fn(c_int) -> c_int>(choose);
        let memory = std::mem::transmute::<*mut c_void, extern "C" fn(*mut usize, *mut usize) -> c_int>(memory);
        let (mut before, mut free, mut total) = (0, 0, 0);
        if current(&raw mut before) != 0 || choose(index) != 0 {
            return None;
        }
        let known = memory(&raw mut free, &raw mut total) == 0;
        choose(before);
        known.then_some(total - free)
    }
}

/// The addresses of these symbols among all libraries that are loaded for everybody, if all are there.
fn symbols<const N: usize>(names: [&CStr; N]) -> Option<[*mut c_void; N]> {
    // SAFETY: the names are C strings; looking one up has no effect.
    let found = names.map(|name| unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) });
    (!found.iter().any(|address| address.is_null())).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_names_are_read_strictly() {
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        assert_eq!("cuda:1".parse(), Ok(DeviceChoice::Cuda(1)));
        for name in ["gpu", "cuda:", "cuda:-1", "cuda: 1"] {
            assert!(name.parse::<DeviceChoice>().unwrap_err().contains("expected auto, cpu or cuda:N"), "{name}");
        }
    }

    #[test]
    fn of_libtorchs_reasons_the_first_sentence_is_shown() {
        let reason =
            "The NVIDIA driver on your system is too old (found version 12020). Please update it.\nframe #0: x";
        assert_eq!(first_sentence(reason), "The NVIDIA driver on your system is too old (found version 12020)");
        assert_eq!(first_sentence("No CUDA GPUs are available\nException raised"), "No CUDA GPUs are available");
    }

    #[test]
    fn without_a_gpu_there_is_no_memory_of_one() {
        assert_eq!(memory_in_use(Device::Cpu), None);
        if symbols([c"cuInit"]).is_none() {
            assert_eq!(memory_in_use(Device::Cuda(0)), None);
        }
    }
}
