//! The way to the other processes by MPI. An error of MPI's own ends all of them, with MPI's message, so that none is returned.
#![allow(unsafe_code)]

use crate::RanksError;
use mpi::Threading;
use mpi::collective::SystemOperation;
use mpi::environment::Universe;
use mpi::ffi;
use mpi::raw::AsRaw;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives};
use std::ffi::c_int;
use tch::{Kind, Tensor};

/// The exit status of ranks that can't go on.
const FAILED: c_int = 1;

/// So many numbers are summed in one call: MPI counts them in 32 bits.
const AT_ONCE: usize = 1 << 28;

pub(crate) struct Link {
    world: SimpleCommunicator,
    /// The ranks of this machine.
    machine: SimpleCommunicator,
    knows_cuda: bool,
    /// MPI ends when it is dropped; after the communicators.
    _universe: Universe,
}

impl Link {
    /// One thread makes all calls: loader threads make none.
    pub fn start() -> Result<Self, RanksError> {
        let Some((universe, threading)) = mpi::initialize_with_threading(Threading::Funneled) else {
            return Err(RanksError::NotStarted("it was started before"));
        };
        if threading < Threading::Funneled {
            return Err(RanksError::NotStarted("it can't be used beside the loader's threads"));
        }
        let world = universe.world();
        let machine = world.split_shared(world.rank());
        Ok(Self { world, machine, knows_cuda: knows_cuda(), _universe: universe })
    }

    pub fn rank(&self) -> usize {
        self.world.rank() as usize
    }

    pub fn count(&self) -> usize {
        self.world.size() as usize
    }

    pub fn local_rank(&self) -> usize {
        self.machine.rank() as usize
    }

    pub fn knows_cuda(&self) -> bool {
        self.knows_cuda
    }

    pub fn sum(&self, numbers: &mut [f64]) {
        let own = numbers.to_vec();
        self.world.all_reduce_into(&own[..], numbers, SystemOperation::sum());
    }

    pub fn sum_locally(&self, numbers: &mut [f64]) {
        let own = numbers.to_vec();
        self.machine.all_reduce_into(&own[..], numbers, SystemOperation::sum());
    }

    /// Where it lies, which may be a GPU's memory if [`Self::knows_cuda`].
    pub fn sum_tensor(&self, tensor: &Tensor) {
        let own = tensor.detach().copy();
        let (datatype, bytes) = match tensor.kind() {
            // SAFETY: MPI's own constants, which were set before this program began.
            Kind::Double => (unsafe { ffi::RSMPI_DOUBLE }, 8),
            _ => (unsafe { ffi::RSMPI_FLOAT }, 4),
        };
        for start in (0..tensor.numel()).step_by(AT_ONCE) {
            let count = AT_ONCE.min(tensor.numel() - start);
            let at = |of: &Tensor| of.data_ptr().cast::<u8>().wrapping_add(start * bytes);
            // SAFETY: the caller has seen that the tensor is contiguous, of 32- or 64-bit floats, and in memory that this MPI
            // reads; so is its copy. Both are `count` numbers long from `start` on, and nothing else works on them meanwhile.
            unsafe {
                let (from, to) = (at(&own).cast_const().cast(), at(tensor).cast());
                ffi::MPI_Allreduce(from, to, count as c_int, datatype, ffi::RSMPI_SUM, self.world.as_raw());
            }
        }
    }

    pub fn abort(&self) -> ! {
        self.world.abort(FAILED)
    }
}

/// Whether this MPI takes addresses of a GPU's memory.
fn knows_cuda() -> bool {
    // SAFETY: the symbol is `int MPIX_Query_cuda_support(void)` wherever there is one (Open MPI, MPICH), a function that can be
    // called when MPI was started; looking it up has no effect.
    unsafe {
        let address = libc::dlsym(libc::RTLD_DEFAULT, c"MPIX_Query_cuda_support".as_ptr());
        !address.is_null() && std::mem::transmute::<*mut libc::c_void, extern "C" fn() -> c_int>(address)() != 0
    }
}
