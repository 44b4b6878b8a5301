//! The processes that train one run together, each on its share of every batch: ranks, as MPI calls them. Without the feature
//! `mpi`, and in every run that doesn't ask for more, there is one.
//!
//! Invariant: all ranks make the same calls in the same order; each gives all of them the same bits.

mod gradients;
#[cfg(feature = "mpi")]
mod mpi_link;
#[cfg(not(feature = "mpi"))]
mod no_mpi;
mod share;

#[cfg(feature = "mpi")]
use mpi_link as link;
#[cfg(not(feature = "mpi"))]
use no_mpi as link;

pub use gradients::Gradient;
pub use share::Share;

use link::Link;
use stage_api::SharedBatch;
use std::cell::Cell;
use std::fmt::Display;
use std::rc::Rc;
use tch::{Cuda, Device, Kind, Tensor};

/// Why there are no other processes to train with.
#[derive(Debug, thiserror::Error)]
pub enum RanksError {
    /// It was left out.
    #[error(
        "--mpi: this program was built without MPI. One with it, where an MPI, its headers and libclang are installed: \
         `cargo build --release --workspace --bin sam-mix --features trainer/mpi`"
    )]
    NotBuilt,
    /// As MPI says.
    #[error("--mpi: MPI could not be started: {0}")]
    NotStarted(&'static str),
    /// Each would train the whole.
    #[error(
        "this is one of {0} processes that mpirun started, but --mpi is missing: each would train the whole run, in the same \
         directory. With --mpi they train it together"
    )]
    NotAsked(usize),
}

/// This process and the others.
pub struct Ranks {
    link: Option<Link>,
    rank: usize,
    count: usize,
    /// What each rank of this machine can use of it without keeping others waiting.
    fair_threads: usize,
    is_begun: Cell<bool>,
}

impl Ranks {
    /// This process alone.
    pub fn alone() -> Rc<Self> {
        Rc::new(Self { link: None, rank: 0, count: 1, fair_threads: usize::MAX, is_begun: Cell::new(false) })
    }

    /// The processes that `mpirun` or `srun` started, where `asked`; else this one alone. MPI is started in the former case only:
    /// under some launchers it ends a program that starts it by itself.
    ///
    /// # Errors
    /// If it can't be started, or there is none in this program; if there are other processes, and nobody asked for them.
    pub fn start(asked: bool) -> Result<Rc<Self>, RanksError> {
        if !asked {
            let started = std::env::var("OMPI_COMM_WORLD_SIZE").ok().and_then(|size| size.parse().ok());
            return match started {
                Some(count @ 2..) => Err(RanksError::NotAsked(count)),
                _ => Ok(Self::alone()),
            };
        }
        let link = Link::start()?;
        let (rank, count) = (link.rank(), link.count());
        let fair_threads = fair_threads(&link);
        Ok(Rc::new(Self { link: Some(link), rank, count, fair_threads, is_begun: Cell::new(false) }))
    }

    /// From 0.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// At least 1.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether this is the one that writes.
    pub fn is_first(&self) -> bool {
        self.rank == 0
    }

    /// What of every batch is this rank's.
    pub fn share(&self) -> Share {
        Share { rank: self.rank, count: self.count }
    }

    /// The first of several devices of this kind that this rank computes on: the ranks of a machine take one after the other.
    pub fn device(&self, first: Device) -> Device {
        match (first, &self.link) {
            (Device::Cuda(index), Some(link)) => {
                Device::Cuda((index + link.local_rank()) % (Cuda::device_count().max(1) as usize))
            }
            _ => first,
        }
    }

    /// Threads for this rank, of so many that its machine would give a process: what other ranks may use too is shared with them.
    pub fn threads(&self, available: usize) -> usize {
        available.min(self.fair_threads)
    }

    /// Replaces numbers by their sums over all ranks.
    pub fn sum(&self, numbers: &mut [f64]) {
        if let Some(link) = &self.link {
            link.sum(numbers);
        }
    }

    /// Whether it is so on any rank.
    pub fn any(&self, here: bool) -> bool {
        let mut ranks = [f64::from(u8::from(here))];
        self.sum(&mut ranks);
        ranks[0] > 0.0
    }

    /// Replaces a contiguous tensor of 32- or 64-bit floats by its sum over all ranks; on a GPU directly where MPI can, else through
    /// page-locked memory.
    pub fn sum_tensor(&self, tensor: &Tensor) {
        let Some(link) = &self.link else { return };
        assert!(tensor.is_contiguous() && [Kind::Float, Kind::Double].contains(&tensor.kind()), "{tensor:?}");
        match tensor.device() {
            Device::Cuda(index) if link.knows_cuda() => {
                Cuda::synchronize(index as i64);
                link.sum_tensor(tensor);
            }
            device if device.is_cuda() => {
                let host = Tensor::empty(tensor.size(), (tensor.kind(), Device::Cpu)).internal_pin_memory(device);
                host.shallow_clone().copy_(tensor);
                link.sum_tensor(&host);
                tensor.shallow_clone().copy_(&host);
            }
            _ => link.sum_tensor(tensor),
        }
    }

    /// What stages need whose batches are shares; `None` where they are whole.
    pub fn shared_batch(self: &Rc<Self>) -> Option<Rc<SharedBatch>> {
        let ranks = self.clone();
        (self.count > 1).then(|| Rc::new(SharedBatch::new(Box::new(move |tensor| ranks.sum_tensor(tensor)))))
    }

    /// The first rank prepares a run while the others wait in [`Self::wait_for_first`]; here it lets them go on. Where it has
    /// nothing to do for them, dropping it tells them.
    pub fn call_others(&self) {
        if self.is_first() && !self.is_begun.replace(true) {
            self.any(true);
        }
    }

    /// Waits for the first rank, if this is another; whether there is something to do.
    pub fn wait_for_first(&self) -> bool {
        self.is_first() || {
            self.is_begun.set(true);
            self.any(false)
        }
    }

    /// Waits until all ranks are here.
    pub fn meet(&self) {
        self.any(false);
    }

    /// Ends all ranks, since this one can't go on; what kept it stands on standard error. Returns where this one is alone.
    pub fn abort(&self, reason: impl Display) {
        if let Some(link) = self.link.as_ref().filter(|_| self.count > 1) {
            eprintln!("error on rank {} of {}: {reason}", self.rank, self.count);
            link.abort();
        }
    }
}

impl Drop for Ranks {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.abort("the panic above");
        }
        // MPI's own end waits for all ranks.
        if !self.is_begun.get() {
            self.any(false);
        }
    }
}

/// This process's processors, each divided by the ranks that may use it: as many threads keep no rank waiting.
fn fair_threads(link: &Link) -> usize {
    let own = own_processors();
    let mut ranks = own.clone();
    link.sum_locally(&mut ranks);
    if own.iter().all(|processor| *processor == 0.0) {
        return usize::MAX;
    }
    let fair: f64 = own.iter().zip(&ranks).filter(|(own, _)| **own > 0.0).map(|(own, all)| own / all).sum();
    // A third of a processor three times is one.
    ((fair + 1e-9) as usize).max(1)
}

/// For each processor of this machine, 1 where this process may use it; empty where the system doesn't say.
fn own_processors() -> Vec<f64> {
    const MOST: usize = 4096;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut own = vec![0.0; MOST];
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or_default();
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        if let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) {
            own.iter_mut().take(last + 1).skip(first).for_each(|processor| *processor = 1.0);
        }
    }
    own
}
