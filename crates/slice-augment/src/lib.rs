//! Random changes of CT slices in training: where the patient lies ([`Geometry`]) and how the scanner shows it
//! ([`Appearance`]). No tensors.
//!
//! Slices are HU in display order (rows to posterior, columns to the patient's left). A mask follows the geometry of its
//! slice; a box follows by being taken around the changed mask. Two views of one slice share a [`Geometry`] and differ in
//! their [`Appearance`]. Everything is decided by the random generator that is handed in.

mod appearance;
mod geometry;
mod settings;

pub use appearance::{Appearance, blur, contrast, gamma, low_resolution, noise, shift_intensity};
pub use geometry::Geometry;
pub use settings::{Augmentation, ProbabilityOf, SettingError};

/// HU of air, which is what moves in at the border.
pub const AIR: f32 = -1024.0;
