//! Takes the time of the parts of the training loop.
//!
//! On a GPU the host runs ahead of its kernels: what it waits for is counted where it waits, mostly with the losses, unless
//! the stopwatch is told to wait at each lap.

use run_record::{Part, Times};
use std::time::Instant;
use tch::{Cuda, Device};

/// Takes the time of one part after the other.
pub struct Stopwatch {
    begun: Instant,
    /// The GPU to wait for at each lap.
    gpu: Option<usize>,
}

impl Stopwatch {
    /// From now on. With `wait`, a lap ends when all that was asked of `device` is done.
    pub fn start(device: Device, wait: bool) -> Self {
        let gpu = match device {
            Device::Cuda(index) if wait => Some(index),
            _ => None,
        };
        Self { begun: Instant::now(), gpu }
    }

    /// What has passed since the start or the last lap was spent on `part`.
    pub fn lap(&mut self, times: &mut Times, part: Part) {
        if let Some(index) = self.gpu {
            Cuda::synchronize(index as i64);
        }
        times.add(part, self.begun.elapsed().as_secs_f64());
        self.begun = Instant::now();
    }
}
