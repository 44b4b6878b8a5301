//! A batch that is filled in the memory that it stays in.
#![allow(unsafe_code)]

use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

/// `[n, 1, size, size]` on the host; page-locked if it is meant for a GPU, so that the copy need not be waited for.
pub struct HostBatch {
    tensor: Tensor,
    images: usize,
    pixels: usize,
}

impl HostBatch {
    /// For so many images of `size` pixels a side.
    pub fn new(images: usize, size: usize, device: Device) -> Self {
        assert!(size > 0, "images have pixels");
        let shape = [images as i64, 1, size as i64, size as i64];
        let empty = Tensor::empty(shape, (Kind::Float, Device::Cpu));
        // As `stage_api::sent` does; there is nothing to copy yet.
        let tensor = if device.is_cuda() { empty.internal_pin_memory(device) } else { empty };
        Self { tensor, images, pixels: size * size }
    }

    /// The memory of each image, all of which must be written.
    pub fn images(&mut self) -> impl IndexedParallelIterator<Item = &mut [f32]> {
        // Without images there is no memory either.
        let length = self.images * self.pixels;
        let begin = if length == 0 { std::ptr::dangling_mut() } else { self.tensor.data_ptr().cast::<f32>() };
        // SAFETY: the tensor was just made here, is contiguous, on the host, of `images * pixels` floats, and nobody else
        // has it; the slice lives as long as `self` is borrowed. The memory is a foreign allocator's: it holds some bytes, and
        // any are floats.
        let all = unsafe { std::slice::from_raw_parts_mut(begin, length) };
        all.par_chunks_exact_mut(self.pixels)
    }

    /// On the device; on a GPU the copy may still be under way, which the GPU's own work waits for.
    pub fn on(self, device: Device) -> Tensor {
        match device {
            Device::Cpu => self.tensor,
            gpu => self.tensor.to_device_(gpu, Kind::Float, true, false),
        }
    }
}
